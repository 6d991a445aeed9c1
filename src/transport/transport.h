/* The asyncio transport of a stream socket (TCP or Unix), and the listener that makes one for each connection. */
#ifndef BOLIDE_TRANSPORT_TRANSPORT_H
#define BOLIDE_TRANSPORT_TRANSPORT_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "loop/loop.h"
#include "transport/stream.h"

/* The slots of the asyncio base class, transports._FlowControlMixin: `_extra` and four that our own attributes shadow.
 */
#define BOLIDE_TRANSPORT_BASE_SLOTS 5

typedef struct {
    PyObject_HEAD union {
        PyObject *base_slots[BOLIDE_TRANSPORT_BASE_SLOTS];
        PyObject *extra; /* dict of extra info: the first of them */
    };
    bolide_resource resource; /* while open; the loop holds a reference with it */
    bolide_stream stream;
    bolide_loop *loop;   /* strong */
    PyObject *protocol;  /* NULL after connection_lost() */
    PyObject *context;   /* contextvars.Context of the protocol's callbacks */
    PyObject *server;    /* asyncio.Server, or NULL */
    PyObject *sock;      /* the socket.socket that came with it, or one made for get_extra_info(); NULL: none yet */
    PyObject *exception; /* for connection_lost(), or NULL */
    PyObject *flushed;   /* future to resolve when all output has left (sendfile), or NULL */
    PyObject *waiter;    /* future to resolve after connection_made(), or NULL */
    PyObject *buffer;    /* BufferedProtocol: the buffer of the read in progress */
    Py_buffer view;      /* of `buffer` */
    PyObject *weakrefs;
    struct sockaddr_in6 peer; /* TCP: its address when the connection was made */
    socklen_t peer_len;       /* 0: not known */
    int fd;                   /* as registered with the loop's watchers, or -1 */
    unsigned lost_writes;     /* writes after the connection was lost, to be warned of */
    unsigned flags;           /* TRANSPORT_* of transport.c */
    bool in_context;          /* a method of the protocol is being called */
} bolide_transport;

/* A transport over the connected descriptor `fd`: that of the Python socket `sock`, or (`sock` NULL) one that is now
 * the transport's, even on failure. It does nothing before bolide_transport_start(). New reference, or NULL with an
 * exception set. */
bolide_transport *bolide_transport_new(bolide_loop *loop, PyObject *sock, int fd, bool pipe, PyObject *protocol,
                                       PyObject *server, PyObject *extra);

/* Call protocol.connection_made(), start reading, resolve the waiter. */
void bolide_transport_start(bolide_transport *t);

/* _make_socket_transport, _listen and _stop_listening, for the method table of bolide._core.Loop. */
extern PyMethodDef bolide_transport_methods[];

int bolide_transport_init(PyObject *module, bolide_state *st);

#endif
