/* Files as pieces of a response: http.response.pathsend and http.response.zerocopysend. The awaitable that send()
 * returned sends them, as the peer takes them: by the kernel alone where that can be, else by reading. */
#include "asgi/asgi.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is read at a time: more than the high-water mark, so that the stream tells when it has left. */
#define PIECE (80 * 1024)
/* What one response sends in a turn. */
#define QUANTUM (512 * 1024)

void bolide_file_end(bolide_request *r) {
    if (r->ws == NULL && r->file != 0) {
        (void)close(r->file - 1);
        r->file = 0;
    }
}

/* Start to send `size` bytes of the file `fd`, which becomes ours, from `offset` on. 0, or -1 with an exception set. */
static int begin(bolide_request *r, int fd, uint64_t offset, uint64_t size, bool more) {
    bool trailers = (r->flags & BOLIDE_REQUEST_TRAILERS) != 0 && r->response.framing == BOLIDE_BODY_CHUNKED;
    int result = -1;
    /* Reading the message may have run code. */
    if (bolide_request_is_gone(r)) {
        bolide_request_disconnected(r);
    } else if ((r->flags & (BOLIDE_REQUEST_COMPLETE | BOLIDE_REQUEST_BODY_SENT)) != 0 || r->file != 0) {
        PyErr_SetString(PyExc_RuntimeError, "another message was sent meanwhile");
    } else {
        result = bolide_response_open_piece(&r->conn->stream, &r->response, size, more || trailers);
        result = result == 0 && r->conn == NULL ? bolide_request_disconnected(r) : result;
    }
    if (result < 0) {
        (void)close(fd);
        return -1;
    }
    r->file = fd + 1;
    r->file_offset = offset;
    r->file_size = r->file_left = r->response.framing == BOLIDE_BODY_NONE ? 0 : size;
    r->flags &= ~(unsigned)BOLIDE_REQUEST_FILE_MORE;
    r->flags |= more ? BOLIDE_REQUEST_FILE_MORE : 0u;
    return 0;
}

