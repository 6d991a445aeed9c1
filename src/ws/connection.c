#include "ws/session.h"

#include <stdlib.h>
#include <string.h>

/* A header, or a whole control frame. */
#define TAIL_MAX (BOLIDE_WS_HEADER_MAX + BOLIDE_WS_CONTROL_MAX)

bool bolide_ws_is_open(const bolide_conn *c) {
    return bolide_conn_is_upgraded(c) && (bolide_ws_of(c)->flags & (WS_CLOSE_SENT | WS_ENDED)) == 0;
}

void bolide_ws_config_clear(bolide_ws_config *config) {
    PyMem_Free(config->scratch);
    config->scratch = NULL;
    config->scratch_cap = 0;
    Py_CLEAR(config->last);
    Py_CLEAR(config->frame);
    Py_CLEAR(config->compressed);
    free(config->spare);
    config->spare = NULL;
}

/* --- what is read --- */

/* Nothing lasts from this read to the next one. */
static bool is_between(const bolide_ws_input *in) {
    return in->opcode == 0 && in->frame.len == 0 && in->partial == NULL && in->tail == NULL && in->pong == NULL;
}

/* Make ws->input. False when there is no memory. */
static bool take_input(bolide_conn *c) {
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_config *config = bolide_ws_config_of(c);
    if (ws->input == NULL) {
        ws->input = config->spare != NULL ? config->spare : calloc(1, sizeof(*ws->input));
        config->spare = NULL;
    }
    return ws->input != NULL;
}

/* Nobody has `in` any more. */
static void give_input(bolide_ws_config *config, bolide_ws_input *in) {
    if (config->spare == NULL) {
        config->spare = in;
    } else {
        free(in);
    }
}

/* --- the end --- */

/* Free what an open connection has; the struct itself lives as long as the connection. */
static void release(bolide_conn *c) {
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_input *in = ws->input;
    bolide_deflate_free(ws->deflate);
    ws->deflate = NULL;
    ws->input = NULL;
    if (in != NULL) {
        bool reading = in->reading;
        Py_XDECREF(in->partial);
        free(in->tail);
        free(in->pong);
        memset(in, 0, sizeof(*in));
        if (!reading) {
            give_input(bolide_ws_config_of(c), in);
        }
    }
}

static void tell_end(bolide_conn *c, int code, PyObject *reason) {
    bolide_ws *ws = bolide_ws_of(c);
    if ((ws->flags & WS_ENDED) == 0) {
        ws->flags |= WS_ENDED;
        bolide_ws_config_of(c)->ops->on_end(c, code, reason);
    }
}

/* Nothing more is said on this connection: let the peer get what was queued, then close. */
static void leave(bolide_conn *c) {
    if (bolide_conn_is_upgraded(c)) {
        release(c);
        bolide_conn_linger(c);
    }
}

void bolide_ws_out_of_memory(bolide_conn *c) {
    PyErr_Clear();
    bolide_conn_abort(c);
}

void bolide_ws_fail(bolide_conn *c, int code, const char *text) {
    PyObject *reason = PyUnicode_FromString(text);
    if (reason == NULL) {
        bolide_ws_out_of_memory(c);
        return;
    }
    bolide_ws_put_close(c, code, text, strlen(text));
    tell_end(c, code, reason);
    Py_DECREF(reason);
    leave(c);
}

/* --- control frames --- */

/* The peer's close frame. */
static void take_close(bolide_conn *c, const char *data, size_t len) {
    int code = BOLIDE_WS_NO_STATUS;
    if (len >= 2) {
        code = (unsigned char)data[0] << 8 | (unsigned char)data[1];
    }
    if (len == 1 || (len >= 2 && !bolide_ws_code_is_valid(code))) {
        bolide_ws_fail(c, BOLIDE_WS_PROTOCOL_ERROR, "invalid close frame");
        return;
    }
    PyObject *reason = PyUnicode_DecodeUTF8(len > 2 ? data + 2 : "", len > 2 ? (Py_ssize_t)len - 2 : 0, NULL);
    if (reason == NULL) {
        PyErr_Clear();
        bolide_ws_fail(c, BOLIDE_WS_INVALID_DATA, "invalid UTF-8 in a close frame");
        return;
    }
    bolide_ws_put_close(c, code, data + 2, len > 2 ? len - 2 : 0);
    tell_end(c, code, reason);
    Py_DECREF(reason);
    leave(c);
}

