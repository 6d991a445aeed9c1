#include "transport/datagram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/error.h"
#include "common/sockaddr.h"
#include "loop/loop.h"
#include "transport/protocol.h"
#include "transport/watermarks.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#define HIGH_WATER         (64 * 1024)
#define HEADER_COST        8     /* what a queued datagram counts beyond its bytes, as in asyncio */
#define BATCH              4     /* datagrams read before other work gets its turn */
#define DATAGRAM_MAX       65536 /* more than any datagram has */
#define PEERS              16    /* addresses remembered with their tuples */
#define LOST_WRITES_LOGGED 5

_Static_assert(BOLIDE_READ_BUF >= BATCH * DATAGRAM_MAX, "a batch of datagrams fits in the loop's buffer");

enum {
    DATAGRAM_CLOSING = 1,
    DATAGRAM_CONNECTED = 2,      /* the socket has a peer: send(), not sendto() */
    DATAGRAM_WRITING_PAUSED = 4, /* protocol.pause_writing() was called */
    DATAGRAM_LOST = 8,           /* connection_lost() is scheduled or was called */
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
} peer;

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
    peer *peers;   /* PEERS entries, made with the first datagram */
    size_t queued; /* bytes in `queue`, headers included */
    size_t high_water, low_water;
    unsigned lost_writes;
    unsigned flags;  /* DATAGRAM_* */
    int fd;          /* of `sock` */
    int poll_fd;     /* of `poll` */
    int polled;      /* the events that `poll` waits for */
    bool in_context; /* a method of the protocol is being called */
} datagram;

static datagram *of_resource(bolide_resource *res) {
    return (datagram *)((char *)res - offsetof(datagram, resource));
}

/* --- calling the protocol --------------------------------------------------------------------- */

/* What a protocol's method raises is reported; the transport lives on. */
static void notify(datagram *t, PyObject *name, PyObject *a, PyObject *b) {
    Py_INCREF(t);
    PyObject *result = bolide_protocol_call(t->protocol, t->context, &t->in_context, name, a, b);
    if (result == NULL) {
        bolide_loop_report(t->loop, "Exception in a method of the datagram protocol", "transport", (PyObject *)t);
    }
    Py_XDECREF(result);
    Py_DECREF(t);
}

static void notify_error(datagram *t, int err) {
    PyObject *exception = bolide_error_new(-err);
    if (exception == NULL) {
        bolide_loop_report(t->loop, "making an OSError failed", "transport", (PyObject *)t);
        return;
    }
    notify(t, t->loop->st->str_error_received, exception, NULL);
    Py_DECREF(exception);
}

/* --- closing
 * -------------------------------------------------------------------------------------------------------------------
 */

static void on_closed(uv_handle_t *handle) {
    datagram *t = handle->data;
    bolide_loop_enter(t->loop);
    close(t->poll_fd);
    Py_DECREF(t); /* libuv's */
}

static void release(datagram *t) {
    (void)bolide_watchers_set_transport(t->loop, t->fd, NULL);
    bolide_resource_remove(&t->resource);
    uv_close((uv_handle_t *)&t->poll, on_closed);
}

static PyObject *connection_lost(PyObject *self, PyObject *exception) {
    datagram *t = (datagram *)self;
    if (t->protocol == NULL) {
        Py_RETURN_NONE;
    }
    notify(t, t->loop->st->str_connection_lost, exception, NULL);
    PyObject *result = PyObject_CallMethodNoArgs(t->sock, t->loop->st->str_close);
    Py_CLEAR(t->protocol);
    return result;
}

/* Stop everything now; connection_lost(exception) follows on the next turn. */
static void lose(datagram *t, PyObject *exception) {
    if (t->flags & DATAGRAM_LOST) {
        return;
    }
    t->flags |= DATAGRAM_CLOSING | DATAGRAM_LOST;
    (void)PyList_SetSlice(t->queue, 0, PY_SSIZE_T_MAX, NULL);
    t->queued = 0;
    release(t);
    PyObject *method = PyObject_GetAttrString((PyObject *)t, "_call_connection_lost");
    PyObject *args[1] = {exception != NULL ? exception : Py_None};
    if (method == NULL || bolide_loop_schedule(t->loop, method, args, 1, NULL) < 0) {
        bolide_loop_report(t->loop, "scheduling connection_lost() failed", "transport", (PyObject *)t);
    }
    Py_XDECREF(method);
}

