/* What get_extra_info() of a transport tells. */
#include "transport/transport.h"

#include <sys/socket.h>

#include "common/error.h"
#include "common/sockaddr.h"

/* The socket of this transport: the one it was made with, or one made now for its descriptor. Borrowed; NULL with an
 * exception. */
static PyObject *socket_of(bolide_transport *t) {
    if (t->sock == NULL) {
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
    }
    return t->sock;
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
        PyObject *sock = bolide_stream_is_open(&t->stream) ? socket_of(t) : NULL;
        value = sock != NULL ? PyObject_CallOneArg(st->asyncio_TransportSocket, sock) : NULL;
        if (value == NULL && !PyErr_Occurred()) {
            Py_RETURN_NONE;
        }
    } else {
        value = socket_name(t, PyUnicode_Compare(name, st->str_peername) == 0);
    }
    if (value != NULL && value != Py_None && remember(t, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

static bool is_socket_info(bolide_state *st, PyObject *name) {
    return PyUnicode_Check(name) &&
           (PyUnicode_Compare(name, st->str_socket) == 0 || PyUnicode_Compare(name, st->str_peername) == 0 ||
            PyUnicode_Compare(name, st->str_sockname) == 0);
}

PyObject *bolide_transport_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"name", "default", NULL};
    bolide_transport *t = (bolide_transport *)self;
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &fallback)) {
        return NULL;
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