static void take_ping(bolide_conn *c, const char *data, size_t len) {
    bolide_ws *ws = bolide_ws_of(c);
    if ((ws->flags & WS_CLOSE_SENT) != 0) {
        return;
    }
    if (!bolide_stream_is_full(&c->stream)) {
        bolide_ws_put_control(c, BOLIDE_WS_PONG, data, len);
        return;
    }
    /* A peer that pings and does not read: only the last one is answered, once it does (RFC 6455, section 5.5.3). */
    bolide_ws_input *in = ws->input;
    if (in->pong == NULL && (in->pong = malloc(BOLIDE_WS_CONTROL_MAX)) == NULL) {
        return;
    }
    memcpy(in->pong, data, len);
    in->pong_len = (uint8_t)len;
}

static void take_control(bolide_conn *c, const bolide_ws_frame *f, char *data) {
    bolide_ws *ws = bolide_ws_of(c);
    size_t len = (size_t)f->len;
    bolide_ws_unmask(data, len, f->mask, 0);
    if (f->opcode == BOLIDE_WS_CLOSE) {
        take_close(c, data, len);
    } else if (f->opcode == BOLIDE_WS_PING) {
        take_ping(c, data, len);
    } else if ((ws->flags & WS_PINGED) != 0 && len == sizeof(ws->ping) && memcmp(data, &ws->ping, len) == 0) {
        ws->flags &= (uint8_t)~WS_PINGED;
        c->since_ms = 0;
    }
}

/* --- input --- */

/* Keep the start of a header or of a control frame. */
static void keep_tail(bolide_conn *c, const char *data, size_t len) {
    bolide_ws_input *in = bolide_ws_of(c)->input;
    if (in->tail == NULL && (in->tail = malloc(TAIL_MAX)) == NULL) {
        bolide_conn_abort(c);
        return;
    }
    memcpy(in->tail + in->tail_len, data, len);
    in->tail_len += (uint8_t)len;
}

/* A header was found wrong. The application gets a turn to answer the messages before it. */
static void fail_in_turn(bolide_conn *c, const char *text) {
    bolide_ws *ws = bolide_ws_of(c);
    if ((ws->flags & WS_DELIVERED) != 0) {
        ws->flags |= WS_DEFERRED;
    } else {
        bolide_ws_fail(c, BOLIDE_WS_PROTOCOL_ERROR, text);
    }
}

/* A header, with the payload of a control frame, in [data, data + len). Returns the bytes used; 0: more are needed, or
 * something is wrong. */
