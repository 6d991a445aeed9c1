/* Frames to the peer. */
#include "ws/session.h"

#include <string.h>

/* Scratch space that is kept from one compressed message to the next. */
#define SCRATCH_KEPT (256 * 1024)
/* Longer messages are not framed or compressed once for many peers: the server keeps the last one. Without compression
 * there is nothing to win for what is sent from where it lies. */
#define SHARED_MAX     (16 * 1024)
#define COMPRESSED_MAX (256 * 1024)
/* Shorter messages are sent as they are. */
#define COMPRESS_MIN 32

/* Queue a frame. `owner`: an object that keeps `data` as it is, or NULL. 0, or -1 with MemoryError set. */
static int put_frame(bolide_conn *c, int opcode, bool compressed, const char *data, size_t len, PyObject *owner) {
    bolide_stream *s = &c->stream;
    if (len <= BOLIDE_RESERVE_MAX - BOLIDE_WS_OUT_HEADER_MAX) {
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
    return owner != NULL ? bolide_stream_write_owned(s, data, len, owner) : bolide_stream_write(s, data, len);
}

/* A frame as a bytes object, or NULL with MemoryError set. */
static PyObject *make_frame(int opcode, bool compressed, const char *data, size_t len) {
    char header[BOLIDE_WS_OUT_HEADER_MAX];
    size_t used = bolide_ws_frame_header(header, opcode, compressed, len);
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(used + len));
    if (frame != NULL) {
        memcpy(PyBytes_AS_STRING(frame), header, used);
        memcpy(PyBytes_AS_STRING(frame) + used, data, len);
    }
    return frame;
}

/* Queue what make_frame() has made. 0, or -1 with MemoryError set. */
static int put_made(bolide_conn *c, PyObject *frame) {
    return bolide_stream_write_owned(&c->stream, PyBytes_AS_STRING(frame), (size_t)PyBytes_GET_SIZE(frame), frame);
}

void bolide_ws_put_control(bolide_conn *c, int opcode, const char *data, size_t len) {
    if (put_frame(c, opcode, false, data, len, NULL) < 0) {
        bolide_ws_out_of_memory(c);
    }
}

void bolide_ws_put_close(bolide_conn *c, int code, const char *reason, size_t len) {
    char payload[BOLIDE_WS_CONTROL_MAX];
    bolide_ws *ws = bolide_ws_of(c);
    if ((ws->flags & WS_CLOSE_SENT) != 0) {
        return;
    }
    ws->flags = (uint8_t)((ws->flags | WS_CLOSE_SENT) & ~WS_PINGED);
    c->since_ms = 0;
    payload[0] = (char)(code >> 8);
    payload[1] = (char)code;
    memcpy(payload + 2, reason, len);
    bolide_ws_put_control(c, BOLIDE_WS_CLOSE, payload, code == BOLIDE_WS_NO_STATUS ? 0 : len + 2);
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

/* Is it the message that was sent before, to another peer? If not, it is the last one from now on. Messages of equal
 * content count as the same where it is worth the look (`by_content`): those that were serialised anew for each peer.
 */
static bool is_repeated(bolide_conn *c, PyObject *message, const char *data, size_t len, bool by_content) {
    bolide_ws_config *config = bolide_ws_config_of(c);
    PyObject *last = config->last;
    bool same = message == last;
    if (!same && by_content && last != NULL && Py_IS_TYPE(last, Py_TYPE(message))) {
        Py_ssize_t last_len = PyBytes_Check(last) ? PyBytes_GET_SIZE(last) : -1;
        const char *text = last_len < 0 ? PyUnicode_AsUTF8AndSize(last, &last_len) : PyBytes_AS_STRING(last);
        same = (size_t)last_len == len && memcmp(text, data, len) == 0; /* its UTF-8 is there since it was sent */
    }
    if (same) {
        return c != config->last_conn;
    }
    bool immutable = PyBytes_CheckExact(message) || PyUnicode_CheckExact(message);
    bool keep = immutable && len <= (by_content ? COMPRESSED_MAX : SHARED_MAX);
    Py_CLEAR(config->frame);
    Py_CLEAR(config->compressed);
    Py_XSETREF(config->last, keep ? Py_NewRef(message) : NULL);
    config->last_conn = c;
    return false;
}

/* Set config->compressed, a frame made without the history of any peer, if there is memory for it. */
static void compress_for_many(bolide_conn *c, int opcode, const char *data, size_t len) {
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_config *config = bolide_ws_config_of(c);
    const bolide_deflate_params *params = bolide_deflate_get_params(ws->deflate);
    bolide_deflate *deflate = bolide_deflate_new(params);
    size_t size = compress(config, deflate, data, len);
    config->compressed = size > 0 ? make_frame(opcode, true, config->scratch, size) : NULL;
    config->window_bits = params->server_bits;
    bolide_deflate_free(deflate);
    PyErr_Clear();
}

/* Send `len` bytes of the scratch space. Longer ones from an object of their own: what the header of such a frame makes
 * room for may wake somebody who sends, too. */
static int put_scratch(bolide_conn *c, int opcode, size_t len) {
    const char *scratch = bolide_ws_config_of(c)->scratch;
    if (len <= BOLIDE_RESERVE_MAX - BOLIDE_WS_OUT_HEADER_MAX) {
        return put_frame(c, opcode, true, scratch, len, NULL);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(scratch, (Py_ssize_t)len);
    int result = bytes != NULL ? put_frame(c, opcode, true, PyBytes_AS_STRING(bytes), len, bytes) : -1;
    Py_XDECREF(bytes);
    return result;
}

/* Send a compressed message. 0, or -1 with MemoryError set: the connection can't be used any more. */
static int put_compressed(bolide_conn *c, int opcode, const char *data, size_t len, PyObject *message) {
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_config *config = bolide_ws_config_of(c);
    int result = -1;
    bool repeated = is_repeated(c, message, data, len, true);
    if (repeated && config->compressed == NULL) {
        compress_for_many(c, opcode, data, len);
    }
    if (repeated && config->compressed != NULL &&
        config->window_bits <= bolide_deflate_get_params(ws->deflate)->server_bits) {
        PyObject *frame = Py_NewRef(config->compressed);
        bolide_deflate_forget(ws->deflate);
        result = put_made(c, frame);
        Py_DECREF(frame);
    } else {
        size_t size = compress(config, ws->deflate, data, len);
        result = size > 0 ? put_scratch(c, opcode, size) : -1;
    }
    trim_scratch(config);
    if (result < 0) {
        bolide_conn_abort(c);
    }
    return result;
}

/* `message` is the object whose content `data` is. 0, or -1 with MemoryError set. */
static int put_message(bolide_conn *c, int opcode, const char *data, size_t len, PyObject *message) {
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_config *config = bolide_ws_config_of(c);
    if (ws->deflate != NULL && len >= COMPRESS_MIN) {
        return put_compressed(c, opcode, data, len, message);
    }
    /* Exact ones: what an object of a derived class does at its end must not happen while its content is sent. */
    bool immutable = PyBytes_CheckExact(message) || PyUnicode_CheckExact(message);
    if (!immutable || len > SHARED_MAX || !is_repeated(c, message, data, len, false)) {
        return put_frame(c, opcode, false, data, len, immutable ? message : NULL);
    }
    PyObject *frame = config->frame;
    if (frame == NULL && (frame = config->frame = make_frame(opcode, false, data, len)) == NULL) {
        return -1;
    }
    Py_INCREF(frame);
    int result = put_made(c, frame);
    Py_DECREF(frame);
    return result;
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
