#include "transport/tls.h"

#include <string.h>

#include "transport/tls_ssl.h"

#define CIPHER_MAX    (BOLIDE_TLS_RECORD + 2048) /* and ciphertext, by the most generous version of the protocol */
#define DIRECT_MIN    4096                       /* shorter output is gathered into one record */
#define ENCRYPT_ROUND (64 * 1024)                /* ciphertext that is made before the socket is asked to take it */

enum {
    TLS_SECURE = 1,      /* the handshake is complete */
    TLS_PEER_CLOSED = 2, /* the peer's close_notify was read */
    TLS_EOF = 4,         /* the peer's FIN was read */
    TLS_NOTIFIED = 8,    /* our close_notify is made */
    TLS_FAILED = 16,     /* the owner was told of an error */
    TLS_UNFRAMED = 32,   /* the input does not consist of TLS records: `records` is but a flag */
    TLS_BUSY = 64,       /* input is being processed further up on the C stack */
    TLS_HELD = 128,      /* bolide_tls_hold() */
    TLS_RESUMING = 256,  /* a call is scheduled that delivers what was kept */
    TLS_UNWRAPPED = 512, /* on_unwrapped was called */
    TLS_WRITING = 1024,  /* output is being encrypted further up on the C stack, or by another thread */
};

/* Where plaintext goes. */
typedef struct {
    char *base; /* NULL: not known yet */
    size_t room, used;
    size_t expected; /* no more than this will come; 0: not known */
    bool shared;     /* it is shared->in */
} sink;

/* Queue the ciphertext that was made for the socket: its length, or -1 with an exception set. */
static Py_ssize_t drain(bolide_tls *tls) {
    PyObject *bytes = PyObject_CallMethodNoArgs(tls->outgoing, tls->st->str_read);
    if (bytes == NULL) {
        return -1;
    }
    Py_ssize_t len = PyBytes_GET_SIZE(bytes);
    bolide_stream *s = tls->stream;
    if (len > 0 && s != NULL) {
        bool locked = (s->flags & BOLIDE_STREAM_IN_FLIGHT) != 0;
        if (bolide_out_write_object(s->loop, &s->out, locked, bytes) < 0) {
            len = -1;
        } else {
            s->pending += (size_t)len;
        }
    }
    Py_DECREF(bytes);
    return len;
}

/* --- failing ---------------------------------------------------------------------------------- */

static void cancel_timer(bolide_tls *tls) {
    PyObject *timer = tls->timer;
    tls->timer = NULL;
    if (timer != NULL) {
        bolide_loop_cancel(timer);
        Py_DECREF(timer);
    }
}

/* Tell the peer, by the alert that OpenSSL has made if any, and the owner. Steals `exception`. */
static void fail_with(bolide_tls *tls, PyObject *exception) {
    bolide_stream *s = tls->stream;
    if (s == NULL || (tls->flags & TLS_FAILED)) {
        Py_XDECREF(exception);
        return;
    }
    tls->flags |= TLS_FAILED;
    cancel_timer(tls);
    s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
    bolide_stream_poll_stop(s);
    if (!(s->flags & BOLIDE_STREAM_BROKEN)) {
        s->flags |= BOLIDE_STREAM_BROKEN; /* an error of the alert's sending is not the one to report */
        if (drain(tls) < 0) {
            PyErr_Clear();
        }
        bolide_stream_send(s);
    }
    if (s->flags & BOLIDE_STREAM_CLOSE_AFTER) {
        bolide_stream_close(s);
    } else if (s->ops->on_tls_error != NULL && exception != NULL) {
        s->ops->on_tls_error(s, exception);
    } else {
        s->ops->on_error(s, UV_EPROTO);
    }
    Py_XDECREF(exception);
}

/* The same with the exception that is set. */
static void fail(bolide_tls *tls) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(traceback);
    Py_XDECREF(type);
    fail_with(tls, value);
}

/* The same with one of a class and, unless NULL, a message. */
static void fail_because(bolide_tls *tls, PyObject *class, PyObject *message) {
    PyObject *exception = PyObject_CallFunctionObjArgs(class, message, NULL);
    if (exception != NULL) {
        fail_with(tls, exception);
    } else {
        fail(tls);
    }
}

