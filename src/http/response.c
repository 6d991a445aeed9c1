#include "http/response.h"

#include "http/headers.h"

#include <inttypes.h>
#include <string.h>

/* Bytes of a head under construction: in the stream's own block while they fit there, else on the heap. */
typedef struct {
    char *start, *pos, *end;
    char *heap; /* owned, or NULL */
} head_writer;

/* What was seen among the response's fields. */
typedef struct {
    bool date, server, length, chunked, close, other_coding;
    uint64_t length_value;
} seen_fields;

/* Token characters (RFC 9110, 5.6.2) in lower case; 0 for the others. */
static const unsigned char token_lower[256] = {
    ['!'] = '!', ['#'] = '#', ['$'] = '$', ['%'] = '%', ['&'] = '&', ['\''] = '\'', ['*'] = '*', ['+'] = '+',
    ['-'] = '-', ['.'] = '.', ['^'] = '^', ['_'] = '_', ['`'] = '`', ['|'] = '|',   ['~'] = '~', ['0'] = '0',
    ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6',   ['7'] = '7', ['8'] = '8',
    ['9'] = '9', ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e',   ['F'] = 'f', ['G'] = 'g',
    ['H'] = 'h', ['I'] = 'i', ['J'] = 'j', ['K'] = 'k', ['L'] = 'l', ['M'] = 'm',   ['N'] = 'n', ['O'] = 'o',
    ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't', ['U'] = 'u',   ['V'] = 'v', ['W'] = 'w',
    ['X'] = 'x', ['Y'] = 'y', ['Z'] = 'z', ['a'] = 'a', ['b'] = 'b', ['c'] = 'c',   ['d'] = 'd', ['e'] = 'e',
    ['f'] = 'f', ['g'] = 'g', ['h'] = 'h', ['i'] = 'i', ['j'] = 'j', ['k'] = 'k',   ['l'] = 'l', ['m'] = 'm',
    ['n'] = 'n', ['o'] = 'o', ['p'] = 'p', ['q'] = 'q', ['r'] = 'r', ['s'] = 's',   ['t'] = 't', ['u'] = 'u',
    ['v'] = 'v', ['w'] = 'w', ['x'] = 'x', ['y'] = 'y', ['z'] = 'z',
};

static const char *const reasons[] = {
    [100] = "Continue",
    [101] = "Switching Protocols",
    [102] = "Processing",
    [103] = "Early Hints",
    [200] = "OK",
    [201] = "Created",
    [202] = "Accepted",
    [203] = "Non-Authoritative Information",
    [204] = "No Content",
    [205] = "Reset Content",
    [206] = "Partial Content",
    [207] = "Multi-Status",
    [208] = "Already Reported",
    [226] = "IM Used",
    [300] = "Multiple Choices",
    [301] = "Moved Permanently",
    [302] = "Found",
    [303] = "See Other",
    [304] = "Not Modified",
    [305] = "Use Proxy",
    [307] = "Temporary Redirect",
    [308] = "Permanent Redirect",
    [400] = "Bad Request",
    [401] = "Unauthorized",
    [402] = "Payment Required",
    [403] = "Forbidden",
    [404] = "Not Found",
    [405] = "Method Not Allowed",
    [406] = "Not Acceptable",
    [407] = "Proxy Authentication Required",
    [408] = "Request Timeout",
    [409] = "Conflict",
    [410] = "Gone",
    [411] = "Length Required",
    [412] = "Precondition Failed",
    [413] = "Content Too Large",
    [414] = "URI Too Long",
    [415] = "Unsupported Media Type",
    [416] = "Range Not Satisfiable",
    [417] = "Expectation Failed",
    [418] = "I'm a Teapot",
    [421] = "Misdirected Request",
    [422] = "Unprocessable Content",
    [423] = "Locked",
    [424] = "Failed Dependency",
    [425] = "Too Early",
    [426] = "Upgrade Required",
    [428] = "Precondition Required",
    [429] = "Too Many Requests",
    [431] = "Request Header Fields Too Large",
    [451] = "Unavailable For Legal Reasons",
    [500] = "Internal Server Error",
    [501] = "Not Implemented",
    [502] = "Bad Gateway",
    [503] = "Service Unavailable",
    [504] = "Gateway Timeout",
    [505] = "HTTP Version Not Supported",
    [506] = "Variant Also Negotiates",
    [507] = "Insufficient Storage",
    [508] = "Loop Detected",
    [510] = "Not Extended",
    [511] = "Network Authentication Required",
};

