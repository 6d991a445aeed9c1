/* The awaitable that a sock_*() method returns: a system call that is tried at once, and again whenever the socket is
 * ready for it. What it does stands in sock.c. */
#ifndef BOLIDE_LOOP_SOCK_OP_H
#define BOLIDE_LOOP_SOCK_OP_H

#include "loop/loop.h"

typedef struct bolide_sock_op bolide_sock_op;

typedef struct {
    const char *name; /* of the loop's method */
    int event;        /* what it waits for: BOLIDE_READABLE or BOLIDE_WRITABLE */
    bool keeps_armed; /* another wait for the same is likely: the descriptor stays watched in between */
    /* Try it. The result, a new reference; NULL with an exception set, or with errno: EAGAIN and EINTR are waited for,
     * others become an OSError. */
    PyObject *(*attempt)(bolide_sock_op *op, int fd);
} bolide_sock_call;

/* A coroutine-like object, which does nothing before it is awaited. */
struct bolide_sock_op {
    PyObject_HEAD bolide_loop *loop; /* strong */
    const bolide_sock_call *call;
    bolide_resource resource;
    PyObject *sock;    /* strong */
    PyObject *future;  /* the wait in progress, or NULL */
    PyObject *error;   /* to be raised once it is awaited, or NULL */
    PyObject *address; /* sock_connect() */
    Py_buffer view;    /* sock_recv_into(), sock_sendall(); view.obj is NULL otherwise */
    Py_ssize_t size;   /* sock_recv(): at most so many bytes */
    Py_ssize_t sent;   /* sock_sendall(): so many have left */
    int fd;            /* of the wait in progress */
    bool started;      /* it was awaited, or sent or thrown something */
    bool held;         /* the socket stays open (see hold_open()) and `resource` is the loop's */
    bool running;      /* inside a send() */
    bool finished;     /* a result or an exception was delivered */
    bool connecting;   /* sock_connect(): the kernel is at it */
};

/* The caller has the garbage collector track it once it is complete. New reference, or NULL with an exception set. */
bolide_sock_op *bolide_sock_op_new(bolide_loop *loop, const bolide_sock_call *call, PyObject *sock);

/* Raise the exception that is set when the operation is awaited, as a coroutine does. */
void bolide_sock_op_keep_error(bolide_sock_op *op);

int bolide_sock_op_init(PyObject *module, bolide_state *st);

#endif
