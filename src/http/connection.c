#include "http/connection.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/batch.h"
#include "http/response.h"
#include "transport/tls.h"

/* Bytes of further requests that are kept while an exchange is under way; beyond it the kernel keeps them. */
#define HELD_MAX (64 * 1024)
/* What a refused peer may still send before it is cut off. */
#define LINGER_BYTES (1024 * 1024)
/* A body that was not read when the response is complete may have so much left for the connection to be kept. */
#define UNREAD_MAX (256 * 1024)
/* Of the kernel's send buffer for a peer on this machine. */
#define LOCAL_SEND_BUFFER (256 * 1024)

static const bolide_stream_ops stream_ops;

static void settle(bolide_conn *c);

/* --- closing ---------------------------------------------------------------------------------- */

static void tell_gone(bolide_conn *c) {
    if (c->request != NULL) {
        c->http->ops->on_gone(c);
    }
}

void bolide_conn_close(bolide_conn *c) {
    if (bolide_conn_is_open(c)) {
        c->flags |= BOLIDE_CONN_CLOSING;
        bolide_stream_close_when_flushed(&c->stream);
    }
}

void bolide_conn_abort(bolide_conn *c) {
    c->flags |= BOLIDE_CONN_CLOSING;
    bolide_stream_close(&c->stream);
    tell_gone(c);
}

/* It is an HTTP connection again, if only to be closed. */
static void leave_protocol(bolide_conn *c) {
    if ((c->flags & BOLIDE_CONN_UPGRADED) != 0) {
        c->flags &= ~(unsigned)BOLIDE_CONN_UPGRADED;
        memset(c->upgraded, 0, sizeof(c->upgraded));
    }
}

/* Send a FIN and read on for a while. A close with unread bytes would make the kernel send a reset, which may overtake
 * the answer. */
void bolide_conn_linger(bolide_conn *c) {
    leave_protocol(c);
    c->stream.ops = &stream_ops;
    if ((c->flags & BOLIDE_CONN_EOF) != 0) {
        bolide_conn_close(c);
        return;
    }
    c->flags |= BOLIDE_CONN_LINGERING;
    c->since_ms = 0;
    c->discarded = 0;
    bolide_stream_shutdown(&c->stream);
    if (bolide_stream_read_start(&c->stream) != 0) {
        bolide_conn_abort(c);
    }
}

static void refuse(bolide_conn *c, int status) {
    bool head = c->exchange != NULL && (c->flags & BOLIDE_CONN_HEAD) != 0 && c->exchange->parser.method == HTTP_HEAD;
    bool answer = (c->flags & BOLIDE_CONN_RESPONSE) == 0 && c->http->ops->on_refused(c, status);
    tell_gone(c);
    if (!bolide_conn_is_open(c)) {
        return;
    }
    if (!answer) {
        bolide_conn_close(c);
        return;
    }
    const char *text = status == 400 ? "Invalid HTTP request received." : bolide_reason(status);
    if (bolide_response_simple(&c->stream, &c->http->defaults, status, head, text) != 0) {
        PyErr_Clear();
        bolide_conn_abort(c);
        return;
    }
    bolide_conn_linger(c);
}

/* A Python exception is set that no application code caused: there is no memory. */
static void fail(bolide_conn *c) {
    bolide_loop_report(bolide_stream_loop(&c->stream), "HTTP connection failed", NULL, NULL);
    bolide_conn_abort(c);
}

void bolide_conn_expire(bolide_conn *c) {
    const unsigned state = BOLIDE_CONN_HEAD | BOLIDE_CONN_RESPONSE | BOLIDE_CONN_LINGERING;
    if (bolide_conn_has_split(c) || (c->flags & state) == BOLIDE_CONN_HEAD) {
        refuse(c, 408);
    } else if ((c->flags & BOLIDE_CONN_LINGERING) != 0) {
        bolide_conn_abort(c);
    } else {
        bolide_conn_close(c);
    }
}

/* --- the exchange ----------------------------------------------------------------------------- */

