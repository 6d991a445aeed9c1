#include "loop/sock.h"

#include <errno.h>
#include <structmember.h>
#include <sys/socket.h>

#include "common/arguments.h"
#include "common/error.h"
#include "loop/loop.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* No receive buffer holds more, so that a larger size need not be believed. */
#define RECV_MAX (16 * 1024 * 1024)

typedef enum { SOCK_RECV, SOCK_RECV_INTO, SOCK_SENDALL } sock_kind;

/* The coroutine-like object that the methods return. It does nothing before it is awaited. */
typedef struct {
    PyObject_HEAD bolide_loop *loop; /* strong */
    bolide_resource resource;
    PyObject *sock;   /* strong */
    PyObject *future; /* the wait in progress, or NULL */
    PyObject *error;  /* to be raised once it is awaited, or NULL */
    Py_buffer view;   /* SOCK_RECV_INTO, SOCK_SENDALL; view.obj is NULL otherwise */
    Py_ssize_t size;  /* SOCK_RECV: at most so many bytes */
    Py_ssize_t sent;  /* SOCK_SENDALL: so many have left */
    sock_kind kind;
    int fd;        /* of the wait in progress */
    bool started;  /* it was awaited, or sent or thrown something */
    bool held;     /* the socket stays open (see hold_open()) and `resource` is the loop's */
    bool finished; /* a result or an exception was delivered */
} sock_op;

static void stop_waiting(sock_op *op) {
    if (op->future != NULL) {
        int event = op->kind == SOCK_SENDALL ? BOLIDE_WRITABLE : BOLIDE_READABLE;
        bolide_watchers_forget(op->loop, op->fd, event, op->future);
        Py_CLEAR(op->future);
    }
}

/* Add `change` to the number of users after whom alone a socket.socket closes its descriptor: a file made by
 * socket.makefile() is one. The new number, or -1 with an exception set: it is no such object. */
static long count_user(sock_op *op, long change) {
    bolide_state *st = op->loop->st;
    PyObject *users = PyObject_GetAttr(op->sock, st->str__io_refs);
    long count = users != NULL ? PyLong_AsLong(users) : -1;
    Py_XDECREF(users);
    if (count < 0 || count + change < 0) {
        return -1;
    }
    users = PyLong_FromLong(count + change);
    int status = users != NULL ? PyObject_SetAttr(op->sock, st->str__io_refs, users) : -1;
    Py_XDECREF(users);
    return status < 0 ? -1 : count + change;
}

static void let_close(sock_op *op) {
    if (!op->held) {
        return;
    }
    op->held = false;
    bolide_resource_remove(&op->resource);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *closed = PyObject_GetAttr(op->sock, op->loop->st->str__closed);
    if (closed == Py_False) {
        (void)count_user(op, -1);
    } else if (closed != NULL) {
        Py_XDECREF(PyObject_CallMethodNoArgs(op->sock, op->loop->st->str__decref_socketios));
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(op->sock);
    }
    Py_XDECREF(closed);
    PyErr_Restore(type, value, traceback);
}

static void on_loop_close(bolide_resource *resource) {
    sock_op *op = (sock_op *)((char *)resource - offsetof(sock_op, resource));
    Py_INCREF(op);
    let_close(op);
    Py_DECREF(op);
}

/* A socket that is closed while an operation waits for it would leave that waiting for ever, on a descriptor that soon
 * is another's. It is closed when the operation ends, or the loop. */
static void hold_open(sock_op *op) {
    if (op->held) {
        return;
    }
    if (count_user(op, 1) >= 0) {
        if (op->held || op->finished) { /* by what the attribute of an odd socket has run */
            (void)count_user(op, -1);
            PyErr_Clear();
            return;
        }
        op->held = true;
        op->resource.close = on_loop_close;
        bolide_resource_add(op->loop, &op->resource);
    }
    PyErr_Clear();
}

static void finish(sock_op *op) {
    stop_waiting(op);
    let_close(op);
    op->finished = true;
    if (op->view.obj != NULL) {
        PyBuffer_Release(&op->view);
    }
}

