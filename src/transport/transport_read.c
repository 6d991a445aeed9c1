/* What a transport reads, and how it gets to its protocol. */
#include "transport/transport.h"

#include "transport/protocol.h"
#include "transport/reader.h"

/* Less than this is copied once more, which costs less than a bytes object that turns out too long. */
#define DIRECT_MIN 8192
/* What is read at once at most into an object of its own: more would be memory that malloc() fetches from the system
 * and gives back each time, unless bolide_memory_keep() had its way. */
#define DIRECT_MAX (96 * 1024)
/* So many in a row that brought less than half of what was foreseen change the view. */
#define SHORT_READS 8
/* Less than this in an object that was made for more is copied to one of its size. */
#define PIECE_MIN 2048

void bolide_transport_release_buffer(bolide_transport *t) {
    if (t->buffer != NULL) {
        PyBuffer_Release(&t->view);
        Py_CLEAR(t->buffer);
    }
}

void bolide_transport_alloc_piece(bolide_transport *t, uv_buf_t *buf) {
    Py_XSETREF(t->piece, PyBytes_FromStringAndSize(NULL, (Py_ssize_t)buf->len));
    if (t->piece != NULL) {
        buf->base = PyBytes_AS_STRING(t->piece);
    } else {
        PyErr_Clear();
    }
}

PyObject *bolide_transport_take_piece(bolide_transport *t, const char *data, size_t len) {
    PyObject *piece = t->piece;
    t->piece = NULL;
    if (data != PyBytes_AS_STRING(piece) || len < PIECE_MIN) {
        PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
        Py_DECREF(piece);
        return bytes;
    }
    if ((size_t)PyBytes_GET_SIZE(piece) != len) {
        (void)_PyBytes_Resize(&piece, (Py_ssize_t)len); /* NULL on failure */
    }
    return piece;
}

/* What the next read is likely to bring, seen from those before. To ask the socket (FIONREAD) costs a system call a
 * read, which is more than room that is not used. */
static void foresee(bolide_transport *t, size_t len) {
    size_t known = t->foreseen;
    if (len > known) {
        /* More than was made room for: how much more cannot be seen from here. */
        bool full = t->piece != NULL || t->reader_buffer != NULL;
        known = full ? 2 * len : len;
    } else if (len >= known / 2) {
        t->short_reads = 0;
    } else if (++t->short_reads >= SHORT_READS) {
        known = len;
    }
    if (known != t->foreseen) {
        t->short_reads = 0;
        t->foreseen = known < DIRECT_MIN ? 0 : (unsigned)(known < DIRECT_MAX ? known : DIRECT_MAX - 1);
    }
}

/* Read much at once to where it will stay. One byte more than what is foreseen tells libuv that it was all. */
static void alloc_direct(bolide_transport *t, uv_buf_t *buf) {
    size_t len = (size_t)t->foreseen + 1;
    if (!(t->flags & BOLIDE_TRANSPORT_STREAMS) || !bolide_reader_alloc(t, len, buf)) {
        uv_buf_t piece = uv_buf_init(buf->base, (unsigned)len);
        bolide_transport_alloc_piece(t, &piece);
        *buf = t->piece != NULL ? piece : *buf;
    }
}

static const char *get_buffer_failed(const bolide_transport *t) {
    return t->stream.tls != NULL ? "Fatal error on SSL protocol" : "Fatal error: protocol.get_buffer() call failed.";
}

static void refuse_empty(bolide_transport *t) {
    PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    bolide_transport_fatal(t, get_buffer_failed(t));
}

/* What get_buffer() has given is no writable buffer: asyncio finds out by its length, or by reading into it. */
static void refuse_buffer(bolide_transport *t) {
    PyErr_Clear();
    PyObject *object = t->buffer;
    t->buffer = NULL;
    Py_ssize_t len = PyObject_Size(object);
    if (len == 0) {
        refuse_empty(t);
    } else if (len < 0) {
        bolide_transport_fatal(t, get_buffer_failed(t));
    } else {
        bool tls = t->stream.tls != NULL;
        PyErr_Format(PyExc_TypeError, "%s must be read-write bytes-like object, not %.50s",
                     tls ? "read() argument 2" : "recv_into() argument 1", Py_TYPE(object)->tp_name);
        bolide_transport_fatal(t, tls ? "Fatal error on SSL protocol" : "Fatal read error on socket transport");
    }
    Py_DECREF(object);
}

