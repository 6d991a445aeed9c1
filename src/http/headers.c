#include "http/headers.h"

#include "http/hash.h"

static const struct {
    const char *name;
    bolide_field_id id;
} known_names[] = {
    {"accept", 0},
    {"accept-charset", 0},
    {"accept-encoding", 0},
    {"accept-language", 0},
    {"access-control-request-headers", 0},
    {"access-control-request-method", 0},
    {"authorization", BOLIDE_FIELD_SECRET},
    {"baggage", 0},
    {"cache-control", 0},
    {"cdn-loop", 0},
    {"cf-connecting-ip", 0},
    {"cf-ipcountry", 0},
    {"cf-ray", 0},
    {"cf-visitor", 0},
    {"connection", BOLIDE_FIELD_CONNECTION},
    {"content-disposition", 0},
    {"content-encoding", 0},
    {"content-language", 0},
    {"content-length", BOLIDE_FIELD_CONTENT_LENGTH},
    {"content-range", 0},
    {"content-type", 0},
    {"cookie", BOLIDE_FIELD_SECRET},
    {"date", 0},
    {"dnt", 0},
    {"etag", 0},
    {"expect", BOLIDE_FIELD_EXPECT},
    {"forwarded", 0},
    {"from", 0},
    {"host", BOLIDE_FIELD_HOST},
    {"if-match", 0},
    {"if-modified-since", 0},
    {"if-none-match", 0},
    {"if-range", 0},
    {"if-unmodified-since", 0},
    {"keep-alive", 0},
    {"last-event-id", 0},
    {"max-forwards", 0},
    {"origin", 0},
    {"pragma", 0},
    {"priority", 0},
    {"proxy-authorization", BOLIDE_FIELD_SECRET},
    {"proxy-connection", 0},
    {"range", 0},
    {"referer", 0},
    {"save-data", 0},
    {"sec-ch-ua", 0},
    {"sec-ch-ua-mobile", 0},
    {"sec-ch-ua-platform", 0},
    {"sec-fetch-dest", 0},
    {"sec-fetch-mode", 0},
    {"sec-fetch-site", 0},
    {"sec-fetch-user", 0},
    {"sec-gpc", 0},
    {"sec-websocket-extensions", 0},
    {"sec-websocket-key", BOLIDE_FIELD_SECRET},
    {"sec-websocket-protocol", 0},
    {"sec-websocket-version", 0},
    {"te", 0},
    {"traceparent", 0},
    {"tracestate", 0},
    {"trailer", 0},
    {"transfer-encoding", BOLIDE_FIELD_TRANSFER_ENCODING},
    {"true-client-ip", 0},
    {"upgrade", BOLIDE_FIELD_UPGRADE},
    {"upgrade-insecure-requests", 0},
    {"user-agent", 0},
    {"via", 0},
    {"x-amzn-trace-id", 0},
    {"x-api-key", BOLIDE_FIELD_SECRET},
    {"x-correlation-id", 0},
    {"x-csrf-token", BOLIDE_FIELD_SECRET},
    {"x-forwarded-for", BOLIDE_FIELD_FORWARDED},
    {"x-forwarded-host", 0},
    {"x-forwarded-port", 0},
    {"x-forwarded-proto", BOLIDE_FIELD_FORWARDED},
    {"x-forwarded-server", 0},
    {"x-http-method-override", 0},
    {"x-real-ip", 0},
    {"x-request-id", 0},
    {"x-requested-with", 0},
};

/* The slot that holds the name, or the empty one where it would stand. */
static bolide_known_name *find_name(bolide_headers *h, uint64_t hash, const char *name, size_t len) {
    for (size_t i = (size_t)hash % BOLIDE_NAME_SLOTS;; i = (i + 1) % BOLIDE_NAME_SLOTS) {
        bolide_known_name *slot = &h->names[i];
        if (slot->name == NULL || ((size_t)PyBytes_GET_SIZE(slot->name) == len &&
                                   bolide_equal_folded(name, PyBytes_AS_STRING(slot->name), len))) {
            return slot;
        }
    }
}

