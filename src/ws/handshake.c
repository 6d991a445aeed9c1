#include "ws/handshake.h"

#include <string.h>

#include "http/response.h"
#include "ws/sha1.h"

#define KEY_LEN 24 /* base64 of 16 bytes */

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* --- the request --- */

/* Is it the base64 form of 16 bytes? */
static bool is_key(const char *value, size_t len) {
    if (len != KEY_LEN || value[22] != '=' || value[23] != '=') {
        return false;
    }
    for (size_t i = 0; i < 22; i++) {
        if (value[i] == '\0' || strchr(base64_digits, value[i]) == NULL) {
            return false;
        }
    }
    return strchr("AQgw", value[21]) != NULL; /* its last four bits stand for nothing */
}

static void encode_base64(char *out, const uint8_t *data, size_t len) {
    for (size_t i = 0; i < len; i += 3) {
        uint32_t word =
            (uint32_t)data[i] << 16 | (i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0) | (i + 2 < len ? data[i + 2] : 0);
        *out++ = base64_digits[word >> 18];
        *out++ = base64_digits[word >> 12 & 63];
        *out++ = i + 1 < len ? base64_digits[word >> 6 & 63] : '=';
        *out++ = i + 2 < len ? base64_digits[word & 63] : '=';
    }
}

static void make_accept(char *accept, const char *key) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[KEY_LEN + sizeof(guid) - 1];
    uint8_t digest[BOLIDE_SHA1_LEN];
    memcpy(text, key, KEY_LEN);
    memcpy(text + KEY_LEN, guid, sizeof(guid) - 1);
    bolide_sha1(text, sizeof(text), digest);
    encode_base64(accept, digest, sizeof(digest));
}

static bool is_space(char c) {
    return c == ' ' || c == '\t';
}

/* Add the tokens of the comma-separated `value` to `list`. 0; 400 when one is no token; -1 with an exception set. */
static int add_subprotocols(PyObject *list, const char *value, size_t len) {
    const char *end = value + len;
    while (value < end) {
        const char *comma = memchr(value, ',', (size_t)(end - value));
        const char *start = value, *stop = comma != NULL ? comma : end;
        value = comma != NULL ? comma + 1 : end;
        while (start < stop && is_space(*start)) {
            start++;
        }
        while (start < stop && is_space(stop[-1])) {
            stop--;
        }
        if (start == stop) {
            continue;
        }
        char lower[256];
        size_t size = (size_t)(stop - start);
        if (size > sizeof(lower) || !bolide_copy_name(lower, start, size)) {
            return 400;
        }
        PyObject *name = PyUnicode_FromStringAndSize(start, (Py_ssize_t)size);
        int result = name != NULL ? PyList_Append(list, name) : -1;
        Py_XDECREF(name);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

static bool is_named(PyObject *name, const char *text) {
    size_t len = strlen(text);
    return (size_t)PyBytes_GET_SIZE(name) == len && memcmp(PyBytes_AS_STRING(name), text, len) == 0;
}

typedef struct {
    unsigned keys, versions; /* fields of these names */
    bool bad_key, other_version;
} handshake_facts;

/* Take in one field. 0; a status; -1 with an exception set. */
static int read_field(bolide_ws_handshake *h, PyObject *name, PyObject *field, bool compression, PyObject *subprotocols,
                      handshake_facts *facts) {
    const char *value = PyBytes_AS_STRING(field);
    size_t len = (size_t)PyBytes_GET_SIZE(field);
    if (is_named(name, "sec-websocket-key")) {
        facts->keys++;
        facts->bad_key = !is_key(value, len);
        if (!facts->bad_key) {
            make_accept(h->accept, value);
        }
    } else if (is_named(name, "sec-websocket-version")) {
        facts->versions++;
        facts->other_version |= len != 2 || memcmp(value, "13", 2) != 0;
    } else if (is_named(name, "sec-websocket-protocol")) {
        return add_subprotocols(subprotocols, value, len);
    } else if (is_named(name, "sec-websocket-extensions")) {
        bolide_deflate_params found;
        int result = bolide_deflate_negotiate(value, len, &found);
        if (result < 0) {
            return 400;
        }
        if (result > 0 && compression && !h->deflate.enabled) {
            h->deflate = found;
        }
    }
    return 0;
}

int bolide_ws_handshake_read(bolide_ws_handshake *h, PyObject *headers, bool compression, PyObject **subprotocols) {
    handshake_facts facts = {0};
    memset(h, 0, sizeof(*h));
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return -1;
    }
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(headers); i++) {
        PyObject *pair = PyList_GET_ITEM(headers, i), *name = PyTuple_GET_ITEM(pair, 0);
        if (PyBytes_GET_SIZE(name) > 14 && memcmp(PyBytes_AS_STRING(name), "sec-websocket-", 14) == 0) {
            result = read_field(h, name, PyTuple_GET_ITEM(pair, 1), compression, list, &facts);
        }
    }
    if (result == 0 && (facts.versions == 0 || facts.other_version)) {
        result = 426;
    } else if (result == 0 && (facts.versions > 1 || facts.keys != 1 || facts.bad_key)) {
        result = 400;
    }
    if (result != 0) {
        Py_DECREF(list);
        return result;
    }
    *subprotocols = list;
    return 0;
}

/* --- the answer --- */

typedef struct {
    char *start, *pos;
    size_t cap;
    bool date, server; /* the application's fields have one */
} answer;

