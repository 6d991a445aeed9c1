/* The records of a TLS stream: those that come are decrypted for the owner, its output is encrypted into others. */
#include <string.h>

#include "transport/tls_filter.h"
#include "transport/tls_ssl.h"

#define CIPHER_MAX    (BOLIDE_TLS_RECORD + 2048) /* and ciphertext, by the most generous version of the protocol */
#define DIRECT_MIN    4096                       /* shorter output is gathered into one record */
#define ENCRYPT_ROUND (64 * 1024)                /* ciphertext that is made before the socket is asked to take it */
#define RECORD_HEADER 5
#define FEED_MAX      (66 * 1024) /* ciphertext in the BIO, unless one record is longer: four records */
#define WRITE_MAX     (64 * 1024) /* plaintext of one call: four records */
#define KEPT_MIN      64          /* bytes of memory for ciphertext that is kept */

/* Where plaintext goes. */
typedef struct {
    char *base; /* NULL: not known yet */
    size_t room, used;
} sink;

/* --- input ------------------------------------------------------------------------------------ */

/* The length of the record at `data`, with its header; 0: not known yet. An old client's first may be an SSLv2 hello.
 */
static size_t record_length(bolide_tls *tls, const char *data, size_t len) {
    if (!(tls->flags & TLS_UNFRAMED)) {
        if (len < RECORD_HEADER) {
            return 0;
        }
        const unsigned char *h = (const unsigned char *)data;
        size_t body = (size_t)h[3] << 8 | h[4];
        if (h[0] >= 20 && h[0] <= 24 && h[1] == 3 && body <= CIPHER_MAX) {
            return RECORD_HEADER + body;
        }
        if ((h[0] & 0x80) && h[2] == 1 && !(tls->flags & TLS_SECURE) && tls->server_side) {
            return 2 + ((size_t)(h[0] & 0x7f) << 8 | h[1]);
        }
        tls->flags |= TLS_UNFRAMED; /* an error: OpenSSL finds the words for it */
    }
    return len < BOLIDE_TLS_RECORD ? len : BOLIDE_TLS_RECORD;
}

/* How many bytes at `data` are complete records: one at least, if there is one, and more as long as all fit in `room`.
 * Their number is added to `count`. */
