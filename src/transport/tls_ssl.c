#include "transport/tls_ssl.h"

#include <errno.h>
#include <string.h>

/* A buffer that shows C memory to the methods of ssl, for the time of one call. */
typedef struct bolide_window {
    PyObject_HEAD char *data; /* NULL between calls */
    Py_ssize_t len;
    int readonly;
} window;

/* --- the window ------------------------------------------------------------------------------- */

static int window_getbuffer(PyObject *self, Py_buffer *view, int flags) {
    window *w = (window *)self;
    if (w->data == NULL) {
        PyErr_SetString(PyExc_BufferError, "the buffer is not valid any more");
        view->obj = NULL;
        return -1;
    }
    return PyBuffer_FillInfo(view, self, w->data, w->len, w->readonly, flags);
}

static void window_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot window_slots[] = {
    {Py_bf_getbuffer, window_getbuffer},
    {Py_tp_dealloc, window_dealloc},
    {0, NULL},
};

static PyType_Spec window_spec = {
    .name = "bolide._core._Window",
    .basicsize = sizeof(window),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = window_slots,
};

static void free_shared(struct bolide_tls_shared *shared) {
    Py_XDECREF(shared->window);
    Py_XDECREF(shared->incoming);
    Py_XDECREF(shared->outgoing);
    PyMem_RawFree(shared);
}

