/* A byte stream on libuv (TCP or Unix socket) for C owners: the asyncio transport and the HTTP connection embed one.
 * With bolide_stream_start_tls() (tls.h) the owner's bytes travel encrypted; the functions here stay the same.
 *
 * Reading goes into the loop's shared buffer unless the owner brings its own (on_alloc). Output is gathered in pooled
 * blocks and leaves in one system call at the end of the turn (bolide_loop_flush), at once when it exceeds
 * BOLIDE_FLUSH_NOW (BOLIDE_FLUSH_LATER for a patient owner), or when the turn runs long.
 *
 * All functions need the GIL. Callbacks run with the GIL held. The owner sees on_read, on_eof, on_error and on_drain
 * only between a successful open and bolide_stream_close(), and on_close exactly once after bolide_stream_close(). Any
 * callback may close the stream. */
#ifndef BOLIDE_TRANSPORT_STREAM_H
#define BOLIDE_TRANSPORT_STREAM_H

#include "loop/loop.h"
#include "transport/outblock.h"

typedef struct bolide_stream bolide_stream;

#define BOLIDE_FLUSH_NOW   (64 * 1024)
#define BOLIDE_FLUSH_LATER (256 * 1024)
#define BOLIDE_HIGH_WATER  (64 * 1024)
#define BOLIDE_RESERVE_MAX 2048

typedef struct {
    /* Say where to read to; buf->len 0 gives this read up (nothing is lost). *buf is the loop's shared buffer if left
     * as it is; with TLS its length tells how much will come at most. May be NULL. */
    void (*on_alloc)(bolide_stream *s, uv_buf_t *buf);
    /* Nothing came for what on_alloc gave. May be NULL. */
    void (*on_unused)(bolide_stream *s);
    /* `len` > 0 bytes stand at `data`, valid during the call. */
    void (*on_read)(bolide_stream *s, char *data, size_t len);
    /* The peer sent its FIN: nothing more to read. */
    void (*on_eof)(bolide_stream *s);
    /* Reading or writing failed with the negative uv code `status`. Gathered output is lost; the owner closes the
     * stream. */
    void (*on_error)(bolide_stream *s, int status);
    /* Pending output fell to the low-water mark or below after it had exceeded the high one. */
    void (*on_drain)(bolide_stream *s);
    /* All output has left. May be NULL. */
    void (*on_flushed)(bolide_stream *s);
    /* TLS: the handshake is complete. May be NULL. */
    void (*on_secure)(bolide_stream *s);
    /* TLS: it failed with the Python exception `exception` (borrowed): a refused certificate, a bad record, a timeout.
     * The owner closes the stream. NULL: on_error(UV_EPROTO) is called instead. */
    void (*on_tls_error)(bolide_stream *s, PyObject *exception);
    /* TLS: what bolide_stream_unwrap() began is complete. The owner closes the stream. May be NULL without such calls.
     */
    void (*on_unwrapped)(bolide_stream *s);
    /* The descriptor is being closed: give up what refers to it. No call on the stream. May be NULL. */
    void (*on_closing)(bolide_stream *s);
    /* The uv handle is closed: the memory may be freed. */
    void (*on_close)(bolide_stream *s);
} bolide_stream_ops;

typedef struct {
    size_t high, low; /* bytes of output that has not left */
} bolide_watermarks;

struct bolide_stream {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp; /* for a Unix socket, too: a uv_pipe_t does no more with one, and is larger */
    } uv;             /* its `data` is the loop, borrowed: the owner is a resource of it */
    const bolide_stream_ops *ops;
    bolide_stream *flush_prev, *flush_next; /* the loop's flush list */
    bolide_outlist out;                     /* gathered output; the first block may be in flight */
    struct bolide_tls *tls;                 /* strong; what stands between socket and owner, or NULL */
    size_t pending;                         /* bytes of output that have not left, also those not encrypted yet */
    const bolide_watermarks *water;         /* the owner's, or the default ones */
    unsigned flags;                         /* BOLIDE_STREAM_* */
};

enum {
    BOLIDE_STREAM_OPEN = 1,            /* the uv handle is initialised and not closing */
    BOLIDE_STREAM_READING = 2,         /* the owner wants to read */
    BOLIDE_STREAM_LISTED = 4,          /* on the loop's flush list */
    BOLIDE_STREAM_IN_FLIGHT = 8,       /* the first block waits in uv_write() for the socket to be writable */
    BOLIDE_STREAM_FULL = 16,           /* output exceeded the high-water mark and has not fallen to the low one yet */
    BOLIDE_STREAM_SHUTDOWN = 32,       /* FIN after the output */
    BOLIDE_STREAM_FIN_SENT = 64,       /* the FIN was handed to the kernel */
    BOLIDE_STREAM_CLOSE_AFTER = 128,   /* close after the output has left */
    BOLIDE_STREAM_BROKEN = 256,        /* an error was reported; output is discarded */
    BOLIDE_STREAM_ALLOCATING = 512,    /* inside on_alloc: libuv must not be told to close */
    BOLIDE_STREAM_POLLED = 1024,       /* the socket is to be read */
    BOLIDE_STREAM_UNWRAPPING = 2048,   /* TLS: bolide_stream_unwrap() was called */
    BOLIDE_STREAM_PATIENT = 4096,      /* gathers up to BOLIDE_FLUSH_LATER while the socket takes all: owner's choice */
    BOLIDE_STREAM_STARTED = 8192,      /* libuv reads it, or finds that it is not to */
    BOLIDE_STREAM_MORE = 16384,        /* the last read filled its buffer: libuv asks for more room at once */
    BOLIDE_STREAM_RECEIVED = 32768,    /* inside a read: loop->received has its result */
    BOLIDE_STREAM_READ_FAILED = 65536, /* it was reading that failed, not writing */
};

