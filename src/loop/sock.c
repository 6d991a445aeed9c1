#include "loop/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/arguments.h"
#include "loop/sock_op.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* No receive buffer holds more, so that a larger size need not be believed. */
#define RECV_MAX (16 * 1024 * 1024)

/* --- sock_recv(), sock_recv_into(), sock_sendall() -------------------------------------------- */

static PyObject *receive(bolide_sock_op *op, int fd) {
    if (op->size == 0) {
        return Py_NewRef(op->loop->st->empty_bytes);
    }
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

static PyObject *receive_into(bolide_sock_op *op, int fd) {
    /* As the socket module: where nothing fits, nothing is waited for. */
    ssize_t got = op->view.len > 0 ? recv(fd, op->view.buf, (size_t)op->view.len, MSG_DONTWAIT) : 0;
    return got < 0 ? NULL : PyLong_FromSsize_t(got);
}

static PyObject *send_rest(bolide_sock_op *op, int fd) {
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

/* op->size of a number, which may be any object; or op->error. */
static void read_size(bolide_sock_op *op, PyObject *number) {
    PyObject *index = PyNumber_Index(number);
    Py_ssize_t size = index != NULL ? PyLong_AsSsize_t(index) : -1;
    Py_XDECREF(index);
    if (size < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
        }
        bolide_sock_op_keep_error(op);
    }
    op->size = size < RECV_MAX ? size : RECV_MAX;
}

/* Whether receiving or sending is the kernel's alone, and not a method that the object's class has of its own, as the
 * socket of a proxy's client or a test's stand-in has. -1 with an exception set. */
static int is_plain_socket(bolide_state *st, PyObject *sock, const char *method) {
    if ((PyObject *)Py_TYPE(sock) == st->socket_socket) {
        return 1;
    }
    PyObject *theirs = PyObject_GetAttrString((PyObject *)Py_TYPE(sock), method);
    PyObject *original = theirs != NULL ? PyObject_GetAttrString(st->socket_socket, method) : NULL;
    int plain = original != NULL && theirs == original;
    Py_XDECREF(theirs);
    Py_XDECREF(original);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return plain;
}

/* For a plain socket Py_None; for another what asyncio's own method returns; NULL with an exception set. */
static PyObject *delegate(PyObject *self, const char *name, const char *method, PyObject *const values[2]) {
    bolide_state *st = ((bolide_loop *)self)->st;
    int plain = is_plain_socket(st, values[0], method);
    if (plain != 0) {
        return plain > 0 ? Py_NewRef(Py_None) : NULL;
    }
    return PyObject_CallMethod(st->asyncio_SelectorEventLoop, name, "OOO", self, values[0], values[1]);
}

static PyObject *sock_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const bolide_sock_call call = {"sock_recv", BOLIDE_READABLE, true, receive};
    static const char *const wanted[] = {"sock", "n"};
    PyObject *values[2];
    if (bolide_arguments("sock_recv", wanted, 2, args, nargs, names, values) < 0) {
        return NULL;
    }
    PyObject *delegated = delegate(self, call.name, "recv", values);
    if (delegated != Py_None) {
        return delegated;
    }
    Py_DECREF(delegated);
    bolide_sock_op *op = bolide_sock_op_new((bolide_loop *)self, &call, values[0]);
    if (op == NULL) {
        return NULL;
    }
    if (op->error == NULL) {
        read_size(op, values[1]);
    }
    PyObject_GC_Track((PyObject *)op);
    return (PyObject *)op;
}

static PyObject *buffer_op(PyObject *self, PyObject *const values[2], const bolide_sock_call *call, int flags) {
    PyObject *delegated = delegate(self, call->name, flags == PyBUF_WRITABLE ? "recv_into" : "send", values);
    if (delegated != Py_None) {
        return delegated;
    }
    Py_DECREF(delegated);
    PyObject *sock = values[0], *buffer = values[1];
    bolide_sock_op *op = bolide_sock_op_new((bolide_loop *)self, call, sock);
    if (op != NULL && op->error == NULL && PyObject_GetBuffer(buffer, &op->view, flags) < 0) {
        op->view.obj = NULL;
        if (flags == PyBUF_WRITABLE) {
            PyErr_Format(PyExc_TypeError, "recv_into() argument 1 must be read-write bytes-like object, not %.50s",
                         Py_TYPE(buffer)->tp_name);
        }
        bolide_sock_op_keep_error(op);
    }
    if (op != NULL) {
        PyObject_GC_Track((PyObject *)op);
    }
    return (PyObject *)op;
}

static PyObject *sock_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const bolide_sock_call call = {"sock_recv_into", BOLIDE_READABLE, true, receive_into};
    static const char *const wanted[] = {"sock", "buf"};
    PyObject *values[2];
    if (bolide_arguments("sock_recv_into", wanted, 2, args, nargs, names, values) < 0) {
        return NULL;
    }
    return buffer_op(self, values, &call, PyBUF_WRITABLE);
}

static PyObject *sock_sendall(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const bolide_sock_call call = {"sock_sendall", BOLIDE_WRITABLE, true, send_rest};
    static const char *const wanted[] = {"sock", "data"};
    PyObject *values[2];
    if (bolide_arguments("sock_sendall", wanted, 2, args, nargs, names, values) < 0) {
        return NULL;
    }
    return buffer_op(self, values, &call, PyBUF_SIMPLE);
}