/* Call the filter itself with one argument, True, after `seconds`. NULL: never. */
static void arm_timer(bolide_tls *tls, PyObject *seconds) {
    cancel_timer(tls);
    if (seconds == NULL) {
        return;
    }
    double delay = PyFloat_AsDouble(seconds);
    if (delay == -1 && PyErr_Occurred()) {
        fail(tls);
        return;
    }
    PyObject *argv[1] = {Py_True};
    if (tls->stream == NULL) {
        return; /* closed by that conversion */
    }
    tls->timer = bolide_loop_call_later(tls->stream->loop, delay, (PyObject *)tls, argv, 1, NULL);
    if (tls->timer == NULL) {
        fail(tls);
    }
}

static void on_timeout(bolide_tls *tls) {
    if (tls->stream == NULL || tls->timer == NULL) {
        return;
    }
    cancel_timer(tls);
    bool secure = (tls->flags & TLS_SECURE) != 0;
    PyObject *message =
        secure ? PyUnicode_FromString("SSL shutdown timed out")
               : PyUnicode_FromFormat("SSL handshake is taking longer than %S seconds: aborting the connection",
                                      tls->handshake_timeout);
    if (message == NULL) {
        fail(tls);
        return;
    }
    fail_because(tls, secure ? PyExc_TimeoutError : PyExc_ConnectionAbortedError, message);
    Py_DECREF(message);
}

/* --- the handshake ---------------------------------------------------------------------------- */

static void become_secure(bolide_tls *tls) {
    bolide_stream *s = tls->stream;
    tls->flags |= TLS_SECURE;
    cancel_timer(tls);
    Py_ssize_t left = bolide_ssl_pending(tls, tls->incoming);
    if (left < 0) {
        fail(tls);
        return;
    }
    if (left == 0) {
        tls->records = 0;
    }
    if (s->ops->on_secure != NULL) {
        s->ops->on_secure(s);
    }
    if (tls->stream == NULL || (tls->flags & TLS_FAILED)) {
        return;
    }
    if (!(s->flags & (BOLIDE_STREAM_READING | BOLIDE_STREAM_UNWRAPPING))) {
        bolide_stream_poll_stop(s);
    }
    bolide_stream_list(s); /* output that waited for this */
}

static void handshake(bolide_tls *tls) {
    PyObject *result = PyObject_CallMethodNoArgs(tls->object, tls->st->str_do_handshake);
    if (tls->stream == NULL) { /* a callback of the context has closed it */
        PyErr_Clear();
        Py_XDECREF(result);
        return;
    }
    bool again = result == NULL && bolide_ssl_wants_input(tls);
    if (result == NULL && !again) {
        fail(tls);
        return;
    }
    Py_XDECREF(result);
    Py_ssize_t made = drain(tls);
    if (made < 0) {
        fail(tls);
    } else if (again) {
        tls->records = 0;
        bolide_stream_list(tls->stream);
    } else {
        become_secure(tls);
    }
}

/* --- shutdown --------------------------------------------------------------------------------- */

static bool peer_is_done(const bolide_tls *tls) {
    return (tls->flags & (TLS_PEER_CLOSED | TLS_EOF)) != 0;
}

static void finish_unwrap(bolide_tls *tls) {
    bolide_stream *s = tls->stream;
    if (s == NULL || (tls->flags & (TLS_FAILED | TLS_UNWRAPPED)) || !(tls->flags & TLS_NOTIFIED)) {
        return;
    }
    if ((s->flags & BOLIDE_STREAM_UNWRAPPING) && peer_is_done(tls)) {
        tls->flags |= TLS_UNWRAPPED;
        cancel_timer(tls);
        bolide_stream_poll_stop(s);
        s->ops->on_unwrapped(s);
    }
}

/* OpenSSL complains when there is data before the peer's close_notify. It is dropped. */
static bool is_late_data(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *reason = value != NULL ? PyObject_GetAttrString(value, "reason") : NULL;
    bool late = reason != NULL && PyUnicode_Check(reason) &&
                PyUnicode_CompareWithASCIIString(reason, "APPLICATION_DATA_AFTER_CLOSE_NOTIFY") == 0;
    Py_XDECREF(reason);
    PyErr_Clear();
    if (late) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    } else {
        PyErr_Restore(type, value, traceback);
    }
    return late;
}

