/* The asyncio transport of a stream socket (TCP or Unix), and the listener that makes one for each connection. */
#ifndef BOLIDE_TRANSPORT_TRANSPORT_H
#define BOLIDE_TRANSPORT_TRANSPORT_H

#include "common/sockaddr.h"
#include "loop/loop.h"
#include "transport/tls.h"

/* The slots of the asyncio base class, transports._FlowControlMixin: `_extra` and four that our own attributes shadow.
 */
#define BOLIDE_TRANSPORT_BASE_SLOTS 5

/* As asyncio: more than without TLS, because it cannot all be in the kernel's hands. */
#define BOLIDE_TLS_HIGH_WATER (512 * 1024)

/* Where the read in progress puts its bytes, if not into the loop's buffer: one of three. */
typedef struct {
    PyObject *buffer;         /* what a BufferedProtocol has lent, or NULL */
    Py_buffer view;           /* of `buffer` */
    PyObject *piece;          /* a bytes object that no one else has, or NULL */
    PyObject *reader;         /* the StreamReader whose buffer is read into, or NULL */
    PyObject *reader_buffer;  /* that buffer, longer than what is in it */
    Py_ssize_t reader_filled; /* bytes in it */
} bolide_destination;

typedef struct {
    PyObject_HEAD union {
        PyObject *base_slots[BOLIDE_TRANSPORT_BASE_SLOTS];
        PyObject *extra; /* dict of extra info: the first of them */
    };
    bolide_resource resource; /* while open; the loop holds a reference with it */
    bolide_stream stream;
    bolide_watermarks water;  /* the stream's */
    bolide_loop *loop;        /* strong */
    PyObject *protocol;       /* NULL after connection_lost() */
    PyObject *context;        /* contextvars.Context of the protocol's callbacks */
    PyObject *server;         /* asyncio.Server, or NULL */
    PyObject *sock;           /* the socket.socket that came with it, or one made for get_extra_info(), also after its
                               * close; NULL: none yet */
    PyObject *exception;      /* for connection_lost(), or NULL */
    PyObject *flushed;        /* future to resolve when all output has left (sendfile), or NULL */
    PyObject *waiter;         /* future to resolve after connection_made(), or NULL */
    bolide_destination *into; /* NULL between reads, and while one goes into the loop's buffer */
    PyObject *weakrefs;
    PyObject *dict;            /* attributes that programs have set, or NULL */
    bolide_address name, peer; /* TCP: both addresses when the connection was made, for after the close too */
    int fd;                    /* as registered with the loop's watchers: that of `sock`, if it came with one; or -1 */
    unsigned foreseen;         /* bytes that the next read may bring, if they are to go right where they stay; or 0 */
    unsigned max_size;         /* bytes that are read at once at most, set by the program; 0: as many as are at hand */
    unsigned short_reads;      /* reads in a row that brought less than half of that */
    unsigned lost_writes;      /* writes after the connection was lost, to be warned of */
    bolide_tls *tls;           /* TLS, or NULL; kept after the close, for get_extra_info() */
    unsigned flags;            /* BOLIDE_TRANSPORT_* */
    bool in_context;           /* a method of the protocol is being called */
} bolide_transport;

