/* The payload of messages from the peer: unmasked, decompressed, checked and put together. */
#include "ws/session.h"

/* The first piece of a message that does not come at once: more only as bytes arrive. */
#define FIRST_ROOM (64 * 1024)
/* ... whose size is not known. */
#define SMALL_ROOM 1024

/* Hand a message to the owner. */
static void deliver(bolide_conn *c, PyObject *message, size_t len) {
    bolide_ws *ws = bolide_ws_of(c);
    ws->input->opcode = 0;
    ws->flags |= WS_DELIVERED;
    if (!bolide_ws_config_of(c)->ops->on_message(c, message, len)) {
        ws->flags |= WS_FULL;
    }
}

static void deliver_text(bolide_conn *c, const char *data, size_t len) {
    PyObject *text = PyUnicode_DecodeUTF8(data, (Py_ssize_t)len, NULL);
    if (text != NULL) {
        deliver(c, text, len);
    } else if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        bolide_ws_fail(c, BOLIDE_WS_INVALID_DATA, "invalid UTF-8");
    } else {
        bolide_ws_out_of_memory(c);
    }
}

/* The message under assembly is complete. */
static void deliver_partial(bolide_conn *c) {
    bolide_ws_input *in = bolide_ws_of(c)->input;
    PyObject *partial = in->partial;
    size_t len = in->partial_len;
    in->partial = NULL;
    in->partial_len = 0;
    if (in->opcode == BOLIDE_WS_TEXT) {
        if (bolide_utf8_complete(&in->utf8)) {
            deliver_text(c, partial != NULL ? PyBytes_AS_STRING(partial) : "", len);
        } else {
            bolide_ws_fail(c, BOLIDE_WS_INVALID_DATA, "invalid UTF-8");
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
        bolide_ws_out_of_memory(c);
    }
}

/* Room for `want` bytes behind the message under assembly; `expected` more are known to come. NULL: no memory. */
static char *partial_room(bolide_ws_input *in, size_t want, uint64_t expected) {
    size_t need = in->partial_len + want;
    size_t cap = in->partial != NULL ? (size_t)PyBytes_GET_SIZE(in->partial) : 0;
    if (need > cap) {
        bool known = expected != 0 && in->frame.fin;
        uint64_t total = in->partial_len + expected, least = known ? FIRST_ROOM : SMALL_ROOM;
        uint64_t grown = cap * 2 > least ? cap * 2 : least;
        grown = known && total < grown ? total : grown;
        cap = grown > need ? (size_t)grown : need;
        int result = 0;
        if (in->partial == NULL) {
            in->partial = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)cap);
        } else {
            result = _PyBytes_Resize(&in->partial, (Py_ssize_t)cap);
        }
        if (result < 0 || in->partial == NULL) {
            PyErr_Clear();
            return NULL;
        }
    }
    return PyBytes_AS_STRING(in->partial) + in->partial_len;
}

/* `len` bytes stand behind the message under assembly. False when they are not valid in it. */
static bool extend_partial(bolide_ws_input *in, size_t len) {
    const char *data = PyBytes_AS_STRING(in->partial) + in->partial_len;
    in->partial_len += len;
    return in->opcode != BOLIDE_WS_TEXT || bolide_utf8_feed(&in->utf8, data, len);
}

/* Why decompression was ended from within. */
typedef struct {
    bolide_ws_input *in;
    size_t max_size; /* of a message */
    int code;        /* to close with, or 0: no memory */
} inflation;

static char *inflate_room(void *arg, size_t want, size_t *room) {
    bolide_ws_input *in = ((inflation *)arg)->in;
    char *out = partial_room(in, want, 0);
    if (out != NULL) {
        *room = (size_t)PyBytes_GET_SIZE(in->partial) - in->partial_len;
    }
    return out;
}