/* --- sock_accept(), sock_connect() ------------------------------------------------------------ */

/* What a method of the socket has raised: when it says that the socket is not ready, errno is left for that. */
static PyObject *not_ready(void) {
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        errno = EAGAIN;
    }
    return NULL;
}

static PyObject *accept_one(bolide_sock_op *op, int fd) {
    (void)fd;
    bolide_state *st = op->loop->st;
    PyObject *pair = PyObject_CallMethodNoArgs(op->sock, st->str_accept);
    if (pair == NULL) {
        return not_ready();
    }
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_TypeError, "accept() of the socket must return a connection and an address");
        Py_DECREF(pair);
        return NULL;
    }
    PyObject *done = PyObject_CallMethodOneArg(PyTuple_GET_ITEM(pair, 0), st->str_setblocking, Py_False);
    if (done == NULL) {
        Py_DECREF(pair);
        return NULL;
    }
    Py_DECREF(done);
    return pair;
}

static PyObject *sock_accept(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const bolide_sock_call call = {"sock_accept", BOLIDE_READABLE, true, accept_one};
    static const char *const wanted[] = {"sock"};
    PyObject *sock;
    if (bolide_arguments("sock_accept", wanted, 1, args, nargs, names, &sock) < 0) {
        return NULL;
    }
    bolide_sock_op *op = bolide_sock_op_new((bolide_loop *)self, &call, sock);
    if (op != NULL) {
        PyObject_GC_Track((PyObject *)op);
    }
    return (PyObject *)op;
}

/* How the connection came out that the kernel was at. */
static PyObject *take_outcome(bolide_sock_op *op, int fd) {
    int code = 0;
    socklen_t len = sizeof(code);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (code == 0) {
        Py_RETURN_NONE;
    }
    PyObject *message = PyUnicode_FromFormat("Connect call failed %S", op->address);
    PyObject *error = message != NULL ? PyObject_CallFunction(PyExc_OSError, "iO", code, message) : NULL;
    Py_XDECREF(message);
    if (error == NULL) {
        return NULL;
    }
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
    return not_ready();
}

static PyObject *connect_or_ask(bolide_sock_op *op, int fd) {
    if (op->connecting) {
        return take_outcome(op, fd);
    }
    PyObject *result = PyObject_CallMethodOneArg(op->sock, op->loop->st->str_connect, op->address);
    if (result != NULL) {
        Py_DECREF(result);
        Py_RETURN_NONE;
    }
    not_ready();
    op->connecting = !PyErr_Occurred();
    return NULL;
}

/* loop._sock_connect_resolved(sock, address) */
static PyObject *sock_connect_resolved(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    static const bolide_sock_call call = {"sock_connect", BOLIDE_WRITABLE, false, connect_or_ask};
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_sock_connect_resolved() takes a socket and an address");
        return NULL;
    }
    bolide_sock_op *op = bolide_sock_op_new((bolide_loop *)self, &call, args[0]);
    if (op != NULL) {
        op->address = Py_NewRef(args[1]);
        PyObject_GC_Track((PyObject *)op);
    }
    return (PyObject *)op;
}

/* Is it what getaddrinfo() makes of a numeric address of this family? */
static bool is_numeric(PyObject *address, int family) {
    Py_ssize_t count = family == AF_INET ? 2 : 4;
    if (!PyTuple_CheckExact(address) || PyTuple_GET_SIZE(address) != count) {
        return false;
    }
    PyObject *host = PyTuple_GET_ITEM(address, 0);
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_ASCII(host)) {
        return false;
    }
    for (Py_ssize_t i = 1; i < count; i++) {
        if (!PyLong_CheckExact(PyTuple_GET_ITEM(address, i))) {
            return false;
        }
    }
    struct in6_addr any;
    const char *text = PyUnicode_AsUTF8(host);
    return text != NULL && inet_pton(family, text, &any) == 1;
}

/* loop._is_resolved(sock, address): does the socket take the address as it is, without a look-up? */
static PyObject *is_resolved(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_is_resolved() takes a socket and an address");
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(args[0]);
    struct sockaddr_storage own = {0}; /* for its family: SO_DOMAIN is not on every system */
    socklen_t len = sizeof(own);
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&own, &len) < 0) {
        PyErr_Clear(); /* no socket, or a closed one: connect() says so */
        Py_RETURN_FALSE;
    }
    int family = own.ss_family;
    bool looked_up = family == AF_INET || family == AF_INET6;
    bool resolved = !looked_up || is_numeric(args[1], family);
    PyErr_Clear();
    return PyBool_FromLong(resolved);
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
    {"sock_accept", BOLIDE_FASTCALL_KEYWORDS(sock_accept),
     PyDoc_STR("sock_accept($self, sock)\n--\n\nAwait a connection to the listening, non-blocking socket sock. Returns "
               "(conn, address):\na new non-blocking socket, and the peer's address.\n\nRaises OSError. Source: "
               "asyncio.loop.sock_accept.")},
    {"_sock_connect_resolved", (PyCFunction)(void (*)(void))sock_connect_resolved, METH_FASTCALL, NULL},
    {"_is_resolved", (PyCFunction)(void (*)(void))is_resolved, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
