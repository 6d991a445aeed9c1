#include "loop/sock_op.h"

#include <errno.h>
#include <string.h>

#include "common/error.h"

static void stop_waiting(bolide_sock_op *op) {
    if (op->future != NULL) {
        bolide_watchers_forget(op->loop, op->fd, op->call->event, op->future);
        if (!op->call->keeps_armed) {
            bolide_watchers_disarm(op->loop, op->fd);
        }
        Py_CLEAR(op->future);
    }
}

/* Add `change` to the number of users after whom alone a socket.socket closes its descriptor: a file made by
 * socket.makefile() is one. The new number, or -1 with an exception set: it is no such object. */
static long count_user(bolide_sock_op *op, long change) {
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

static void let_close(bolide_sock_op *op) {
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
    bolide_sock_op *op = (bolide_sock_op *)((char *)resource - offsetof(bolide_sock_op, resource));
    Py_INCREF(op);
    let_close(op);
    Py_DECREF(op);
}

/* A socket that is closed while an operation waits for it would leave that waiting for ever, on a descriptor that soon
 * is another's. It is closed when the operation ends, or the loop. */
static void hold_open(bolide_sock_op *op) {
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

static void finish(bolide_sock_op *op) {
    stop_waiting(op);
    let_close(op);
    op->finished = true;
    if (op->view.obj != NULL) {
        PyBuffer_Release(&op->view);
    }
}

/* Arrange for the future to be resolved when the socket is ready, and yield it. */
static PyObject *begin_wait(bolide_sock_op *op, int fd) {
    bolide_state *st = op->loop->st;
    if (bolide_watchers_check_free(op->loop, fd) < 0) {
        return NULL;
    }
    PyObject *future = bolide_loop_create_future(op->loop);
    if (future == NULL) {
        return NULL;
    }
    if (PyObject_SetAttr(future, st->str__asyncio_future_blocking, Py_True) < 0 ||
        bolide_watchers_wait(op->loop, op->sock, fd, op->call->event, future) < 0) {
        Py_DECREF(future);
        return NULL;
    }
    op->fd = fd;
    Py_XSETREF(op->future, Py_NewRef(future));
    hold_open(op);
    return future;
}

/* The descriptor of the socket, or -1 with an exception set. */
static int descriptor(bolide_sock_op *op) {
    int fd = PyObject_AsFileDescriptor(op->sock);
    if (fd < 0 && PyErr_ExceptionMatches(PyExc_ValueError)) { /* a closed socket: as its own methods */
        PyErr_Clear();
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return fd;
}

/* fileno(), connect() and accept() of an odd socket, and what a future lets go of, may run any code. */
static int check_usable(bolide_sock_op *op) {
    if (op->finished) {
        PyErr_SetString(PyExc_RuntimeError, "the socket operation was closed while it was resumed");
        return -1;
    }
    return bolide_loop_check_closed(op->loop);
}

static PySendResult advance(bolide_sock_op *op, PyObject **result) {
    int fd = descriptor(op);
    if (fd < 0 || check_usable(op) < 0) {
        return PYGEN_ERROR;
    }
    errno = 0;
    *result = op->call->attempt(op, fd);
    if (*result != NULL) {
        return PYGEN_RETURN;
    }
    if (!PyErr_Occurred() && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        *result = check_usable(op) == 0 ? begin_wait(op, fd) : NULL;
        return *result != NULL ? PYGEN_NEXT : PYGEN_ERROR;
    }
    if (!PyErr_Occurred()) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return PYGEN_ERROR;
}

static PySendResult sock_op_send(PyObject *self, PyObject *value, PyObject **result) {
    (void)value;
    bolide_sock_op *op = (bolide_sock_op *)self;
    *result = NULL;
    if (op->running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return PYGEN_ERROR;
    }
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
    op->running = true;
    stop_waiting(op);
    PySendResult status = advance(op, result);
    op->running = false;
    if (status != PYGEN_NEXT) {
        finish(op);
    }
    return status;
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
    finish((bolide_sock_op *)self);
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
    finish((bolide_sock_op *)self);
    Py_RETURN_NONE;
}

static int sock_op_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_sock_op *op = (bolide_sock_op *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(op->loop);
    Py_VISIT(op->sock);
    Py_VISIT(op->future);
    Py_VISIT(op->error);
    Py_VISIT(op->address);
    Py_VISIT(op->view.obj);
    return 0;
}

static int sock_op_clear(PyObject *self) {
    bolide_sock_op *op = (bolide_sock_op *)self;
    finish(op);
    Py_CLEAR(op->error);
    Py_CLEAR(op->address);
    Py_CLEAR(op->sock);
    return 0;
}

/* As of a coroutine that nobody has awaited. */
static void warn_unawaited(bolide_sock_op *op) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine 'Loop.%s' was never awaited", op->call->name) < 0) {
        PyErr_WriteUnraisable((PyObject *)op->loop);
    }
    PyErr_Restore(type, value, traceback);
}

static void sock_op_dealloc(PyObject *self) {
    bolide_sock_op *op = (bolide_sock_op *)self;
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
    .basicsize = sizeof(bolide_sock_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sock_op_slots,
};

/* --- making one ------------------------------------------------------------------------------- */

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

void bolide_sock_op_keep_error(bolide_sock_op *op) {
    PyObject *error = bolide_error_take();
    Py_XSETREF(op->error, error);
}

bolide_sock_op *bolide_sock_op_new(bolide_loop *loop, const bolide_sock_call *call, PyObject *sock) {
    bolide_sock_op *op = PyObject_GC_New(bolide_sock_op, loop->st->SockOperationType);
    if (op == NULL) {
        return NULL;
    }
    memset((char *)op + sizeof(PyObject), 0, sizeof(*op) - sizeof(PyObject));
    op->loop = (bolide_loop *)Py_NewRef(loop);
    op->call = call;
    op->sock = Py_NewRef(sock);
    op->fd = -1;
    if (check_socket(loop, sock) < 0) {
        bolide_sock_op_keep_error(op);
    }
    return op;
}

int bolide_sock_op_init(PyObject *module, bolide_state *st) {
    return bolide_add_type(module, &sock_op_spec, NULL, &st->SockOperationType, false);
}
