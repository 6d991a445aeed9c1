#include "http/target.h"

#include "http/hash.h"

int bolide_targets_init(bolide_targets *t, PyObject *root_path) {
    memset(t, 0, sizeof(*t));
    t->seed = uv_hrtime();
    t->root_path = Py_NewRef(root_path);
    t->root_path_bytes = PyUnicode_AsUTF8String(root_path);
    return t->root_path_bytes != NULL ? 0 : -1;
}

void bolide_target_release(bolide_target *target) {
    Py_CLEAR(target->path);
    Py_CLEAR(target->raw_path);
    Py_CLEAR(target->query);
    Py_CLEAR(target->logged);
}

void bolide_targets_clear(bolide_targets *t) {
    for (size_t i = 0; i < BOLIDE_TARGET_SLOTS; i++) {
        PyMem_Free(t->slots[i].raw);
        t->slots[i].raw = NULL;
        bolide_target_release(&t->slots[i].target);
        Py_CLEAR(t->slots[i].extra);
    }
    Py_CLEAR(t->root_path);
    Py_CLEAR(t->root_path_bytes);
}

/* For an absolute-form target, where its path starts; NULL when it is not of the http or https scheme. */
static const char *skip_authority(const char *raw, const char *end) {
    size_t len = (size_t)(end - raw);
    if (len >= 7 && bolide_equal_folded(raw, "http://", 7)) {
        raw += 7;
    } else if (len >= 8 && bolide_equal_folded(raw, "https://", 8)) {
        raw += 8;
    } else {
        return NULL;
    }
    const char *authority = raw;
    while (raw < end && *raw != '/' && *raw != '?') {
        raw++;
    }
    return raw > authority ? raw : NULL;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decode; an escape that is not one stays as it is. */
static PyObject *decode_path(const char *path, size_t len) {
    if (memchr(path, '%', len) == NULL) {
        return PyUnicode_DecodeUTF8(path, (Py_ssize_t)len, "replace");
    }
    char *buf = PyMem_Malloc(len);
    if (buf == NULL) {
        return PyErr_NoMemory();
    }
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int high, low;
        if (path[i] == '%' && i + 2 < len && (high = hex_value(path[i + 1])) >= 0 &&
            (low = hex_value(path[i + 2])) >= 0) {
            buf[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            buf[n++] = path[i];
        }
    }
    PyObject *text = PyUnicode_DecodeUTF8(buf, (Py_ssize_t)n, "replace");
    PyMem_Free(buf);
    return text;
}

static PyObject *prefixed_path(bolide_targets *t, const char *path, size_t len) {
    PyObject *text = decode_path(path, len);
    if (text != NULL && PyUnicode_GET_LENGTH(t->root_path) != 0) {
        Py_SETREF(text, PyUnicode_Concat(t->root_path, text));
    }
    return text;
}

static PyObject *prefixed_raw_path(bolide_targets *t, const char *path, size_t len) {
    Py_ssize_t root_len = PyBytes_GET_SIZE(t->root_path_bytes);
    PyObject *raw = PyBytes_FromStringAndSize(NULL, root_len + (Py_ssize_t)len);
    if (raw != NULL) {
        memcpy(PyBytes_AS_STRING(raw), PyBytes_AS_STRING(t->root_path_bytes), (size_t)root_len);
        memcpy(PyBytes_AS_STRING(raw) + root_len, path, len);
    }
    return raw;
}

static bool is_unreserved(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

/* urllib.parse.quote(path), then "?" and the query if there is one. */
static PyObject *logged_target(const bolide_target *target) {
    static const char digits[] = "0123456789ABCDEF";
    Py_ssize_t len, query_len = PyBytes_GET_SIZE(target->query);
    const char *path = PyUnicode_AsUTF8AndSize(target->path, &len);
    if (path == NULL) {
        return NULL;
    }
    char *buf = PyMem_Malloc((size_t)len * 3 + 1 + (size_t)query_len);
    if (buf == NULL) {
        return PyErr_NoMemory();
    }
    char *out = buf;
    for (Py_ssize_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)path[i];
        if (is_unreserved(c) || c == '/') {
            *out++ = (char)c;
        } else {
            *out++ = '%';
            *out++ = digits[c >> 4];
            *out++ = digits[c & 15];
        }
    }
    if (query_len > 0) {
        *out++ = '?';
        memcpy(out, PyBytes_AS_STRING(target->query), (size_t)query_len);
        out += query_len;
    }
    PyObject *text = PyUnicode_DecodeLatin1(buf, out - buf, NULL);
    PyMem_Free(buf);
    return text;
}

/* Split `raw` and make the objects. Returns as bolide_targets_parse(). */
static int make_target(bolide_targets *t, const char *raw, size_t len, bolide_target *out) {
    const char *path = raw, *end = raw + len;
    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)raw[i];
        if (c <= 0x20 || c >= 0x7f) {
            return 400;
        }
        if (c == '#') {
            end = raw + i; /* a fragment is not for the server */
            break;
        }
    }
    if (path == end) {
        return 400;
    }
    if (*path != '/' && !(end - path == 1 && *path == '*')) {
        path = skip_authority(raw, end);
        if (path == NULL) {
            return 400;
        }
    }
    const char *query = memchr(path, '?', (size_t)(end - path));
    size_t path_len = (size_t)((query != NULL ? query : end) - path);
    if (path_len == 0) {
        path = "/";
        path_len = 1;
    }
    out->path = prefixed_path(t, path, path_len);
    out->raw_path = out->path != NULL ? prefixed_raw_path(t, path, path_len) : NULL;
    out->query = out->raw_path != NULL
                     ? PyBytes_FromStringAndSize(query != NULL ? query + 1 : "", query != NULL ? end - query - 1 : 0)
                     : NULL;
    if (out->query == NULL) {
        bolide_target_release(out);
        return -1;
    }
    return 0;
}