const char *bolide_reason(int status) {
    const char *reason = NULL;
    if (status >= 0 && (size_t)status < sizeof(reasons) / sizeof(reasons[0])) {
        reason = reasons[status];
    }
    return reason != NULL ? reason : "";
}

bool bolide_copy_name(char *out, const char *name, size_t len) {
    unsigned char all = 1;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = token_lower[(unsigned char)name[i]];
        out[i] = (char)c;
        all = c != 0 ? all : 0;
    }
    return all != 0 && len > 0;
}

bool bolide_copy_value(char *out, const char *value, size_t len) {
    unsigned char bad = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)value[i];
        bad |= (unsigned char)((c < 0x20 && c != '\t') | (c == 0x7f));
        out[i] = (char)c;
    }
    return bad == 0;
}

/* Make room for `len` more bytes. 0, or -1 with MemoryError set. */
static int writer_room(head_writer *w, size_t len) {
    if ((size_t)(w->end - w->pos) >= len) {
        return 0;
    }
    size_t used = (size_t)(w->pos - w->start), size = (used + len) * 2;
    char *heap = PyMem_Realloc(w->heap, size);
    if (heap == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (w->heap == NULL) {
        memcpy(heap, w->start, used);
    }
    w->heap = w->start = heap;
    w->pos = heap + used;
    w->end = heap + size;
    return 0;
}

static inline void writer_put(head_writer *w, const char *data, size_t len) {
    memcpy(w->pos, data, len);
    w->pos += len;
}

#define PUT_LITERAL(w, text) writer_put(w, "" text, sizeof(text) - 1)

static void put_decimal(head_writer *w, uint64_t n) {
    char digits[20];
    size_t i = sizeof(digits);
    do {
        digits[--i] = (char)('0' + n % 10);
        n /= 10;
    } while (n != 0);
    writer_put(w, digits + i, sizeof(digits) - i);
}

static void put_status_line(head_writer *w, int status) {
    if (status == 200) {
        PUT_LITERAL(w, "HTTP/1.1 200 OK\r\n");
        return;
    }
    const char *reason = bolide_reason(status);
    PUT_LITERAL(w, "HTTP/1.1 ");
    put_decimal(w, (uint64_t)status);
    *w->pos++ = ' ';
    writer_put(w, reason, strlen(reason));
    PUT_LITERAL(w, "\r\n");
}

/* Read a Content-Length value. 0, or -1 with RuntimeError set. */
static int read_length(seen_fields *seen, const char *value, size_t len) {
    uint64_t n = 0;
    while (len > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        len--;
    }
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t')) {
        len--;
    }
    bool valid = len > 0 && len <= 18;
    for (size_t i = 0; valid && i < len; i++) {
        valid = value[i] >= '0' && value[i] <= '9';
        n = n * 10 + (uint64_t)(value[i] - '0');
    }
    if (!valid || (seen->length && seen->length_value != n)) {
        PyErr_SetString(PyExc_RuntimeError,
                        valid ? "Differing Content-Length header values." : "Invalid Content-Length header value.");
        return -1;
    }
    seen->length = true;
    seen->length_value = n;
    return 0;
}

/* A field whose (lower-case) name the server looks at. Returns whether its line is to stand as it is; -1 with an
 * exception set. */