void bolide_transport_on_alloc(bolide_stream *s, uv_buf_t *buf) {
    bolide_transport *t = bolide_transport_of_stream(s);
    if (!(t->flags & BOLIDE_TRANSPORT_BUFFERED)) {
        if (t->max_size > 0 && t->max_size < buf->len && s->tls == NULL) {
            buf->len = t->max_size;
        } else if (s->tls == NULL && t->foreseen > 0) {
            alloc_direct(t, buf);
        } else if (s->tls != NULL && buf->len >= DIRECT_MIN && !(t->flags & BOLIDE_TRANSPORT_STREAMS)) {
            bolide_transport_alloc_piece(t, buf);
        }
        return;
    }
    bolide_transport_release_buffer(t);
    bool known = s->tls != NULL && buf->len < BOLIDE_READ_BUF;
    PyObject *hint = PyLong_FromSsize_t(known ? (Py_ssize_t)buf->len : -1);
    t->buffer = hint != NULL ? bolide_transport_call(t, t->loop->st->str_get_buffer, hint) : NULL;
    Py_XDECREF(hint);
    *buf = uv_buf_init(NULL, 0);
    if (t->buffer == NULL) {
        bolide_transport_fatal(t, get_buffer_failed(t));
        return;
    }
    if (PyObject_GetBuffer(t->buffer, &t->view, PyBUF_WRITABLE) < 0) {
        refuse_buffer(t);
        return;
    }
    if (t->view.len == 0) {
        bolide_transport_release_buffer(t);
        refuse_empty(t);
        return;
    }
    buf->base = t->view.buf;
    buf->len = (size_t)t->view.len;
}

void bolide_transport_on_unused(bolide_stream *s) {
    bolide_transport *t = bolide_transport_of_stream(s);
    Py_CLEAR(t->piece);
    bolide_reader_undo(t);
    bolide_transport_release_buffer(t); /* while it is exported, its owner could not resize it */
}

static PyObject *receive_bytes(bolide_transport *t, const char *data, size_t len) {
    PyObject *bytes =
        t->piece != NULL ? bolide_transport_take_piece(t, data, len) : PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    PyObject *result = bytes != NULL ? bolide_transport_call(t, t->loop->st->str_data_received, bytes) : NULL;
    Py_XDECREF(bytes);
    return result;
}

/* protocol.data_received(), or what it would do. */
static PyObject *receive(bolide_transport *t, const char *data, size_t len) {
    foresee(t, len);
    int fed = t->flags & BOLIDE_TRANSPORT_STREAMS && t->piece == NULL ? bolide_reader_feed(t, data, len) : 0;
    if (fed != 0) {
        return fed > 0 ? Py_NewRef(Py_None) : NULL;
    }
    return receive_bytes(t, data, len);
}

static PyObject *buffer_updated(bolide_transport *t, size_t len) {
    bolide_transport_release_buffer(t);
    PyObject *count = PyLong_FromSize_t(len);
    PyObject *result = count != NULL ? bolide_transport_call(t, t->loop->st->str_buffer_updated, count) : NULL;
    Py_XDECREF(count);
    return result;
}

void bolide_transport_on_read(bolide_stream *s, char *data, size_t len) {
    bolide_transport *t = bolide_transport_of_stream(s);
    Py_INCREF(t);
    bool buffered = t->flags & BOLIDE_TRANSPORT_BUFFERED && t->buffer != NULL;
    PyObject *result = buffered ? buffer_updated(t, len) : receive(t, data, len);
    if (result == NULL) {
        bolide_transport_fatal(t, s->tls != NULL ? "Fatal error on SSL protocol"
                                  : buffered     ? "Fatal error: protocol.buffer_updated() call failed."
                                                 : "Fatal error: protocol.data_received() call failed.");
    }
    if (!buffered) {
        bolide_transport_release_buffer(t); /* of a protocol that was replaced in its get_buffer() */
    }
    Py_XDECREF(result);
    Py_DECREF(t);
}
