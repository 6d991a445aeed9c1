#include "ws/connection.h"

#include <stdlib.h>
#include <string.h>

#include "ws/utf8.h"

/* The first piece of a message that does not come at once: more only as bytes arrive. */
#define FIRST_ROOM (64 * 1024)
/* ... whose size is not known. */
#define SMALL_ROOM 1024
/* Scratch space that is kept from one compressed message to the next. */
#define SCRATCH_KEPT (256 * 1024)
/* Longer messages are not compressed once for many peers: the server keeps the last one. */
#define SHARED_MAX (256 * 1024)
/* Shorter messages are sent as they are. */
#define COMPRESS_MIN 32
/* A header, or a whole control frame. */
#define TAIL_MAX (BOLIDE_WS_HEADER_MAX + BOLIDE_WS_CONTROL_MAX)

typedef struct {
    bolide_ws_config *config;
    bolide_deflate *deflate; /* NULL: no compression */
    PyObject *partial;       /* bytes object, ours alone: the message under assembly, or NULL */
    size_t partial_len;      /* bytes of it that are filled */
    char *tail;              /* TAIL_MAX bytes: a header or a control frame that was cut, or NULL */
    char *pong;              /* BOLIDE_WS_CONTROL_MAX bytes: a pong that waits for the output to drain, or NULL */
    bolide_ws_frame frame;   /* the data frame under way: len counts down */
    uint64_t offset;         /* bytes of it that have come */
    size_t pending;          /* output when the last tick looked */
    uint32_t ping;           /* payload of the last ping */
    uint32_t timer_ms;       /* in the state that times out */
    bolide_utf8 utf8;        /* of the text message under assembly */
    uint8_t tail_len;        /* bytes of `tail` */
    uint8_t pong_len;        /* bytes of `pong` */
    uint8_t opcode;          /* of the message under way; 0: none */
    bool compressed;         /* it is compressed */
    uint8_t flags;           /* WS_* */
} websocket;

enum {
    WS_FULL = 1,       /* the owner wants no more messages */
    WS_PINGED = 2,     /* a ping has no answer yet */
    WS_CLOSE_SENT = 4, /* we have sent a close frame */
    WS_ENDED = 8,      /* the owner was told, or needs not be */
    WS_DELIVERED = 16, /* messages were delivered from the bytes that are being parsed */
    WS_DEFERRED = 32,  /* the frame that comes next breaks a rule, which may wait */
};

static inline websocket *ws_of(const bolide_conn *c) {
    return c->upgraded;
}

static inline bool is_upgraded(const bolide_conn *c) {
    return (c->flags & BOLIDE_CONN_UPGRADED) != 0 && bolide_conn_is_open(c);
}

bool bolide_ws_is_open(const bolide_conn *c) {
    return is_upgraded(c) && (ws_of(c)->flags & (WS_CLOSE_SENT | WS_ENDED)) == 0;
}

void bolide_ws_config_clear(bolide_ws_config *config) {
    PyMem_Free(config->scratch);
    config->scratch = NULL;
    config->scratch_cap = 0;
    Py_CLEAR(config->last);
    Py_CLEAR(config->shared);
}

/* --- the end --- */

/* Free what an open connection has; the struct itself lives as long as the connection. */
static void release(websocket *ws) {
    bolide_deflate_free(ws->deflate);
    ws->deflate = NULL;
    Py_CLEAR(ws->partial);
    free(ws->tail);
    ws->tail = NULL;
    free(ws->pong);
    ws->pong = NULL;
}

static void tell_end(bolide_conn *c, int code, PyObject *reason) {
    websocket *ws = ws_of(c);
    if ((ws->flags & WS_ENDED) == 0) {
        ws->flags |= WS_ENDED;
        ws->config->ops->on_end(c, code, reason);
    }
}

/* Nothing more is said on this connection: let the peer get what was queued, then close. */
static void leave(bolide_conn *c) {
    if (is_upgraded(c)) {
        release(ws_of(c));
        bolide_conn_linger(c);
    }
}