static PyObject *receive(sock_op *op, int fd) {
    if (op->size <= BOLIDE_READ_BUF) {
        /* Not into the streams' buffer: the caller may be called for what stands there. */
        char **buffer = &op->loop->sock_buf;
        if (*buffer == NULL && (*buffer = PyMem_RawMalloc(BOLIDE_READ_BUF)) == NULL) {
            return PyErr_NoMemory();
        }
        ssize_t got = recv(fd, *buffer, (size_t)op->size, MSG_DONTWAIT);
        return got < 0 ? NULL : PyBytes_FromStringAndSize(*buffer, got);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, op->size);
    if (bytes == NULL) {
        return NULL;
    }
    ssize_t got = recv(fd, PyBytes_AS_STRING(bytes), (size_t)op->size, MSG_DONTWAIT);
    if (got < 0) {
        int saved = errno;
        Py_DECREF(bytes);
        errno = saved;
        return NULL;
    }
    _PyBytes_Resize(&bytes, got);
    return bytes;
}

static PyObject *send_rest(sock_op *op, int fd) {
    do { /* once at least: no bytes are a datagram too, and an error is told */
        const char *rest = (const char *)op->view.buf + op->sent;
        ssize_t sent = send(fd, rest, (size_t)(op->view.len - op->sent), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            return NULL;
        }
        op->sent += sent;
    } while (op->sent < op->view.len);
    return Py_NewRef(Py_None);
}

/* The system call. The result; or NULL, then errno tells why unless an exception is set. */
static PyObject *attempt(sock_op *op, int fd) {
    errno = 0;
    switch (op->kind) {
    case SOCK_RECV:
        return op->size > 0 ? receive(op, fd) : Py_NewRef(op->loop->st->empty_bytes);
    case SOCK_RECV_INTO: {
        /* As the socket module: where nothing fits, nothing is waited for. */
        ssize_t got = op->view.len > 0 ? recv(fd, op->view.buf, (size_t)op->view.len, MSG_DONTWAIT) : 0;
        return got < 0 ? NULL : PyLong_FromSsize_t(got);
    }
    default:
        return send_rest(op, fd);
    }
}

/* Arrange for the future to be resolved when the socket is ready, and yield it. */
static PyObject *begin_wait(sock_op *op, int fd) {
    bolide_state *st = op->loop->st;
    if (bolide_watchers_check_free(op->loop, fd) < 0) {
        return NULL;
    }
    PyObject *future = bolide_loop_create_future(op->loop);
    if (future == NULL) {
        return NULL;
    }
    int event = op->kind == SOCK_SENDALL ? BOLIDE_WRITABLE : BOLIDE_READABLE;
    if (PyObject_SetAttr(future, st->str__asyncio_future_blocking, Py_True) < 0 ||
        bolide_watchers_wait(op->loop, op->sock, fd, event, future) < 0) {
        Py_DECREF(future);
        return NULL;
    }
    op->fd = fd;
    Py_XSETREF(op->future, Py_NewRef(future));
    hold_open(op);
    return future;
}

static PySendResult sock_op_send(PyObject *self, PyObject *value, PyObject **result) {
    (void)value;
    sock_op *op = (sock_op *)self;
    *result = NULL;
    op->started = true;
    if (op->finished) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (op->error != NULL) {
        PyObject *error = op->error;
        op->error = NULL;
        finish(op);
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
        return PYGEN_ERROR;
    }
    stop_waiting(op);
    int fd = bolide_fileno(op->sock);
    if (fd < 0 && PyErr_ExceptionMatches(PyExc_ValueError)) { /* a closed socket: as its own methods */
        PyErr_Clear();
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    /* fileno(), and what the future let go of, may have run any code. */
    if (fd >= 0 && op->finished) {
        PyErr_SetString(PyExc_RuntimeError, "the socket operation was closed while it was resumed");
    } else if (fd >= 0 && bolide_loop_check_closed(op->loop) == 0) {
        *result = attempt(op, fd);
        if (*result != NULL) {
            finish(op);
            return PYGEN_RETURN;
        }
        if (!PyErr_Occurred() && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            *result = begin_wait(op, fd);
            if (*result != NULL) {
                return PYGEN_NEXT;
            }
        } else if (!PyErr_Occurred()) {
            PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    finish(op);
    return PYGEN_ERROR;
}

static PyObject *sock_op_iternext(PyObject *self) {
    PyObject *result;
    switch (sock_op_send(self, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result != Py_None) {
            PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
            if (stop != NULL) {
                PyErr_SetObject(PyExc_StopIteration, stop);
                Py_DECREF(stop);
            }
        }
        Py_DECREF(result);
        return NULL;
    default:
        return NULL;
    }
}

static PyObject *method_send(PyObject *self, PyObject *value) {
    (void)value;
    PyObject *result = sock_op_iternext(self);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

static PyObject *method_throw(PyObject *self, PyObject *args) {
    PyObject *type, *value = NULL, *traceback = NULL;
    if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback)) {
        return NULL;
    }
    finish((sock_op *)self);
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    }
    return NULL;
}

static PyObject *method_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    finish((sock_op *)self);
    Py_RETURN_NONE;
}

