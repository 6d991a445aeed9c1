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

struct bolide_tls_shared *bolide_ssl_shared(bolide_loop *loop) {
    if (loop->tls == NULL) {
        struct bolide_tls_shared *shared = PyMem_RawMalloc(sizeof(*shared));
        if (shared == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        shared->out_busy = false;
        shared->window = PyObject_New(window, loop->st->WindowType);
        if (shared->window == NULL) {
            PyMem_RawFree(shared);
            return NULL;
        }
        shared->window->data = NULL;
        loop->tls = shared;
    }
    return loop->tls;
}

void bolide_tls_free_shared(bolide_loop *loop) {
    if (loop->tls != NULL) {
        Py_DECREF(loop->tls->window);
        PyMem_RawFree(loop->tls);
        loop->tls = NULL;
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

Py_ssize_t bolide_ssl_pending(bolide_tls *tls, PyObject *bio) {
    return as_size(PyObject_GetAttr(bio, tls->st->str_pending));
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

int bolide_ssl_wrap(bolide_tls *tls, const bolide_tls_options *options) {
    bolide_state *st = tls->st;
    tls->incoming = PyObject_CallNoArgs(st->ssl_MemoryBIO);
    tls->outgoing = PyObject_CallNoArgs(st->ssl_MemoryBIO);
    PyObject *method = PyObject_GetAttrString(tls->context, "wrap_bio");
    bool named = options->server_hostname != NULL && PyUnicode_Check(options->server_hostname) &&
                 PyUnicode_GET_LENGTH(options->server_hostname) > 0;
    PyObject *hostname = named && !options->server_side ? options->server_hostname : Py_None;
    PyObject *args = NULL, *kwargs = NULL;
    if (tls->incoming != NULL && tls->outgoing != NULL && method != NULL) {
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
    return tls->object != NULL ? find_raw(tls) : -1;
}

int bolide_ssl_init(PyObject *module, bolide_state *st) {
    return bolide_add_type(module, &window_spec, NULL, &st->WindowType, false);
}