/* There is no memory, with the exception set. */
static void out_of_memory(bolide_conn *c) {
    PyErr_Clear();
    bolide_conn_abort(c);
}

/* --- output --- */

/* Queue a frame. `owner`: the exact bytes object that `data` is the content of, or NULL. 0, or -1 with MemoryError set.
 */
static int put_frame(bolide_conn *c, int opcode, bool compressed, const char *data, size_t len, PyObject *owner) {
    bolide_stream *s = &c->stream;
    if (len + BOLIDE_WS_OUT_HEADER_MAX <= BOLIDE_RESERVE_MAX) {
        char *out = bolide_stream_reserve(s, len + BOLIDE_WS_OUT_HEADER_MAX);
        if (out == NULL) {
            return -1;
        }
        size_t used = bolide_ws_frame_header(out, opcode, compressed, len);
        memcpy(out + used, data, len);
        bolide_stream_commit(s, used + len);
        return 0;
    }
    char header[BOLIDE_WS_OUT_HEADER_MAX];
    size_t used = bolide_ws_frame_header(header, opcode, compressed, len);
    if (bolide_stream_write(s, header, used) < 0) {
        return -1;
    }
    return owner != NULL ? bolide_stream_write_object(s, owner) : bolide_stream_write(s, data, len);
}

static void put_control(bolide_conn *c, int opcode, const char *data, size_t len) {
    if (put_frame(c, opcode, false, data, len, NULL) < 0) {
        out_of_memory(c);
    }
}

/* Send a close frame, once; BOLIDE_WS_NO_STATUS stands for one without a code. */
static void put_close(bolide_conn *c, int code, const char *reason, size_t len) {
    char payload[BOLIDE_WS_CONTROL_MAX];
    websocket *ws = ws_of(c);
    if ((ws->flags & WS_CLOSE_SENT) != 0) {
        return;
    }
    ws->flags = (uint8_t)((ws->flags | WS_CLOSE_SENT) & ~WS_PINGED);
    ws->timer_ms = 0;
    payload[0] = (char)(code >> 8);
    payload[1] = (char)code;
    memcpy(payload + 2, reason, len);
    put_control(c, BOLIDE_WS_CLOSE, payload, code == BOLIDE_WS_NO_STATUS ? 0 : len + 2);
}

/* The peer has broken a rule: close with `code`. */
static void fail(bolide_conn *c, int code, const char *text) {
    PyObject *reason = PyUnicode_FromString(text);
    if (reason == NULL) {
        out_of_memory(c);
        return;
    }
    put_close(c, code, text, strlen(text));
    tell_end(c, code, reason);
    Py_DECREF(reason);
    leave(c);
}

static char *scratch_room(void *arg, size_t want, size_t *room) {
    bolide_ws_config *config = arg;
    if (config->scratch_cap - config->scratch_len < want) {
        size_t cap = config->scratch_cap < 4096 ? 4096 : config->scratch_cap * 2;
        char *scratch = PyMem_Realloc(config->scratch, cap);
        if (scratch == NULL) {
            return NULL;
        }
        config->scratch = scratch;
        config->scratch_cap = cap;
    }
    *room = config->scratch_cap - config->scratch_len;
    return config->scratch + config->scratch_len;
}

static bool scratch_wrote(void *arg, size_t len) {
    ((bolide_ws_config *)arg)->scratch_len += len;
    return true;
}

/* Compress into the scratch space. It ends with the marker of a flush, which is not sent (RFC 7692, section 7.2.1).
 * Returns the length without it, or 0 with MemoryError set. */
static size_t compress(bolide_ws_config *config, bolide_deflate *deflate, const char *data, size_t len) {
    const bolide_deflate_sink sink = {scratch_room, scratch_wrote, config};
    config->scratch_len = 0;
    if (deflate == NULL || bolide_deflate_message(deflate, data, len, &sink) != BOLIDE_DEFLATE_OK) {
        PyErr_NoMemory();
        return 0;
    }
    return config->scratch_len - 4;
}