/* Neither closing, nor waiting for a response, nor for the peer to read the responses it has asked for. */
static bool can_parse(const bolide_conn *c) {
    const unsigned done = BOLIDE_CONN_MESSAGE | BOLIDE_CONN_RESPONSE;
    return (c->flags & (BOLIDE_CONN_CLOSING | BOLIDE_CONN_LINGERING)) == 0 &&
           (c->flags & done) != BOLIDE_CONN_MESSAGE && !(bolide_conn_is_idle(c) && bolide_stream_is_full(&c->stream));
}

void bolide_conn_set_reading(bolide_conn *c, bool wanted) {
    bool reading = (c->stream.flags & BOLIDE_STREAM_READING) != 0;
    if (wanted && !reading) {
        if (bolide_stream_read_start(&c->stream) != 0) {
            bolide_conn_abort(c);
        }
    } else if (!wanted && reading) {
        bolide_stream_read_stop(&c->stream);
    }
}

/* Read, or do not, as the state asks for. */
static void update_reading(bolide_conn *c) {
    const unsigned others = BOLIDE_CONN_BODY_PAUSED | BOLIDE_CONN_EOF | BOLIDE_CONN_CLOSING;
    bolide_conn_set_reading(c, (c->flags & others) == 0 && bolide_conn_held(c) <= HELD_MAX);
}

void bolide_conn_hold(bolide_conn *c, const char *data, size_t len) {
    size_t before = bolide_conn_held(c);
    bolide_held *held = realloc(c->held, sizeof(*held) + before + len);
    if (held == NULL) {
        bolide_conn_abort(c);
        return;
    }
    memcpy(held->data + before, data, len);
    held->len = before + len;
    c->held = held;
}

/* Request and response are complete. */
static void end_exchange(bolide_conn *c) {
    c->flags &= ~(unsigned)(BOLIDE_CONN_HEAD | BOLIDE_CONN_STARTED | BOLIDE_CONN_MESSAGE | BOLIDE_CONN_RESPONSE |
                            BOLIDE_CONN_KEEP_ALIVE | BOLIDE_CONN_EXPECT | BOLIDE_CONN_BODY_PAUSED | BOLIDE_CONN_HTTP10 |
                            BOLIDE_CONN_OTHER_METHOD);
    c->flags |= BOLIDE_CONN_SERVED;
    c->since_ms = 0;
    c->discarded = 0;
    bolide_exchange_release(c);
    /* Also when the server is closing: the response began before and did not say so, thus the next request may be on
     * its way, and is answered with "connection: close". The sweep closes the connection if none comes. */
}

void bolide_conn_start(bolide_conn *c) {
    bolide_loop *loop = bolide_stream_loop(&c->stream);
    bolide_loop_begin_step(loop); /* may close it */
    const unsigned state = BOLIDE_CONN_HEAD | BOLIDE_CONN_STARTED;
    if (bolide_conn_is_open(c) && (c->flags & state) == BOLIDE_CONN_HEAD && c->request != NULL) {
        c->flags |= BOLIDE_CONN_STARTED;
        c->http->ops->on_start(c);
        bolide_loop_end_step(loop);
    }
}

/* Bytes were parsed: tell the owner what that brought. */
static void advance(bolide_conn *c) {
    if ((c->flags & BOLIDE_CONN_HEAD) == 0) {
        return;
    }
    if ((c->flags & BOLIDE_CONN_STARTED) == 0) {
        bolide_conn_start(c);
    } else if ((c->flags & BOLIDE_CONN_RESPONSE) == 0 && c->request != NULL) {
        c->http->ops->on_progress(c);
    }
    const unsigned done = BOLIDE_CONN_MESSAGE | BOLIDE_CONN_RESPONSE;
    if ((c->flags & done) == done && bolide_conn_is_open(c)) {
        end_exchange(c);
    }
}

/* Is a request complete that was not started? */
static bool is_ready(const bolide_conn *c) {
    const unsigned state = BOLIDE_CONN_HEAD | BOLIDE_CONN_STARTED | BOLIDE_CONN_MESSAGE;
    return (c->flags & state) == (BOLIDE_CONN_HEAD | BOLIDE_CONN_MESSAGE);
}