static bool inflate_wrote(void *arg, size_t len) {
    inflation *i = arg;
    bolide_ws_input *in = i->in;
    if (in->partial_len + len > i->max_size) {
        i->code = BOLIDE_WS_TOO_BIG;
        return false;
    }
    i->code = BOLIDE_WS_INVALID_DATA;
    bool valid = extend_partial(in, len);
    i->code = valid ? 0 : i->code;
    return valid;
}

/* Unmasked bytes of a compressed message. */
static void take_compressed(bolide_conn *c, const char *data, size_t len, bool last) {
    bolide_ws *ws = bolide_ws_of(c);
    inflation in = {ws->input, bolide_ws_config_of(c)->max_size, 0};
    const bolide_deflate_sink sink = {inflate_room, inflate_wrote, &in};
    bolide_deflate_status status = bolide_inflate_piece(ws->deflate, data, len, last, &sink);
    if (status == BOLIDE_DEFLATE_CORRUPT) {
        bolide_ws_fail(c, BOLIDE_WS_INVALID_DATA, "invalid compressed data");
    } else if (status == BOLIDE_DEFLATE_REFUSED && in.code == BOLIDE_WS_TOO_BIG) {
        bolide_ws_fail(c, BOLIDE_WS_TOO_BIG, "message too big");
    } else if (status == BOLIDE_DEFLATE_REFUSED && in.code != 0) {
        bolide_ws_fail(c, in.code, "invalid UTF-8");
    } else if (status != BOLIDE_DEFLATE_OK) {
        bolide_conn_abort(c);
    }
}

void bolide_ws_take_payload(bolide_conn *c, char *data, size_t len) {
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_input *in = ws->input; /* there until all is read, even if the connection ends */
    bolide_ws_frame *f = &in->frame;
    bool dropped = (ws->flags & WS_CLOSE_SENT) != 0, last = f->len == len && f->fin;
    if (!dropped && in->compressed) {
        bolide_ws_unmask(data, len, f->mask, in->offset);
        take_compressed(c, data, len, last);
    } else if (!dropped && len > 0) {
        char *out = partial_room(in, len, f->len);
        if (out == NULL) {
            bolide_conn_abort(c);
            return;
        }
        bolide_ws_unmask_copy(out, data, len, f->mask, in->offset);
        if (!extend_partial(in, len)) {
            bolide_ws_fail(c, BOLIDE_WS_INVALID_DATA, "invalid UTF-8");
        }
    }
    f->len -= len;
    in->offset += len;
    if (!last || !bolide_conn_is_upgraded(c)) {
        return;
    }
    if (dropped) {
        Py_CLEAR(in->partial);
        in->partial_len = 0;
        in->opcode = 0;
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
        bolide_ws_out_of_memory(c);
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
static uint64_t room_left(const bolide_conn *c, const bolide_ws_frame *f) {
    const bolide_ws_input *in = bolide_ws_of(c)->input;
    uint64_t max = bolide_ws_config_of(c)->max_size;
    bool compressed = f->opcode == BOLIDE_WS_CONTINUATION ? in->compressed : f->compressed;
    return compressed ? max + max / 256 + 64 : max - in->partial_len;
}

size_t bolide_ws_begin_frame(bolide_conn *c, const bolide_ws_frame *f, char *data, size_t have) {
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_input *in = ws->input;
    bool dropped = (ws->flags & WS_CLOSE_SENT) != 0;
    if (!dropped && f->len > room_left(c, f)) {
        bolide_ws_fail(c, BOLIDE_WS_TOO_BIG, "message too big");
        return 0;
    }
    if (f->fin && f->opcode != BOLIDE_WS_CONTINUATION && !f->compressed && !dropped && f->len <= have) {
        take_whole(c, f, data);
        return (size_t)f->len;
    }
    if (f->opcode != BOLIDE_WS_CONTINUATION) {
        in->opcode = f->opcode;
        in->compressed = f->compressed;
        in->utf8 = (bolide_utf8){0};
    }
    in->frame = *f;
    in->offset = 0;
    if (f->len == 0) {
        bolide_ws_take_payload(c, data, 0);
    }
    return 0;
}
