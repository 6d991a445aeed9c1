/* add_reader/add_writer: handles to be made ready when a descriptor is.
 *
 * The descriptors stand in a readiness set of their own (epoll, kqueue), which libuv watches as one descriptor. libuv's
 * own uv_poll_t aborts the process when a watched descriptor was closed behind its back, which Python code may well do.
 */
#ifndef BOLIDE_LOOP_WATCHERS_H
#define BOLIDE_LOOP_WATCHERS_H

#include "loop/handle.h"

struct bolide_loop;

enum {
    BOLIDE_READABLE = 1,
    BOLIDE_WRITABLE = 2,
};

typedef struct {
    bolide_handle *reader, *writer; /* strong, or NULL */
    PyObject *waiters[2]; /* futures of one-time waits (sock_recv() and its kin): to read, to write; or NULL */
    PyObject *sock_ref;   /* weakref to the socket whose wait armed the descriptor, or NULL */
    PyObject *source;     /* the object whose fileno() this was when it was added, or NULL: it was an int */
    PyObject *transport;  /* borrowed: the open transport that owns this descriptor, or NULL */
    int armed;            /* what the kernel watches: may be more than is waited for, see below */
} bolide_watcher;

typedef struct {
    int fd;                /* the readiness set, -1 when closed */
    bolide_watcher *by_fd; /* indexed by descriptor */
    int cap;
} bolide_watchers;

/* 0, or a negative uv code. */
int bolide_watchers_open(struct bolide_loop *loop);

/* Every descriptor into a set of its own making: the old one is shared with the process that this one was forked from,
 * or holds an entry that cannot be taken out, because its descriptor was closed while another process or a duplicate
 * keeps the file open. 0, or a negative uv code. */
int bolide_watchers_renew(struct bolide_loop *loop);

void bolide_watchers_clear(struct bolide_loop *loop);
int bolide_watchers_traverse(struct bolide_loop *loop, visitproc visit, void *arg);

/* Register `handle` (a new reference is taken) for `event`, replacing and cancelling the one that was there.
 * 0, or -1 with an exception set. */
int bolide_watchers_add(struct bolide_loop *loop, int fd, int event, bolide_handle *handle);

/* Was a handle there? */
bool bolide_watchers_remove(struct bolide_loop *loop, int fd, int event);

/* Give `future` its result when `event` has come for the socket object `sock` with descriptor `fd`, once. The
 * descriptor stays armed for the next wait, which then costs no system call, until an event comes that nobody waits
 * for. 0, or -1 with an exception set. */
int bolide_watchers_wait(struct bolide_loop *loop, PyObject *sock, int fd, int event, PyObject *future);

/* `future` waits no longer. */
void bolide_watchers_forget(struct bolide_loop *loop, int fd, int event, PyObject *future);

/* The descriptor may be watched for more than is waited for, since another wait was likely: it is not. */
void bolide_watchers_disarm(struct bolide_loop *loop, int fd);

/* RuntimeError, and -1, when an open transport owns `fd`. */
int bolide_watchers_check_free(struct bolide_loop *loop, int fd);

/* Remember that `transport` (borrowed; NULL: none any more) owns `fd`. 0, or -1 with MemoryError set. */
int bolide_watchers_set_transport(struct bolide_loop *loop, int fd, PyObject *transport);

/* Libuv saw the set become readable: push the handles to the ready ring. */
void bolide_watchers_dispatch(struct bolide_loop *loop);

/* The loop methods on descriptors, for the method table of bolide._core.Loop. */
extern PyMethodDef bolide_watchers_methods[];

#endif