/* Parse as much as the state of the exchange allows and keep the rest. */
static void parse(bolide_conn *c, const char *data, size_t len) {
    c->flags |= BOLIDE_CONN_PARSING;
    while (len > 0 && can_parse(c)) {
        ptrdiff_t used = bolide_parser_feed(c, data, len);
        if (used < 0) {
            if (used == -1) {
                fail(c);
            } else {
                refuse(c, (int)-used);
            }
            break;
        }
        data += used;
        len -= (size_t)used;
        if (len == 0 && is_ready(c) && bolide_batch_start_later(c)) {
            break;
        }
        advance(c);
    }
    c->flags &= ~(unsigned)BOLIDE_CONN_PARSING;
    if (len > 0 && (c->flags & (BOLIDE_CONN_CLOSING | BOLIDE_CONN_LINGERING)) == 0) {
        bolide_conn_hold(c, data, len);
        if ((c->flags & BOLIDE_CONN_UPGRADED) != 0) {
            bolide_http_resume_soon(c);
        }
    }
    settle(c);
}

/* After the state has changed: nothing more to come from a peer who sent a FIN? Reading as it should be? */
static void settle(bolide_conn *c) {
    if ((c->flags & BOLIDE_CONN_UPGRADED) != 0) {
        return;
    }
    if ((c->flags & BOLIDE_CONN_EOF) != 0 && bolide_conn_is_idle(c) && c->held == NULL) {
        bolide_conn_close(c);
    } else if ((c->flags & BOLIDE_CONN_LINGERING) == 0) {
        update_reading(c);
    }
}

void bolide_conn_resume(bolide_conn *c) {
    bool upgraded = bolide_conn_is_upgraded(c);
    if (c->held == NULL || (!upgraded && !can_parse(c))) {
        return;
    }
    bolide_held *held = c->held;
    c->held = NULL;
    if (upgraded) {
        c->stream.ops->on_read(&c->stream, held->data, held->len);
    } else {
        parse(c, held->data, held->len);
    }
    free(held);
}

bool bolide_conn_may_keep_alive(const bolide_conn *c) {
    if ((c->flags & BOLIDE_CONN_KEEP_ALIVE) == 0 || c->http->closing || c->http->keep_alive_ms == 0) {
        return false;
    }
    if ((c->flags & BOLIDE_CONN_MESSAGE) != 0) {
        return true;
    }
    /* A peer that waits for 100 Continue may send the body or not: what follows would have two interpretations. */
    const llhttp_t *parser = &c->exchange->parser;
    bool too_much = (parser->flags & F_CONTENT_LENGTH) != 0 && parser->content_length > UNREAD_MAX;
    return (c->flags & (BOLIDE_CONN_EXPECT | BOLIDE_CONN_EOF)) == 0 && !too_much;
}

void bolide_conn_finish(bolide_conn *c, bool keep_alive) {
    c->flags |= BOLIDE_CONN_RESPONSE;
    c->flags &= ~(unsigned)BOLIDE_CONN_BODY_PAUSED;
    c->http->total_requests++;
    if (!bolide_conn_is_open(c)) {
        return;
    }
    bool message = (c->flags & BOLIDE_CONN_MESSAGE) != 0;
    if (!keep_alive) {
        if (message) {
            bolide_conn_close(c);
        } else {
            bolide_conn_linger(c);
        }
    } else if ((c->flags & BOLIDE_CONN_PARSING) == 0) {
        c->since_ms = 0;
        if (message) {
            end_exchange(c);
            if (c->held != NULL) {
                bolide_http_resume_soon(c);
            }
        }
        settle(c);
    }
}