static void trim_scratch(bolide_ws_config *config) {
    if (config->scratch_cap > SCRATCH_KEPT) {
        PyMem_Free(config->scratch);
        config->scratch = NULL;
        config->scratch_cap = 0;
    }
}

/* The same message goes to one peer after the other: compress it once, without the history of any of them. Sets
 * config->shared if `message` was the last one, for another peer. */
static void share(bolide_conn *c, PyObject *message, const char *data, size_t len) {
    websocket *ws = ws_of(c);
    bolide_ws_config *config = ws->config;
    if (message != config->last) {
        bool immutable = PyBytes_CheckExact(message) || PyUnicode_CheckExact(message);
        Py_CLEAR(config->shared);
        Py_XSETREF(config->last, immutable && len <= SHARED_MAX ? Py_NewRef(message) : NULL);
        config->last_conn = c;
    } else if (config->shared == NULL && c != config->last_conn) {
        bolide_deflate *deflate = bolide_deflate_new(bolide_deflate_get_params(ws->deflate));
        size_t size = compress(config, deflate, data, len);
        config->shared = size > 0 ? PyBytes_FromStringAndSize(config->scratch, (Py_ssize_t)size) : NULL;
        config->shared_bits = bolide_deflate_get_params(ws->deflate)->server_bits;
        bolide_deflate_free(deflate);
        PyErr_Clear(); /* it goes without */
    }
}

/* Send a compressed message. 0, or -1 with MemoryError set: the connection can't be used any more. */
static int put_compressed(bolide_conn *c, int opcode, const char *data, size_t len, PyObject *message) {
    websocket *ws = ws_of(c);
    bolide_ws_config *config = ws->config;
    int result = -1;
    share(c, message, data, len);
    if (config->shared != NULL && config->shared_bits <= bolide_deflate_get_params(ws->deflate)->server_bits) {
        PyObject *shared = Py_NewRef(config->shared);
        bolide_deflate_forget(ws->deflate);
        result = put_frame(c, opcode, true, PyBytes_AS_STRING(shared), (size_t)PyBytes_GET_SIZE(shared), shared);
        Py_DECREF(shared);
    } else {
        size_t size = compress(config, ws->deflate, data, len);
        result = size > 0 ? put_frame(c, opcode, true, config->scratch, size, NULL) : -1;
    }
    trim_scratch(config);
    if (result < 0) {
        bolide_conn_abort(c);
    }
    return result;
}

/* `message` is the object whose content `data` is. */
static int put_message(bolide_conn *c, int opcode, const char *data, size_t len, PyObject *message) {
    if (ws_of(c)->deflate != NULL && len >= COMPRESS_MIN) {
        return put_compressed(c, opcode, data, len, message);
    }
    return put_frame(c, opcode, false, data, len, PyBytes_CheckExact(message) ? message : NULL);
}