struct bolide_tls_shared *bolide_ssl_shared(bolide_loop *loop) {
    if (loop->tls == NULL) {
        struct bolide_tls_shared *shared = PyMem_RawMalloc(sizeof(*shared));
        if (shared == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        shared->busy = shared->orphaned = shared->exposed = false;
        shared->window = PyObject_New(window, loop->st->WindowType);
        shared->incoming = PyObject_CallNoArgs(loop->st->ssl_MemoryBIO);
        shared->outgoing = shared->incoming != NULL ? PyObject_CallNoArgs(loop->st->ssl_MemoryBIO) : NULL;
        if (shared->window != NULL) {
            shared->window->data = NULL;
        }
        if (shared->window == NULL || shared->outgoing == NULL) {
            free_shared(shared);
            return NULL;
        }
        loop->tls = shared;
    }
    return loop->tls;
}

void bolide_tls_free_shared(bolide_loop *loop) {
    struct bolide_tls_shared *shared = loop->tls;
    loop->tls = NULL;
    if (shared != NULL && shared->busy) {
        shared->orphaned = true;
    } else if (shared != NULL) {
        free_shared(shared);
    }
}

static PyObject *show(bolide_tls *tls, char *data, size_t len, bool readonly) {
    window *w = tls->stream->loop->tls->window;
    w->data = data;
    w->len = (Py_ssize_t)len;
    w->readonly = readonly;
    return Py_NewRef(w);
}

static void hide(PyObject *shown) {
    ((window *)shown)->data = NULL;
    Py_DECREF(shown);
}

/* --- calling ssl ------------------------------------------------------------------------------ */

bool bolide_ssl_wants_input(bolide_tls *tls) {
    if (PyErr_ExceptionMatches(tls->st->ssl_SSLWantReadError) || PyErr_ExceptionMatches(tls->st->ssl_SSLSyscallError)) {
        PyErr_Clear();
        return true;
    }
    return false;
}

static Py_ssize_t as_size(PyObject *number) {
    Py_ssize_t size = number != NULL ? PyLong_AsSsize_t(number) : -1;
    Py_XDECREF(number);
    return size;
}

int bolide_ssl_feed(bolide_tls *tls, const char *data, size_t len) {
    PyObject *shown = show(tls, (char *)data, len, true);
    PyObject *args[2] = {tls->incoming, shown};
    PyObject *result = PyObject_VectorcallMethod(tls->st->str_write, args, 2, NULL);
    hide(shown);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* Read through a class that overrides read(): it gets no pointer of ours. */
static Py_ssize_t read_bytes(bolide_tls *tls, char *to, size_t room) {
    PyObject *bytes = PyObject_CallMethod(tls->object, "read", "n",
                                          (Py_ssize_t)(room < BOLIDE_TLS_RECORD ? room : BOLIDE_TLS_RECORD));
    if (bytes == NULL) {
        return -1;
    }
    Py_ssize_t len = -1;
    if (!PyBytes_Check(bytes) || (size_t)PyBytes_GET_SIZE(bytes) > room) {
        PyErr_SetString(PyExc_TypeError, "read() of the SSLObject must return bytes, no more than asked for");
    } else {
        len = PyBytes_GET_SIZE(bytes);
        memcpy(to, PyBytes_AS_STRING(bytes), (size_t)len);
    }
    Py_DECREF(bytes);
    return len;
}

Py_ssize_t bolide_ssl_read(bolide_tls *tls, char *to, size_t room) {
    Py_ssize_t len;
    errno = 0; /* the ssl module takes an old one for the cause of an end without close_notify */
    if (tls->raw != NULL) {
        PyObject *shown = show(tls, to, room, false);
        PyObject *args[3] = {tls->raw, tls->st->zero, shown};
        len = as_size(PyObject_VectorcallMethod(tls->st->str_read, args, 3, NULL));
        hide(shown);
    } else {
        len = read_bytes(tls, to, room);
    }
    if (len < 0 && PyErr_ExceptionMatches(tls->st->ssl_SSLZeroReturnError)) {
        PyErr_Clear();
        return 0;
    }
    return len;
}

Py_ssize_t bolide_ssl_write(bolide_tls *tls, const char *data, size_t len) {
    if (tls->raw == NULL) {
        Py_ssize_t taken = as_size(PyObject_CallMethod(tls->object, "write", "y#", data, (Py_ssize_t)len));
        if (taken > (Py_ssize_t)len || (taken < 0 && !PyErr_Occurred())) {
            PyErr_SetString(PyExc_ValueError, "write() of the SSLObject must return how much it has taken");
            return -1;
        }
        return taken;
    }
    PyObject *shown = show(tls, (char *)data, len, true);
    PyObject *args[2] = {tls->raw, shown};
    PyObject *result = PyObject_VectorcallMethod(tls->st->str_write, args, 2, NULL);
    hide(shown);
    return as_size(result);
}

/* --- the shared BIOs -------------------------------------------------------------------------- */

Py_ssize_t bolide_ssl_drain(bolide_tls *tls) {
    PyObject *bytes = PyObject_CallMethodNoArgs(tls->outgoing, tls->st->str_read);
    if (bytes == NULL) {
        return -1;
    }
    Py_ssize_t len = PyBytes_GET_SIZE(bytes);
    bolide_stream *s = tls->stream;
    if (len > 0 && s != NULL) {
        bool locked = (s->flags & BOLIDE_STREAM_IN_FLIGHT) != 0;
        if (bolide_out_write_object(s->loop, &s->out, locked, bytes) < 0) {
            len = -1;
        } else {
            s->pending += (size_t)len;
        }
    }
    Py_DECREF(bytes);
    return len;
}

/* Bytes in a BIO; -1 with an exception set. */
static Py_ssize_t count_bytes(bolide_tls *tls, PyObject *bio) {
    return as_size(PyObject_GetAttr(bio, tls->st->str_pending));
}

/* 0, or -1 with an exception set. */
static int make_empty(bolide_tls *tls, PyObject *bio) {
    Py_ssize_t waiting = count_bytes(tls, bio);
    if (waiting <= 0) {
        return (int)waiting;
    }
    PyObject *bytes = PyObject_CallMethodNoArgs(bio, tls->st->str_read);
    Py_XDECREF(bytes);
    return bytes != NULL ? 0 : -1;
}

struct bolide_tls_shared *bolide_ssl_begin(bolide_tls *tls) {
    struct bolide_tls_shared *shared = tls->stream != NULL ? tls->stream->loop->tls : NULL;
    if (shared == NULL || shared->busy) {
        return NULL;
    }
    /* What was written past the transport must not go to another peer. */
    if (shared->exposed && make_empty(tls, shared->outgoing) < 0) {
        PyErr_Clear();
        return NULL;
    }
    shared->busy = true;
    return shared;
}

void bolide_ssl_leave(struct bolide_tls_shared *shared) {
    shared->busy = false;
    if (shared->orphaned) {
        free_shared(shared);
    }
}

int bolide_ssl_end(bolide_tls *tls, struct bolide_tls_shared *shared, bool unread) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int status = unread ? make_empty(tls, shared->incoming) : 0;
    Py_ssize_t waiting = count_bytes(tls, shared->outgoing);
    if (waiting < 0 || (waiting > 0 && bolide_ssl_drain(tls) < 0)) {
        status = -1;
    }
    bolide_ssl_leave(shared);
    if (type != NULL) {
        PyErr_Clear();
        PyErr_Restore(type, value, traceback);
        return 0;
    }
    return status;
}

/* --- the module ------------------------------------------------------------------------------ */

static PyObject *import_ssl(const char *name) {
    PyObject *module = PyImport_ImportModule("ssl");
    PyObject *value = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return value;
}

int bolide_ssl_load(bolide_state *st) {
    if (st->ssl_SSLWantReadError != NULL) {
        return 0;
    }
    if (st->ssl_MemoryBIO == NULL) {
        st->ssl_MemoryBIO = import_ssl("MemoryBIO");
    }
    if (st->ssl_SSLContext == NULL) {
        st->ssl_SSLContext = import_ssl("SSLContext");
    }
    if (st->ssl_SSLObject == NULL) {
        st->ssl_SSLObject = import_ssl("SSLObject");
    }
    if (st->ssl_SSLSyscallError == NULL) {
        st->ssl_SSLSyscallError = import_ssl("SSLSyscallError");
    }
    if (st->ssl_SSLZeroReturnError == NULL) {
        st->ssl_SSLZeroReturnError = import_ssl("SSLZeroReturnError");
    }
    if (st->ssl_MemoryBIO == NULL || st->ssl_SSLContext == NULL || st->ssl_SSLObject == NULL ||
        st->ssl_SSLSyscallError == NULL || st->ssl_SSLZeroReturnError == NULL) {
        return -1;
    }
    st->ssl_SSLWantReadError = import_ssl("SSLWantReadError");
    return st->ssl_SSLWantReadError == NULL ? -1 : 0;
}

int bolide_tls_check_context(bolide_state *st, PyObject *context) {
    if (bolide_ssl_load(st) < 0) {
        return -1;
    }
    int good = PyObject_IsInstance(context, st->ssl_SSLContext);
    if (good == 0) {
        PyErr_Format(PyExc_TypeError, "ssl_context must be an ssl.SSLContext, not %.100s", Py_TYPE(context)->tp_name);
    }
    return good > 0 ? 0 : -1;
}

/* Is the attribute of the object's class that of ssl.SSLObject? */
static int is_original(bolide_tls *tls, PyObject *name) {
    PyObject *mine = PyObject_GetAttr((PyObject *)Py_TYPE(tls->object), name);
    PyObject *original = PyObject_GetAttr(tls->st->ssl_SSLObject, name);
    int same = mine != NULL && original != NULL ? mine == original : -1;
    Py_XDECREF(mine);
    Py_XDECREF(original);
    return same;
}

static int find_raw(bolide_tls *tls) {
    int reads = is_original(tls, tls->st->str_read);
    int writes = is_original(tls, tls->st->str_write);
    if (reads < 0 || writes < 0) {
        return -1;
    }
    if (reads && writes) {
        tls->raw = PyObject_GetAttrString(tls->object, "_sslobj");
        PyErr_Clear();
    }
    return 0;
}

void bolide_ssl_expose(bolide_loop *loop) {
    if (loop->tls != NULL) {
        loop->tls->exposed = true;
    }
}

/* Has the context a callback that gets the SSLObject? */
static bool has_callback(const bolide_tls *tls, const char *name) {
    PyObject *callback = PyObject_GetAttrString(tls->context, name);
    PyErr_Clear();
    Py_XDECREF(callback);
    return callback != NULL && callback != Py_None;
}

void bolide_ssl_look_for_callbacks(bolide_tls *tls) {
    bool called = has_callback(tls, "_msg_callback") || (tls->server_side && has_callback(tls, "sni_callback"));
    if (called && tls->stream != NULL) {
        bolide_ssl_expose(tls->stream->loop);
    }
}

int bolide_ssl_wrap(bolide_tls *tls, struct bolide_tls_shared *shared, const bolide_tls_options *options) {
    tls->incoming = Py_NewRef(shared->incoming);
    tls->outgoing = Py_NewRef(shared->outgoing);
    PyObject *method = PyObject_GetAttrString(tls->context, "wrap_bio");
    bool named = options->server_hostname != NULL && PyUnicode_Check(options->server_hostname) &&
                 PyUnicode_GET_LENGTH(options->server_hostname) > 0;
    PyObject *hostname = named && !options->server_side ? options->server_hostname : Py_None;
    PyObject *args = NULL, *kwargs = NULL;
    if (method != NULL) {
        args = PyTuple_Pack(2, tls->incoming, tls->outgoing);
        kwargs = Py_BuildValue("{s:O,s:O}", "server_side", options->server_side ? Py_True : Py_False, "server_hostname",
                               hostname);
    }
    if (args != NULL && kwargs != NULL) {
        tls->object = PyObject_Call(method, args, kwargs);
    }
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(method);
    if (tls->object != NULL && (PyObject *)Py_TYPE(tls->object) != tls->st->ssl_SSLObject) {
        shared->exposed = true; /* to the code of its class */
    }
    return tls->object != NULL ? find_raw(tls) : -1;
}

int bolide_ssl_init(PyObject *module, bolide_state *st) {
    return bolide_add_type(module, &window_spec, NULL, &st->WindowType, false);
}