static size_t complete_records(bolide_tls *tls, const char *data, size_t len, size_t room, uint32_t *count) {
    size_t sum = 0;
    while (sum < len) {
        size_t next = record_length(tls, data + sum, len - sum);
        if (next == 0 || next > len - sum || (sum > 0 && sum + next > room)) {
            break;
        }
        sum += next;
        *count += 1;
    }
    return sum;
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

/* Find out where plaintext goes: `expected` bytes at most, 0: not known. false: nowhere. */
static bool open_sink(bolide_tls *tls, sink *to, size_t expected) {
    bolide_stream *s = tls->stream;
    char *shared = bolide_stream_loop(s)->tls->in;
    bool known = expected > 0 && expected < BOLIDE_READ_BUF;
    uv_buf_t buf = uv_buf_init(shared, known ? (unsigned)expected : BOLIDE_READ_BUF);
    if (s->ops->on_alloc != NULL) {
        s->ops->on_alloc(s, &buf);
    }
    to->base = buf.base;
    to->used = 0;
    to->room = buf.base == shared ? BOLIDE_READ_BUF : buf.len;
    /* An owner that stops reading in on_alloc() still gets what it has made room for. */
    return to->room > 0 && tls->stream != NULL && !(tls->flags & TLS_FAILED) && !(s->flags & BOLIDE_STREAM_UNWRAPPING);
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

/* Between begin and end: read what was fed into the sink, as far as that goes. What the last read said: > 0; 0: the
 * peer has closed; -1 with an exception set, or none. */
static Py_ssize_t read_records(bolide_tls *tls, sink *to) {
    Py_ssize_t len = 1;
    while (len > 0 && tls->records > 0 && to->used < to->room && tls->stream != NULL) {
        size_t room = to->room - to->used;
        len = bolide_ssl_read(tls, to->base + to->used, room);
        count_record(tls, len, room);
        to->used += len > 0 ? (size_t)len : 0;
    }
    if (len < 0) {
        (void)bolide_ssl_wants_input(tls);
    }
    return len;
}

/* Decrypt `len` bytes of ciphertext in `count` records, or what is left of a record that was read in part, and deliver
 * when the sink is full, or for the last time. The BIOs are empty before the owner is called. */
static void decrypt(bolide_tls *tls, struct bolide_tls_shared *shared, sink *to, const char *data, size_t len,
                    uint32_t count) {
    tls->records += count;
    Py_ssize_t got = len > 0 && bolide_ssl_feed(tls, data, len) < 0 ? -1 : read_records(tls, to);
    PyObject *type, *value, *traceback;
    bool failed = bolide_ssl_end(tls, shared) < 0 || PyErr_Occurred();
    PyErr_Fetch(&type, &value, &traceback);
    if (failed || got == 0 || to->used == to->room) {
        deliver(tls, to);
    }
    PyErr_Restore(type, value, traceback);
    if (failed) {
        bolide_tls_fail(tls);
    } else if (got == 0) {
        on_close_notify(tls);
    } else if (tls->flags & TLS_UNFRAMED) {
        PyErr_SetString(PyExc_ConnectionAbortedError, "what the peer has sent are no TLS records");
        bolide_tls_fail(tls);
    }
}

/* What one step has used of the input; ended: it can go no further now. */
typedef struct {
    size_t used;
    bool ended;
} step;

/* One record of a handshake, or one that nobody wants any more. */
static step advance_single(bolide_tls *tls, const char *data, size_t len) {
    uint32_t count = 0;
    size_t part = complete_records(tls, data, len, 0, &count);
    bool left = (tls->flags & TLS_SECURE) && tls->records > 0;
    struct bolide_tls_shared *shared = part > 0 || left ? bolide_ssl_begin(tls) : NULL;
    if (shared == NULL) {
        return (step){.ended = true};
    }
    if (part > 0 && bolide_ssl_feed(tls, data, part) < 0) {
        (void)bolide_ssl_end(tls, shared);
        bolide_tls_fail(tls);
    } else if (!(tls->flags & TLS_SECURE)) {
        bolide_tls_handshake(tls, shared);
    } else {
        bolide_tls_drop_input(tls, shared);
    }
    return (step){.used = part};
}

/* As many records as there is room for. */
static step advance_owner(bolide_tls *tls, sink *to, const char *data, size_t len) {
    const step end = {.ended = true};
    size_t part = 0, expected = 0;
    uint32_t count = 0;
    if (!owner_reads(tls) || bolide_stream_loop(tls->stream)->tls->busy) {
        return end;
    }
    if (tls->records == 0) {
        uint32_t all = 0;
        expected = complete_records(tls, data, len, BOLIDE_READ_BUF, &all);
        if (expected == 0) {
            return end;
        }
    }
    if (to->base == NULL && !open_sink(tls, to, expected)) {
        return end;
    }
    if (tls->records == 0) {
        size_t room = to->room - to->used;
        part = complete_records(tls, data, len, room < FEED_MAX ? room : FEED_MAX, &count);
        if (part > room && to->used > 0) {
            deliver(tls, to);
            return (step){0};
        }
    }
    struct bolide_tls_shared *shared = bolide_ssl_begin(tls);
    if (shared == NULL) {
        return end;
    }
    decrypt(tls, shared, to, data, part, count);
    return (step){.used = part};
}

/* Go through the ciphertext at `data`: how many bytes were used. */
static size_t process(bolide_tls *tls, sink *to, const char *data, size_t len) {
    size_t used = 0;
    step done = {0};
    while (!done.ended && tls->stream != NULL && !(tls->flags & (TLS_FAILED | TLS_PEER_CLOSED))) {
        bool single = !(tls->flags & TLS_SECURE) || (tls->stream->flags & BOLIDE_STREAM_UNWRAPPING);
        done = single ? advance_single(tls, data + used, len - used) : advance_owner(tls, to, data + used, len - used);
        used += done.used;
    }
    return used;
}

/* --- ciphertext that waits --------------------------------------------------------------------- */

/* Keep what came until there is more, or until the owner reads. 0, or -1 with MemoryError set. */
static int keep(bolide_tls *tls, const char *data, size_t len) {
    if (len > tls->kept_room - tls->kept_len) {
        size_t room = tls->kept_len + len < KEPT_MIN ? KEPT_MIN : tls->kept_len + len;
        char *memory = PyMem_RawRealloc(tls->kept, room);
        if (memory == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        tls->kept = memory;
        tls->kept_room = room;
    }
    memcpy(tls->kept + tls->kept_len, data, len);
    tls->kept_len += len;
    return 0;
}

void bolide_tls_forget(bolide_tls *tls) {
    PyMem_RawFree(tls->kept);
    tls->kept = NULL;
    tls->kept_len = tls->kept_room = 0;
}

/* How much is missing of the record in front of what is kept; 0: nothing. */
static size_t missing(bolide_tls *tls) {
    size_t whole = record_length(tls, tls->kept, tls->kept_len);
    if (whole == 0) {
        return RECORD_HEADER - tls->kept_len;
    }
    return whole > tls->kept_len ? whole - tls->kept_len : 0;
}

static void process_kept(bolide_tls *tls, sink *to) {
    char *data = tls->kept;
    size_t len = tls->kept_len, room = tls->kept_room;
    tls->kept = NULL; /* the callbacks of the owner may close the stream */
    tls->kept_len = tls->kept_room = 0;
    size_t used = process(tls, to, data != NULL ? data : "", len);
    if (used == len || tls->stream == NULL) {
        PyMem_RawFree(data);
        return;
    }
    memmove(data, data + used, len - used);
    tls->kept = data;
    tls->kept_len = len - used;
    tls->kept_room = room;
}

/* Go through what was kept and what has come now, and keep the rest. 0, or -1 with MemoryError set. */
static int process_all(bolide_tls *tls, sink *to, const char *data, size_t len) {
    size_t part;
    while (tls->kept_len > 0 && len > 0 && (part = missing(tls)) > 0) {
        part = part < len ? part : len;
        if (keep(tls, data, part) < 0) {
            return -1;
        }
        data += part;
        len -= part;
    }
    if (tls->kept_len > 0 || tls->records > 0) {
        process_kept(tls, to);
    }
    if (tls->kept_len == 0 && len > 0) {
        size_t used = process(tls, to, data, len);
        data += used;
        len -= used;
    }
    bool over = tls->stream == NULL || (tls->flags & (TLS_FAILED | TLS_PEER_CLOSED));
    return len > 0 && !over ? keep(tls, data, len) : 0;
}

/* After input: send what reading has made for the peer, e.g. an answer to a key update, and a write that waited for
 * input; and come back for what had to wait for another stream. */
static void after_input(bolide_tls *tls) {
    bolide_stream *s = tls->stream;
    if (s == NULL || (tls->flags & TLS_FAILED)) {
        return;
    }
    if (s->pending > 0) {
        bolide_stream_list(s);
    }
    if (bolide_ssl_is_taken(tls)) {
        bolide_tls_come_back(tls);
    }
}

void bolide_tls_input(bolide_stream *s, const char *data, size_t len) {
    bolide_tls *tls = (bolide_tls *)Py_NewRef(s->tls);
    sink to = {0};
    tls->flags |= TLS_BUSY;
    int status = process_all(tls, &to, data, len);
    deliver(tls, &to);
    tls->flags &= ~(unsigned)TLS_BUSY;
    if (status < 0) {
        bolide_tls_fail(tls);
    }
    after_input(tls);
    Py_DECREF(tls);
}

int bolide_tls_ahead(bolide_stream *s, const char *data, size_t len) {
    bolide_tls *tls = s->tls;
    if (keep(tls, data, len) < 0) {
        return -1;
    }
    bolide_tls_come_back(tls);
    return 0;
}

void bolide_tls_deliver_kept(bolide_tls *tls) {
    if (tls->stream != NULL && !(tls->flags & (TLS_BUSY | TLS_FAILED)) && (tls->kept_len > 0 || tls->records > 0)) {
        bolide_tls_input(tls->stream, NULL, 0);
    }
}

void bolide_tls_come_back(bolide_tls *tls) {
    if (!(tls->flags & TLS_RESUMING)) {
        tls->flags |= TLS_RESUMING;
        if (bolide_loop_schedule(bolide_stream_loop(tls->stream), (PyObject *)tls, NULL, 0, NULL) < 0) {
            bolide_tls_fail(tls);
        }
    }
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
    bool something = tls->records > 0 || tls->kept_len > 0;
    if (something && (tls->flags & (TLS_SECURE | TLS_BUSY | TLS_FAILED)) == TLS_SECURE) {
        bolide_tls_come_back(tls);
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
        bolide_out_pop(bolide_stream_loop(s), &tls->plain);
    }
}

/* Encrypt what is in front. Bytes taken; 0: not now; -1 with an exception set. */
static Py_ssize_t encrypt_front(bolide_tls *tls, struct bolide_tls_shared *shared) {
    bolide_outblock *block = tls->plain.first;
    PyObject *owner = block->first < block->count ? block->owners[block->first] : NULL;
    Py_ssize_t taken;
    if (owner != NULL && block->bufs[block->first].len >= DIRECT_MIN) {
        uv_buf_t *buf = &block->bufs[block->first];
        Py_INCREF(owner); /* what ssl calls back may close the stream and drop its output */
        taken = bolide_ssl_write(tls, buf->base, buf->len < WRITE_MAX ? buf->len : WRITE_MAX);
        Py_DECREF(owner);
    } else {
        size_t len = gather(tls, shared->out);
        taken = bolide_ssl_write(tls, shared->out, len);
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
static Py_ssize_t make_round(bolide_tls *tls, struct bolide_tls_shared *shared) {
    Py_ssize_t made = 0, taken = 1;
    while (tls->stream != NULL && tls->plain.first != NULL && made < ENCRYPT_ROUND && taken > 0) {
        taken = encrypt_front(tls, shared);
        Py_ssize_t len = taken >= 0 ? bolide_ssl_drain(tls) : -1;
        if (len < 0) {
            return -1;
        }
        made += len;
    }
    if (tls->stream != NULL && must_notify(tls)) {
        Py_ssize_t len = bolide_tls_notify(tls, shared) == 0 ? bolide_ssl_drain(tls) : -1;
        if (len < 0) {
            return -1;
        }
        made += len;
    }
    return made;
}

size_t bolide_tls_encrypt(bolide_stream *s) {
    bolide_tls *tls = s->tls;
    if ((tls->flags & (TLS_SECURE | TLS_HELD | TLS_FAILED)) != TLS_SECURE ||
        (tls->plain.first == NULL && !must_notify(tls))) {
        return 0;
    }
    struct bolide_tls_shared *shared = bolide_ssl_begin(tls);
    if (shared == NULL) {
        bolide_stream_list(s); /* again in the next turn */
        return 0;
    }
    Py_INCREF(tls);
    Py_ssize_t made = make_round(tls, shared);
    if (made < 0) {
        (void)bolide_ssl_end(tls, shared); /* with an alert, perhaps */
        bolide_tls_fail(tls);
        made = 0;
    } else {
        bolide_ssl_leave(shared);
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
