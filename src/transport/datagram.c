#include "transport/datagram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/error.h"
#include "common/sockaddr.h"
#include "transport/protocol.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#define HEADER_COST  8     /* what a queued datagram counts beyond its bytes, as in asyncio */
#define BATCH        4     /* datagrams read at once */
#define BATCHES      4     /* so often, before other work gets its turn */
#define DATAGRAM_MAX 65536 /* more than any datagram has */
#define PEERS_FIRST  16    /* addresses remembered with their tuples: as a client needs */
#define PEERS_MAX    512   /* and as a server does */

_Static_assert(BOLIDE_READ_BUF >= BATCH * DATAGRAM_MAX, "a batch of datagrams fits in the loop's buffer");

static bolide_datagram *of_resource(bolide_resource *res) {
    return (bolide_datagram *)((char *)res - offsetof(bolide_datagram, resource));
}

/* --- calling the protocol --------------------------------------------------------------------- */

void bolide_datagram_notify(bolide_datagram *t, PyObject *name, PyObject *a, PyObject *b) {
    if (t->protocol == NULL) {
        return;
    }
    Py_INCREF(t);
    bolide_loop *loop = (bolide_loop *)Py_NewRef(t->loop);
    loop->occupied++;
    PyObject *result = bolide_protocol_call(t->protocol, t->context, &t->in_context, name, a, b);
    loop->occupied--;
    Py_DECREF(loop);
    if (result == NULL) {
        bolide_protocol_report(t->loop, (PyObject *)t, t->protocol, t->context, name, a, b);
    }
    Py_XDECREF(result);
    Py_DECREF(t);
}

static void notify_error(bolide_datagram *t, int err) {
    PyObject *exception = bolide_error_new(-err);
    if (exception == NULL) {
        bolide_loop_report(t->loop, "making an OSError failed", "transport", (PyObject *)t);
        return;
    }
    bolide_datagram_notify(t, t->loop->st->str_error_received, exception, NULL);
    Py_DECREF(exception);
}

/* --- closing ---------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle) {
    bolide_datagram *t = handle->data;
    bolide_loop_enter(t->loop);
    bolide_resource_remove(&t->resource);
    Py_DECREF(t); /* libuv's */
}

static void release(bolide_datagram *t) {
    (void)bolide_watchers_set_transport(t->loop, t->fd, NULL);
    bolide_loop_claim(t->loop);
    if (!uv_is_closing((uv_handle_t *)&t->poll)) {
        uv_close((uv_handle_t *)&t->poll, on_closed);
    }
    t->polled = 0;
}

void bolide_datagram_close_descriptor(bolide_datagram *t) {
    if (t->poll_fd >= 0) {
        close(t->poll_fd);
        t->poll_fd = -1;
    }
}