static int resource_traverse(bolide_resource *res, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)of_resource(res));
    return 0;
}

static void resource_close(bolide_resource *res) {
    datagram *t = of_resource(res);
    t->flags |= DATAGRAM_LOST;
    release(t);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = PyObject_CallMethodNoArgs(t->sock, t->loop->st->str_close);
    if (result == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
    PyErr_Restore(type, value, traceback);
}

/* --- addresses -------------------------------------------------------------------------------- */

static bool same_address(const peer *a, const peer *b) {
    if (a->len != b->len || a->address.any.sa_family != b->address.any.sa_family) {
        return false;
    }
    if (a->address.any.sa_family == AF_INET) {
        return a->address.in.sin_port == b->address.in.sin_port &&
               a->address.in.sin_addr.s_addr == b->address.in.sin_addr.s_addr;
    }
    return memcmp(&a->address.in6, &b->address.in6, sizeof(a->address.in6)) == 0;
}

static peer *slot_of(datagram *t, const peer *p) {
    unsigned port = p->address.in.sin_port; /* at the same place in both families */
    return &t->peers[(port ^ (port >> 8)) % PEERS];
}

/* The tuple for the address that was received; the same object for a peer seen lately. New reference or NULL. */
static PyObject *address_object(datagram *t, const struct sockaddr_storage *address, socklen_t len) {
    peer seen = {.len = len};
    bool inet = (address->ss_family == AF_INET && len == sizeof(struct sockaddr_in)) ||
                (address->ss_family == AF_INET6 && len == sizeof(struct sockaddr_in6));
    if (!inet) {
        return bolide_sockaddr_object((const struct sockaddr *)address, len);
    }
    memcpy(&seen.address, address, len);
    if (t->peers == NULL) {
        t->peers = PyMem_Calloc(PEERS, sizeof(peer));
        if (t->peers == NULL) {
            return PyErr_NoMemory();
        }
    }
    peer *slot = slot_of(t, &seen);
    if (slot->object == NULL || !same_address(slot, &seen)) {
        PyObject *object = bolide_sockaddr_object((const struct sockaddr *)address, len);
        if (object == NULL) {
            return NULL;
        }
        seen.object = object;
        PyObject *old = slot->object;
        *slot = seen;
        Py_XDECREF(old);
    }
    return Py_NewRef(slot->object);
}

/* The raw form of an address that a datagram came from; NULL when it is another. */
static const peer *known_peer(datagram *t, PyObject *object) {
    if (t->peers == NULL || !PyTuple_CheckExact(object) || PyTuple_GET_SIZE(object) < 2) {
        return NULL;
    }
    long port = PyLong_AsLong(PyTuple_GET_ITEM(object, 1));
    if (port < 0 || port > 65535) {
        PyErr_Clear();
        return NULL;
    }
    peer key = {.address.in.sin_port = htons((uint16_t)port)};
    peer *slot = slot_of(t, &key);
    return slot->object == object ? slot : NULL;
}

/* --- output
 * --------------------------------------------------------------------------------------------------------------------
 */

/* 1: sent, or failed and the protocol was told; 0: the socket is full; -1: an exception is set (a wrong address, ...).
 */
static int send_now(datagram *t, const char *data, size_t len, PyObject *object, PyObject *address) {
    ssize_t sent;
    const peer *to = NULL;
    if (t->flags & DATAGRAM_CONNECTED) {
        sent = send(t->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if ((to = known_peer(t, address)) != NULL) {
        sent = sendto(t->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL, &to->address.any, to->len);
    } else {
        PyObject *result = PyObject_CallMethod(t->sock, "sendto", "OO", object, address);
        if (result != NULL) {
            Py_DECREF(result);
            return 1;
        }
        if (PyErr_ExceptionMatches(PyExc_BlockingIOError) || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
            PyErr_Clear();
            return 0;
        }
        return -1;
    }
    if (sent >= 0) {
        return 1;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return 0;
    }
    notify_error(t, errno);
    return 1;
}

/* An exception of send_now(): OSError goes to the protocol, anything else ends the transport, as in asyncio. */
static void send_failed(datagram *t) {
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        bolide_loop_set_fatal(t->loop);
        return;
    }
    bool is_os_error = PyErr_ExceptionMatches(PyExc_OSError);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (is_os_error) {
        notify(t, t->loop->st->str_error_received, value, NULL);
    } else {
        Py_INCREF(value);
        PyErr_Restore(type, value, traceback);
        bolide_loop_report(t->loop, "Fatal write error on datagram transport", "transport", (PyObject *)t);
        lose(t, value);
        Py_DECREF(value);
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

static void on_ready(uv_poll_t *poll, int status, int events);

/* Wait for what is of use now. 0, or -1 with OSError set. */
static int watch(datagram *t) {
    int events = (t->flags & DATAGRAM_CLOSING ? 0 : UV_READABLE) | (PyList_GET_SIZE(t->queue) > 0 ? UV_WRITABLE : 0);
    if (events == t->polled || (t->flags & DATAGRAM_LOST)) {
        return 0;
    }
    int status = events != 0 ? uv_poll_start(&t->poll, events, on_ready) : uv_poll_stop(&t->poll);
    if (status < 0) {
        bolide_error_set(status);
        return -1;
    }
    t->polled = events;
    return 0;
}

static void flow(datagram *t) {
    if (t->protocol == NULL) {
        return;
    }
    if (t->queued > t->high_water && !(t->flags & DATAGRAM_WRITING_PAUSED)) {
        t->flags |= DATAGRAM_WRITING_PAUSED;
        notify(t, t->loop->st->str_pause_writing, NULL, NULL);
    } else if (t->queued <= t->low_water && (t->flags & DATAGRAM_WRITING_PAUSED)) {
        t->flags &= ~(unsigned)DATAGRAM_WRITING_PAUSED;
        notify(t, t->loop->st->str_resume_writing, NULL, NULL);
    }
}

static void send_queued(datagram *t) {
    while (PyList_GET_SIZE(t->queue) > 0 && !(t->flags & DATAGRAM_LOST)) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(t->queue, 0));
        PyObject *data = PyTuple_GET_ITEM(item, 0);
        size_t len = (size_t)PyBytes_GET_SIZE(data);
        int sent = send_now(t, PyBytes_AS_STRING(data), len, data, PyTuple_GET_ITEM(item, 1));
        if (sent != 0 && PyList_GET_SIZE(t->queue) > 0) {
            t->queued -= len + HEADER_COST;
            (void)PyList_SetSlice(t->queue, 0, 1, NULL);
        }
        Py_DECREF(item);
        if (sent < 0) {
            send_failed(t);
        }
        if (sent == 0) {
            break;
        }
    }
    if (t->flags & DATAGRAM_LOST) {
        return;
    }
    flow(t);
    if (PyList_GET_SIZE(t->queue) == 0) {
        if (t->flags & DATAGRAM_CLOSING) {
            lose(t, NULL);
        } else if (watch(t) < 0) {
            bolide_loop_report(t->loop, "watching a datagram socket failed", "transport", (PyObject *)t);
        }
    }
}

/* --- input
 * ---------------------------------------------------------------------------------------------------------------------
 */

/* Steals `data`, which is NULL with an exception set when there was no memory for it. */
static void deliver(datagram *t, PyObject *data, const struct sockaddr_storage *address, socklen_t len) {
    PyObject *from = data != NULL ? address_object(t, address, len) : NULL;
    if (from != NULL) {
        notify(t, t->loop->st->str_datagram_received, data, from);
    } else {
        bolide_loop_report(t->loop, "Fatal read error on datagram transport", "transport", (PyObject *)t);
    }
    Py_XDECREF(data);
    Py_XDECREF(from);
}

static bool may_receive(const datagram *t) {
    return !(t->flags & DATAGRAM_CLOSING) && t->loop->fatal == NULL && !t->loop->closed;
}

static void receive_failed(datagram *t, int err) {
    if (err != EAGAIN && err != EWOULDBLOCK && err != EINTR) {
        notify_error(t, err);
    }
}

#ifdef __linux__

/* Several datagrams a system call; fewer than asked for means that the socket is empty. */
static void receive(datagram *t) {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    struct sockaddr_storage addresses[BATCH];
    char *buffer = t->loop->read_buf;
    memset(messages, 0, sizeof(messages));
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffer + i * DATAGRAM_MAX, DATAGRAM_MAX};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &addresses[i];
        messages[i].msg_hdr.msg_namelen = sizeof(addresses[i]);
    }
    int count = recvmmsg(t->fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (count < 0) {
        receive_failed(t, errno);
        return;
    }
    /* Everything out of the loop's buffer first: what the protocol calls may use that too. */
    PyObject *data[BATCH];
    for (int i = 0; i < count; i++) {
        data[i] = PyBytes_FromStringAndSize(parts[i].iov_base, messages[i].msg_len);
    }
    for (int i = 0; i < count; i++) {
        if (may_receive(t)) {
            deliver(t, data[i], &addresses[i], messages[i].msg_hdr.msg_namelen);
        } else {
            Py_XDECREF(data[i]);
        }
    }
}

#else

static void receive(datagram *t) {
    for (int i = 0; i < BATCH && may_receive(t); i++) {
        struct sockaddr_storage address;
        socklen_t len = sizeof(address);
        ssize_t got = recvfrom(t->fd, t->loop->read_buf, DATAGRAM_MAX, MSG_DONTWAIT, (struct sockaddr *)&address, &len);
        if (got < 0) {
            receive_failed(t, errno);
            return;
        }
        deliver(t, PyBytes_FromStringAndSize(t->loop->read_buf, got), &address, len);
    }
}

#endif

static void on_ready(uv_poll_t *poll, int status, int events) {
    datagram *t = poll->data;
    bolide_loop_enter(t->loop);
    if (status < 0) {
        /* An error is pending on the socket, and libuv stopped watching: the call tells which. */
        t->polled = 0;
        events = UV_READABLE | UV_WRITABLE;
        if (watch(t) < 0) {
            PyErr_Clear();
        }
    }
    Py_INCREF(t);
    if ((events & UV_READABLE) && may_receive(t)) {
        receive(t);
    }
    if ((events & UV_WRITABLE) && !(t->flags & DATAGRAM_LOST)) {
        send_queued(t);
    }
    Py_DECREF(t);
}

/* --- making one ------------------------------------------------------------------------------- */

/* connection_made(), then reading, then the waiter: the order that asyncio keeps. */
static PyObject *start(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    datagram *t = (datagram *)self;
    if (t->protocol == NULL) {
        Py_RETURN_NONE;
    }
    notify(t, t->loop->st->str_connection_made, self, NULL);
    if (!(t->flags & DATAGRAM_LOST) && watch(t) < 0) {
        return NULL;
    }
    PyObject *waiter = t->waiter;
    t->waiter = NULL;
    if (waiter != NULL) {
        PyObject *done = PyObject_CallMethodNoArgs(waiter, t->loop->st->str_done);
        PyObject *result = done == Py_False ? PyObject_CallMethodOneArg(waiter, t->loop->st->str_set_result, Py_None)
                                            : Py_XNewRef(done);
        Py_XDECREF(done);
        Py_DECREF(waiter);
        return result;
    }
    Py_RETURN_NONE;
}

static int fill_extra(datagram *t, PyObject *extra) {
    bolide_state *st = t->loop->st;
    t->extra = PyDict_New();
    if (t->extra == NULL || (extra != Py_None && PyDict_Update(t->extra, extra) < 0)) {
        return -1;
    }
    PyObject *wrapped = PyObject_CallOneArg(st->asyncio_TransportSocket, t->sock);
    int failed = wrapped == NULL || PyDict_SetItem(t->extra, st->str_socket, wrapped) < 0;
    Py_XDECREF(wrapped);
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    if (!failed && getsockname(t->fd, (struct sockaddr *)&address, &len) == 0) {
        PyObject *name = bolide_sockaddr_object((struct sockaddr *)&address, len);
        failed = name == NULL || PyDict_SetItem(t->extra, st->str_sockname, name) < 0;
        Py_XDECREF(name);
    }
    len = sizeof(address);
    PyObject *peername = Py_NewRef(Py_None);
    if (!failed && getpeername(t->fd, (struct sockaddr *)&address, &len) == 0) {
        t->flags |= DATAGRAM_CONNECTED;
        Py_SETREF(peername, bolide_sockaddr_object((struct sockaddr *)&address, len));
    }
    failed = failed || peername == NULL || PyDict_SetDefault(t->extra, st->str_peername, peername) == NULL;
    Py_XDECREF(peername);
    return failed ? -1 : 0;
}

/* From here on libuv holds a reference, until on_closed(). 0, or -1 with OSError set. */
static int open_poll(datagram *t) {
    t->poll_fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 3);
    if (t->poll_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    int status = uv_poll_init(&t->loop->uv, &t->poll, t->poll_fd);
    if (status < 0) {
        close(t->poll_fd);
        bolide_error_set(status);
        return -1;
    }
    t->poll.data = Py_NewRef(t);
    bolide_resource_add(t->loop, &t->resource);
    return 0;
}

static PyObject *make_datagram_transport(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"sock", "protocol", "address", "waiter", "extra", NULL};
    bolide_loop *loop = (bolide_loop *)self;
    PyObject *sock, *protocol, *address = Py_None, *waiter = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO:_make_datagram_transport", names, &sock, &protocol, &address,
                                     &waiter, &extra) ||
        bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    int fd = bolide_fileno(sock);
    datagram *t = fd >= 0 ? PyObject_GC_New(datagram, loop->st->DatagramTransportType) : NULL;
    if (t == NULL) {
        return NULL;
    }
    memset((char *)t + sizeof(PyObject), 0, sizeof(*t) - sizeof(PyObject));
    t->loop = (bolide_loop *)Py_NewRef(loop);
    t->sock = Py_NewRef(sock);
    t->protocol = Py_NewRef(protocol);
    t->address = Py_NewRef(address);
    t->waiter = waiter != Py_None ? Py_NewRef(waiter) : NULL;
    t->fd = fd;
    t->high_water = HIGH_WATER;
    t->low_water = HIGH_WATER / 4;
    t->resource.traverse = resource_traverse;
    t->resource.close = resource_close;
    t->context = PyContext_CopyCurrent();
    t->queue = PyList_New(0);
    PyObject_GC_Track((PyObject *)t);
    if (t->context == NULL || t->queue == NULL || fill_extra(t, extra) < 0 || open_poll(t) < 0) {
        t->flags |= DATAGRAM_CLOSING;
        Py_DECREF(t);
        return NULL;
    }
    PyObject *method = PyObject_GetAttrString((PyObject *)t, "_start");
    if (method == NULL || bolide_watchers_set_transport(loop, fd, (PyObject *)t) < 0 ||
        bolide_loop_schedule(loop, method, NULL, 0, NULL) < 0) {
        t->flags |= DATAGRAM_CLOSING | DATAGRAM_LOST;
        release(t);
        Py_CLEAR(t);
    }
    Py_XDECREF(method);
    return (PyObject *)t;
}