static size_t take_header(bolide_conn *c, char *data, size_t len, bolide_ws_frame *f) {
    bolide_ws *ws = bolide_ws_of(c);
    int used = bolide_ws_frame_parse(data, len, ws->deflate != NULL, f);
    if (used < 0) {
        fail_in_turn(c, "invalid frame header");
        return 0;
    }
    bool within = ws->input->opcode != 0;
    if (used > 0 && !bolide_ws_is_control(f->opcode) && (f->opcode == BOLIDE_WS_CONTINUATION) != within) {
        fail_in_turn(c, within ? "expected a continuation" : "unexpected continuation");
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
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_input *in = ws->input;
    bolide_ws_frame f;
    size_t before = in->tail_len, used;
    char *tail = NULL;
    if (before == 0) {
        used = take_header(c, data, len, &f);
        if (used == 0 && bolide_conn_is_upgraded(c)) {
            if ((ws->flags & WS_DEFERRED) != 0) {
                return 0;
            }
            keep_tail(c, data, len);
            return len;
        }
    } else {
        size_t part = len < TAIL_MAX - before ? len : TAIL_MAX - before;
        tail = in->tail;
        memcpy(tail + before, data, part);
        in->tail = NULL; /* what follows may close the connection */
        in->tail_len = 0;
        used = take_header(c, tail, before + part, &f);
        if (used == 0 && bolide_conn_is_upgraded(c)) {
            in->tail = tail;
            in->tail_len = (uint8_t)(before + part);
            return part;
        }
        free(tail);
        used -= used > 0 ? before : 0;
    }
    if (!bolide_conn_is_upgraded(c) || bolide_ws_is_control(f.opcode)) {
        return used;
    }
    return used + bolide_ws_begin_frame(c, &f, data + used, len - used);
}

static void update_reading(bolide_conn *c) {
    bool full = (bolide_ws_of(c)->flags & WS_FULL) != 0;
    bolide_conn_set_reading(c, !full && c->held == NULL && (c->flags & BOLIDE_CONN_EOF) == 0);
}

/* The peer has gone without a word. */
static void vanished(bolide_conn *c) {
    tell_end(c, BOLIDE_WS_ABNORMAL, NULL);
    bolide_conn_close(c);
}

/* Frame by frame, until something ends the connection or the owner has enough. */
static void take_frames(bolide_conn *c, bolide_ws_input *in, char *data, size_t len) {
    bolide_ws *ws = bolide_ws_of(c);
    while (len > 0 && bolide_conn_is_upgraded(c)) {
        if (c->held != NULL || (ws->flags & (WS_FULL | WS_DEFERRED)) != 0) {
            bolide_conn_hold(c, data, len);
            break;
        }
        size_t used;
        if (in->frame.len > 0) {
            used = len < in->frame.len ? len : (size_t)in->frame.len;
            bolide_ws_take_payload(c, data, used);
        } else {
            used = take_frame(c, data, len);
        }
        data += used;
        len -= used;
    }
}

static void on_read(bolide_stream *s, char *data, size_t len) {
    bolide_conn *c = bolide_conn_of_stream(s);
    bolide_ws *ws = bolide_ws_of(c);
    if (!take_input(c)) {
        bolide_conn_abort(c);
        return;
    }
    bolide_ws_config *config = bolide_ws_config_of(c);
    bolide_ws_input *in = ws->input;
    in->reading = true;
    ws->flags &= (uint8_t)~WS_DELIVERED;
    take_frames(c, in, data, len);
    in->reading = false;
    bool left = (c->flags & BOLIDE_CONN_UPGRADED) == 0;
    if (left) {
        memset(in, 0, sizeof(*in)); /* released already; the end of it has counted on */
        give_input(config, in);
    } else if (is_between(in)) {
        ws->input = NULL;
        give_input(config, in);
    }
    if (bolide_conn_is_upgraded(c)) {
        if ((ws->flags & WS_DEFERRED) != 0) {
            ws->flags &= (uint8_t)~WS_DEFERRED;
            bolide_http_resume_soon(c);
        }
        update_reading(c);
        if ((c->flags & BOLIDE_CONN_EOF) != 0 && c->held == NULL) {
            vanished(c);
        }
    }
}

static void on_eof(bolide_stream *s) {
    bolide_conn *c = bolide_conn_of_stream(s);
    c->flags |= BOLIDE_CONN_EOF;
    if (bolide_conn_is_upgraded(c) && c->held == NULL) {
        vanished(c);
    }
}

static void on_drain(bolide_stream *s) {
    bolide_conn *c = bolide_conn_of_stream(s);
    bolide_ws *ws = bolide_ws_of(c);
    bolide_ws_config *config = bolide_ws_config_of(c);
    bolide_ws_input *in = ws->input;
    if (in != NULL && in->pong != NULL && bolide_ws_is_open(c)) {
        char *pong = in->pong;
        uint8_t len = in->pong_len;
        in->pong = NULL;
        if (!in->reading && is_between(in)) {
            ws->input = NULL;
            give_input(config, in);
        }
        bolide_ws_put_control(c, BOLIDE_WS_PONG, pong, len);
        free(pong);
    }
    config->ops->on_drain(c);
}

static void on_close(bolide_stream *s) {
    release(bolide_conn_of_stream(s));
    bolide_conn_on_close(s);
}

static const bolide_stream_ops stream_ops = {
    .on_read = on_read,
    .on_eof = on_eof,
    .on_error = bolide_conn_on_error,
    .on_drain = on_drain,
    .on_close = on_close,
};

/* --- for the owner --- */

int bolide_ws_start(bolide_conn *c, const bolide_deflate_params *deflate) {
    bolide_deflate *agreed = NULL;
    if (deflate->enabled && (agreed = bolide_deflate_new(deflate)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    bolide_conn_upgrade(c, &stream_ops);
    if (bolide_conn_is_upgraded(c)) {
        bolide_ws_of(c)->deflate = agreed;
    } else {
        bolide_deflate_free(agreed); /* it has freed objects whose finalizers may end the connection */
    }
    return 0;
}

void bolide_ws_close(bolide_conn *c, int code, const char *reason, size_t len) {
    if (!bolide_conn_is_upgraded(c)) {
        return;
    }
    bolide_ws *ws = bolide_ws_of(c);
    ws->flags |= WS_ENDED;
    bolide_ws_put_close(c, code, reason, len);
    bolide_ws_resume(c);
}

void bolide_ws_shutdown(bolide_conn *c) {
    if (bolide_conn_is_upgraded(c)) {
        bolide_ws_put_close(c, BOLIDE_WS_GOING_AWAY, "", 0);
        tell_end(c, BOLIDE_WS_GOING_AWAY, NULL);
        leave(c);
    }
}

void bolide_ws_resume(bolide_conn *c) {
    if (!bolide_conn_is_upgraded(c) || (bolide_ws_of(c)->flags & WS_FULL) == 0) {
        return;
    }
    bolide_ws_of(c)->flags &= (uint8_t)~WS_FULL;
    if (c->held != NULL) {
        bolide_http_resume_soon(c);
    } else {
        update_reading(c);
    }
}

/* We wait for the peer's close frame, and it may have much to read before it sends one. */
static void tick_closing(bolide_conn *c, unsigned ms) {
    bolide_ws *ws = bolide_ws_of(c);
    size_t pending = bolide_stream_pending(&c->stream);
    pending = pending < UINT32_MAX ? pending : UINT32_MAX;
    c->since_ms = pending < ws->pending ? 0 : c->since_ms + ms;
    ws->pending = (uint32_t)pending;
    if (c->since_ms >= bolide_ws_config_of(c)->close_timeout_ms + ms) {
        bolide_conn_abort(c);
    }
}

void bolide_ws_tick(bolide_conn *c, unsigned ms) {
    if (!bolide_conn_is_upgraded(c)) {
        return;
    }
    bolide_ws *ws = bolide_ws_of(c);
    const bolide_ws_config *config = bolide_ws_config_of(c);
    if ((ws->flags & WS_CLOSE_SENT) != 0) {
        tick_closing(c, ms);
    } else if ((ws->flags & WS_PINGED) != 0) {
        /* While nothing is read, the answer cannot be seen. */
        c->since_ms += (ws->flags & WS_FULL) != 0 ? 0 : ms;
        if (c->since_ms >= config->ping_timeout_ms + ms) {
            bolide_ws_fail(c, BOLIDE_WS_INTERNAL_ERROR, "keepalive ping timeout");
        }
    } else if (config->ping_interval_ms != 0 && (c->since_ms += ms) >= config->ping_interval_ms) {
        c->since_ms = 0;
        ws->ping++;
        ws->flags |= config->ping_timeout_ms != 0 ? WS_PINGED : 0;
        bolide_ws_put_control(c, BOLIDE_WS_PING, (const char *)&ws->ping, sizeof(ws->ping));
    }
}
