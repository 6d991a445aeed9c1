/* A file as the body of a response: http.response.pathsend. Its pieces are read as the peer takes them, by the
 * awaitable that send() returned. */
#include "asgi/asgi.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (64 * 1024)

void bolide_file_end(bolide_request *r) {
    if (r->file != 0) {
        (void)close(r->file - 1);
        r->file = 0;
    }
}

/* Open the regular file `path`. The descriptor, or -1 with an exception set. */
static int open_file(PyObject *path, uint64_t *size) {
    PyObject *name = NULL;
    if (!PyUnicode_Check(path) || !PyUnicode_FSConverter(path, &name)) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "path must be str, not %.100s", Py_TYPE(path)->tp_name);
        }
        return -1;
    }
    struct stat st;
    int fd = -1;
    if (PyBytes_AS_STRING(name)[0] != '/') {
        PyErr_SetString(PyExc_ValueError, "path must be absolute");
    } else {
        /* O_NONBLOCK: a pipe, which is refused below, must not be waited for. */
        fd = open(PyBytes_AS_STRING(name), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) != 0) {
            PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
        } else if (!S_ISREG(st.st_mode)) {
            PyErr_SetString(PyExc_ValueError, "path must be that of a regular file");
        }
    }
    Py_DECREF(name);
    if (PyErr_Occurred()) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

int bolide_file_begin(bolide_request *r, PyObject *path) {
    uint64_t size;
    int fd = open_file(path, &size);
    if (fd < 0) {
        return -1;
    }
    bolide_file_end(r);
    r->file = fd + 1;
    r->file_left = r->response.framing == BOLIDE_BODY_NONE ? 0 : size;
    return 0;
}

/* The next piece of the file. New reference, or NULL with an exception set. */
static PyObject *read_piece(bolide_request *r) {
    Py_ssize_t want = r->file_left < PIECE ? (Py_ssize_t)r->file_left : PIECE;
    PyObject *piece = PyBytes_FromStringAndSize(NULL, want);
    if (piece == NULL) {
        return NULL;
    }
    ssize_t got;
    do {
        got = want > 0 ? read(r->file - 1, PyBytes_AS_STRING(piece), (size_t)want) : 0;
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(piece);
    } else if (got == 0 && want > 0) {
        PyErr_SetString(PyExc_RuntimeError, "the file became shorter while it was sent");
        Py_CLEAR(piece);
    } else if (got < want) {
        (void)_PyBytes_Resize(&piece, got);
    }
    return piece;
}

/* As bolide_file_go_on(), for one piece. */
static int send_piece(bolide_request *r) {
    PyObject *piece = read_piece(r);
    if (piece == NULL) {
        return -1;
    }
    r->file_left -= (uint64_t)PyBytes_GET_SIZE(piece);
    bool more = r->file_left > 0;
    bool trailers = (r->flags & BOLIDE_REQUEST_TRAILERS) != 0 && r->response.framing == BOLIDE_BODY_CHUNKED;
    int result = bolide_response_body(&r->conn->stream, &r->response, piece, more || trailers);
    if (result == 0) {
        bolide_access_sent(r, piece);
    }
    Py_DECREF(piece);
    if (result == 0 && !more && trailers && r->conn != NULL) {
        result = bolide_stream_write(&r->conn->stream, "0\r\n", 3);
    }
    return result < 0 ? -1 : !more;
}

int bolide_file_go_on(bolide_request *r) {
    int done = 0;
    if (r->file == 0) {
        return 1; /* another awaitable has seen to it */
    }
    while (done == 0 && r->conn != NULL && bolide_conn_is_open(r->conn) && !bolide_stream_is_full(&r->conn->stream)) {
        done = send_piece(r);
    }
    if (done == 0 && (r->conn == NULL || !bolide_conn_is_open(r->conn))) {
        PyErr_SetString(bolide_asgi_of(r)->ClientDisconnected, "the client has disconnected");
        done = -1;
    }
    if (done != 0) {
        bolide_file_end(r);
    }
    if (done > 0 && (r->flags & BOLIDE_REQUEST_TRAILERS) != 0) {
        r->flags |= BOLIDE_REQUEST_BODY_SENT;
    } else if (done > 0) {
        bolide_request_complete(r);
    }
    return done;
}