PyMethodDef bolide_datagram_methods[] = {
    {"_make_datagram_transport", (PyCFunction)(void (*)(void))make_datagram_transport, METH_VARARGS | METH_KEYWORDS,
     NULL},
    {NULL, NULL, 0, NULL},
};

/* --- methods
 * -------------------------------------------------------------------------------------------------------------------
 */

/* The address to send to: the fixed one, if there is one. Borrowed; NULL with ValueError set. */
static PyObject *check_address(datagram *t, PyObject *address) {
    if (t->address == Py_None) {
        return address;
    }
    int same = address == Py_None ? 1 : PyObject_RichCompareBool(address, t->address, Py_EQ);
    if (same == 0) {
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S", t->address);
    }
    return same > 0 ? t->address : NULL;
}

static int enqueue(datagram *t, PyObject *data, PyObject *address) {
    PyObject *copy = PyBytes_FromObject(data);
    PyObject *item = copy != NULL ? PyTuple_Pack(2, copy, address) : NULL;
    int status = item != NULL ? PyList_Append(t->queue, item) : -1;
    if (status == 0) {
        t->queued += (size_t)PyBytes_GET_SIZE(copy) + HEADER_COST;
    }
    Py_XDECREF(item);
    Py_XDECREF(copy);
    return status;
}

