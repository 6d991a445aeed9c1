/* An HTTP/1.x connection: bytes in, requests to the owner, bytes out.
 *
 * One exchange at a time: while a response is not complete, bytes of further requests wait, unparsed, so that answers
 * keep the order of their requests. The owner (asgi/) is told of each request by bolide_http_ops; it answers by
 * queueing output on the connection's stream and calling bolide_conn_finish().
 *
 * Memory belongs to the busy: an idle connection is this struct and nothing else. The head of a request is parsed in
 * place, in the turn's batch or the loop's read buffer; only a head that comes in several reads is kept aside. */
#ifndef BOLIDE_HTTP_CONNECTION_H
#define BOLIDE_HTTP_CONNECTION_H

#include <llhttp.h>

#include "http/defaults.h"
#include "http/head.h"
#include "http/headers.h"
#include "http/target.h"
#include "transport/stream.h"

typedef struct bolide_conn bolide_conn;
typedef struct bolide_http bolide_http;

/* A head that came in more than one read, and what has come of it so far. */
typedef struct {
    bolide_head head;
    char *raw;
    size_t len, cap; /* of `raw` */
} bolide_split_head;

/* What a connection has while it reads a request, or somebody answers it. Those that are idle have none. */
typedef struct bolide_exchange {
    llhttp_t parser;              /* its `data` is the connection */
    struct bolide_exchange *next; /* http->free_exchanges */
    bolide_split_head *split;     /* a head that is not complete yet, or NULL */
    uint64_t received;            /* bytes of the body that is being read */
    uint32_t window;              /* ... of them since since_ms began, at most UINT32_MAX */
    uint32_t dropped;             /* ... chunk extensions and trailers of it, less those that data made up for */
} bolide_exchange;

/* Bytes that came while an exchange was under way. */
typedef struct {
    bolide_conn *resume_next; /* http->resume: of the connection that has these bytes */
    size_t len;
    char data[];
} bolide_held;

typedef struct {
    /* The head is complete. Sets conn->request, or returns a status >= 400 to answer with and close, or -1 with an
     * exception set. The head is valid during the call only. */
    int (*on_head)(bolide_conn *c, const bolide_head *head);
    /* `len` > 0 bytes of the body. 0, or -1 with an exception set. Called before and after on_start. */
    int (*on_body)(bolide_conn *c, const char *data, size_t len);
    /* The request may start: its head, and what of its body came in the same read, are there. Runs the application. */
    void (*on_start)(bolide_conn *c);
    /* After on_start: more of the body has come, or its end, or the peer's FIN (BOLIDE_CONN_EOF). */
    void (*on_progress)(bolide_conn *c);
    /* Output fell below its low-water mark. */
    void (*on_drain)(bolide_conn *c);
    /* The connection is gone: let go of conn->request. May come at any time after on_head; not from within the owner's
     * own calls of functions below. */
    void (*on_gone)(bolide_conn *c);
    /* A request is refused with `status`. Returns whether that may be sent: nothing of a response has been queued.
     * on_gone follows if there is a request. */
    bool (*on_refused)(bolide_conn *c, int status);
    /* conn->request's objects, for the garbage collector. */
    int (*traverse)(bolide_conn *c, visitproc visit, void *arg);
    /* `ms` have passed since the last call for this connection, which was upgraded. */
    void (*on_tick)(bolide_conn *c, unsigned ms);
    /* The number of connections or of answered requests has changed. */
    void (*on_count)(bolide_http *http);
} bolide_http_ops;

/* What the connections of one server share. */
struct bolide_http {
    bolide_loop *loop; /* borrowed from the owner */
    const bolide_http_ops *ops;
    PyObject *owner; /* borrowed; each connection holds a reference to it */

    bolide_headers headers;
    bolide_targets targets;
    bolide_defaults defaults;
    bolide_head scratch;             /* the head that is being parsed, unless it is a split one */
    bolide_exchange *free_exchanges; /* pool */
    unsigned free_exchange_count;    /* its size */

    bolide_conn *conns;         /* list of the open connections */
    size_t conn_count;          /* their number */
    bolide_conn *resume;        /* list of those with bytes that waited and may be parsed now */
    struct bolide_batch *batch; /* what was read in this turn and is not parsed yet */
    uint64_t total_requests;    /* responses completed */
    uint32_t max_head;          /* bytes of a request's head */
    uint32_t max_fields;        /* fields of it; capacity of `scratch` */
    unsigned keep_alive_ms;     /* a connection may be idle for so long after a response; 0: it is not kept */
    unsigned head_timeout_ms;   /* the head of a request must be complete within */
    unsigned body_timeout_ms;   /* more of its body must come within, while it is read; 0: for ever */
    unsigned body_rate;         /* if not 0: ... at least so many bytes a second */
    unsigned write_timeout_ms;  /* the peer must take some of the output within; 0: for ever */
    uint64_t max_body;          /* bytes of a request's body; UINT64_MAX: no limit */
    unsigned tick_ms;           /* on_tick must be called at least every so many ms; 0: whenever it suits */
    bool closing;               /* no connection is kept alive any more */
    void *upgrades;             /* the owner's: what connections share that were upgraded */