enum {
    BOLIDE_TRANSPORT_CLOSING = 1,         /* close(), abort() or a fatal error */
    BOLIDE_TRANSPORT_PAUSED = 2,          /* pause_reading() */
    BOLIDE_TRANSPORT_BUFFERED = 4,        /* the protocol is a BufferedProtocol */
    BOLIDE_TRANSPORT_EOF_WRITTEN = 8,     /* write_eof() */
    BOLIDE_TRANSPORT_WRITING_PAUSED = 16, /* protocol.pause_writing() was called */
    BOLIDE_TRANSPORT_STARTED = 32,        /* connection_made() was called */
    BOLIDE_TRANSPORT_EOF_READ = 64,       /* the peer's FIN arrived */
    BOLIDE_TRANSPORT_LOST = 128,          /* no more output is taken */
    BOLIDE_TRANSPORT_ATTACHED = 256,      /* server._attach() was called */
    BOLIDE_TRANSPORT_SENDFILE = 512,      /* sendfile() is at work: no write() */
    BOLIDE_TRANSPORT_SHARED = 1024,       /* the stream has a duplicate of the descriptor of `sock` */
    BOLIDE_TRANSPORT_FAILED = 2048,       /* it could not be made: a shared `sock` stays its user's */
    BOLIDE_TRANSPORT_STREAMS = 4096,      /* the protocol is an asyncio.StreamReaderProtocol */
    BOLIDE_TRANSPORT_UPGRADING = 8192,    /* start_tls(): the protocol does not hear of what ends its handshake */
    BOLIDE_TRANSPORT_REGISTERED = 16384,  /* the loop's watchers know that `fd` is its */
    BOLIDE_TRANSPORT_DRAINING = 32768,    /* to be ended once the output has left */
    BOLIDE_TRANSPORT_ENDING = 65536,      /* connection_lost() is scheduled: all that is left is the open socket */
    BOLIDE_TRANSPORT_TOLD = 131072,       /* ... was called, or scheduled as the last thing */
    BOLIDE_TRANSPORT_DROPPED = 262144,    /* `sock` is closed */
};

/* A transport over the connected descriptor `fd`: that of the Python socket `sock`, or (`sock` NULL) one that is now
 * the transport's, even on failure, whose `peer` its maker is to set. It does nothing before bolide_transport_start().
 * New reference, or NULL with an exception set. */
bolide_transport *bolide_transport_new(bolide_loop *loop, PyObject *sock, int fd, bool pipe, PyObject *protocol,
                                       PyObject *server, PyObject *extra);

/* For what makes a transport and cannot go on, before bolide_transport_start(): close it without calling the protocol
 * and give the reference back. An exception that is set stays. */
void bolide_transport_discard(bolide_transport *t);

/* Call protocol.connection_made(), start reading, resolve the waiter. */
void bolide_transport_start(bolide_transport *t);

/* --- between the files of the transport -------------------------------------------------------- */

static inline bolide_transport *bolide_transport_of_stream(bolide_stream *s) {
    return (bolide_transport *)((char *)s - offsetof(bolide_transport, stream));
}

/* With TLS, now or until it was closed. */
static inline bool bolide_transport_has_tls(const bolide_transport *t) {
    return t->stream.tls != NULL || t->tls != NULL;
}

/* The exception that is set came out of a protocol method: report it with `message` and close with it. */
void bolide_transport_fatal(bolide_transport *t, const char *message);

/* As asyncio in debug mode: logger.debug() with `format`, which has one %r for the transport. */
void bolide_transport_debug(bolide_transport *t, const char *format);

/* The same with `message` and the traceback of `exception`: of an OSError, which a peer can cause at will. */
void bolide_transport_debug_error(bolide_transport *t, const char *message, PyObject *exception);

/* Tell the loop's exception handler of `exception`, with `message`. */
void bolide_transport_tell_handler(bolide_transport *t, const char *message, PyObject *exception);

/* The exception that is set came out of protocol.<name>(arg): report it as one of a scheduled callback, which asyncio
 * makes of these calls. */
void bolide_transport_report_callback(bolide_transport *t, PyObject *name, PyObject *arg);

/* protocol.<name>(arg) in the transport's context; arg NULL: no argument. New reference or NULL with an exception set.
 */
PyObject *bolide_transport_call(bolide_transport *t, PyObject *name, PyObject *arg);

/* Give the future in *slot, if there is one, its result (None) or exception, and forget it. */
void bolide_transport_resolve(bolide_transport *t, PyObject **slot, PyObject *exception);

/* Call pause_writing() when the output has exceeded the high mark. */
void bolide_transport_flow(bolide_transport *t);