void bolide_datagram_lose(bolide_datagram *t, PyObject *exception) {
    if (t->flags & BOLIDE_DATAGRAM_LOST) {
        return;
    }
    t->flags |= BOLIDE_DATAGRAM_CLOSING | BOLIDE_DATAGRAM_LOST;
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
    bolide_datagram *t = of_resource(res);
    t->flags |= BOLIDE_DATAGRAM_LOST;
    release(t);
    bolide_datagram_close_descriptor(t);
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

static bool same_address(const bolide_peer *a, const bolide_peer *b) {
    if (a->len != b->len || a->address.any.sa_family != b->address.any.sa_family) {
        return false;
    }
    if (a->address.any.sa_family == AF_INET) {
        return a->address.in.sin_port == b->address.in.sin_port &&
               a->address.in.sin_addr.s_addr == b->address.in.sin_addr.s_addr;
    }
    return memcmp(&a->address.in6, &b->address.in6, sizeof(a->address.in6)) == 0;
}

/* Then no table is wide enough for both. */
static bool same_port(const bolide_peer *a, const bolide_peer *b) {
    return a->address.in.sin_port == b->address.in.sin_port;
}

static bolide_peer *slot_of(const bolide_datagram *t, const bolide_peer *p) {
    unsigned port = p->address.in.sin_port; /* at the same place in both families */
    return &t->peers[((port * 2654435761u) >> 16) & (t->peer_slots - 1)];
}

/* Make the table of addresses, or a larger one where two share a slot. 0, or -1 without an exception. */
static int widen(bolide_datagram *t) {
    unsigned slots = t->peers == NULL ? PEERS_FIRST : 2 * t->peer_slots;
    bolide_peer *old = t->peers;
    bolide_peer *peers = PyMem_Calloc(slots, sizeof(bolide_peer));
    if (peers == NULL) {
        return -1;
    }
    unsigned old_slots = t->peer_slots;
    t->peers = peers;
    t->peer_slots = slots;
    for (unsigned i = 0; i < old_slots; i++) {
        if (old[i].object != NULL) {
            *slot_of(t, &old[i]) = old[i]; /* which is free: no two of them shared a slot of fewer */
        }
    }
    PyMem_Free(old);
    return 0;
}

/* The tuple for the address that was received; the same object for a bolide_peer seen lately. New reference or NULL. */
static PyObject *address_object(bolide_datagram *t, const struct sockaddr_storage *address, socklen_t len) {
    bolide_peer seen = {.len = len};
    bool inet = (address->ss_family == AF_INET && len == sizeof(struct sockaddr_in)) ||
                (address->ss_family == AF_INET6 && len == sizeof(struct sockaddr_in6));
    if (!inet) {
        return bolide_sockaddr_object((const struct sockaddr *)address, len);
    }
    memcpy(&seen.address, address, len);
    if (t->peers == NULL && widen(t) < 0) {
        return PyErr_NoMemory();
    }
    bolide_peer *slot = slot_of(t, &seen);
    if (slot->object == NULL || !same_address(slot, &seen)) {
        while (slot->object != NULL && t->peer_slots < PEERS_MAX && !same_port(slot, &seen) && widen(t) == 0) {
            slot = slot_of(t, &seen);
        }
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
static const bolide_peer *known_peer(bolide_datagram *t, PyObject *object) {
    if (t->peers == NULL || !PyTuple_CheckExact(object) || PyTuple_GET_SIZE(object) < 2) {
        return NULL;
    }
    long port = PyLong_AsLong(PyTuple_GET_ITEM(object, 1));
    if (port < 0 || port > 65535) {
        PyErr_Clear();
        return NULL;
    }
    bolide_peer key = {.address.in.sin_port = htons((uint16_t)port)};
    bolide_peer *slot = slot_of(t, &key);
    return slot->object == object ? slot : NULL;
}

/* --- output ----------------------------------------------------------------------------------- */

/* 1: sent, or failed and the protocol was told; 0: the socket is full; -1: an exception is set (a wrong address, ...).
 */
static int send_now(bolide_datagram *t, const char *data, size_t len, PyObject *object, PyObject *address) {
    ssize_t sent;
    const bolide_peer *to = NULL;
    if (t->flags & BOLIDE_DATAGRAM_CONNECTED) {
        sent = send(t->poll_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if ((to = known_peer(t, address)) != NULL) {
        sent = sendto(t->poll_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL, &to->address.any, to->len);
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
static void send_failed(bolide_datagram *t) {
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        bolide_loop_set_fatal(t->loop);
        return;
    }
    bool is_os_error = PyErr_ExceptionMatches(PyExc_OSError);
    PyObject *error = bolide_error_take();
    if (is_os_error) {
        bolide_datagram_notify(t, t->loop->st->str_error_received, error, NULL);
    } else {
        bolide_protocol_tell_handler(t->loop, (PyObject *)t, t->protocol, "Fatal write error on datagram transport",
                                     error);
        bolide_datagram_lose(t, error);
    }
    Py_XDECREF(error);
}

static void on_ready(uv_poll_t *poll, int status, int events);

int bolide_datagram_watch(bolide_datagram *t) {
    bolide_loop_claim(t->loop);
    bool reads = !(t->flags & (BOLIDE_DATAGRAM_CLOSING | BOLIDE_DATAGRAM_PAUSED));
    int events = (reads ? UV_READABLE : 0) | (PyList_GET_SIZE(t->queue) > 0 ? UV_WRITABLE : 0);
    if (events == t->polled || (t->flags & BOLIDE_DATAGRAM_LOST)) {
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

void bolide_datagram_flow(bolide_datagram *t) {
    if (t->protocol == NULL) {
        return;
    }
    if (t->queued > t->high_water && !(t->flags & BOLIDE_DATAGRAM_WRITING_PAUSED)) {
        t->flags |= BOLIDE_DATAGRAM_WRITING_PAUSED;
        bolide_datagram_notify(t, t->loop->st->str_pause_writing, NULL, NULL);
    } else if (t->queued <= t->low_water && (t->flags & BOLIDE_DATAGRAM_WRITING_PAUSED)) {
        t->flags &= ~(unsigned)BOLIDE_DATAGRAM_WRITING_PAUSED;
        bolide_datagram_notify(t, t->loop->st->str_resume_writing, NULL, NULL);
    }
}

static int enqueue(bolide_datagram *t, PyObject *data, PyObject *address) {
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

int bolide_datagram_send(bolide_datagram *t, PyObject *data, PyObject *address) {
    int sent = 0;
    if (PyList_GET_SIZE(t->queue) == 0) {
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            return -1;
        }
        sent = send_now(t, view.buf, (size_t)view.len, data, address);
        PyBuffer_Release(&view);
        if (sent < 0) {
            send_failed(t);
        }
    }
    if (sent == 0 && !(t->flags & BOLIDE_DATAGRAM_LOST)) {
        if (enqueue(t, data, address) < 0 || bolide_datagram_watch(t) < 0) {
            return -1;
        }
        bolide_datagram_flow(t);
    }
    return 0;
}

static void send_queued(bolide_datagram *t) {
    while (PyList_GET_SIZE(t->queue) > 0 && !(t->flags & BOLIDE_DATAGRAM_LOST)) {
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
    if (t->flags & BOLIDE_DATAGRAM_LOST) {
        return;
    }
    bolide_datagram_flow(t);
    if (PyList_GET_SIZE(t->queue) == 0) {
        if (t->flags & BOLIDE_DATAGRAM_CLOSING) {
            bolide_datagram_lose(t, NULL);
        } else if (bolide_datagram_watch(t) < 0) {
            bolide_loop_report(t->loop, "watching a datagram socket failed", "transport", (PyObject *)t);
        }
    }
}

/* --- input ------------------------------------------------------------------------------------ */

/* Steals `data`, which is NULL with an exception set when there was no memory for it. */
static void deliver(bolide_datagram *t, PyObject *data, const struct sockaddr_storage *address, socklen_t len) {
    PyObject *from = data != NULL ? address_object(t, address, len) : NULL;
    if (from != NULL) {
        bolide_datagram_notify(t, t->loop->st->str_datagram_received, data, from);
    } else {
        bolide_loop_report(t->loop, "Fatal read error on datagram transport", "transport", (PyObject *)t);
    }
    Py_XDECREF(data);
    Py_XDECREF(from);
}

static bool may_receive(const bolide_datagram *t) {
    return !(t->flags & (BOLIDE_DATAGRAM_CLOSING | BOLIDE_DATAGRAM_PAUSED)) && t->loop->fatal == NULL &&
           !t->loop->closed;
}

static void receive_failed(bolide_datagram *t, int err) {
    if (err != EAGAIN && err != EWOULDBLOCK && err != EINTR) {
        notify_error(t, err);
    }
}

static size_t size_to_receive(const bolide_datagram *t) {
    return t->max_size > 0 && t->max_size < DATAGRAM_MAX ? t->max_size : DATAGRAM_MAX;
}

#ifdef __linux__

/* Several datagrams a system call. False: fewer than asked for, so that the socket is empty now. */
static bool receive_batch(bolide_datagram *t) {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    struct sockaddr_storage addresses[BATCH];
    char *buffer = t->loop->read_buf;
    size_t size = size_to_receive(t);
    memset(messages, 0, sizeof(messages));
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffer + i * DATAGRAM_MAX, size};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &addresses[i];
        messages[i].msg_hdr.msg_namelen = sizeof(addresses[i]);
    }
    int count = recvmmsg(t->poll_fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (count < 0) {
        receive_failed(t, errno);
        return false;
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
    return count == BATCH;
}

#else

static bool receive_batch(bolide_datagram *t) {
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    ssize_t got =
        recvfrom(t->poll_fd, t->loop->read_buf, size_to_receive(t), MSG_DONTWAIT, (struct sockaddr *)&address, &len);
    if (got < 0) {
        receive_failed(t, errno);
        return false;
    }
    deliver(t, PyBytes_FromStringAndSize(t->loop->read_buf, got), &address, len);
    return true;
}

#endif

static void receive(bolide_datagram *t) {
    for (int i = 0; i < BATCHES && may_receive(t) && receive_batch(t); i++) {
    }
}

static void on_ready(uv_poll_t *poll, int status, int events) {
    bolide_datagram *t = poll->data;
    bolide_loop_enter(t->loop);
    if (status < 0) {
        /* An error is pending on the socket, and libuv stopped watching: the call tells which. */
        t->polled = 0;
        events = UV_READABLE | UV_WRITABLE;
        if (bolide_datagram_watch(t) < 0) {
            PyErr_Clear();
        }
    }
    Py_INCREF(t);
    if ((events & UV_READABLE) && may_receive(t)) {
        receive(t);
    }
    if ((events & UV_WRITABLE) && !(t->flags & BOLIDE_DATAGRAM_LOST)) {
        send_queued(t);
    }
    Py_DECREF(t);
}

/* --- opening ---------------------------------------------------------------------------------- */

int bolide_datagram_open(bolide_datagram *t) {
    bolide_loop_claim(t->loop);
    if (bolide_loop_check_closed(t->loop) < 0) {
        return -1;
    }
    t->poll_fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 3);
    if (t->poll_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    int status = uv_poll_init(&t->loop->uv, &t->poll, t->poll_fd);
    if (status < 0) {
        bolide_datagram_close_descriptor(t);
        bolide_error_set(status);
        return -1;
    }
    t->poll.data = Py_NewRef(t);
    t->resource.traverse = resource_traverse;
    t->resource.close = resource_close;
    bolide_resource_add(t->loop, &t->resource);
    return 0;
}
