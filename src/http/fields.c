#include "http/fields.h"

#include <string.h>

#include "http/response.h"

/* Bytes under construction, on the heap. */
typedef struct {
    char *data; /* owned */
    size_t len, cap;
} line_buffer;

/* Fields that say how a message is framed, routed or read: not as trailers (RFC 9110, section 6.5.1). */
static const char *const no_trailers[] = {
    "authorization",     "connection", "content-encoding", "content-length", "content-range",
    "content-type",      "host",       "keep-alive",       "set-cookie",     "te",
    "transfer-encoding", "trailer",    "upgrade",
};

/* Room for `len` more bytes. NULL with MemoryError set. */
static char *buffer_room(line_buffer *b, size_t len) {
    if (b->cap - b->len < len) {
        size_t cap = (b->len + len) * 2;
        char *data = PyMem_Realloc(b->data, cap);
        if (data == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        b->data = data;
        b->cap = cap;
    }
    return b->data + b->len;
}

static int buffer_put(line_buffer *b, const char *text) {
    size_t len = strlen(text);
    char *out = buffer_room(b, len);
    if (out == NULL) {
        return -1;
    }
    memcpy(out, text, len);
    b->len += len;
    return 0;
}

/* Append a field line. 0, or -1 with an exception set. */
static int put_line(line_buffer *b, const char *name, size_t name_len, const char *value, size_t value_len) {
    char *out = buffer_room(b, name_len + value_len + 4);
    if (out == NULL) {
        return -1;
    }
    if (!bolide_copy_name(out, name, name_len)) {
        PyErr_SetString(PyExc_RuntimeError, "Invalid HTTP header name.");
        return -1;
    }
    memcpy(out + name_len, ": ", 2);
    if (!bolide_copy_value(out + name_len + 2, value, value_len)) {
        PyErr_SetString(PyExc_RuntimeError, "Invalid HTTP header value.");
        return -1;
    }
    memcpy(out + name_len + 2 + value_len, "\r\n", 2);
    b->len += name_len + value_len + 4;
    return 0;
}

static int require_bytes(PyObject *object, const char *what) {
    if (PyBytes_Check(object)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s must be bytes, not %.100s", what, Py_TYPE(object)->tp_name);
    return -1;
}

static bool may_trail(const char *name, size_t len) {
    for (size_t i = 0; i < sizeof(no_trailers) / sizeof(no_trailers[0]); i++) {
        if (strlen(no_trailers[i]) == len && memcmp(no_trailers[i], name, len) == 0) {
            return false;
        }
    }
    return true;
}

/* Append the line of one trailer, a pair. 0, or -1 with an exception set. */
static int put_trailer(line_buffer *b, PyObject *item) {
    PyObject *pair = PySequence_Tuple(item);
    if (pair == NULL) {
        return -1;
    }
    int result = -1;
    size_t start = b->len;
    if (PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_ValueError, "response trailers must be (name, value) pairs");
        goto done;
    }
    PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
    if (require_bytes(name, "a trailer's name") < 0 || require_bytes(value, "a trailer's value") < 0 ||
        put_line(b, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name), PyBytes_AS_STRING(value),
                 (size_t)PyBytes_GET_SIZE(value)) < 0) {
        goto done;
    }
    if (!may_trail(b->data + start, (size_t)PyBytes_GET_SIZE(name))) {
        PyErr_Format(PyExc_RuntimeError, "%R may not be a trailer", name);
        goto done;
    }
    result = 0;
done:
    Py_DECREF(pair);
    return result;
}

/* The contents as bytes, if `result` is 0. */
static PyObject *buffer_bytes(line_buffer *b, int result) {
    PyObject *bytes = result == 0 ? PyBytes_FromStringAndSize(b->data, (Py_ssize_t)b->len) : NULL;
    PyMem_Free(b->data);
    return bytes;
}

PyObject *bolide_early_hints(PyObject *links) {
    line_buffer b = {0};
    PyObject *list = PySequence_Tuple(links);
    int result = list != NULL ? buffer_put(&b, "HTTP/1.1 103 Early Hints\r\n") : -1;
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(list); i++) {
        PyObject *link = PyTuple_GET_ITEM(list, i);
        result = require_bytes(link, "a link");
        if (result == 0) {
            result = put_line(&b, "link", 4, PyBytes_AS_STRING(link), (size_t)PyBytes_GET_SIZE(link));
        }
    }
    Py_XDECREF(list);
    return buffer_bytes(&b, result == 0 ? buffer_put(&b, "\r\n") : -1);
}

PyObject *bolide_trailers(PyObject *headers, bool last) {
    line_buffer b = {0};
    PyObject *list = headers != NULL ? PySequence_Tuple(headers) : PyTuple_New(0);
    int result = list != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(list); i++) {
        result = put_trailer(&b, PyTuple_GET_ITEM(list, i));
    }
    Py_XDECREF(list);
    return buffer_bytes(&b, result == 0 && last ? buffer_put(&b, "\r\n") : result);
}