int bolide_ws_send(bolide_conn *c, PyObject *message) {
    if (PyUnicode_Check(message)) {
        Py_ssize_t len;
        const char *text = PyUnicode_AsUTF8AndSize(message, &len);
        return text != NULL ? put_message(c, BOLIDE_WS_TEXT, text, (size_t)len, message) : -1;
    }
    if (PyBytes_CheckExact(message)) {
        return put_message(c, BOLIDE_WS_BINARY, PyBytes_AS_STRING(message), (size_t)PyBytes_GET_SIZE(message), message);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(message, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    /* An object's own way to give its buffer out may have closed the connection. */
    int result = bolide_ws_is_open(c) ? put_message(c, BOLIDE_WS_BINARY, view.buf, (size_t)view.len, message) : 0;
    PyBuffer_Release(&view);
    return result;
}

/* --- messages --- */

/* Hand a message to the owner. */
static void deliver(bolide_conn *c, PyObject *message, size_t len) {
    websocket *ws = ws_of(c);
    ws->opcode = 0;
    ws->flags |= WS_DELIVERED;
    if (!ws->config->ops->on_message(c, message, len)) {
        ws->flags |= WS_FULL;
    }
}

static void deliver_text(bolide_conn *c, const char *data, size_t len) {
    PyObject *text = PyUnicode_DecodeUTF8(data, (Py_ssize_t)len, NULL);
    if (text != NULL) {
        deliver(c, text, len);
    } else if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        fail(c, BOLIDE_WS_INVALID_DATA, "invalid UTF-8");
    } else {
        out_of_memory(c);
    }
}

/* The message under assembly is complete. */
static void deliver_partial(bolide_conn *c) {
    websocket *ws = ws_of(c);
    PyObject *partial = ws->partial;
    size_t len = ws->partial_len;
    ws->partial = NULL;
    ws->partial_len = 0;
    if (ws->opcode == BOLIDE_WS_TEXT) {
        if (bolide_utf8_complete(&ws->utf8)) {
            deliver_text(c, partial != NULL ? PyBytes_AS_STRING(partial) : "", len);
        } else {
            fail(c, BOLIDE_WS_INVALID_DATA, "invalid UTF-8");
        }
        Py_XDECREF(partial);
        return;
    }
    if (partial == NULL) {
        partial = PyBytes_FromStringAndSize(NULL, 0);
    } else if ((size_t)PyBytes_GET_SIZE(partial) != len) {
        (void)_PyBytes_Resize(&partial, (Py_ssize_t)len);
    }
    if (partial != NULL) {
        deliver(c, partial, len);
    } else {
        out_of_memory(c);
    }
}

/* Room for `want` bytes behind the message under assembly; `expected` more are known to come. NULL: no memory. */
static char *partial_room(websocket *ws, size_t want, uint64_t expected) {
    size_t need = ws->partial_len + want;
    size_t cap = ws->partial != NULL ? (size_t)PyBytes_GET_SIZE(ws->partial) : 0;
    if (need > cap) {
        bool known = expected != 0 && ws->frame.fin;
        uint64_t total = ws->partial_len + expected, least = known ? FIRST_ROOM : SMALL_ROOM;
        uint64_t grown = cap * 2 > least ? cap * 2 : least;
        grown = known && total < grown ? total : grown;
        cap = grown > need ? (size_t)grown : need;
        int result = 0;
        if (ws->partial == NULL) {
            ws->partial = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)cap);
        } else {
            result = _PyBytes_Resize(&ws->partial, (Py_ssize_t)cap);
        }
        if (result < 0 || ws->partial == NULL) {
            PyErr_Clear();
            return NULL;
        }
    }
    return PyBytes_AS_STRING(ws->partial) + ws->partial_len;
}

/* `len` bytes stand behind the message under assembly. False when they are not valid in it. */
static bool extend_partial(websocket *ws, size_t len) {
    const char *data = PyBytes_AS_STRING(ws->partial) + ws->partial_len;
    ws->partial_len += len;
    return ws->opcode != BOLIDE_WS_TEXT || bolide_utf8_feed(&ws->utf8, data, len);
}

/* Why decompression was ended from within. */
typedef struct {
    websocket *ws;
    int code; /* to close with, or 0: no memory */
} inflation;

static char *inflate_room(void *arg, size_t want, size_t *room) {
    inflation *in = arg;
    websocket *ws = in->ws;
    char *out = partial_room(ws, want, 0);
    if (out != NULL) {
        *room = (size_t)PyBytes_GET_SIZE(ws->partial) - ws->partial_len;
    }
    return out;
}

static bool inflate_wrote(void *arg, size_t len) {
    inflation *in = arg;
    websocket *ws = in->ws;
    if (ws->partial_len + len > ws->config->max_size) {
        in->code = BOLIDE_WS_TOO_BIG;
        return false;
    }
    in->code = BOLIDE_WS_INVALID_DATA;
    bool valid = extend_partial(ws, len);
    in->code = valid ? 0 : in->code;
    return valid;
}