/* 0, or -1 with an exception set. */
int bolide_transport_set_protocol(bolide_transport *t, PyObject *protocol);

/* listener.c: is the descriptor a Unix socket? */
bool bolide_is_unix_socket(int fd);

/* listener.c: 0, or -1 with TypeError set: `context` is neither None nor a contextvars.Context. */
int bolide_check_context(PyObject *context);

/* --- transport_end.c -------------------------------------------------------------------------- */

/* End it now, dropping output that the socket does not take at once; connection_lost(exception) is scheduled.
 * `exception` may be NULL or None. */
void bolide_transport_force_close(bolide_transport *t, PyObject *exception);

/* End it once the output has left, with TLS after its shutdown. */
void bolide_transport_close_gently(bolide_transport *t);

/* All output has left. */
void bolide_transport_sent(bolide_transport *t);

/* The end of the socket object, if there is one, which remains as asyncio's does: closed if it has a descriptor of its
 * own, else that is libuv's and the object gives up its claim. Keeps the exception that is set. */
void bolide_transport_drop_socket(bolide_transport *t);

void bolide_transport_on_closing(bolide_stream *s);
void bolide_transport_on_close(bolide_stream *s);
void bolide_transport_on_unwrapped(bolide_stream *s);

/* The method that is scheduled: the protocol's connection_lost(), and then the socket is closed. */
PyObject *bolide_transport_call_connection_lost(PyObject *self, PyObject *exception);

/* --- transport_read.c ------------------------------------------------------------------------- */

void bolide_transport_on_alloc(bolide_stream *s, uv_buf_t *buf);
/* It was called, but nothing was read. */
void bolide_transport_on_unused(bolide_stream *s);
void bolide_transport_on_read(bolide_stream *s, char *data, size_t len);

/* A new destination of the read that begins: all NULL. NULL without an exception when there is no memory. */
bolide_destination *bolide_transport_begin_read(bolide_transport *t);

/* Give back what the read in progress was to fill. Harmless without one. */
void bolide_transport_end_read(bolide_transport *t);

/* --- transport_write.c ------------------------------------------------------------------------ */

/* The methods of transports of these names (asyncio.WriteTransport). */
PyObject *bolide_transport_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *bolide_transport_writelines(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *bolide_transport_write_eof(PyObject *self, PyObject *ignored);

/* asyncio's TLS transport has it for its own tests: queue output and leave it at that. */
PyObject *bolide_transport_append_backlog(PyObject *self, PyObject *data);

/* --- transport_info.c ------------------------------------------------------------------------- */

/* Remember addresses that are not in `name` and `peer`, for after the close. 0, or -1 with an exception set. */
int bolide_transport_keep_paths(bolide_transport *t);

/* The method of transports of that name (asyncio.BaseTransport). */
PyObject *bolide_transport_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs);

/* --- transport_tls.c -------------------------------------------------------------------------- */

/* Before bolide_transport_start(): the protocol gets its connection_made() after the handshake. 0, or -1 with an
 * exception set. */
int bolide_transport_secure(bolide_transport *t, const bolide_tls_options *options);

/* protocol.eof_received(), once. */
void bolide_transport_tls_eof(bolide_transport *t);

/* What get_extra_info() tells of TLS: a new reference; NULL without an exception when `name` is no such key. */
PyObject *bolide_transport_tls_info(bolide_transport *t, PyObject *name);

void bolide_transport_on_secure(bolide_stream *s);
void bolide_transport_on_tls_error(bolide_stream *s, PyObject *exception);

/* _make_tls_transport and _start_tls, for the method table of bolide._core.Loop. */
extern PyMethodDef bolide_transport_tls_methods[];

/* --- for the loop and the module -------------------------------------------------------------- */

/* _make_socket_transport, _listen and _stop_listening, for the method table of bolide._core.Loop. */
extern PyMethodDef bolide_transport_methods[];

int bolide_transport_init(PyObject *module, bolide_state *st);

#endif
