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

bolide_destination *bolide_transport_begin_read(bolide_transport *t) {
    bolide_transport_end_read(t);
    return t->into = PyMem_Calloc(1, sizeof(*t->into));
}

void bolide_transport_end_read(bolide_transport *t) {
    bolide_destination *into = t->into;
    t->into = NULL;
    if (into == NULL) {
        return;
    }
    if (into->buffer != NULL) {
        PyBuffer_Release(&into->view);
        Py_DECREF(into->buffer);
    }
    Py_XDECREF(into->piece);
    bolide_reader_undo(into);
    PyMem_Free(into);
}

/* Have up to buf->len bytes read or decrypted right into what data_received() is to get; without memory leaves `buf` as
 * it is. */
static void alloc_piece(bolide_transport *t, uv_buf_t *buf) {
    bolide_destination *into = bolide_transport_begin_read(t);
    PyObject *piece = into != NULL ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)buf->len) : NULL;
    if (piece != NULL) {
        into->piece = piece;
        buf->base = PyBytes_AS_STRING(piece);
    } else {
        bolide_transport_end_read(t);
        PyErr_Clear();
    }
}

/* The `len` bytes at `data` as a bytes object: what alloc_piece() made, if they stand there. New reference, or NULL
 * with an exception set. */
static PyObject *take_bytes(bolide_transport *t, const char *data, size_t len) {
    PyObject *piece = t->into != NULL ? t->into->piece : NULL;
    if (piece == NULL || data != PyBytes_AS_STRING(piece) || len < PIECE_MIN) {
        return PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    }
    t->into->piece = NULL;
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
        bool full = t->into != NULL;
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
        alloc_piece(t, &piece);
        *buf = t->into != NULL ? piece : *buf;
    }
}

static const char *get_buffer_failed(const bolide_transport *t) {
    return t->stream.tls != NULL ? "Fatal error on SSL protocol" : "Fatal error: protocol.get_buffer() call failed.";
}

static void refuse_empty(bolide_transport *t) {
    PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    bolide_transport_fatal(t, get_buffer_failed(t));
}

/* `object`, which get_buffer() has given, is no writable buffer: asyncio finds out by its length, or by reading into
 * it.
 */
static void refuse_buffer(bolide_transport *t, PyObject *object) {
    PyErr_Clear();
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
}

/* Borrow what a BufferedProtocol reads into; `len` bytes are expected at most, -1: not known. Leaves `buf` empty when
 * that fails, with which the transport closes. */
static void alloc_lent(bolide_transport *t, Py_ssize_t len, uv_buf_t *buf) {
    PyObject *hint = PyLong_FromSsize_t(len);
    PyObject *object = hint != NULL ? bolide_transport_call(t, t->loop->st->str_get_buffer, hint) : NULL;
    Py_XDECREF(hint);
    bolide_destination *into = object != NULL ? bolide_transport_begin_read(t) : NULL;
    if (into == NULL) {
        if (object != NULL) {
            PyErr_NoMemory();
            Py_DECREF(object);
        }
        bolide_transport_fatal(t, get_buffer_failed(t));
        return;
    }
    if (PyObject_GetBuffer(object, &into->view, PyBUF_WRITABLE) < 0) {
        bolide_transport_end_read(t);
        refuse_buffer(t, object);
        Py_DECREF(object);
        return;
    }
    into->buffer = object;
    if (into->view.len == 0) {
        bolide_transport_end_read(t);
        refuse_empty(t);
        return;
    }
    buf->base = into->view.buf;
    buf->len = (size_t)into->view.len;
}

void bolide_transport_on_alloc(bolide_stream *s, uv_buf_t *buf) {
    bolide_transport *t = bolide_transport_of_stream(s);
    if (t->flags & BOLIDE_TRANSPORT_BUFFERED) {
        bool known = s->tls != NULL && buf->len < BOLIDE_READ_BUF;
        Py_ssize_t len = known ? (Py_ssize_t)buf->len : -1;
        *buf = uv_buf_init(NULL, 0);
        alloc_lent(t, len, buf);
    } else if (t->max_size > 0 && t->max_size < buf->len && s->tls == NULL) {
        buf->len = t->max_size;
    } else if (s->tls == NULL && t->foreseen > 0) {
        alloc_direct(t, buf);
    } else if (s->tls != NULL && buf->len >= DIRECT_MIN && !(t->flags & BOLIDE_TRANSPORT_STREAMS)) {
        alloc_piece(t, buf);
    }
}

void bolide_transport_on_unused(bolide_stream *s) {
    bolide_transport_end_read(
        bolide_transport_of_stream(s)); /* while a buffer is lent, its owner could not resize it */
}

static PyObject *receive_bytes(bolide_transport *t, const char *data, size_t len) {
    PyObject *bytes = take_bytes(t, data, len);
    bolide_transport_end_read(t);
    PyObject *result = bytes != NULL ? bolide_transport_call(t, t->loop->st->str_data_received, bytes) : NULL;
    Py_XDECREF(bytes);
    return result;
}

/* protocol.data_received(), or what it would do. */
static PyObject *receive(bolide_transport *t, const char *data, size_t len) {
    foresee(t, len);
    bool feeds = t->flags & BOLIDE_TRANSPORT_STREAMS && (t->into == NULL || t->into->reader != NULL);
    int fed = feeds ? bolide_reader_feed(t, data, len) : 0;
    if (fed != 0) {
        return fed > 0 ? Py_NewRef(Py_None) : NULL;
    }
    return receive_bytes(t, data, len);
}

static PyObject *buffer_updated(bolide_transport *t, size_t len) {
    bolide_transport_end_read(t);
    PyObject *count = PyLong_FromSize_t(len);
    PyObject *result = count != NULL ? bolide_transport_call(t, t->loop->st->str_buffer_updated, count) : NULL;
    Py_XDECREF(count);
    return result;
}

void bolide_transport_on_read(bolide_stream *s, char *data, size_t len) {
    bolide_transport *t = bolide_transport_of_stream(s);
    Py_INCREF(t);
    bool buffered = t->flags & BOLIDE_TRANSPORT_BUFFERED && t->into != NULL && t->into->buffer != NULL;
    PyObject *result = buffered ? buffer_updated(t, len) : receive(t, data, len);
    if (result == NULL) {
        bolide_transport_fatal(t, s->tls != NULL ? "Fatal error on SSL protocol"
                                  : buffered     ? "Fatal error: protocol.buffer_updated() call failed."
                                                 : "Fatal error: protocol.data_received() call failed.");
    }
    Py_XDECREF(result);
    Py_DECREF(t);
}