/* Unmasked bytes of a compressed message. */
static void take_compressed(bolide_conn *c, const char *data, size_t len, bool last) {
    websocket *ws = ws_of(c);
    inflation in = {ws, 0};
    const bolide_deflate_sink sink = {inflate_room, inflate_wrote, &in};
    bolide_deflate_status status = bolide_inflate_piece(ws->deflate, data, len, last, &sink);
    if (status == BOLIDE_DEFLATE_CORRUPT) {
        fail(c, BOLIDE_WS_INVALID_DATA, "invalid compressed data");
    } else if (status == BOLIDE_DEFLATE_REFUSED && in.code == BOLIDE_WS_TOO_BIG) {
        fail(c, BOLIDE_WS_TOO_BIG, "message too big");
    } else if (status == BOLIDE_DEFLATE_REFUSED && in.code != 0) {
        fail(c, in.code, "invalid UTF-8");
    } else if (status != BOLIDE_DEFLATE_OK) {
        bolide_conn_abort(c);
    }
}

/* Masked bytes of the frame under way. */
static void take_payload(bolide_conn *c, char *data, size_t len) {
    websocket *ws = ws_of(c);
    bolide_ws_frame *f = &ws->frame;
    bool dropped = (ws->flags & WS_CLOSE_SENT) != 0, last = f->len == len && f->fin;
    if (!dropped && ws->compressed) {
        bolide_ws_unmask(data, len, f->mask, ws->offset);
        take_compressed(c, data, len, last);
    } else if (!dropped && len > 0) {
        char *out = partial_room(ws, len, f->len);
        if (out == NULL) {
            bolide_conn_abort(c);
            return;
        }
        bolide_ws_unmask_copy(out, data, len, f->mask, ws->offset);
        if (!extend_partial(ws, len)) {
            fail(c, BOLIDE_WS_INVALID_DATA, "invalid UTF-8");
        }
    }
    f->len -= len;
    ws->offset += len;
    if (!last || !is_upgraded(c)) {
        return;
    }
    if (dropped) {
        Py_CLEAR(ws->partial);
        ws->partial_len = 0;
        ws->opcode = 0;
    } else {
        deliver_partial(c);
    }
}

/* A message in one frame that is all there: no assembly. */
static void take_whole(bolide_conn *c, const bolide_ws_frame *f, char *data) {
    size_t len = (size_t)f->len;
    if (f->opcode == BOLIDE_WS_TEXT) {
        bolide_ws_unmask(data, len, f->mask, 0);
        deliver_text(c, data, len);
        return;
    }
    PyObject *message = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (message == NULL) {
        out_of_memory(c);
        return;
    }
    if (len > 1) {
        bolide_ws_unmask_copy(PyBytes_AS_STRING(message), data, len, f->mask, 0);
    } else if (len == 1) {
        /* CPython shares the objects of one byte. */
        bolide_ws_unmask(data, 1, f->mask, 0);
        Py_SETREF(message, PyBytes_FromStringAndSize(data, 1));
    }
    deliver(c, message, len);
}

/* The longest that a frame may be now. What does not compress grows a little when compressed. */
static uint64_t room_left(const websocket *ws, const bolide_ws_frame *f) {
    uint64_t max = ws->config->max_size;
    bool compressed = f->opcode == BOLIDE_WS_CONTINUATION ? ws->compressed : f->compressed;
    return compressed ? max + max / 256 + 64 : max - ws->partial_len;
}

/* The header of a data frame has come; `have` bytes stand behind it. Returns how many of those were used. */
static size_t begin_frame(bolide_conn *c, const bolide_ws_frame *f, char *data, size_t have) {
    websocket *ws = ws_of(c);
    bool dropped = (ws->flags & WS_CLOSE_SENT) != 0;
    if (!dropped && f->len > room_left(ws, f)) {
        fail(c, BOLIDE_WS_TOO_BIG, "message too big");
        return 0;
    }
    if (f->fin && f->opcode != BOLIDE_WS_CONTINUATION && !f->compressed && !dropped && f->len <= have) {
        take_whole(c, f, data);
        return (size_t)f->len;
    }
    if (f->opcode != BOLIDE_WS_CONTINUATION) {
        ws->opcode = f->opcode;
        ws->compressed = f->compressed;
        ws->utf8 = (bolide_utf8){0};
    }
    ws->frame = *f;
    ws->offset = 0;
    if (f->len == 0) {
        take_payload(c, data, 0);
    }
    return 0;
}

