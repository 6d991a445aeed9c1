/* What get_extra_info() of a transport tells. */
#include "transport/transport.h"

#include <sys/socket.h>

#include "common/error.h"
#include "common/sockaddr.h"

/* A socket object for the descriptor, which is to be the transport's. New reference, or NULL with an exception set. */
static PyObject *open_socket(bolide_transport *t) {
    int fd = bolide_stream_fileno(&t->stream);
    if (fd < 0) {
        return bolide_error_set(fd);
    }
    PyObject *kwargs = Py_BuildValue("{s:i}", "fileno", fd);
    PyObject *args = PyTuple_New(0);
    if (kwargs != NULL && args != NULL) {
        t->sock = PyObject_Call(t->loop->st->socket_socket, args, kwargs);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    return Py_XNewRef(t->sock);
}

/* What is left of the socket after the close, for who has not asked before: an object of its kind that is closed, too.
 * New reference, or NULL with an exception set. */
static PyObject *closed_socket(bolide_transport *t) {
    int family = t->name.len > 0 ? t->name.address.sin6_family : AF_UNIX;
    int protocol = family != AF_UNIX ? IPPROTO_TCP : 0;
    PyObject *sock = PyObject_CallFunction(t->loop->st->socket_socket, "iii", family, SOCK_STREAM, protocol);
    PyObject *result = sock != NULL ? PyObject_CallMethodNoArgs(sock, t->loop->st->str_close) : NULL;
    if (result == NULL) {
        Py_CLEAR(sock);
    }
    Py_XDECREF(result);
    return sock;
}

static int remember(bolide_transport *t, PyObject *name, PyObject *value) {
    if (t->extra == NULL) {
        t->extra = PyDict_New();
    }
    return t->extra == NULL ? -1 : PyDict_SetItem(t->extra, name, value);
}

static PyObject *socket_name(bolide_transport *t, bool peer) {
    const bolide_address *known = peer ? &t->peer : &t->name;
    if (known->len > 0) {
        return bolide_sockaddr_object((const struct sockaddr *)&known->address, known->len);
    }
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    int fd = bolide_stream_fileno(&t->stream);
    int failed =
        peer ? getpeername(fd, (struct sockaddr *)&address, &len) : getsockname(fd, (struct sockaddr *)&address, &len);
    return failed ? Py_NewRef(Py_None) : bolide_sockaddr_object((struct sockaddr *)&address, len);
}

/* "socket", "sockname", "peername": from the socket, and kept for after the close. New reference; Py_None when unknown.
 */
static PyObject *socket_info(bolide_transport *t, PyObject *name) {
    bolide_state *st = t->loop->st;
    PyObject *value;
    if (PyUnicode_Compare(name, st->str_socket) == 0) {
        PyObject *sock = t->sock != NULL                     ? Py_NewRef(t->sock)
                         : bolide_stream_is_open(&t->stream) ? open_socket(t)
                                                             : closed_socket(t);
        value = sock != NULL ? PyObject_CallOneArg(st->asyncio_TransportSocket, sock) : NULL;
        Py_XDECREF(sock);
    } else {
        value = socket_name(t, PyUnicode_Compare(name, st->str_peername) == 0);
    }
    if (value != NULL && value != Py_None && remember(t, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

int bolide_transport_keep_paths(bolide_transport *t) {
    bolide_state *st = t->loop->st;
    PyObject *names[] = {st->str_sockname, st->str_peername};
    for (int i = 0; i < 2; i++) {
        bool known = i == 0 ? t->name.len > 0 : t->peer.len > 0 || t->sock == NULL; /* else accept() tells it */
        int given = known ? 1 : t->extra != NULL ? PyDict_Contains(t->extra, names[i]) : 0;
        PyObject *value = given == 0 ? socket_info(t, names[i]) : NULL;
        if (given < 0 || (given == 0 && value == NULL)) {
            return -1;
        }
        Py_XDECREF(value);
    }
    return 0;
}

static bool is_socket_info(bolide_state *st, PyObject *name) {
    return PyUnicode_Check(name) &&
           (PyUnicode_Compare(name, st->str_socket) == 0 || PyUnicode_Compare(name, st->str_peername) == 0 ||
            PyUnicode_Compare(name, st->str_sockname) == 0);
}

/* With TLS asyncio does not reach the socket any more once that is closed. */
static bool has_lost_socket(const bolide_transport *t, PyObject *name) {
    bolide_state *st = t->loop->st;
    return Py_IS_TYPE((PyObject *)t, st->SSLTransportType) && !bolide_stream_is_open(&t->stream) &&
           PyUnicode_Check(name) && PyUnicode_Compare(name, st->str_socket) == 0;
}

PyObject *bolide_transport_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"name", "default", NULL};
    bolide_transport *t = (bolide_transport *)self;
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &fallback)) {
        return NULL;
    }
    if (has_lost_socket(t, name)) {
        return Py_NewRef(fallback);
    }
    PyObject *extra = Py_XNewRef(t->extra); /* the program may replace it, also while the name is compared */
    PyObject *value = extra != NULL ? Py_XNewRef(PyDict_GetItemWithError(extra, name)) : NULL;
    Py_XDECREF(extra);
    if (value != NULL || PyErr_Occurred()) {
        return value;
    }
    if (is_socket_info(t->loop->st, name)) {
        value = socket_info(t, name);
        if (value != Py_None) {
            return value;
        }
        Py_DECREF(value);
    }
    value = bolide_transport_tls_info(t, name);
    return value != NULL || PyErr_Occurred() ? value : Py_NewRef(fallback);
}
