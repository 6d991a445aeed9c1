/* The records of a TLS stream: those that come are decrypted for the owner, its output is encrypted into others. */
#include <string.h>

#include "transport/tls_filter.h"
#include "transport/tls_ssl.h"

#define CIPHER_MAX    (BOLIDE_TLS_RECORD + 2048) /* and ciphertext, by the most generous version of the protocol */
#define DIRECT_MIN    4096                       /* shorter output is gathered into one record */
#define ENCRYPT_ROUND (64 * 1024)                /* ciphertext that is made before the socket is asked to take it */

/* Where plaintext goes. */
typedef struct {
    char *base; /* NULL: not known yet */
    size_t room, used;
    size_t expected; /* no more than this will come; 0: not known */
    bool shared;     /* it is shared->in */
} sink;

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
            bolide_tls_finish_unwrap(tls);
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
            bolide_tls_fail(tls);
        }
    }
}

static void advance(bolide_tls *tls, sink *to) {
    if (!(tls->flags & TLS_SECURE)) {
        bolide_tls_handshake(tls);
    }
    if (tls->records == 0 || tls->stream == NULL || (tls->flags & TLS_FAILED) || !(tls->flags & TLS_SECURE)) {
        return;
    }
    if (tls->stream->flags & BOLIDE_STREAM_UNWRAPPING) {
        bolide_tls_drop_input(tls);
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
    if (waiting < 0 || (waiting > 0 && bolide_tls_drain(tls) < 0)) {
        bolide_tls_fail(tls);
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
            bolide_tls_fail(tls);
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

void bolide_tls_deliver_kept(bolide_tls *tls) {
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
        bolide_tls_fail_because(tls, PyExc_ConnectionResetError, NULL);
    } else if (s->flags & BOLIDE_STREAM_UNWRAPPING) {
        tls->flags |= TLS_EOF;
        bolide_stream_list(s);
        bolide_tls_finish_unwrap(tls);
    } else {
        bolide_tls_deliver_kept(tls);
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
        bolide_tls_fail(tls);
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
        Py_ssize_t len = taken >= 0 ? bolide_tls_drain(tls) : -1;
        if (len < 0) {
            return -1;
        }
        made += len;
    }
    if (tls->stream != NULL && must_notify(tls)) {
        Py_ssize_t len = bolide_tls_notify(tls) == 0 ? bolide_tls_drain(tls) : -1;
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
        bolide_tls_fail(tls);
        made = 0;
    } else {
        bolide_tls_finish_unwrap(tls);
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