/* --- control frames --- */

/* The peer's close frame. */
static void take_close(bolide_conn *c, const char *data, size_t len) {
    int code = BOLIDE_WS_NO_STATUS;
    if (len >= 2) {
        code = (unsigned char)data[0] << 8 | (unsigned char)data[1];
    }
    if (len == 1 || (len >= 2 && !bolide_ws_code_is_valid(code))) {
        fail(c, BOLIDE_WS_PROTOCOL_ERROR, "invalid close frame");
        return;
    }
    PyObject *reason = PyUnicode_DecodeUTF8(len > 2 ? data + 2 : "", len > 2 ? (Py_ssize_t)len - 2 : 0, NULL);
    if (reason == NULL) {
        PyErr_Clear();
        fail(c, BOLIDE_WS_INVALID_DATA, "invalid UTF-8 in a close frame");
        return;
    }
    put_close(c, code, data + 2, len > 2 ? len - 2 : 0);
    tell_end(c, code, reason);
    Py_DECREF(reason);
    leave(c);
}

static void take_ping(bolide_conn *c, const char *data, size_t len) {
    websocket *ws = ws_of(c);
    if ((ws->flags & WS_CLOSE_SENT) != 0) {
        return;
    }
    if (!bolide_stream_is_full(&c->stream)) {
        put_control(c, BOLIDE_WS_PONG, data, len);
        return;
    }
    /* A peer that pings and does not read: only the last one is answered, once it does (RFC 6455, section 5.5.3). */
    if (ws->pong == NULL && (ws->pong = malloc(BOLIDE_WS_CONTROL_MAX)) == NULL) {
        return;
    }
    memcpy(ws->pong, data, len);
    ws->pong_len = (uint8_t)len;
}

static void take_control(bolide_conn *c, const bolide_ws_frame *f, char *data) {
    websocket *ws = ws_of(c);
    size_t len = (size_t)f->len;
    bolide_ws_unmask(data, len, f->mask, 0);
    if (f->opcode == BOLIDE_WS_CLOSE) {
        take_close(c, data, len);
    } else if (f->opcode == BOLIDE_WS_PING) {
        take_ping(c, data, len);
    } else if ((ws->flags & WS_PINGED) != 0 && len == sizeof(ws->ping) && memcmp(data, &ws->ping, len) == 0) {
        ws->flags &= (uint8_t)~WS_PINGED;
        ws->timer_ms = 0;
    }
}

/* --- input --- */

/* Keep the start of a header or of a control frame. */
static void keep_tail(bolide_conn *c, const char *data, size_t len) {
    websocket *ws = ws_of(c);
    if (ws->tail == NULL && (ws->tail = malloc(TAIL_MAX)) == NULL) {
        bolide_conn_abort(c);
        return;
    }
    memcpy(ws->tail + ws->tail_len, data, len);
    ws->tail_len += (uint8_t)len;
}

/* A header was found wrong. The application gets a turn to answer the messages before it. */
static void fail_in_turn(bolide_conn *c, const char *text) {
    websocket *ws = ws_of(c);
    if ((ws->flags & WS_DELIVERED) != 0) {
        ws->flags |= WS_DEFERRED;
    } else {
        fail(c, BOLIDE_WS_PROTOCOL_ERROR, text);
    }
}

/* A header, with the payload of a control frame, in [data, data + len). Returns the bytes used; 0: more are needed, or
 * something is wrong. */
static size_t take_header(bolide_conn *c, char *data, size_t len, bolide_ws_frame *f) {
    websocket *ws = ws_of(c);
    int used = bolide_ws_frame_parse(data, len, ws->deflate != NULL, f);
    if (used < 0) {
        fail_in_turn(c, "invalid frame header");
        return 0;
    }
    if (used > 0 && !bolide_ws_is_control(f->opcode) && (f->opcode == BOLIDE_WS_CONTINUATION) != (ws->opcode != 0)) {
        fail_in_turn(c, ws->opcode != 0 ? "expected a continuation" : "unexpected continuation");
        return 0;
    }
    if (used == 0 || !bolide_ws_is_control(f->opcode)) {
        return (size_t)used;
    }
    if (len - (size_t)used < f->len) {
        return 0;
    }
    take_control(c, f, data + used);
    return (size_t)used + (size_t)f->len;
}