/* Make our close_notify. -1 with an exception set; 0. */
static int notify(bolide_tls *tls) {
    tls->flags |= TLS_NOTIFIED;
    if (tls->flags & TLS_EOF) {
        return 0; /* asyncio does not either: the peer may be gone altogether */
    }
    PyObject *result = PyObject_CallMethodNoArgs(tls->object, tls->st->str_unwrap);
    if (result != NULL) {
        tls->flags |= TLS_PEER_CLOSED;
        Py_DECREF(result);
    } else if (!bolide_ssl_wants_input(tls) && !is_late_data()) {
        return -1;
    }
    return 0;
}

static void drop_input(bolide_tls *tls) {
    while (tls->records > 0 && tls->stream != NULL && !(tls->flags & (TLS_PEER_CLOSED | TLS_FAILED))) {
        Py_ssize_t len = bolide_ssl_read(tls, tls->stream->loop->tls->in, BOLIDE_READ_BUF);
        if (len > 0) {
            continue; /* the last one ends with SSLWantReadError */
        }
        tls->records = 0;
        if (len == 0) {
            tls->flags |= TLS_PEER_CLOSED;
        } else if (!bolide_ssl_wants_input(tls)) {
            fail(tls);
            return;
        }
    }
    finish_unwrap(tls);
}

void bolide_stream_unwrap(bolide_stream *s) {
    bolide_tls *tls = s->tls;
    if (tls == NULL || !(s->flags & BOLIDE_STREAM_OPEN) || (s->flags & BOLIDE_STREAM_UNWRAPPING)) {
        return;
    }
    s->flags |= BOLIDE_STREAM_UNWRAPPING;
    s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
    bolide_stream_list(s);
    arm_timer(tls, tls->shutdown_timeout);
    if (tls->stream != NULL && !peer_is_done(tls) && !(tls->flags & TLS_FAILED)) {
        int status = bolide_stream_poll_start(s);
        if (status < 0) {
            bolide_stream_fail(s, status);
        }
    }
}

bool bolide_tls_has_notified(const bolide_tls *tls) {
    return (tls->flags & TLS_NOTIFIED) != 0;
}

/* --- input ------------------------------------------------------------------------------------ */

/* The bytes at `data` up to the end of the record that is coming in, which is counted when it is complete. */
static size_t next_record(bolide_tls *tls, const char *data, size_t len) {
    size_t used = 0;
    if (!(tls->flags & TLS_UNFRAMED)) {
        while (tls->header_len < sizeof(tls->header) && used < len) {
            tls->header[tls->header_len++] = (unsigned char)data[used++];
            if (tls->header_len == sizeof(tls->header)) {
                const unsigned char *h = tls->header;
                tls->body_left = (uint32_t)h[3] << 8 | h[4];
                if (h[0] < 20 || h[0] > 24 || h[1] != 3 || tls->body_left > CIPHER_MAX) {
                    tls->flags |= TLS_UNFRAMED; /* an SSLv2 hello, or an error: OpenSSL decides */
                }
            }
        }
    }
    if (tls->flags & TLS_UNFRAMED) {
        tls->records = 1;
        return len < BOLIDE_TLS_RECORD ? len : BOLIDE_TLS_RECORD;
    }
    size_t part = len - used < tls->body_left ? len - used : tls->body_left;
    tls->body_left -= (uint32_t)part;
    if (tls->header_len == sizeof(tls->header) && tls->body_left == 0) {
        tls->header_len = 0;
        tls->records++;
    }
    return used + part;
}

static bool owner_reads(const bolide_tls *tls) {
    return tls->stream != NULL && (tls->stream->flags & BOLIDE_STREAM_READING) && !(tls->flags & TLS_FAILED);
}