static PyObject *send_or_queue(datagram *t, PyObject *data, PyObject *address) {
    int sent = 0;
    if (PyList_GET_SIZE(t->queue) == 0) {
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            return NULL;
        }
        sent = send_now(t, view.buf, (size_t)view.len, data, address);
        PyBuffer_Release(&view);
        if (sent < 0) {
            send_failed(t);
        }
    }
    if (sent == 0) {
        if (enqueue(t, data, address) < 0 || watch(t) < 0) {
            return NULL;
        }
        flow(t);
    }
    Py_RETURN_NONE;
}

static PyObject *transport_sendto(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"data", "addr", NULL};
    datagram *t = (datagram *)self;
    PyObject *data, *address = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:sendto", names, &data, &address)) {
        return NULL;
    }
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        return PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%.200s'",
                            Py_TYPE(data)->tp_name);
    }
    address = check_address(t, address);
    if (address == NULL) {
        return NULL;
    }
    if (t->flags & DATAGRAM_LOST) {
        if (t->lost_writes++ >= LOST_WRITES_LOGGED) {
            return PyObject_CallMethod(t->loop->st->asyncio_logger, "warning", "s", "socket.send() raised exception.");
        }
        Py_RETURN_NONE;
    }
    Py_INCREF(t);
    PyObject *result = send_or_queue(t, data, address);
    Py_DECREF(t);
    return result;
}