    int verdict;         /* set by a parser callback that stops: as bolide_parser_feed() returns it */
    PyObject *good_host; /* the (name, value) pair of the last valid host, or NULL */

    struct bolide_http_handles *handles; /* the uv handles: they outlive this struct by a turn; NULL once closed */
};

/* Bytes that a protocol has for itself once a connection was upgraded to it. */
#define BOLIDE_CONN_PROTOCOL_MAX 32

struct bolide_conn {
    bolide_stream stream;     /* first, so that a stream is a connection */
    bolide_conn *prev, *next; /* http->conns */
    bolide_http *http;        /* its owner is kept alive by this connection */
    void *request;            /* the owner's: the request that was started last, or NULL */
    bolide_held *held;        /* or NULL: nothing */
    uint32_t flags;           /* BOLIDE_CONN_* */
    uint32_t since_ms;        /* how long the connection has been in the state that times out, counted by the sweeps */
    uint32_t stalled_ms;      /* how long the peer has taken no output, counted by the sweeps */
    uint32_t unsent;          /* what libuv had to write at the last sweep, bytes, modulo 2^32 */
    uint32_t discarded;       /* bytes of an unwanted body, or of a refused request, that were read and dropped */
    union {
        struct {                       /* until it is upgraded: */
            bolide_exchange *exchange; /* or NULL: it is idle */
            PyObject *client;          /* the owner's cache: scope["client"], or NULL */
            PyObject *server;          /* the owner's cache: scope["server"], or NULL */
            PyObject *tls;             /* the owner's cache: scope["extensions"]["tls"], or NULL */
        };
        void *upgraded[BOLIDE_CONN_PROTOCOL_MAX / sizeof(void *)]; /* then: of the other protocol */
    };
};

enum {
    BOLIDE_CONN_HEAD = 1,               /* an exchange is under way: the head is complete */
    BOLIDE_CONN_STARTED = 2,            /* ... on_start was called */
    BOLIDE_CONN_MESSAGE = 4,            /* ... the request is complete, body and all */
    BOLIDE_CONN_RESPONSE = 8,           /* ... the response is complete */
    BOLIDE_CONN_KEEP_ALIVE = 16,        /* the request allows for another one after it */
    BOLIDE_CONN_EXPECT = 32,            /* it expects 100 Continue, which was not sent */
    BOLIDE_CONN_BODY_PAUSED = 64,       /* the owner has enough of the body for now */
    BOLIDE_CONN_EOF = 128,              /* the peer has sent its FIN */
    BOLIDE_CONN_LINGERING = 256,        /* our FIN is on its way; what still comes is dropped, for a while */
    BOLIDE_CONN_CLOSING = 512,          /* the stream closes, now or once its output has left */
    BOLIDE_CONN_SERVED = 1024,          /* a response was completed */
    BOLIDE_CONN_PARSING = 2048,         /* bytes are being parsed further up on the C stack */
    BOLIDE_CONN_RESUMING = 4096,        /* on http->resume */
    BOLIDE_CONN_UNIX = 8192,            /* a Unix socket */
    BOLIDE_CONN_HTTP10 = 16384,         /* the request is HTTP/1.0 */
    BOLIDE_CONN_LOCAL = 32768,          /* the peer is on this machine: its address is the loopback */
    BOLIDE_CONN_BOUNDED = 65536,        /* ... and its send buffer is bounded */
    BOLIDE_CONN_UPGRADED = 131072,      /* another protocol is spoken; it has the stream's events */
    BOLIDE_CONN_EXTENSION = 262144,     /* a part of a chunk extension has begun */
    BOLIDE_CONN_METHOD_OPEN = 524288,   /* a method that llhttp does not know has begun, and is not complete */
    BOLIDE_CONN_OTHER_METHOD = 1048576, /* the request has such a method; the parser knows a stand-in */
    BOLIDE_CONN_QUEUED = 2097152,       /* bytes that were read wait in http->batch */
};

/* `owner` is the Python object whose life spans that of `http`. headers, targets and defaults are the caller's to
 * initialise and to clear. 0, or -1 with an exception set (nothing to clear then). */
int bolide_http_init(bolide_http *http, bolide_loop *loop, const bolide_http_ops *ops, PyObject *owner,
                     uint32_t max_fields);

/* Keep no connection alive any more. Idle ones close soon; a request that was on its way is answered first. */
void bolide_http_begin_closing(bolide_http *http);

/* When no connection is left. */
void bolide_http_clear(bolide_http *http);

/* Serve the connected socket `fd`, which is the connection's from now on, with TLS if there is an ssl.SSLContext `tls`.
 * Problems that the network has with a single connection are dropped silently. */
void bolide_conn_open(bolide_http *http, int fd, bool pipe, PyObject *tls);

/* May a response that starts now leave the connection open? */
bool bolide_conn_may_keep_alive(const bolide_conn *c);