static void deliver(bolide_tls *tls, sink *to) {
    bolide_stream *s = tls->stream;
    if (to->used > 0 && s != NULL) {
        s->ops->on_read(s, to->base, to->used);
    } else if (to->base != NULL && s != NULL && s->ops->on_unused != NULL) {
        s->ops->on_unused(s);
    }
    to->used = 0;
    to->base = NULL;
}

/* Find out where plaintext goes. false: nowhere. */
static bool open_sink(bolide_tls *tls, sink *to) {
    bolide_stream *s = tls->stream;
    char *shared = s->loop->tls->in;
    bool known = to->expected > 0 && to->expected < BOLIDE_READ_BUF;
    uv_buf_t buf = uv_buf_init(shared, known ? (unsigned)to->expected : BOLIDE_READ_BUF);
    if (s->ops->on_alloc != NULL) {
        s->ops->on_alloc(s, &buf);
    }
    to->base = buf.base;
    to->used = 0;
    to->shared = buf.base == shared;
    to->room = to->shared ? BOLIDE_READ_BUF : buf.len;
    return to->room > 0 && owner_reads(tls);
}

/* A record was read, or nothing: keep the count. */
static void count_record(bolide_tls *tls, Py_ssize_t len, size_t room) {
    if (len <= 0) {
        tls->records = 0;
    } else if ((size_t)len < room && tls->records > 0 && !(tls->flags & TLS_UNFRAMED)) {
        tls->records--; /* else there may be more of it */
    }
}

static void on_close_notify(bolide_tls *tls) {
    bolide_stream *s = tls->stream;
    tls->flags |= TLS_PEER_CLOSED;
    if (s != NULL && !(tls->flags & TLS_FAILED)) {
        if (s->flags & BOLIDE_STREAM_UNWRAPPING) {
            finish_unwrap(tls);
            return;
        }
        s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
        bolide_stream_poll_stop(s);
        s->ops->on_eof(s);
    }
}

/* Decrypt what there is into the sink, and deliver when that is full. */
static void decrypt(bolide_tls *tls, sink *to) {
    while (tls->records > 0 && owner_reads(tls) && !(tls->flags & TLS_PEER_CLOSED)) {
        if (to->base == NULL && !open_sink(tls, to)) {
            return;
        }
        size_t room = to->room - to->used;
        Py_ssize_t len = bolide_ssl_read(tls, to->base + to->used, room);
        count_record(tls, len, room);
        if (len > 0) {
            to->used += (size_t)len;
            if (to->room - to->used < (to->shared ? BOLIDE_TLS_RECORD : 1)) {
                deliver(tls, to);
            }
        } else if (len == 0) {
            deliver(tls, to);
            on_close_notify(tls);
        } else if (!bolide_ssl_wants_input(tls)) {
            PyObject *type, *value, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            deliver(tls, to);
            PyErr_Restore(type, value, traceback);
            fail(tls);
        }
    }
}

static void advance(bolide_tls *tls, sink *to) {
    if (!(tls->flags & TLS_SECURE)) {
        handshake(tls);
    }
    if (tls->records == 0 || tls->stream == NULL || (tls->flags & TLS_FAILED) || !(tls->flags & TLS_SECURE)) {
        return;
    }
    if (tls->stream->flags & BOLIDE_STREAM_UNWRAPPING) {
        drop_input(tls);
    } else {
        decrypt(tls, to);
    }
}

/* After input: what reading has made for the peer, e.g. an answer to a key update, and a write that waited for input.
 */
static void after_input(bolide_tls *tls) {
    bolide_stream *s = tls->stream;
    if (s == NULL || (tls->flags & TLS_FAILED)) {
        return;
    }
    Py_ssize_t waiting = bolide_ssl_pending(tls, tls->outgoing);
    if (waiting < 0 || (waiting > 0 && drain(tls) < 0)) {
        fail(tls);
    } else if (s->pending > 0) {
        bolide_stream_list(s);
    }
}