static int see_field(seen_fields *seen, const char *name, size_t name_len, const char *value, size_t value_len) {
    switch (name_len) {
    case 4:
        seen->date |= memcmp(name, "date", 4) == 0;
        return 1;
    case 6:
        seen->server |= memcmp(name, "server", 6) == 0;
        return 1;
    case 10:
        if (memcmp(name, "connection", 10) == 0) {
            bool close = bolide_has_token(value, value_len, "close", 5);
            seen->close |= close;
            return !close && !(value_len == 10 && bolide_has_token(value, value_len, "keep-alive", 10));
        }
        return 1;
    case 14:
        if (memcmp(name, "content-length", 14) == 0) {
            return read_length(seen, value, value_len);
        }
        return 1;
    case 17:
        if (memcmp(name, "transfer-encoding", 17) == 0) {
            seen->chunked |= bolide_has_token(value, value_len, "chunked", 7);
            return 0;
        }
        return 1;
    default:
        return 1;
    }
}

/* Append one field line, or leave it out when the server writes that field itself. 0, or -1 with an exception set. */
static int put_field(head_writer *w, seen_fields *seen, PyObject *name, PyObject *value) {
    if (!PyBytes_Check(name) || !PyBytes_Check(value)) {
        PyErr_Format(PyExc_TypeError, "response header names and values must be bytes, not %.100s",
                     Py_TYPE(PyBytes_Check(name) ? value : name)->tp_name);
        return -1;
    }
    size_t name_len = (size_t)PyBytes_GET_SIZE(name), value_len = (size_t)PyBytes_GET_SIZE(value);
    if (writer_room(w, name_len + value_len + 4) != 0) {
        return -1;
    }
    char *line = w->pos;
    if (!bolide_copy_name(line, PyBytes_AS_STRING(name), name_len)) {
        PyErr_SetString(PyExc_RuntimeError, "Invalid HTTP header name.");
        return -1;
    }
    char *pos = line + name_len;
    *pos++ = ':';
    *pos++ = ' ';
    if (!bolide_copy_value(pos, PyBytes_AS_STRING(value), value_len)) {
        PyErr_SetString(PyExc_RuntimeError, "Invalid HTTP header value.");
        return -1;
    }
    int keep = see_field(seen, line, name_len, pos, value_len);
    if (keep > 0) {
        pos += value_len;
        *pos++ = '\r';
        *pos++ = '\n';
        w->pos = pos;
    }
    return keep < 0 ? -1 : 0;
}

PyObject *bolide_plain_headers(PyObject *headers) {
    bool plain = PyList_CheckExact(headers) || PyTuple_CheckExact(headers);
    for (Py_ssize_t i = 0; plain && i < PySequence_Fast_GET_SIZE(headers); i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(headers, i);
        plain = PyTuple_CheckExact(item) || PyList_CheckExact(item);
    }
    if (plain) {
        return Py_NewRef(headers);
    }
    PyObject *list = PySequence_List(headers);
    if (list == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *pair = PySequence_Tuple(PyList_GET_ITEM(list, i));
        if (pair == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, i, pair);
    }
    return list;
}