static int sock_op_traverse(PyObject *self, visitproc visit, void *arg) {
    sock_op *op = (sock_op *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(op->loop);
    Py_VISIT(op->sock);
    Py_VISIT(op->future);
    Py_VISIT(op->error);
    Py_VISIT(op->view.obj);
    return 0;
}

static int sock_op_clear(PyObject *self) {
    sock_op *op = (sock_op *)self;
    finish(op);
    Py_CLEAR(op->error);
    Py_CLEAR(op->sock);
    return 0;
}

static const char *method_name(const sock_op *op) {
    return op->kind == SOCK_RECV ? "sock_recv" : op->kind == SOCK_RECV_INTO ? "sock_recv_into" : "sock_sendall";
}

/* As of a coroutine that nobody has awaited. */
static void warn_unawaited(sock_op *op) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine 'Loop.%s' was never awaited", method_name(op)) < 0) {
        PyErr_WriteUnraisable((PyObject *)op->loop);
    }
    PyErr_Restore(type, value, traceback);
}

static void sock_op_dealloc(PyObject *self) {
    sock_op *op = (sock_op *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (!op->started && !op->finished) {
        warn_unawaited(op);
    }
    sock_op_clear(self);
    Py_CLEAR(op->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef sock_op_methods[] = {
    {"send", method_send, METH_O, NULL},
    {"throw", method_throw, METH_VARARGS, NULL},
    {"close", method_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sock_op_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A socket operation to be awaited.")},
    {Py_tp_traverse, sock_op_traverse},
    {Py_tp_clear, sock_op_clear},
    {Py_tp_dealloc, sock_op_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, sock_op_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, sock_op_send},
    {Py_tp_methods, sock_op_methods},
    {0, NULL},
};

static PyType_Spec sock_op_spec = {
    .name = "bolide._core.SockOperation",
    .basicsize = sizeof(sock_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sock_op_slots,
};

/* --- methods of the loop ---------------------------------------------------------------------- */

/* What asyncio checks by private functions of its own: no SSLSocket, and in debug mode no blocking socket. */
static int check_socket(bolide_loop *loop, PyObject *sock) {
    int is_ssl = PyObject_IsInstance(sock, loop->st->ssl_SSLSocket);
    if (is_ssl != 0) {
        if (is_ssl > 0) {
            PyErr_SetString(PyExc_TypeError, "Socket cannot be of type SSLSocket");
        }
        return -1;
    }
    if (!loop->debug) {
        return 0;
    }
    PyObject *timeout = PyObject_CallMethod(sock, "gettimeout", NULL);
    if (timeout == NULL) {
        return -1;
    }
    int blocking = timeout == Py_None || PyObject_IsTrue(timeout);
    Py_DECREF(timeout);
    if (blocking) {
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
        return -1;
    }
    return 0;
}

/* Raise the exception that is set when the operation is awaited, as a coroutine does. */
static void keep_error(sock_op *op) {
    PyObject *error = bolide_error_take();
    Py_XSETREF(op->error, error);
}

/* The caller has the garbage collector track it once it is complete. */
static sock_op *new_op(bolide_loop *loop, sock_kind kind, PyObject *sock) {
    sock_op *op = PyObject_GC_New(sock_op, loop->st->SockOperationType);
    if (op == NULL) {
        return NULL;
    }
    memset((char *)op + sizeof(PyObject), 0, sizeof(*op) - sizeof(PyObject));
    op->loop = (bolide_loop *)Py_NewRef(loop);
    op->sock = Py_NewRef(sock);
    op->kind = kind;
    op->fd = -1;
    if (check_socket(loop, sock) < 0) {
        keep_error(op);
    }
    return op;
}

/* op->size of a number, which may be any object; or op->error. */
static void read_size(sock_op *op, PyObject *number) {
    PyObject *index = PyNumber_Index(number);
    Py_ssize_t size = index != NULL ? PyLong_AsSsize_t(index) : -1;
    Py_XDECREF(index);
    if (size < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
        }
        keep_error(op);
    }
    op->size = size < RECV_MAX ? size : RECV_MAX;
}

static PyObject *sock_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const wanted[] = {"sock", "n"};
    PyObject *values[2];
    if (bolide_arguments("sock_recv", wanted, 2, args, nargs, names, values) < 0) {
        return NULL;
    }
    sock_op *op = new_op((bolide_loop *)self, SOCK_RECV, values[0]);
    if (op == NULL) {
        return NULL;
    }
    if (op->error == NULL) {
        read_size(op, values[1]);
    }
    PyObject_GC_Track((PyObject *)op);
    return (PyObject *)op;
}

static PyObject *buffer_op(PyObject *self, PyObject *sock, PyObject *buffer, sock_kind kind, int flags) {
    sock_op *op = new_op((bolide_loop *)self, kind, sock);
    if (op != NULL && op->error == NULL && PyObject_GetBuffer(buffer, &op->view, flags) < 0) {
        op->view.obj = NULL;
        if (kind == SOCK_RECV_INTO) {
            PyErr_Format(PyExc_TypeError, "recv_into() argument 1 must be read-write bytes-like object, not %.50s",
                         Py_TYPE(buffer)->tp_name);
        }
        keep_error(op);
    }
    if (op != NULL) {
        PyObject_GC_Track((PyObject *)op);
    }
    return (PyObject *)op;
}

static PyObject *sock_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const wanted[] = {"sock", "buf"};
    PyObject *values[2];
    if (bolide_arguments("sock_recv_into", wanted, 2, args, nargs, names, values) < 0) {
        return NULL;
    }
    return buffer_op(self, values[0], values[1], SOCK_RECV_INTO, PyBUF_WRITABLE);
}

static PyObject *sock_sendall(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const wanted[] = {"sock", "data"};
    PyObject *values[2];
    if (bolide_arguments("sock_sendall", wanted, 2, args, nargs, names, values) < 0) {
        return NULL;
    }
    return buffer_op(self, values[0], values[1], SOCK_SENDALL, PyBUF_SIMPLE);
}

PyMethodDef bolide_sock_methods[] = {
    {"sock_recv", BOLIDE_FASTCALL_KEYWORDS(sock_recv),
     PyDoc_STR("sock_recv($self, sock, n)\n--\n\nAwait up to n bytes from the non-blocking socket sock; b\"\" at its "
               "end.\n\nRaises OSError. Source: asyncio.loop.sock_recv.")},
    {"sock_recv_into", BOLIDE_FASTCALL_KEYWORDS(sock_recv_into),
     PyDoc_STR("sock_recv_into($self, sock, buf)\n--\n\nAwait data into the writable buffer buf. Returns the number of "
               "bytes.")},
    {"sock_sendall", BOLIDE_FASTCALL_KEYWORDS(sock_sendall),
     PyDoc_STR(
         "sock_sendall($self, sock, data)\n--\n\nAwait that all of data was handed to the kernel. Returns None.")},
    {NULL, NULL, 0, NULL},
};

int bolide_sock_init(PyObject *module, bolide_state *st) {
    return bolide_add_type(module, &sock_op_spec, NULL, &st->SockOperationType, false);
}