static int make_room(answer *a, size_t len) {
    size_t used = (size_t)(a->pos - a->start);
    if (a->cap - used >= len) {
        return 0;
    }
    size_t cap = (used + len) * 2;
    char *start = PyMem_Realloc(a->start, cap);
    if (start == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    a->start = start;
    a->pos = start + used;
    a->cap = cap;
    return 0;
}

/* There is room. */
static void put(answer *a, const char *text, size_t len) {
    memcpy(a->pos, text, len);
    a->pos += len;
}

#define PUT_LITERAL(a, text) put(a, text, sizeof(text) - 1)

/* Is it a field that the handshake writes itself, or one that a 101 response cannot have? */
static bool is_reserved(const char *name, size_t len, bool has_subprotocol) {
    static const char *const names[] = {"connection",           "upgrade",
                                        "content-length",       "transfer-encoding",
                                        "sec-websocket-accept", "sec-websocket-extensions"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) {
            return true;
        }
    }
    return has_subprotocol && len == 22 && memcmp(name, "sec-websocket-protocol", len) == 0;
}

/* Write one field of the application. 0, or -1 with an exception set. */
static int put_field(answer *a, PyObject *pair, bool has_subprotocol) {
    PyObject *fast = PySequence_Fast(pair, "a header must be a pair of bytes");
    if (fast == NULL) {
        return -1;
    }
    int result = -1;
    PyObject **items = PySequence_Fast_ITEMS(fast);
    if (PySequence_Fast_GET_SIZE(fast) != 2 || !PyBytes_Check(items[0]) || !PyBytes_Check(items[1])) {
        PyErr_SetString(PyExc_TypeError, "a header must be a pair of bytes");
        goto done;
    }
    size_t name_len = (size_t)PyBytes_GET_SIZE(items[0]), value_len = (size_t)PyBytes_GET_SIZE(items[1]);
    if (make_room(a, name_len + value_len + 4) < 0) {
        goto done;
    }
    char *name = a->pos, *value = name + name_len + 2;
    if (!bolide_copy_name(name, PyBytes_AS_STRING(items[0]), name_len) ||
        !bolide_copy_value(value, PyBytes_AS_STRING(items[1]), value_len)) {
        PyErr_SetString(PyExc_ValueError, "invalid character in a header");
        goto done;
    }
    result = 0;
    if (is_reserved(name, name_len, has_subprotocol)) {
        goto done;
    }
    a->date |= name_len == 4 && memcmp(name, "date", 4) == 0;
    a->server |= name_len == 6 && memcmp(name, "server", 6) == 0;
    name[name_len] = ':';
    name[name_len + 1] = ' ';
    a->pos = value + value_len;
    PUT_LITERAL(a, "\r\n");
done:
    Py_DECREF(fast);
    return result;
}

static int put_fields(answer *a, PyObject *headers, bool has_subprotocol) {
    PyObject *iter = PyObject_GetIter(headers), *pair;
    int result = iter != NULL ? 0 : -1;
    while (result == 0 && (pair = PyIter_Next(iter)) != NULL) {
        result = put_field(a, pair, has_subprotocol);
        Py_DECREF(pair);
    }
    Py_XDECREF(iter);
    return result < 0 || PyErr_Occurred() ? -1 : 0;
}

static int put_subprotocol(answer *a, PyObject *subprotocol) {
    Py_ssize_t len;
    const char *text = PyUnicode_Check(subprotocol) ? PyUnicode_AsUTF8AndSize(subprotocol, &len) : NULL;
    if (text == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "subprotocol must be str, not %.100s", Py_TYPE(subprotocol)->tp_name);
        }
        return -1;
    }
    if (make_room(a, (size_t)len + 32) < 0) {
        return -1;
    }
    PUT_LITERAL(a, "sec-websocket-protocol: ");
    char *value = a->pos;
    if (!bolide_copy_name(value, text, (size_t)len)) {
        PyErr_Format(PyExc_ValueError, "invalid subprotocol %R", subprotocol);
        return -1;
    }
    put(a, text, (size_t)len); /* in its own case */
    PUT_LITERAL(a, "\r\n");
    return 0;
}

static int put_all(answer *a, const bolide_ws_handshake *h, bolide_defaults *d, PyObject *subprotocol,
                   PyObject *headers) {
    if (make_room(a, 256 + BOLIDE_DEFLATE_RESPONSE_MAX) < 0) {
        return -1;
    }
    PUT_LITERAL(a, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                   "sec-websocket-accept: ");
    put(a, h->accept, BOLIDE_WS_ACCEPT_LEN);
    PUT_LITERAL(a, "\r\n");
    if (h->deflate.enabled) {
        PUT_LITERAL(a, "sec-websocket-extensions: ");
        a->pos += bolide_deflate_response(&h->deflate, a->pos);
        PUT_LITERAL(a, "\r\n");
    }
    if ((subprotocol != NULL && put_subprotocol(a, subprotocol) < 0) ||
        (headers != NULL && put_fields(a, headers, subprotocol != NULL) < 0)) {
        return -1;
    }
    bolide_defaults_refresh(d);
    if (make_room(a, d->len + 2) < 0) {
        return -1;
    }
    if (!a->date) {
        put(a, d->lines, d->date_len);
    }
    if (!a->server) {
        put(a, d->lines + d->date_len, d->server_len);
    }
    put(a, d->lines + d->date_len + d->server_len, d->len - d->date_len - d->server_len);
    PUT_LITERAL(a, "\r\n");
    return 0;
}

int bolide_ws_handshake_answer(const bolide_ws_handshake *h, bolide_stream *s, bolide_defaults *d,
                               PyObject *subprotocol, PyObject *headers) {
    answer a = {0};
    int result = put_all(&a, h, d, subprotocol, headers);
    if (result == 0) {
        result = bolide_stream_write(s, a.start, (size_t)(a.pos - a.start));
    }
    PyMem_Free(a.start);
    return result;
}