/* Append the field lines of `headers` (as bolide_plain_headers() gives them). 0, or -1 with an exception set. */
static int put_fields(head_writer *w, seen_fields *seen, PyObject *headers) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(headers); i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(headers, i);
        if (PySequence_Fast_GET_SIZE(item) != 2) {
            PyErr_SetString(PyExc_ValueError, "response headers must be (name, value) pairs");
            return -1;
        }
        PyObject **pair = PySequence_Fast_ITEMS(item);
        if (put_field(w, seen, pair[0], pair[1]) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Decide the framing and append the fields that tell of it. There is room for them. */
static void put_framing(head_writer *w, bolide_response *r, const seen_fields *seen) {
    bool bodyless = r->status < 200 || r->status == 204 || r->status == 304;
    bool chunked = seen->chunked && !r->http10 && !bodyless;
    bool length = seen->length && !chunked && r->status >= 200 && r->status != 204;
    r->left = 0;
    if (bodyless || r->head) {
        r->framing = BOLIDE_BODY_NONE;
    } else if (length) {
        r->framing = BOLIDE_BODY_LENGTH;
        r->left = seen->length_value;
    } else {
        r->framing = r->http10 ? BOLIDE_BODY_UNTIL_CLOSE : BOLIDE_BODY_CHUNKED;
        chunked = !r->http10;
    }
    if (seen->close || r->framing == BOLIDE_BODY_UNTIL_CLOSE || r->status < 200) {
        r->keep_alive = false;
    }
    if (length) {
        PUT_LITERAL(w, "content-length: ");
        put_decimal(w, seen->length_value);
        PUT_LITERAL(w, "\r\n");
    }
    if (chunked) {
        PUT_LITERAL(w, "transfer-encoding: chunked\r\n");
    }
    if (!r->keep_alive) {
        PUT_LITERAL(w, "connection: close\r\n");
    } else if (r->http10) {
        PUT_LITERAL(w, "connection: keep-alive\r\n");
    }
}

/* Append the default field lines, less those that were seen, and the empty line. There is room for them. */
static void put_defaults(head_writer *w, bolide_defaults *d, bool seen_date, bool seen_server) {
    bolide_defaults_refresh(d);
    if (!seen_date && !seen_server) {
        writer_put(w, d->lines, d->len);
    } else {
        size_t fixed = d->date_len + d->server_len;
        writer_put(w, d->lines, seen_date ? 0 : d->date_len);
        writer_put(w, d->lines + d->date_len, seen_server ? 0 : d->server_len);
        writer_put(w, d->lines + fixed, d->len - fixed);
    }
    PUT_LITERAL(w, "\r\n");
}

/* 0, or -1 with MemoryError set. */
static int writer_open(head_writer *w, bolide_stream *s) {
    memset(w, 0, sizeof(*w));
    w->start = w->pos = bolide_stream_reserve(s, BOLIDE_RESERVE_MAX);
    w->end = w->start + BOLIDE_RESERVE_MAX;
    return w->start != NULL ? 0 : -1;
}

/* Queue what was written. 0, or -1 with MemoryError set. */
static int writer_commit(head_writer *w, bolide_stream *s) {
    size_t len = (size_t)(w->pos - w->start);
    if (w->heap == NULL) {
        bolide_stream_commit(s, len);
        return 0;
    }
    int result = bolide_stream_write(s, w->heap, len);
    PyMem_Free(w->heap);
    return result;
}

int bolide_response_start(bolide_stream *s, bolide_defaults *d, bolide_response *r, PyObject *headers) {
    head_writer w;
    seen_fields seen = {0};
    /* First, because an iterator may run code that queues output, which must not happen while room is reserved. */
    PyObject *plain = headers != NULL ? bolide_plain_headers(headers) : NULL;
    if (headers != NULL && plain == NULL) {
        return -1;
    }
    int result = writer_open(&w, s);
    if (result == 0) {
        put_status_line(&w, r->status);
        if ((plain != NULL && put_fields(&w, &seen, plain) != 0) || writer_room(&w, 128 + d->len) != 0) {
            PyMem_Free(w.heap);
            result = -1;
        } else {
            put_framing(&w, r, &seen);
            put_defaults(&w, d, seen.date, seen.server);
            result = writer_commit(&w, s);
        }
    }
    Py_XDECREF(plain);
    return result;
}

/* A chunk of the `len` bytes of `body` with its size line, and the last chunk too unless `more`. Small ones are one
 * write. */
static int write_chunk(bolide_stream *s, PyObject *body, size_t len, bool more) {
    static const char last_chunk[] = "\r\n0\r\n\r\n";
    char size[24];
    if (len == 0) {
        return more ? 0 : bolide_stream_write(s, last_chunk + 2, 5);
    }
    int n = snprintf(size, sizeof(size), "%zx\r\n", len);
    if (len + 32 <= BOLIDE_RESERVE_MAX) {
        char *out = bolide_stream_reserve(s, len + 32);
        if (out == NULL) {
            return -1;
        }
        memcpy(out, size, (size_t)n);
        memcpy(out + n, PyBytes_AS_STRING(body), len);
        memcpy(out + (size_t)n + len, last_chunk, 7);
        bolide_stream_commit(s, (size_t)n + len + (more ? 2 : 7));
        return 0;
    }
    if (bolide_stream_write(s, size, (size_t)n) != 0 || bolide_stream_write_object(s, body) != 0) {
        return -1;
    }
    return bolide_stream_write(s, last_chunk, more ? 2 : 7);
}

int bolide_response_body(bolide_stream *s, bolide_response *r, PyObject *body, bool more) {
    size_t len = body != NULL ? (size_t)PyBytes_GET_SIZE(body) : 0;
    switch (r->framing) {
    case BOLIDE_BODY_CHUNKED:
        return write_chunk(s, body, len, more);
    case BOLIDE_BODY_LENGTH:
        if (len > r->left) {
            PyErr_SetString(PyExc_RuntimeError, "Response content longer than Content-Length");
            return -1;
        }
        r->left -= len;
        if (len > 0 && bolide_stream_write_object(s, body) != 0) {
            return -1;
        }
        if (!more && r->left != 0) {
            PyErr_SetString(PyExc_RuntimeError, "Response content shorter than Content-Length");
            return -1;
        }
        return 0;
    case BOLIDE_BODY_UNTIL_CLOSE:
        return len > 0 ? bolide_stream_write_object(s, body) : 0;
    default:
        if (len > 0 && !r->head) {
            PyErr_SetString(PyExc_RuntimeError, "Response content longer than Content-Length");
            return -1;
        }
        return 0;
    }
}

int bolide_response_open_piece(bolide_stream *s, bolide_response *r, uint64_t len, bool more) {
    bool length = r->framing == BOLIDE_BODY_LENGTH;
    if ((length && len > r->left) || (r->framing == BOLIDE_BODY_NONE && len > 0 && !r->head)) {
        PyErr_SetString(PyExc_RuntimeError, "Response content longer than Content-Length");
        return -1;
    }
    if (length && !more && len < r->left) {
        PyErr_SetString(PyExc_RuntimeError, "Response content shorter than Content-Length");
        return -1;
    }
    if (length) {
        r->left -= len;
    }
    if (r->framing != BOLIDE_BODY_CHUNKED || len == 0) {
        return 0;
    }
    char size[24];
    int n = snprintf(size, sizeof(size), "%" PRIx64 "\r\n", len);
    return bolide_stream_write(s, size, (size_t)n);
}

int bolide_response_close_piece(bolide_stream *s, const bolide_response *r, uint64_t len, bool more) {
    static const char last_chunk[] = "\r\n0\r\n\r\n";
    if (r->framing != BOLIDE_BODY_CHUNKED) {
        return 0;
    }
    size_t from = len > 0 ? 0 : 2, to = more ? 2 : 7;
    return bolide_stream_write(s, last_chunk + from, to - from);
}

int bolide_response_simple(bolide_stream *s, bolide_defaults *d, int status, bool head, const char *text) {
    head_writer w;
    size_t len = strlen(text);
    if (writer_open(&w, s) != 0) {
        return -1;
    }
    if (writer_room(&w, 256 + d->len + len) != 0) {
        PyMem_Free(w.heap);
        return -1;
    }
    put_status_line(&w, status);
    PUT_LITERAL(&w, "content-type: text/plain; charset=utf-8\r\ncontent-length: ");
    put_decimal(&w, len);
    PUT_LITERAL(&w, "\r\nconnection: close\r\n");
    if (status == 426) {
        /* RFC 9110, section 15.5.22, and RFC 6455, section 4.4. */
        PUT_LITERAL(&w, "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n");
    }
    put_defaults(&w, d, false, false);
    if (!head) {
        writer_put(&w, text, len);
    }
    return writer_commit(&w, s);
}