static PyObject *transport_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    datagram *t = (datagram *)self;
    if (!(t->flags & DATAGRAM_CLOSING)) {
        t->flags |= DATAGRAM_CLOSING;
        if (PyList_GET_SIZE(t->queue) == 0) {
            lose(t, NULL);
        } else if (watch(t) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *transport_abort(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    lose((datagram *)self, NULL);
    Py_RETURN_NONE;
}

static PyObject *is_closing(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((datagram *)self)->flags & DATAGRAM_CLOSING);
}

static PyObject *set_protocol(PyObject *self, PyObject *protocol) {
    datagram *t = (datagram *)self;
    Py_XSETREF(t->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

static PyObject *get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *protocol = ((datagram *)self)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

static PyObject *get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromSize_t(((datagram *)self)->queued);
}

static PyObject *get_write_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    datagram *t = (datagram *)self;
    return Py_BuildValue("(nn)", (Py_ssize_t)t->low_water, (Py_ssize_t)t->high_water);
}

static PyObject *set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs) {
    datagram *t = (datagram *)self;
    if (bolide_parse_watermarks(args, kwargs, HIGH_WATER, &t->high_water, &t->low_water) < 0) {
        return NULL;
    }
    flow(t);
    Py_RETURN_NONE;
}

static PyObject *get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"name", "default", NULL};
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &fallback)) {
        return NULL;
    }
    PyObject *value = PyDict_GetItemWithError(((datagram *)self)->extra, name);
    return value == NULL && PyErr_Occurred() ? NULL : Py_NewRef(value != NULL ? value : fallback);
}