void bolide_tls_input(bolide_stream *s, const char *data, size_t len) {
    bolide_tls *tls = (bolide_tls *)Py_NewRef(s->tls);
    sink to = {.expected = len + (tls->header_len > 0 ? BOLIDE_TLS_RECORD : 0)};
    tls->flags |= TLS_BUSY;
    while (len > 0 && tls->stream != NULL && !(tls->flags & TLS_FAILED)) {
        size_t part = next_record(tls, data, len);
        if (bolide_ssl_feed(tls, data, part) < 0) {
            fail(tls);
            break;
        }
        data += part;
        len -= part;
        if (tls->records > 0) {
            advance(tls, &to);
        }
    }
    deliver(tls, &to);
    tls->flags &= ~(unsigned)TLS_BUSY;
    after_input(tls);
    Py_DECREF(tls);
}

/* Deliver what was kept while the owner did not read. */
static void deliver_kept(bolide_tls *tls) {
    sink to = {0};
    if (tls->stream == NULL || (tls->flags & TLS_BUSY) || !(tls->flags & TLS_SECURE)) {
        return;
    }
    tls->flags |= TLS_BUSY;
    decrypt(tls, &to);
    deliver(tls, &to);
    tls->flags &= ~(unsigned)TLS_BUSY;
    after_input(tls);
}

void bolide_tls_eof(bolide_stream *s) {
    bolide_tls *tls = (bolide_tls *)Py_NewRef(s->tls);
    if (!(tls->flags & TLS_SECURE)) {
        tls->flags |= TLS_EOF;
        fail_because(tls, PyExc_ConnectionResetError, NULL);
    } else if (s->flags & BOLIDE_STREAM_UNWRAPPING) {
        tls->flags |= TLS_EOF;
        bolide_stream_list(s);
        finish_unwrap(tls);
    } else {
        deliver_kept(tls);
        tls->flags |= TLS_EOF;
        if (owner_reads(tls) && !(tls->flags & TLS_PEER_CLOSED)) {
            s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
            s->ops->on_eof(s);
        }
    }
    Py_DECREF(tls);
}

bool bolide_tls_may_pause(const bolide_tls *tls) {
    return (tls->flags & TLS_SECURE) && !(tls->stream->flags & BOLIDE_STREAM_UNWRAPPING);
}

void bolide_tls_resume(bolide_stream *s) {
    bolide_tls *tls = s->tls;
    if (tls->records == 0 || !(tls->flags & TLS_SECURE) || (tls->flags & (TLS_BUSY | TLS_RESUMING | TLS_FAILED))) {
        return;
    }
    tls->flags |= TLS_RESUMING;
    if (bolide_loop_schedule(s->loop, (PyObject *)tls, NULL, 0, NULL) < 0) {
        fail(tls);
    }
}

/* --- output ----------------------------------------------------------------------------------- */

/* Copy up to a record of the output in front, without taking it. */
static size_t gather(const bolide_tls *tls, char *to) {
    size_t used = 0;
    for (const bolide_outblock *block = tls->plain.first; block != NULL; block = block->next) {
        for (unsigned i = block->first; i < block->count; i++) {
            size_t len = block->bufs[i].len < BOLIDE_TLS_RECORD - used ? block->bufs[i].len : BOLIDE_TLS_RECORD - used;
            memcpy(to + used, block->bufs[i].base, len);
            used += len;
            if (used == BOLIDE_TLS_RECORD) {
                return used;
            }
        }
    }
    return used;
}

static void take(bolide_tls *tls, size_t len) {
    bolide_stream *s = tls->stream;
    s->pending -= len;
    while (tls->plain.first != NULL) {
        bolide_outblock *block = tls->plain.first;
        size_t pending = bolide_out_pending(block);
        if (len < pending) {
            bolide_out_consume(block, len);
            return;
        }
        len -= pending;
        bolide_out_pop(s->loop, &tls->plain);
    }
}