/* --- http.response.pathsend --------------------------------------------------------------------------------------- */

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
    /* The specification wants it absolute, but Starlette's FileResponse hands on what it was given. O_NONBLOCK: a pipe,
     * which is refused below, must not be waited for. */
    fd = open(PyBytes_AS_STRING(name), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    } else if (!S_ISREG(st.st_mode)) {
        PyErr_SetString(PyExc_ValueError, "path must be that of a regular file");
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

int bolide_file_begin_path(bolide_request *r, PyObject *message) {
    PyObject *path = NULL;
    if (bolide_message_require(message, bolide_asgi_of(r)->str_path, &path) < 0) {
        return -1;
    }
    uint64_t size;
    int fd = open_file(path, &size);
    Py_DECREF(path);
    return fd < 0 ? -1 : begin(r, fd, 0, size, false);
}

/* --- http.response.zerocopysend ----------------------------------------------------------------------------------- */

/* What a message says of a file; strong references, NULL for what it does not have. */
typedef struct {
    PyObject *file, *offset, *count, *more;
} file_message;

/* 0, or -1 with an exception set; the references are to be dropped either way. */
static int read_message(bolide_asgi_state *as, PyObject *message, file_message *m) {
    *m = (file_message){0};
    if (bolide_message_require(message, as->str_file, &m->file) < 0 ||
        bolide_message_get(message, as->str_offset, &m->offset) < 0 ||
        bolide_message_get(message, as->str_count, &m->count) < 0 ||
        bolide_message_get(message, as->str_more_body, &m->more) < 0) {
        return -1;
    }
    if (m->offset == Py_None) {
        Py_CLEAR(m->offset);
    }
    if (m->count == Py_None) {
        Py_CLEAR(m->count);
    }
    return 0;
}

/* 0, or -1 with an exception set. */
static int read_number(PyObject *value, const char *name, uint64_t *number) {
    long long wide = PyLong_AsLongLong(value);
    if (wide == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (wide < 0) {
        PyErr_Format(PyExc_ValueError, "%s must not be negative", name);
        return -1;
    }
    *number = (uint64_t)wide;
    return 0;
}

/* The regular file behind `file`, a descriptor or an object with fileno(), by a descriptor of our own: the application
 * may close its own whenever it likes. -1 with an exception set. */
static int duplicate(PyObject *file, uint64_t *size) {
    struct stat st;
    int theirs = PyObject_AsFileDescriptor(file);
    if (theirs < 0) {
        return -1;
    }
    int fd = fcntl(theirs, F_DUPFD_CLOEXEC, 0);
    if (fd < 0 || fstat(fd, &st) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    } else if (!S_ISREG(st.st_mode)) {
        PyErr_SetString(PyExc_ValueError, "file must be a regular file");
    } else {
        *size = (uint64_t)st.st_size;
        return fd;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return -1;
}

/* Where the file stands. An object knows that better than its descriptor, which may be further by what the object has
 * read ahead. 0, or -1 with an exception set. */
static int tell(PyObject *file, int fd, uint64_t *offset) {
    if (PyLong_Check(file)) {
        off_t position = lseek(fd, 0, SEEK_CUR);
        *offset = (uint64_t)position;
        return position >= 0 ? 0 : (PyErr_SetFromErrno(PyExc_OSError), -1);
    }
    PyObject *position = PyObject_CallMethod(file, "tell", NULL);
    int result = position != NULL ? read_number(position, "the position of file", offset) : -1;
    Py_XDECREF(position);
    return result;
}

/* Let the file stand behind what is sent. 0, or -1 with an exception set. */
static int seek(PyObject *file, int fd, uint64_t offset) {
    if (PyLong_Check(file)) {
        return lseek(fd, (off_t)offset, SEEK_SET) >= 0 ? 0 : (PyErr_SetFromErrno(PyExc_OSError), -1);
    }
    PyObject *result = PyObject_CallMethod(file, "seek", "K", (unsigned long long)offset);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* What part of the file, which has *size bytes, is meant: *size becomes that of the part. 0, or -1 with an exception
 * set. */
static int find_part(const file_message *m, int fd, uint64_t *offset, uint64_t *size) {
    uint64_t count = UINT64_MAX;
    if (m->count != NULL && read_number(m->count, "count", &count) < 0) {
        return -1;
    }
    if (m->offset != NULL ? read_number(m->offset, "offset", offset) < 0 : tell(m->file, fd, offset) < 0) {
        return -1;
    }
    uint64_t left = *offset < *size ? *size - *offset : 0;
    *size = count < left ? count : left;
    return m->offset != NULL ? 0 : seek(m->file, fd, *offset + *size);
}

int bolide_file_begin_descriptor(bolide_request *r, PyObject *message) {
    file_message m;
    uint64_t offset = 0, size = 0;
    int fd = -1, result = -1, more = 0;
    if (read_message(bolide_asgi_of(r), message, &m) < 0 || (m.more != NULL && (more = PyObject_IsTrue(m.more)) < 0)) {
        goto done;
    }
    fd = duplicate(m.file, &size);
    if (fd < 0) {
        goto done;
    }
    if (find_part(&m, fd, &offset, &size) < 0) {
        (void)close(fd);
        goto done;
    }
    result = begin(r, fd, offset, size, more != 0);
done:
    Py_XDECREF(m.file);
    Py_XDECREF(m.offset);
    Py_XDECREF(m.count);
    Py_XDECREF(m.more);
    return result;
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

/* The next piece of the file, of up to PIECE bytes. New reference, or NULL with an exception set. */
static PyObject *read_piece(bolide_request *r) {
    Py_ssize_t want = r->file_left < PIECE ? (Py_ssize_t)r->file_left : PIECE;
    PyObject *piece = PyBytes_FromStringAndSize(NULL, want);
    if (piece == NULL) {
        return NULL;
    }
    ssize_t got;
    do {
        got = pread(r->file - 1, PyBytes_AS_STRING(piece), (size_t)want, (off_t)r->file_offset);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(piece);
    } else if (got == 0) {
        PyErr_SetString(PyExc_RuntimeError, "the file became shorter while it was sent");
        Py_CLEAR(piece);
    } else if (got < want) {
        (void)_PyBytes_Resize(&piece, got);
    }
    return piece;
}

/* Queue a piece. Its size, or -1 with an exception set. */
static ssize_t queue_piece(bolide_request *r) {
    PyObject *piece = read_piece(r);
    if (piece == NULL) {
        return -1;
    }
    ssize_t size = (ssize_t)PyBytes_GET_SIZE(piece);
    int result = bolide_stream_write_object(&r->conn->stream, piece);
    Py_DECREF(piece);
    return result < 0 ? -1 : size;
}

/* Send a part, at most `most` bytes. How many, or -1 with an exception set. */
static ssize_t send_part(bolide_request *r, size_t most) {
    /* A small rest leaves along with what stands around it. */
    if (r->file_left > PIECE) {
        size_t len = r->file_left < most ? (size_t)r->file_left : most;
        ssize_t sent = bolide_stream_sendfile(&r->conn->stream, r->file - 1, r->file_offset, len);
        if (sent > 0) {
            bolide_conn_note_output(r->conn);
            return sent;
        }
        if (r->conn == NULL || !bolide_conn_is_open(r->conn)) {
            return 0;
        }
        if (sent < 0) {
            errno = -(int)sent;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
    }
    return queue_piece(r);
}

static bool may_send(const bolide_request *r) {
    return r->conn != NULL && bolide_conn_is_open(r->conn) && !bolide_stream_is_full(&r->conn->stream);
}

/* The whole file has left or is queued. 1, or -1 with an exception set. */
static int finish(bolide_request *r) {
    bool more = (r->flags & BOLIDE_REQUEST_FILE_MORE) != 0;
    bool trailers = !more && (r->flags & BOLIDE_REQUEST_TRAILERS) != 0;
    bool open = more || (trailers && r->response.framing == BOLIDE_BODY_CHUNKED);
    if (bolide_response_close_piece(&r->conn->stream, &r->response, r->file_size, open) < 0) {
        return -1;
    }
    if (trailers) {
        return bolide_request_await_trailers(r) < 0 ? -1 : 1;
    }
    if (!more) {
        bolide_request_complete(r);
    }
    return 1;
}

int bolide_file_go_on(bolide_request *r) {
    size_t quantum = QUANTUM;
    int done = 0;
    if (r->file == 0) {
        return 1; /* another awaitable has seen to it */
    }
    while (done == 0 && r->file_left > 0 && quantum > 0 && may_send(r)) {
        ssize_t sent = send_part(r, quantum);
        if (sent < 0) {
            done = -1;
        } else {
            bolide_access_add(r, (uint64_t)sent);
            r->file_left -= (uint64_t)sent;
            r->file_offset += (uint64_t)sent;
            quantum -= (size_t)sent < quantum ? (size_t)sent : quantum;
        }
    }
    if (done == 0 && (r->conn == NULL || !bolide_conn_is_open(r->conn))) {
        done = bolide_request_disconnected(r);
    } else if (done == 0 && r->file_left == 0) {
        done = finish(r);
    } else if (done == 0 && quantum == 0) {
        bolide_stream_yield(&r->conn->stream);
    }
    if (done != 0) {
        bolide_file_end(r);
    }
    return done;
}