/* One step from the start of a frame. Returns the bytes used. */
static size_t take_frame(bolide_conn *c, char *data, size_t len) {
    websocket *ws = ws_of(c);
    bolide_ws_frame f;
    size_t before = ws->tail_len, used;
    char *tail = NULL;
    if (before == 0) {
        used = take_header(c, data, len, &f);
        if (used == 0 && is_upgraded(c)) {
            if ((ws->flags & WS_DEFERRED) != 0) {
                return 0;
            }
            keep_tail(c, data, len);
            return len;
        }
    } else {
        size_t part = len < TAIL_MAX - before ? len : TAIL_MAX - before;
        tail = ws->tail;
        memcpy(tail + before, data, part);
        ws->tail = NULL; /* what follows may close the connection */
        ws->tail_len = 0;
        used = take_header(c, tail, before + part, &f);
        if (used == 0 && is_upgraded(c)) {
            ws->tail = tail;
            ws->tail_len = (uint8_t)(before + part);
            return part;
        }
        free(tail);
        used -= used > 0 ? before : 0;
    }
    if (!is_upgraded(c) || bolide_ws_is_control(f.opcode)) {
        return used;
    }
    return used + begin_frame(c, &f, data + used, len - used);
}

/* Keep bytes that the owner has no room for. */
static void hold(bolide_conn *c, const char *data, size_t len) {
    char *held = realloc(c->held, c->held_len + len);
    if (held == NULL) {
        bolide_conn_abort(c);
        return;
    }
    memcpy(held + c->held_len, data, len);
    c->held = held;
    c->held_len += len;
}

static void update_reading(bolide_conn *c) {
    websocket *ws = ws_of(c);
    bool reading = (c->stream.flags & BOLIDE_STREAM_READING) != 0;
    bool wanted = (ws->flags & WS_FULL) == 0 && c->held_len == 0 && (c->flags & BOLIDE_CONN_EOF) == 0;
    if (wanted && !reading) {
        if (bolide_stream_read_start(&c->stream) != 0) {
            bolide_conn_abort(c);
        }
    } else if (!wanted && reading) {
        bolide_stream_read_stop(&c->stream);
    }
}

/* The peer has gone without a word. */
static void vanished(bolide_conn *c) {
    tell_end(c, BOLIDE_WS_ABNORMAL, NULL);
    bolide_conn_close(c);
}

static void on_read(bolide_stream *s, char *data, size_t len) {
    bolide_conn *c = bolide_conn_of_stream(s);
    websocket *ws = ws_of(c);
    ws->flags &= (uint8_t)~WS_DELIVERED;
    while (len > 0 && is_upgraded(c)) {
        if (c->held_len > 0 || (ws->flags & (WS_FULL | WS_DEFERRED)) != 0) {
            hold(c, data, len);
            break;
        }
        size_t used;
        if (ws->frame.len > 0) {
            used = len < ws->frame.len ? len : (size_t)ws->frame.len;
            take_payload(c, data, used);
        } else {
            used = take_frame(c, data, len);
        }
        data += used;
        len -= used;
    }
    if (is_upgraded(c)) {
        if ((ws->flags & WS_DEFERRED) != 0) {
            ws->flags &= (uint8_t)~WS_DEFERRED;
            bolide_http_resume_soon(c);
        }
        update_reading(c);
        if ((c->flags & BOLIDE_CONN_EOF) != 0 && c->held_len == 0) {
            vanished(c);
        }
    }
}

static void on_eof(bolide_stream *s) {
    bolide_conn *c = bolide_conn_of_stream(s);
    c->flags |= BOLIDE_CONN_EOF;
    if (is_upgraded(c) && c->held_len == 0) {
        vanished(c);
    }
}