void bolide_conn_upgrade(bolide_conn *c, const bolide_stream_ops *ops) {
    PyObject *client = c->client, *server = c->server, *tls = c->tls;
    bolide_exchange_release(c);
    memset(c->upgraded, 0, sizeof(c->upgraded));
    c->flags |= BOLIDE_CONN_UPGRADED;
    c->since_ms = 0;
    c->stream.ops = ops;
    if (c->held != NULL) {
        bolide_http_resume_soon(c);
    }
    Py_XDECREF(client); /* there will be no more scopes */
    Py_XDECREF(server);
    Py_XDECREF(tls);
}

void bolide_conn_continue(bolide_conn *c) {
    if ((c->flags & BOLIDE_CONN_EXPECT) != 0) {
        static const char answer[] = "HTTP/1.1 100 Continue\r\n\r\n";
        c->flags &= ~(unsigned)BOLIDE_CONN_EXPECT;
        if (bolide_stream_write(&c->stream, answer, sizeof(answer) - 1) != 0) {
            PyErr_Clear();
            bolide_conn_abort(c);
        }
    }
}

void bolide_conn_expect_output(bolide_conn *c, size_t len) {
    const unsigned state = BOLIDE_CONN_LOCAL | BOLIDE_CONN_BOUNDED;
    if (len > LOCAL_SEND_BUFFER && (c->flags & state) == BOLIDE_CONN_LOCAL) {
        int size = LOCAL_SEND_BUFFER;
        c->flags |= BOLIDE_CONN_BOUNDED;
        (void)setsockopt(bolide_stream_fileno(&c->stream), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
}

void bolide_conn_note_output(bolide_conn *c) {
    c->unsent = 0;
    c->stalled_ms = 0;
}

void bolide_conn_pause_body(bolide_conn *c) {
    if ((c->flags & (BOLIDE_CONN_MESSAGE | BOLIDE_CONN_RESPONSE)) == 0) {
        c->flags |= BOLIDE_CONN_BODY_PAUSED;
        update_reading(c);
    }
}

void bolide_conn_resume_body(bolide_conn *c) {
    if ((c->flags & BOLIDE_CONN_BODY_PAUSED) != 0) {
        c->flags &= ~(unsigned)BOLIDE_CONN_BODY_PAUSED;
        update_reading(c);
    }
}

/* --- the stream's events ---------------------------------------------------------------------- */

void bolide_conn_input(bolide_conn *c, const char *data, size_t len) {
    if (bolide_conn_is_upgraded(c)) {
        bolide_conn_hold(c, data, len); /* upgraded while the bytes waited */
        bolide_http_resume_soon(c);
    } else if ((c->flags & BOLIDE_CONN_LINGERING) != 0) {
        c->discarded += (uint32_t)len;
        if (c->discarded > LINGER_BYTES) {
            bolide_conn_abort(c);
        }
    } else if ((c->flags & BOLIDE_CONN_CLOSING) != 0) {
        return;
    } else if (c->held != NULL || !can_parse(c)) {
        bolide_conn_hold(c, data, len);
        update_reading(c);
    } else {
        parse(c, data, len);
    }
}

/* Take in what cannot wait behind bytes of the same connection that do. What these bring about may use the buffer in
 * which `data` stands. */
static void input_in_turn(bolide_conn *c, const char *data, size_t len) {
    char *copy = PyMem_RawMalloc(len);
    if (copy == NULL) {
        bolide_conn_abort(c);
        return;
    }
    memcpy(copy, data, len);
    bolide_batch_run(c->http);
    bolide_conn_input(c, copy, len);
    PyMem_RawFree(copy);
}

static void on_read(bolide_stream *s, char *data, size_t len) {
    bolide_conn *c = bolide_conn_of_stream(s);
    if (s->tls == NULL && can_parse(c) && bolide_batch_add(c, data, len)) {
        return;
    }
    if ((c->flags & BOLIDE_CONN_QUEUED) != 0) {
        input_in_turn(c, data, len);
    } else {
        bolide_conn_input(c, data, len);
    }
}

static void on_eof(bolide_stream *s) {
    bolide_conn *c = bolide_conn_of_stream(s);
    if ((c->flags & BOLIDE_CONN_QUEUED) != 0) {
        bolide_batch_run(c->http);
        if (s->ops != &stream_ops) {
            s->ops->on_eof(s);
            return;
        }
    }
    c->flags |= BOLIDE_CONN_EOF;
    if ((c->flags & BOLIDE_CONN_LINGERING) != 0) {
        bolide_conn_close(c);
        return;
    }
    if (bolide_conn_is_idle(c)) {
        settle(c);
    } else if ((c->flags & BOLIDE_CONN_RESPONSE) != 0) {
        bolide_conn_close(c); /* in the middle of a body that nobody wants */
    } else if (c->request != NULL) {
        c->http->ops->on_progress(c);
    }
}

void bolide_conn_on_error(bolide_stream *s, int status) {
    (void)status;
    bolide_conn_abort(bolide_conn_of_stream(s));
}

static void on_drain(bolide_stream *s) {
    bolide_conn *c = bolide_conn_of_stream(s);
    bolide_conn_note_output(c);
    if (c->request != NULL) {
        c->http->ops->on_drain(c);
    }
    if (c->held != NULL) {
        bolide_http_resume_soon(c);
    }
}

void bolide_conn_on_close(bolide_stream *s) {
    bolide_conn *c = bolide_conn_of_stream(s);
    bolide_http *http = c->http;
    PyObject *owner = http->owner;
    c->flags |= BOLIDE_CONN_CLOSING;
    tell_gone(c);
    bolide_http_remove(c);
    leave_protocol(c);
    bolide_exchange_release(c);
    free(c->held);
    Py_CLEAR(c->client);
    Py_CLEAR(c->server);
    Py_CLEAR(c->tls);
    free(c);
    http->ops->on_count(http);
    Py_DECREF(owner);
}

static const bolide_stream_ops stream_ops = {
    .on_read = on_read,
    .on_eof = on_eof,
    .on_error = bolide_conn_on_error,
    .on_drain = on_drain,
    .on_close = bolide_conn_on_close,
};

/* --- for the loop ----------------------------------------------------------------------------- */

int bolide_conn_traverse(bolide_conn *c, visitproc visit, void *arg) {
    Py_VISIT(c->http->owner);
    if ((c->flags & BOLIDE_CONN_UPGRADED) == 0) {
        Py_VISIT(c->tls);
    }
    int stopped = bolide_stream_traverse(&c->stream, visit, arg);
    if (stopped) {
        return stopped;
    }
    return c->request != NULL ? c->http->ops->traverse(c, visit, arg) : 0;
}

void bolide_conn_shut(bolide_conn *c) {
    c->flags |= BOLIDE_CONN_CLOSING;
    bolide_stream_close(&c->stream);
}

/* Timeouts are the business of the sweep, which counts the handshake as a part of the first request's head. */
static int start_tls(bolide_conn *c, PyObject *tls) {
    bolide_tls_options options = {.context = tls, .server_side = true};
    if (bolide_stream_start_tls(&c->stream, &options) < 0) {
        bolide_loop_report(bolide_stream_loop(&c->stream), "TLS could not be started for an incoming connection", NULL,
                           NULL);
        return -1;
    }
    return 0;
}

void bolide_conn_open(bolide_http *http, int fd, bool pipe, PyObject *tls) {
    bolide_conn *c = calloc(1, sizeof(*c));
    if (c == NULL || bolide_stream_setup(&c->stream, http->loop, &stream_ops) != 0) {
        free(c);
        close(fd);
        return;
    }
    c->stream.flags |= BOLIDE_STREAM_PATIENT; /* many small writes of one body cost more than a few large ones */
    c->http = http;
    c->flags = pipe ? BOLIDE_CONN_UNIX : 0;
    Py_INCREF(http->owner);
    bolide_http_add(c);
    if (bolide_stream_open(&c->stream, fd) != 0) {
        close(fd);
        bolide_conn_abort(c);
    } else if ((tls != NULL && start_tls(c, tls) < 0) || bolide_stream_read_start(&c->stream) != 0) {
        bolide_conn_abort(c);
    }
}
