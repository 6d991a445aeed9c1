/* What a program writes to a transport. */
#include "transport/transport.h"

#include "common/arguments.h"
#include "transport/words.h"

#define LOST_WRITES_LOGGED 5

/* May `method` be called now? 0, or -1 with RuntimeError set. */
static int check_write(const bolide_transport *t, const char *method) {
    if (t->flags & BOLIDE_TRANSPORT_EOF_WRITTEN) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
        return -1;
    }
    if (t->flags & BOLIDE_TRANSPORT_SENDFILE) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", method);
        return -1;
    }
    return 0;
}

static bool is_lost(const bolide_transport *t) {
    return (t->flags & BOLIDE_TRANSPORT_LOST) || (t->stream.flags & BOLIDE_STREAM_BROKEN) ||
           !bolide_stream_is_open(&t->stream);
}

/* Output to a lost connection is dropped, with a warning after some. 0, or -1 with an exception set. */
static int count_lost_write(bolide_transport *t) {
    /* asyncio counts the loss itself too, which its TLS transport learns of when the connection is closed. */
    unsigned allowed =
        bolide_transport_has_tls(t) && bolide_stream_is_open(&t->stream) ? LOST_WRITES_LOGGED : LOST_WRITES_LOGGED - 1;
    if (t->lost_writes++ >= allowed) {
        const char *message =
            bolide_transport_has_tls(t) ? "SSL connection is closed" : "socket.send() raised exception.";
        PyObject *result = PyObject_CallMethod(t->loop->st->asyncio_logger, "warning", "s", message);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    return 0;
}

static bool is_empty(PyObject *data) {
    Py_ssize_t len = PyObject_Size(data);
    PyErr_Clear(); /* a memoryview without dimensions */
    return len == 0;
}

static int queue(bolide_transport *t, PyObject *data) {
    if (PyBytes_CheckExact(data)) {
        return bolide_stream_write_object(&t->stream, data);
    }
    /* The caller may change the buffer afterwards: copy. */
    PyObject *copy = PyBytes_FromObject(data);
    if (copy == NULL) {
        return -1;
    }
    int status = bolide_stream_write_object(&t->stream, copy);
    Py_DECREF(copy);
    return status;
}

static PyObject *write_data(bolide_transport *t, PyObject *data) {
    if (check_write(t, "write") < 0) {
        return NULL;
    }
    if (is_lost(t) ? !is_empty(data) && count_lost_write(t) < 0 : queue(t, data) < 0) {
        return NULL;
    }
    bolide_transport_flow(t);
    Py_RETURN_NONE;
}

PyObject *bolide_transport_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const wanted[] = {"data"};
    PyObject *data;
    if (bolide_arguments("write", wanted, 1, args, nargs, names, &data) < 0) {
        return NULL;
    }
    bolide_transport *t = (bolide_transport *)self;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        if (!bolide_transport_has_tls(t)) {
            return bolide_refuse_data("_SelectorSocketTransport", "write", data);
        }
        return PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %.200s",
                            Py_TYPE(data)->tp_name);
    }
    return write_data(t, data);
}

PyObject *bolide_transport_append_backlog(PyObject *self, PyObject *data) {
    bolide_transport *t = (bolide_transport *)self;
    if (t->stream.tls == NULL || !PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "bytes for a transport with TLS are expected");
        return NULL;
    }
    bolide_tls_hold(t->stream.tls, true);
    int status = queue(t, data);
    if (t->stream.tls != NULL) {
        bolide_tls_hold(t->stream.tls, false);
    }
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* 0, or -1 with TypeError set: one of them has no bytes to write. */
static int check_pieces(PyObject *pieces) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(pieces); i++) {
        PyObject *piece = PyTuple_GET_ITEM(pieces, i);
        if (!PyBytes_CheckExact(piece) && !PyObject_CheckBuffer(piece)) {
            PyErr_Format(PyExc_TypeError, "memoryview: a bytes-like object is required, not '%.200s'",
                         Py_TYPE(piece)->tp_name);
            return -1;
        }
    }
    return 0;
}

/* Queue what is in `list`, or nothing when one of its items cannot be. 0, or -1 with an exception set. */
static int queue_pieces(bolide_transport *t, PyObject *list) {
    PyObject *pieces = PySequence_Tuple(list); /* code that runs meanwhile may change the list */
    if (pieces == NULL) {
        return -1;
    }
    int status = check_pieces(pieces);
    for (Py_ssize_t i = 0; status == 0 && i < PyTuple_GET_SIZE(pieces) && !is_lost(t); i++) {
        status = queue(t, PyTuple_GET_ITEM(pieces, i));
    }
    Py_DECREF(pieces);
    return status;
}

static PyObject *write_pieces(bolide_transport *t, PyObject *list) {
    bool counts = is_lost(t) && (bolide_transport_has_tls(t) || bolide_counts_lost_lines());
    if (counts ? count_lost_write(t) < 0 : queue_pieces(t, list) < 0) {
        return NULL;
    }
    bolide_transport_flow(t);
    Py_RETURN_NONE;
}

#if PY_VERSION_HEX >= 0x030C0000
static PyObject *write_lines(bolide_transport *t, PyObject *list) {
    if (check_write(t, "writelines") < 0) {
        return NULL;
    }
    int some = PyObject_IsTrue(list);
    return some > 0 ? write_pieces(t, list) : some < 0 ? NULL : Py_NewRef(Py_None);
}
#else
/* asyncio's writes what is joined, with the errors of both. */
static PyObject *write_lines(bolide_transport *t, PyObject *list) {
    PyObject *joined = PyObject_CallMethod(t->loop->st->empty_bytes, "join", "(O)", list);
    PyObject *result = joined != NULL ? write_data(t, joined) : NULL;
    Py_XDECREF(joined);
    return result;
}
#endif

PyObject *bolide_transport_writelines(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const wanted[] = {"list_of_data"};
    PyObject *list;
    if (bolide_arguments("writelines", wanted, 1, args, nargs, names, &list) < 0) {
        return NULL;
    }
    bolide_transport *t = (bolide_transport *)self;
    return bolide_transport_has_tls(t) ? write_pieces(t, list) : write_lines(t, list);
}

PyObject *bolide_transport_write_eof(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_transport *t = (bolide_transport *)self;
    if (bolide_transport_has_tls(t)) {
        PyErr_SetNone(PyExc_NotImplementedError); /* as asyncio: TLS before 1.3 has no half-closed connection */
        return NULL;
    }
    if (!(t->flags & (BOLIDE_TRANSPORT_CLOSING | BOLIDE_TRANSPORT_EOF_WRITTEN))) {
        t->flags |= BOLIDE_TRANSPORT_EOF_WRITTEN;
        bolide_stream_shutdown(&t->stream);
    }
    Py_RETURN_NONE;
}