static void on_error(bolide_stream *s, int status) {
    (void)status;
    bolide_conn_abort(bolide_conn_of_stream(s));
}

static void on_drain(bolide_stream *s) {
    bolide_conn *c = bolide_conn_of_stream(s);
    websocket *ws = ws_of(c);
    if (ws->pong != NULL && bolide_ws_is_open(c)) {
        char *pong = ws->pong;
        ws->pong = NULL;
        put_control(c, BOLIDE_WS_PONG, pong, ws->pong_len);
        free(pong);
    }
    ws->config->ops->on_drain(c);
}

static void on_close(bolide_stream *s) {
    release(ws_of(bolide_conn_of_stream(s)));
    bolide_conn_on_close(s);
}

static const bolide_stream_ops stream_ops = {
    .on_read = on_read,
    .on_eof = on_eof,
    .on_error = on_error,
    .on_drain = on_drain,
    .on_close = on_close,
};

/* --- for the owner --- */

int bolide_ws_start(bolide_conn *c, bolide_ws_config *config, const bolide_deflate_params *deflate) {
    websocket *ws = calloc(1, sizeof(*ws));
    if (ws == NULL || (deflate->enabled && (ws->deflate = bolide_deflate_new(deflate)) == NULL)) {
        free(ws);
        PyErr_NoMemory();
        return -1;
    }
    ws->config = config;
    bolide_conn_upgrade(c, ws, &stream_ops);
    return 0;
}

void bolide_ws_close(bolide_conn *c, int code, const char *reason, size_t len) {
    if (!is_upgraded(c)) {
        return;
    }
    websocket *ws = ws_of(c);
    ws->flags |= WS_ENDED;
    put_close(c, code, reason, len);
    bolide_ws_resume(c);
}

void bolide_ws_shutdown(bolide_conn *c) {
    if (is_upgraded(c)) {
        put_close(c, BOLIDE_WS_GOING_AWAY, "", 0);
        tell_end(c, BOLIDE_WS_GOING_AWAY, NULL);
        leave(c);
    }
}

void bolide_ws_resume(bolide_conn *c) {
    if (!is_upgraded(c) || (ws_of(c)->flags & WS_FULL) == 0) {
        return;
    }
    ws_of(c)->flags &= (uint8_t)~WS_FULL;
    if (c->held_len > 0) {
        bolide_http_resume_soon(c);
    } else {
        update_reading(c);
    }
}

/* We wait for the peer's close frame, and it may have much to read before it sends one. */
static void tick_closing(bolide_conn *c, unsigned ms) {
    websocket *ws = ws_of(c);
    size_t pending = bolide_stream_pending(&c->stream);
    ws->timer_ms = pending < ws->pending ? 0 : ws->timer_ms + ms;
    ws->pending = pending;
    if (ws->timer_ms >= ws->config->close_timeout_ms + ms) {
        bolide_conn_abort(c);
    }
}

void bolide_ws_tick(bolide_conn *c, unsigned ms) {
    if (!is_upgraded(c)) {
        return;
    }
    websocket *ws = ws_of(c);
    const bolide_ws_config *config = ws->config;
    if ((ws->flags & WS_CLOSE_SENT) != 0) {
        tick_closing(c, ms);
    } else if ((ws->flags & WS_PINGED) != 0) {
        /* While nothing is read, the answer cannot be seen. */
        ws->timer_ms += (ws->flags & WS_FULL) != 0 ? 0 : ms;
        if (ws->timer_ms >= config->ping_timeout_ms + ms) {
            fail(c, BOLIDE_WS_INTERNAL_ERROR, "keepalive ping timeout");
        }
    } else if (config->ping_interval_ms != 0 && (ws->timer_ms += ms) >= config->ping_interval_ms) {
        ws->timer_ms = 0;
        ws->ping++;
        ws->flags |= config->ping_timeout_ms != 0 ? WS_PINGED : 0;
        put_control(c, BOLIDE_WS_PING, (const char *)&ws->ping, sizeof(ws->ping));
    }
}