static inline bolide_loop *bolide_stream_loop(const bolide_stream *s) {
    return s->uv.handle.data;
}

/* Prepare the struct and the uv handle. 0, or a negative uv code: then nothing needs to be closed. */
int bolide_stream_setup(bolide_stream *s, bolide_loop *loop, const bolide_stream_ops *ops);

/* After setup: adopt the connected descriptor `fd`, which libuv owns on success. 0 or a negative uv code; the stream
 * must be closed either way. */
int bolide_stream_open(bolide_stream *s, int fd);

int bolide_stream_read_start(bolide_stream *s); /* 0 or a negative uv code; idempotent */
void bolide_stream_read_stop(bolide_stream *s); /* idempotent */

/* Queue output: small pieces are copied into the block; a large bytes object is referenced until it has left.
 * 0, or -1 with MemoryError set. Output to a broken, closing or shut-down stream is dropped silently. */
int bolide_stream_write(bolide_stream *s, const char *data, size_t len);
int bolide_stream_write_object(bolide_stream *s, PyObject *bytes); /* an exact bytes object */

/* Queue bytes that `owner` keeps as they are while there is a reference to it, without a copy: what goes to many
 * streams, or is large. Returns as above. */
int bolide_stream_write_owned(bolide_stream *s, const char *data, size_t len, PyObject *owner);

/* Room for `len` (<= BOLIDE_RESERVE_MAX) contiguous bytes of output: write there, then commit what was used (<= len),
 * before any other call on the stream. NULL with MemoryError set. Dropped silently as above. */
char *bolide_stream_reserve(bolide_stream *s, size_t len);
void bolide_stream_commit(bolide_stream *s, size_t len);

/* Have the kernel send up to `len` bytes of the file `fd` from `offset` on, with no copy. How many have left: 0 when
 * the socket takes none now, when output is pending that it does not take, or where there is no such thing (TLS): the
 * owner reads and writes them then. Or a negative uv code, of the file or of the stream, which the owner is told of
 * besides. May call what bolide_stream_flush() may. */
ssize_t bolide_stream_sendfile(bolide_stream *s, int fd, uint64_t offset, size_t len);

/* Let other streams have their turn: this one counts as full until the end of the turn, when on_drain is called if the
 * output has left. */
void bolide_stream_yield(bolide_stream *s);

/* Hand the gathered output to the kernel now. May call on_error or on_drain, or close the stream (close_when_flushed).
 */
void bolide_stream_flush(bolide_stream *s);

/* Output that has not left the process yet, in bytes. */
static inline size_t bolide_stream_pending(const bolide_stream *s) {
    return s->pending;
}

/* True once output exceeded the high-water mark, until it has fallen to the low one (then on_drain is called). */
static inline bool bolide_stream_is_full(const bolide_stream *s) {
    return (s->flags & BOLIDE_STREAM_FULL) != 0;
}

/* Open, and neither broken nor to be ended: what is written is not dropped. */
bool bolide_stream_takes_output(const bolide_stream *s);

static inline bool bolide_stream_is_open(const bolide_stream *s) {
    return (s->flags & BOLIDE_STREAM_OPEN) != 0;
}

void bolide_stream_shutdown(bolide_stream *s);           /* FIN once the output has left; idempotent */
void bolide_stream_close_when_flushed(bolide_stream *s); /* close once the output has left; reading stops now */
void bolide_stream_close(bolide_stream *s); /* close now, drop output; idempotent; on_close follows later */

/* Read no more, drop output and what will be written, and give TLS up without a word: what is left is the open socket,
 * for bolide_stream_close(). No callback follows but those of that. */
void bolide_stream_discard(bolide_stream *s);

/* The descriptor, or a negative uv code. */
int bolide_stream_fileno(const bolide_stream *s);

/* Visit the Python objects that the stream refers to. */
static inline int bolide_stream_traverse(const bolide_stream *s, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)s->tls);
    return 0;
}

/* --- between stream.c, stream_read.c, tls.c and tls_records.c ----------------------------------------------------- */

/* End a close that had to wait for the end of on_alloc. */
void bolide_stream_close_handle(bolide_stream *s);

/* Read the socket, or do not, whatever the owner wants. 0 or a negative uv code; idempotent. */
int bolide_stream_poll_start(bolide_stream *s);
void bolide_stream_poll_stop(bolide_stream *s);

/* Have the stream flushed at the end of the turn. */
void bolide_stream_list(bolide_stream *s);

/* Report the negative uv code `status` to the owner, once. */
void bolide_stream_fail(bolide_stream *s, int status);

/* Hand what is encrypted to the kernel, as far as it takes it at once. */
void bolide_stream_send(bolide_stream *s);

/* --- for the loop ------------------------------------------------------------------------------------------------- */

/* Flush every listed stream: the end of a turn. */
void bolide_loop_flush(bolide_loop *loop);

/* Around a step of user code in a turn: a request's first step, a ready callback. Output waits for the end of the turn
 * as long as steps are known to be quick. What was gathered before a step that may block leaves first, and so does,
 * after a step, what has waited for half a millisecond. May close any stream. */
void bolide_loop_begin_step(bolide_loop *loop);
void bolide_loop_end_step(bolide_loop *loop);

void bolide_stream_free_blocks(bolide_loop *loop);

#endif