/* Encrypt one record's worth. Bytes taken; 0: not now; -1 with an exception set. */
static Py_ssize_t encrypt_record(bolide_tls *tls) {
    struct bolide_tls_shared *shared = tls->stream->loop->tls;
    bolide_outblock *block = tls->plain.first;
    PyObject *owner = block->first < block->count ? block->owners[block->first] : NULL;
    Py_ssize_t taken;
    if (owner != NULL && block->bufs[block->first].len >= DIRECT_MIN) {
        uv_buf_t *buf = &block->bufs[block->first];
        Py_INCREF(owner); /* what ssl calls back may close the stream and drop its output */
        taken = bolide_ssl_write(tls, buf->base, buf->len < BOLIDE_TLS_RECORD ? buf->len : BOLIDE_TLS_RECORD);
        Py_DECREF(owner);
    } else if (shared->out_busy) {
        return 0;
    } else {
        size_t len = gather(tls, shared->out);
        shared->out_busy = true;
        taken = bolide_ssl_write(tls, shared->out, len);
        shared->out_busy = false;
    }
    if (taken < 0 && bolide_ssl_wants_input(tls)) {
        return 0;
    }
    if (taken > 0 && tls->stream != NULL) {
        take(tls, (size_t)taken);
    }
    return taken;
}

static bool must_notify(const bolide_tls *tls) {
    const unsigned ending = BOLIDE_STREAM_SHUTDOWN | BOLIDE_STREAM_CLOSE_AFTER | BOLIDE_STREAM_UNWRAPPING;
    return tls->plain.first == NULL && (tls->stream->flags & ending) && !(tls->flags & TLS_NOTIFIED);
}

/* Make ciphertext until there is enough for a round: its length, or -1 with an exception set. */
static Py_ssize_t make_round(bolide_tls *tls) {
    Py_ssize_t made = 0, taken = 1;
    while (tls->stream != NULL && tls->plain.first != NULL && made < ENCRYPT_ROUND && taken > 0) {
        taken = encrypt_record(tls);
        Py_ssize_t len = taken >= 0 ? drain(tls) : -1;
        if (len < 0) {
            return -1;
        }
        made += len;
    }
    if (tls->stream != NULL && must_notify(tls)) {
        Py_ssize_t len = notify(tls) == 0 ? drain(tls) : -1;
        if (len < 0) {
            return -1;
        }
        made += len;
    }
    return made;
}

size_t bolide_tls_encrypt(bolide_stream *s) {
    bolide_tls *tls = s->tls;
    if (!(tls->flags & TLS_SECURE) || (tls->flags & (TLS_HELD | TLS_FAILED | TLS_WRITING)) ||
        (tls->plain.first == NULL && !must_notify(tls))) {
        return 0;
    }
    Py_INCREF(tls);
    tls->flags |= TLS_WRITING;
    Py_ssize_t made = make_round(tls);
    tls->flags &= ~(unsigned)TLS_WRITING;
    if (made < 0) {
        fail(tls);
        made = 0;
    } else {
        finish_unwrap(tls);
    }
    Py_DECREF(tls);
    return (size_t)made;
}

void bolide_tls_hold(bolide_tls *tls, bool hold) {
    tls->flags = (tls->flags & ~(unsigned)TLS_HELD) | (hold ? TLS_HELD : 0);
    if (!hold && tls->stream != NULL) {
        bolide_stream_list(tls->stream);
    }
}

/* --- starting --------------------------------------------------------------------------------- */

static bolide_tls *tls_new(bolide_state *st, const bolide_tls_options *options) {
    bolide_tls *tls = PyObject_GC_New(bolide_tls, st->TLSType);
    if (tls == NULL) {
        return NULL;
    }
    memset((char *)tls + sizeof(PyObject), 0, sizeof(*tls) - sizeof(PyObject));
    tls->st = st;
    tls->context = Py_NewRef(options->context);
    tls->handshake_timeout = Py_XNewRef(options->handshake_timeout);
    tls->shutdown_timeout = Py_XNewRef(options->shutdown_timeout);
    tls->server_side = options->server_side;
    PyObject_GC_Track((PyObject *)tls);
    if (bolide_ssl_wrap(tls, options) < 0) {
        Py_DECREF(tls);
        return NULL;
    }
    return tls;
}