static void copy_target(bolide_target *out, const bolide_target *from) {
    out->path = Py_NewRef(from->path);
    out->raw_path = Py_NewRef(from->raw_path);
    out->query = Py_NewRef(from->query);
    out->logged = Py_XNewRef(from->logged);
}

/* Put the target into its slot. That this may fail for want of memory only means that it is not cached. */
static void remember(bolide_known_target *slot, uint64_t hash, const char *raw, size_t len,
                     const bolide_target *target) {
    char *copy = PyMem_Malloc(len);
    if (copy == NULL) {
        return;
    }
    memcpy(copy, raw, len);
    PyMem_Free(slot->raw);
    bolide_target_release(&slot->target);
    Py_CLEAR(slot->extra);
    slot->hash = hash;
    slot->raw = copy;
    slot->len = len;
    copy_target(&slot->target, target);
}

int bolide_targets_parse(bolide_targets *t, const char *raw, size_t len, bool logged, bolide_target *out,
                         PyObject ***extra) {
    bolide_known_target *slot = NULL;
    uint64_t hash = 0;
    *extra = NULL;
    if (len <= BOLIDE_TARGET_MAX) {
        hash = bolide_hash(t->seed, raw, len, false);
        slot = &t->slots[hash % BOLIDE_TARGET_SLOTS];
        if (slot->hash == hash && slot->raw != NULL && slot->len == len && memcmp(slot->raw, raw, len) == 0 &&
            (!logged || slot->target.logged != NULL)) {
            copy_target(out, &slot->target);
            *extra = &slot->extra;
            return 0;
        }
    }
    int status = make_target(t, raw, len, out);
    if (status != 0) {
        return status;
    }
    if (logged && (out->logged = logged_target(out)) == NULL) {
        bolide_target_release(out);
        return -1;
    }
    if (slot != NULL && len > 0) {
        remember(slot, hash, raw, len, out);
    }
    return 0;
}
