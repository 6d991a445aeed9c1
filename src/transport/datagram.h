/* The asyncio transport of a datagram socket (UDP or Unix): datagram.c moves the data, datagram_type.c is the Python
 * face. */
#ifndef BOLIDE_TRANSPORT_DATAGRAM_H
#define BOLIDE_TRANSPORT_DATAGRAM_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "loop/loop.h"

#define BOLIDE_DATAGRAM_HIGH_WATER (64 * 1024)

enum {
    BOLIDE_DATAGRAM_CLOSING = 1,
    BOLIDE_DATAGRAM_CONNECTED = 2,      /* the socket has a peer: send(), not sendto() */
    BOLIDE_DATAGRAM_WRITING_PAUSED = 4, /* protocol.pause_writing() was called */
    BOLIDE_DATAGRAM_LOST = 8,           /* connection_lost() is scheduled or was called */
    BOLIDE_DATAGRAM_PAUSED = 16,        /* pause_reading() */
};

/* A peer's address in both forms: the tuple that datagram_received() got usually comes back to sendto(). */
typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address;
    socklen_t len;
    PyObject *object; /* strong, or NULL */
} bolide_peer;

typedef struct {
    PyObject_HEAD PyObject *extra; /* dict; the slot `_extra` of asyncio.BaseTransport */
    bolide_resource resource;      /* while open; the loop holds a reference with it */
    uv_poll_t poll;    /* of a duplicate of the descriptor: libuv aborts when one is closed behind its back */
    bolide_loop *loop; /* strong */
    PyObject *sock;    /* socket.socket */
    PyObject *protocol;
    PyObject *context; /* contextvars.Context of the protocol's callbacks */
    PyObject *address; /* the remote address given to create_datagram_endpoint(), or None */
    PyObject *queue;   /* list of (bytes, address) that the socket did not take yet */
    PyObject *waiter;  /* future to resolve after connection_made(), or NULL */
    PyObject *weakrefs;
    PyObject *dict;      /* attributes that programs have set, or NULL */
    bolide_peer *peers;  /* addresses seen lately, by the hash of their port; NULL before the first datagram */
    unsigned peer_slots; /* entries of `peers`: a power of two */
    size_t queued;       /* bytes in `queue`, headers included */
    size_t high_water, low_water;
    unsigned max_size; /* bytes of a datagram that are received at most, set by the program; 0: all */
    unsigned lost_writes;
    unsigned flags;  /* BOLIDE_DATAGRAM_* */
    int fd;          /* of `sock`: its user may close it at any time */
    int poll_fd;     /* of `poll`, a duplicate: also for sending and receiving; -1 once connection_lost() was called */
    int polled;      /* the events that `poll` waits for */
    bool in_context; /* a method of the protocol is being called */
} bolide_datagram;

/* Take over the descriptor of t->sock: watch it (once bolide_datagram_watch() says so), be a resource of the loop. From
 * here on libuv holds a reference. 0, or -1 with OSError set. */
int bolide_datagram_open(bolide_datagram *t);

/* Wait for what is of use now: datagrams, room for queued ones. 0, or -1 with OSError set. */
int bolide_datagram_watch(bolide_datagram *t);

/* Send `data`, a bytes-like object, to `address` (None for a connected socket) now or when there is room.
 * 0, or -1 with an exception set; errors of the system go to protocol.error_received(). */
int bolide_datagram_send(bolide_datagram *t, PyObject *data, PyObject *address);

/* Call pause_writing() or resume_writing() when the queue has crossed a mark. */
void bolide_datagram_flow(bolide_datagram *t);

/* Stop everything now; connection_lost(exception) follows on the next turn. `exception` may be NULL. */
void bolide_datagram_lose(bolide_datagram *t, PyObject *exception);

/* Close the descriptor that sends: not before libuv has been told to close `poll`. Idempotent. */
void bolide_datagram_close_descriptor(bolide_datagram *t);

/* protocol.<name>(a, b), absent arguments NULL; what it raises is reported. */
void bolide_datagram_notify(bolide_datagram *t, PyObject *name, PyObject *a, PyObject *b);

/* _make_datagram_transport, for the method table of bolide._core.Loop. */
extern PyMethodDef bolide_datagram_methods[];

int bolide_datagram_init(PyObject *module, bolide_state *st);

#endif