int bolide_stream_start_tls(bolide_stream *s, const bolide_tls_options *options) {
    if (!(s->flags & BOLIDE_STREAM_OPEN) || s->tls != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the stream is closed, or has TLS already");
        return -1;
    }
    bolide_tls *tls =
        bolide_ssl_load(s->loop->st) == 0 && bolide_ssl_shared(s->loop) != NULL ? tls_new(s->loop->st, options) : NULL;
    if (tls == NULL) {
        return -1;
    }
    if (!(s->flags & BOLIDE_STREAM_OPEN) || s->tls != NULL) { /* by the context's own code */
        PyErr_SetString(PyExc_RuntimeError, "the stream was closed");
        Py_DECREF(tls);
        return -1;
    }
    s->tls = tls;
    tls->stream = s;
    s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
    Py_INCREF(tls);
    arm_timer(tls, tls->handshake_timeout);
    int status = tls->stream != NULL ? bolide_stream_poll_start(s) : 0;
    if (status < 0) {
        bolide_stream_fail(s, status);
    } else if (!tls->server_side && tls->stream != NULL && !(tls->flags & TLS_FAILED)) {
        handshake(tls);
    }
    Py_DECREF(tls);
    return 0;
}

void bolide_tls_release(bolide_stream *s) {
    bolide_tls *tls = s->tls;
    if (tls != NULL) {
        s->tls = NULL;
        tls->stream = NULL;
        cancel_timer(tls);
        Py_DECREF(tls);
    }
}

bool bolide_tls_is_secure(const bolide_tls *tls) {
    return (tls->flags & TLS_SECURE) != 0;
}

/* --- the type --------------------------------------------------------------------------------- */

/* By the loop: filter(True) when time is up, filter() to deliver what was kept. */
static PyObject *tls_call(PyObject *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    bolide_tls *tls = (bolide_tls *)self;
    Py_INCREF(tls);
    if (PyTuple_GET_SIZE(args) > 0) {
        on_timeout(tls);
    } else {
        tls->flags &= ~(unsigned)TLS_RESUMING;
        deliver_kept(tls);
    }
    Py_DECREF(tls);
    Py_RETURN_NONE;
}

static int tls_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_tls *tls = (bolide_tls *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(tls->context);
    Py_VISIT(tls->object);
    Py_VISIT(tls->raw);
    Py_VISIT(tls->incoming);
    Py_VISIT(tls->outgoing);
    Py_VISIT(tls->timer);
    Py_VISIT(tls->handshake_timeout);
    Py_VISIT(tls->shutdown_timeout);
    return 0;
}

static int tls_clear(PyObject *self) {
    bolide_tls *tls = (bolide_tls *)self;
    if (tls->stream != NULL) {
        return 0; /* in use: it does not break while the stream is open */
    }
    Py_CLEAR(tls->context);
    Py_CLEAR(tls->object);
    Py_CLEAR(tls->raw);
    Py_CLEAR(tls->incoming);
    Py_CLEAR(tls->outgoing);
    Py_CLEAR(tls->timer);
    Py_CLEAR(tls->handshake_timeout);
    Py_CLEAR(tls->shutdown_timeout);
    return 0;
}

static void tls_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    tls_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *tls_pause_writing(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_tls_hold((bolide_tls *)self, true);
    Py_RETURN_NONE;
}

static PyObject *tls_resume_writing(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_tls_hold((bolide_tls *)self, false);
    Py_RETURN_NONE;
}

static PyMethodDef tls_methods[] = {
    {"pause_writing", tls_pause_writing, METH_NOARGS, PyDoc_STR("pause_writing()\n--\n\nEncrypt no output for now.")},
    {"resume_writing", tls_resume_writing, METH_NOARGS, PyDoc_STR("resume_writing()\n--\n\nEncrypt output again.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tls_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The TLS state of a stream.")},
    {Py_tp_call, tls_call},
    {Py_tp_traverse, tls_traverse},
    {Py_tp_clear, tls_clear},
    {Py_tp_dealloc, tls_dealloc},
    {Py_tp_methods, tls_methods},
    {0, NULL},
};

static PyType_Spec tls_spec = {
    .name = "bolide._core._TLS",
    .basicsize = sizeof(bolide_tls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = tls_slots,
};

int bolide_tls_init(PyObject *module, bolide_state *st) {
    if (bolide_ssl_init(module, st) < 0) {
        return -1;
    }
    return bolide_add_type(module, &tls_spec, NULL, &st->TLSType, false);
}