/* The response is complete: go on with the next request, or close. */
void bolide_conn_finish(bolide_conn *c, bool keep_alive);

/* Send 100 Continue if the request expects it and has not got it. */
void bolide_conn_continue(bolide_conn *c);

/* `len` bytes of output come at once. For a peer on this machine the first large piece bounds the kernel's send buffer:
 * there is no distance that a larger one could bridge, and pages that are still in the cache when they are used again
 * make a response of 1 MiB a quarter cheaper. */
void bolide_conn_expect_output(bolide_conn *c, size_t len);

/* Some output has left past the stream's queue: the peer has not stalled. */
void bolide_conn_note_output(bolide_conn *c);

/* Keep bytes that cannot be taken in yet, behind those that are kept; aborts when there is no memory. */
void bolide_conn_hold(bolide_conn *c, const char *data, size_t len);

/* Read, or do not; aborts when that fails. */
void bolide_conn_set_reading(bolide_conn *c, bool wanted);

/* Stop and resume taking in the body, as the owner consumes it. */
void bolide_conn_pause_body(bolide_conn *c);
void bolide_conn_resume_body(bolide_conn *c);

/* Close once the output has left, whatever the state of the exchange; on_gone comes when it is closed. */
void bolide_conn_close(bolide_conn *c);
/* Close now and drop the output. Calls on_gone. */
void bolide_conn_abort(bolide_conn *c);

/* From here on `ops` get the stream's events, and conn->upgraded, all zero, is theirs; since_ms is 0 and theirs, too.
 * Bytes that have come are handed to ops->on_read from the loop, soon. ops->on_close must end with
 * bolide_conn_on_close(). */
void bolide_conn_upgrade(bolide_conn *c, const bolide_stream_ops *ops);

/* Close so that the peer gets what was queued although it may still be sending; an upgrade ends here. */
void bolide_conn_linger(bolide_conn *c);

/* The stream's on_error and on_close, whatever is spoken. */
void bolide_conn_on_error(bolide_stream *s, int status);
void bolide_conn_on_close(bolide_stream *s);

/* Is there a peer who may still get something? */
static inline bool bolide_conn_is_open(const bolide_conn *c) {
    return (c->flags & BOLIDE_CONN_CLOSING) == 0;
}

/* Is another protocol spoken, with a peer who may still get something? */
static inline bool bolide_conn_is_upgraded(const bolide_conn *c) {
    return (c->flags & (BOLIDE_CONN_UPGRADED | BOLIDE_CONN_CLOSING)) == BOLIDE_CONN_UPGRADED;
}

/* Between requests: nothing is lost by closing. */
static inline bool bolide_conn_is_idle(const bolide_conn *c) {
    return (c->flags & BOLIDE_CONN_HEAD) == 0;
}

/* Bytes that wait in c->held. */
static inline size_t bolide_conn_held(const bolide_conn *c) {
    return c->held != NULL ? c->held->len : 0;
}

static inline bolide_conn *bolide_conn_of_stream(bolide_stream *s) {
    return (bolide_conn *)s;
}

/* --- between connection.c and parser.c -------------------------------------------------------- */

/* Parse up to the end of one request or of the data. Returns the number of bytes used; or a negative number: the status
 * to refuse the request with, negated, or -1 with an exception set. */
ptrdiff_t bolide_parser_feed(bolide_conn *c, const char *data, size_t len);

/* Give c->exchange up, if there is one. */
void bolide_exchange_release(bolide_conn *c);

/* Free the pool. */
void bolide_exchange_clear(bolide_http *http);

/* Has a part of a head come? */
static inline bool bolide_conn_has_split(const bolide_conn *c) {
    return c->exchange != NULL && c->exchange->split != NULL;
}

/* --- between connection.c and batch.c --------------------------------------------------------- */

/* Take in bytes that were read. Does nothing when the connection is closing. */
void bolide_conn_input(bolide_conn *c, const char *data, size_t len);

/* Start the request whose head is there, if nothing has happened to it meanwhile. */
void bolide_conn_start(bolide_conn *c);

/* Have bolide_batch_run() called before the turn's poll is over. False when the server is closed. */
bool bolide_http_gather(bolide_http *http);

/* --- between connection.c and http.c ---------------------------------------------------------- */

/* Parse what waited: the exchange before it is over. */
void bolide_conn_resume(bolide_conn *c);

/* Close, because it took too long; 408 when part of a head has come. */
void bolide_conn_expire(bolide_conn *c);

/* Have bolide_conn_resume() called soon, from the loop. */
void bolide_http_resume_soon(bolide_conn *c);

/* Visit the Python objects of a connection for the garbage collector; close it, without calling user code. */
int bolide_conn_traverse(bolide_conn *c, visitproc visit, void *arg);
void bolide_conn_shut(bolide_conn *c);

/* Enter a connection into the list, and take it out. */
void bolide_http_add(bolide_conn *c);
void bolide_http_remove(bolide_conn *c);

#endif
