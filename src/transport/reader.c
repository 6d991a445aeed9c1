#include "transport/reader.h"

#include <string.h>

#include "transport/protocol.h"

/* Is object.<name> a method made of `function`, neither replaced nor overridden? */
static bool is_method(PyObject *object, PyObject *name, PyObject *function) {
    PyObject *method = PyObject_GetAttr(object, name);
    if (method == NULL) {
        PyErr_Clear();
        return false;
    }
    bool same = PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function;
    Py_DECREF(method);
    return same;
}

/* The StreamReader that data_received() would feed: a new reference, or NULL without an exception. */
static PyObject *reader_of(bolide_transport *t) {
    bolide_state *st = t->loop->st;
    PyObject *protocol = Py_NewRef(t->protocol);
    PyObject *reader = NULL;
    if (is_method(protocol, st->str_data_received, st->asyncio_data_received)) {
        PyObject *reference = PyObject_GetAttr(protocol, st->str__stream_reader_wr);
        if (reference != NULL && PyWeakref_CheckRef(reference)) {
            reader = PyObject_CallNoArgs(reference);
        }
        Py_XDECREF(reference);
        PyErr_Clear();
    }
    Py_DECREF(protocol);
    if (reader != NULL && (!Py_IS_TYPE(reader, (PyTypeObject *)st->asyncio_StreamReader) ||
                           !is_method(reader, st->str_feed_data, st->asyncio_feed_data))) {
        Py_CLEAR(reader);
    }
    return reader;
}

/* Its buffer: a new reference, or NULL without an exception when it is none to append to. */
static PyObject *buffer_of(bolide_state *st, PyObject *reader) {
    PyObject *at_eof = PyObject_GetAttr(reader, st->str__eof);
    PyObject *buffer = at_eof == Py_False ? PyObject_GetAttr(reader, st->str__buffer) : NULL;
    Py_XDECREF(at_eof);
    if (buffer != NULL && !PyByteArray_CheckExact(buffer)) {
        Py_CLEAR(buffer);
    }
    PyErr_Clear();
    return buffer;
}

/* Make room for `len` more bytes. NULL, without an exception, when there is a view of the buffer, or no memory. */
static char *extend(PyObject *buffer, size_t len) {
    size_t old = (size_t)PyByteArray_GET_SIZE(buffer);
    if (len > (size_t)PY_SSIZE_T_MAX - old || PyByteArray_Resize(buffer, (Py_ssize_t)(old + len)) < 0) {
        PyErr_Clear();
        return NULL;
    }
    return PyByteArray_AS_STRING(buffer) + old;
}

bool bolide_reader_alloc(bolide_transport *t, size_t len, uv_buf_t *buf) {
    PyObject *reader = reader_of(t);
    PyObject *buffer = reader != NULL ? buffer_of(t->loop->st, reader) : NULL;
    bolide_destination *into = buffer != NULL ? bolide_transport_begin_read(t) : NULL;
    Py_ssize_t old = into != NULL ? PyByteArray_GET_SIZE(buffer) : 0;
    char *room = into != NULL ? extend(buffer, len) : NULL;
    if (room == NULL) {
        Py_XDECREF(buffer);
        Py_XDECREF(reader);
        bolide_transport_end_read(t);
        return false;
    }
    into->reader = reader;
    into->reader_buffer = buffer;
    into->reader_filled = old;
    *buf = uv_buf_init(room, (unsigned)len);
    return true;
}

/* Give back what was not used of the room that was made. No Python code has run in between, so that nobody has seen it,
 * or has got a view of the buffer. */
static int cut(bolide_destination *into, size_t used) {
    return PyByteArray_Resize(into->reader_buffer, into->reader_filled + (Py_ssize_t)used);
}

void bolide_reader_undo(bolide_destination *into) {
    if (into->reader_buffer != NULL && cut(into, 0) < 0) {
        PyErr_Clear();
    }
    Py_CLEAR(into->reader_buffer);
    Py_CLEAR(into->reader);
}

/* reader._transport.pause_reading(), unless it is paused or has no transport. 0, or -1 with an exception set. */
static int pause_reading(bolide_state *st, PyObject *reader) {
    PyObject *paused = PyObject_GetAttr(reader, st->str__paused);
    PyObject *transport = paused != NULL ? PyObject_GetAttr(reader, st->str__transport) : NULL;
    int wanted = transport == NULL ? -1 : transport == Py_None ? 0 : PyObject_Not(paused);
    int status = wanted < 0 ? -1 : 0;
    if (wanted > 0) {
        PyObject *result = PyObject_CallMethodNoArgs(transport, st->str_pause_reading);
        if (result != NULL) {
            status = PyObject_SetAttr(reader, st->str__paused, Py_True);
            Py_DECREF(result);
        } else if (PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
            PyErr_Clear();
            status = PyObject_SetAttr(reader, st->str__transport, Py_None);
        } else {
            status = -1;
        }
    }
    Py_XDECREF(transport);
    Py_XDECREF(paused);
    return status;
}

/* What feed_data() does once the bytes are in the buffer: wake who waits for them, stop reading when it is too much. */
static int after_feed(bolide_transport *t, PyObject *reader, PyObject *buffer) {
    bolide_state *st = t->loop->st;
    PyObject *waiter = PyObject_GetAttr(reader, st->str__waiter);
    if (waiter == NULL) {
        return -1;
    }
    bool waits = waiter != Py_None;
    Py_DECREF(waiter);
    if (waits) {
        PyObject *result = bolide_protocol_call(reader, t->context, &t->in_context, st->str__wakeup_waiter, NULL, NULL);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    PyObject *value = PyObject_GetAttr(reader, st->str__limit);
    if (value == NULL) {
        return -1;
    }
    double limit = PyFloat_AsDouble(value); /* whatever number it is */
    Py_DECREF(value);
    if (limit == -1 && PyErr_Occurred()) {
        return -1;
    }
    return (double)PyByteArray_GET_SIZE(buffer) > 2 * limit ? pause_reading(st, reader) : 0;
}

int bolide_reader_feed(bolide_transport *t, const char *data, size_t len) {
    PyObject *reader, *buffer;
    int status = 0;
    if (t->into != NULL) {
        reader = Py_NewRef(t->into->reader);
        buffer = t->into->reader_buffer;
        status = cut(t->into, len);
        t->into->reader_buffer = NULL;
        bolide_transport_end_read(t);
    } else {
        reader = reader_of(t);
        buffer = reader != NULL ? buffer_of(t->loop->st, reader) : NULL;
        char *room = buffer != NULL ? extend(buffer, len) : NULL;
        if (room == NULL) {
            Py_XDECREF(buffer);
            Py_XDECREF(reader);
            return 0;
        }
        memcpy(room, data, len);
    }
    if (status == 0) {
        status = after_feed(t, reader, buffer);
    }
    Py_DECREF(buffer);
    Py_DECREF(reader);
    return status < 0 ? -1 : 1;
}