static PyObject *transport_repr(PyObject *self) {
    datagram *t = (datagram *)self;
    const char *state = t->flags & DATAGRAM_LOST ? "closed" : t->flags & DATAGRAM_CLOSING ? "closing" : "open";
    return PyUnicode_FromFormat("<bolide.DatagramTransport fd=%d %s bufsize=%zu>", t->fd, state, t->queued);
}

/* --- the type --------------------------------------------------------------------------------- */

static int transport_traverse(PyObject *self, visitproc visit, void *arg) {
    datagram *t = (datagram *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(t->extra);
    Py_VISIT(t->loop);
    Py_VISIT(t->sock);
    Py_VISIT(t->protocol);
    Py_VISIT(t->context);
    Py_VISIT(t->address);
    Py_VISIT(t->queue);
    Py_VISIT(t->waiter);
    return 0;
}

static int transport_clear(PyObject *self) {
    datagram *t = (datagram *)self;
    Py_CLEAR(t->extra);
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->waiter);
    return 0;
}

static void transport_finalize(PyObject *self) {
    datagram *t = (datagram *)self;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (!(t->flags & DATAGRAM_CLOSING) && PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    PyErr_Restore(type, value, traceback);
}

static void transport_dealloc(PyObject *self) {
    datagram *t = (datagram *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (t->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    transport_clear(self);
    Py_CLEAR(t->sock);
    Py_CLEAR(t->context);
    Py_CLEAR(t->address);
    Py_CLEAR(t->queue);
    for (int i = 0; t->peers != NULL && i < PEERS; i++) {
        Py_XDECREF(t->peers[i].object);
    }
    PyMem_Free(t->peers);
    Py_CLEAR(t->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef transport_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(datagram, weakrefs), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(datagram, loop), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_VARARGS | METH_KEYWORDS

static PyMethodDef transport_methods[] = {
    {"sendto", KEYWORDS(transport_sendto),
     PyDoc_STR("sendto(data, addr=None)\n--\n\nSend a datagram to addr, or to the remote address of the endpoint.\n\n"
               "Sent at once if the socket takes it, else queued. Raises TypeError, ValueError.")},
    {"close", transport_close, METH_NOARGS, PyDoc_STR("close()\n--\n\nClose once the queue is empty.")},
    {"abort", transport_abort, METH_NOARGS, PyDoc_STR("abort()\n--\n\nClose at once; the queue is lost.")},
    {"is_closing", is_closing, METH_NOARGS, PyDoc_STR("is_closing()\n--\n\nWhether it is closing or closed.")},
    {"set_protocol", set_protocol, METH_O, PyDoc_STR("set_protocol(protocol)\n--\n\nChange the protocol.")},
    {"get_protocol", get_protocol, METH_NOARGS, PyDoc_STR("get_protocol()\n--\n\nThe current protocol.")},
    {"get_extra_info", KEYWORDS(get_extra_info),
     PyDoc_STR("get_extra_info(name, default=None)\n--\n\n\"socket\", \"sockname\", \"peername\".")},
    {"get_write_buffer_size", get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size()\n--\n\nBytes queued.")},
    {"get_write_buffer_limits", get_write_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_write_buffer_limits()\n--\n\n(low, high) in bytes.")},
    {"set_write_buffer_limits", KEYWORDS(set_write_buffer_limits),
     PyDoc_STR(
         "set_write_buffer_limits(high=None, low=None)\n--\n\nThe marks for pause_writing() and resume_writing().")},
    {"_start", start, METH_NOARGS, NULL},
    {"_call_connection_lost", connection_lost, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The transport of a datagram socket. Source: asyncio.DatagramTransport.")},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_repr, transport_repr},
    {Py_tp_members, transport_members},
    {Py_tp_methods, transport_methods},
    {0, NULL},
};

static PyType_Spec transport_spec = {
    .name = "bolide.DatagramTransport",
    .basicsize = sizeof(datagram),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};

int bolide_datagram_init(PyObject *module, bolide_state *st) {
    PyTypeObject *base = (PyTypeObject *)st->asyncio_DatagramTransport;
    if (base->tp_basicsize > (Py_ssize_t)offsetof(datagram, resource)) {
        PyErr_SetString(PyExc_ImportError,
                        "bolide does not know the layout of this Python's asyncio.DatagramTransport");
        return -1;
    }
    /* asyncio's own datagram transport is an asyncio.Transport too. */
    PyObject *bases = PyTuple_Pack(2, st->asyncio_DatagramTransport, st->asyncio_Transport);
    if (bases == NULL) {
        return -1;
    }
    int status = bolide_add_type(module, &transport_spec, bases, &st->DatagramTransportType, true);
    Py_DECREF(bases);
    return status;
}