int bolide_headers_init(bolide_headers *h) {
    memset(h, 0, sizeof(*h));
    if (uv_random(NULL, NULL, &h->seed, sizeof(h->seed), 0, NULL) != 0) {
        h->seed = uv_hrtime();
    }
    for (size_t i = 0; i < sizeof(known_names) / sizeof(known_names[0]); i++) {
        const char *name = known_names[i].name;
        size_t len = strlen(name);
        bolide_known_name *slot = find_name(h, bolide_hash(h->seed, name, len, true), name, len);
        slot->name = PyBytes_FromStringAndSize(name, (Py_ssize_t)len);
        if (slot->name == NULL) {
            return -1;
        }
        slot->id = known_names[i].id;
    }
    return 0;
}

void bolide_headers_clear(bolide_headers *h) {
    for (size_t i = 0; i < BOLIDE_NAME_SLOTS; i++) {
        Py_CLEAR(h->names[i].name);
    }
    for (size_t i = 0; i < BOLIDE_PAIR_SLOTS; i++) {
        Py_CLEAR(h->pairs[i].pair);
    }
}

static PyObject *lower_bytes(const char *name, size_t len) {
    PyObject *lower = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (lower != NULL) {
        char *out = PyBytes_AS_STRING(lower);
        for (size_t i = 0; i < len; i++) {
            out[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i]);
        }
    }
    return lower;
}

static PyObject *new_pair(PyObject *name, const char *value, size_t value_len) {
    PyObject *pair = NULL;
    PyObject *text = PyBytes_FromStringAndSize(value, (Py_ssize_t)value_len);
    if (text != NULL) {
        pair = PyTuple_New(2);
    }
    if (pair == NULL) {
        Py_XDECREF(text);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, Py_NewRef(name));
    PyTuple_SET_ITEM(pair, 1, text);
    return pair;
}

static bool pair_matches(PyObject *pair, const char *name, size_t name_len, const char *value, size_t value_len) {
    PyObject *n = PyTuple_GET_ITEM(pair, 0), *v = PyTuple_GET_ITEM(pair, 1);
    return (size_t)PyBytes_GET_SIZE(n) == name_len && (size_t)PyBytes_GET_SIZE(v) == value_len &&
           bolide_equal_folded(name, PyBytes_AS_STRING(n), name_len) &&
           memcmp(PyBytes_AS_STRING(v), value, value_len) == 0;
}

PyObject *bolide_headers_pair(bolide_headers *h, const char *name, size_t name_len, const char *value, size_t value_len,
                              bolide_field_id *id) {
    uint64_t name_hash = bolide_hash(h->seed, name, name_len, true);
    bolide_known_pair *cached = NULL;
    uint64_t hash = 0;
    if (value_len <= BOLIDE_PAIR_MAX) {
        hash = bolide_hash(name_hash, value, value_len, false);
        cached = &h->pairs[hash % BOLIDE_PAIR_SLOTS];
        if (cached->hash == hash && cached->pair != NULL &&
            pair_matches(cached->pair, name, name_len, value, value_len)) {
            *id = cached->id;
            return Py_NewRef(cached->pair);
        }
    }

    bolide_known_name *known = find_name(h, name_hash, name, name_len);
    *id = known->name != NULL ? known->id : BOLIDE_FIELD_OTHER;
    PyObject *lower = known->name != NULL ? Py_NewRef(known->name) : lower_bytes(name, name_len);
    if (lower == NULL) {
        return NULL;
    }
    PyObject *pair = new_pair(lower, value, value_len);
    Py_DECREF(lower);
    if (pair != NULL && cached != NULL && *id != BOLIDE_FIELD_SECRET) {
        cached->hash = hash;
        cached->id = *id;
        Py_XSETREF(cached->pair, Py_NewRef(pair));
    }
    return pair;
}

bool bolide_has_token(const char *value, size_t len, const char *token, size_t token_len) {
    const char *end = value + len;
    while (value < end) {
        const char *comma = memchr(value, ',', (size_t)(end - value));
        const char *stop = comma != NULL ? comma : end;
        const char *last = stop;
        while (value < last && (*value == ' ' || *value == '\t')) {
            value++;
        }
        while (last > value && (last[-1] == ' ' || last[-1] == '\t')) {
            last--;
        }
        if ((size_t)(last - value) == token_len && bolide_equal_folded(value, token, token_len)) {
            return true;
        }
        value = stop + 1;
    }
    return false;
}
