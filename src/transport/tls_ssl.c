#include "transport/tls_ssl.h"

#include <errno.h>
#include <string.h>

#include "transport/tls_guard.h"

#define PIECE 4096 /* what is dropped of a BIO at once */

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
        shared->busy = shared->orphaned = shared->dirty = false;
        shared->window = PyObject_New(window, loop->st->WindowType);
        shared->incoming = shared->window != NULL ? PyObject_CallNoArgs(loop->st->ssl_MemoryBIO) : NULL;
        shared->outgoing = shared->incoming != NULL ? PyObject_CallNoArgs(loop->st->ssl_MemoryBIO) : NULL;
        if (shared->window != NULL) {
            shared->window->data = NULL;
        }
        if (shared->outgoing == NULL) {
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
    window *w = bolide_stream_loop(tls->stream)->tls->window;
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

/* object.<name>(), or of what implements it <raw_name>(). */
static int call_method(bolide_tls *tls, const char *name, const char *raw_name) {
    PyObject *result = tls->guard != NULL ? PyObject_CallMethod(tls->raw, raw_name, NULL)
                                          : PyObject_CallMethod(tls->object, name, NULL);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

int bolide_ssl_handshake(bolide_tls *tls) {
    return call_method(tls, "do_handshake", "do_handshake");
}

int bolide_ssl_shutdown(bolide_tls *tls) {
    return call_method(tls, "unwrap", "shutdown");
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
        if (bolide_out_write_object(bolide_stream_loop(s), &s->out, locked, bytes) < 0) {
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
    Py_ssize_t waiting;
    while ((waiting = count_bytes(tls, bio)) > 0) {
        PyObject *bytes = PyObject_CallMethod(bio, "read", "i", PIECE);
        if (bytes == NULL) {
            return -1;
        }
        Py_DECREF(bytes);
    }
    return (int)waiting;
}

struct bolide_tls_shared *bolide_ssl_begin(bolide_tls *tls) {
    struct bolide_tls_shared *shared = tls->stream != NULL ? bolide_stream_loop(tls->stream)->tls : NULL;
    if (shared == NULL || shared->busy) {
        return NULL;
    }
    /* What one stream has left must not come to another. */
    if (shared->dirty) {
        if (make_empty(tls, shared->incoming) < 0 || make_empty(tls, shared->outgoing) < 0) {
            PyErr_Clear();
            return NULL;
        }
        shared->dirty = false;
    }
    shared->busy = true;
    return shared;
}

bool bolide_ssl_is_taken(const bolide_tls *tls) {
    const struct bolide_tls_shared *shared = bolide_stream_loop(tls->stream)->tls;
    return shared->busy || shared->dirty;
}

void bolide_ssl_leave(struct bolide_tls_shared *shared) {
    shared->busy = false;
    if (shared->orphaned) {
        free_shared(shared);
    }
}

int bolide_ssl_end(bolide_tls *tls, struct bolide_tls_shared *shared) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int status = make_empty(tls, tls->incoming);
    Py_ssize_t waiting = count_bytes(tls, tls->outgoing);
    if (waiting < 0 || (waiting > 0 && bolide_ssl_drain(tls) < 0)) {
        status = -1;
    }
    shared->dirty = status < 0;
    bolide_ssl_leave(shared);
    if (type == NULL) {
        return status;
    }
    /* To wait for input after what was made for the peer is lost would be to wait for ever. */
    if (status < 0 && PyErr_GivenExceptionMatches(type, tls->st->ssl_SSLWantReadError)) {
        Py_DECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return status;
    }
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    return 0;
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
    if (st->ssl_implementation == NULL) {
        PyObject *module = PyImport_ImportModule("_ssl");
        st->ssl_implementation = module != NULL ? PyObject_GetAttrString(module, "_SSLSocket") : NULL;
        Py_XDECREF(module);
        if (st->ssl_implementation == NULL) {
            return -1;
        }
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
    PyObject *original = mine != NULL ? PyObject_GetAttr(tls->st->ssl_SSLObject, name) : NULL;
    int same = original != NULL ? mine == original : -1;
    Py_XDECREF(mine);
    Py_XDECREF(original);
    return same;
}

/* What implements the object, if it is the ssl module's own: only that may read into our memory. A new reference, or
 * NULL without an exception. */
static PyObject *implementation_of(bolide_tls *tls) {
    PyObject *raw = PyObject_GetAttrString(tls->object, "_sslobj");
    PyErr_Clear();
    if (raw != NULL && (PyObject *)Py_TYPE(raw) != tls->st->ssl_implementation) {
        Py_CLEAR(raw);
    }
    return raw;
}

/* Is wrap_bio() of the context that of ssl.SSLContext, and what it makes an ssl.SSLObject? Then nobody but us gets to
 * see the BIOs. -1 with an exception set. */
static int is_plain(bolide_tls *tls) {
    bolide_state *st = tls->st;
    PyObject *original = PyObject_GetAttrString(st->ssl_SSLContext, "wrap_bio");
    PyObject *method = original != NULL ? PyObject_GetAttrString(tls->context, "wrap_bio") : NULL;
    PyObject *class = method != NULL ? PyObject_GetAttrString(tls->context, "sslobject_class") : NULL;
    int plain = -1;
    if (class != NULL) {
        plain = class == st->ssl_SSLObject && PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == original &&
                PyMethod_GET_SELF(method) == tls->context;
    }
    Py_XDECREF(original);
    Py_XDECREF(method);
    Py_XDECREF(class);
    return plain;
}

static PyObject *call_wrap_bio(bolide_tls *tls, const bolide_tls_options *options) {
    PyObject *method = PyObject_GetAttrString(tls->context, "wrap_bio");
    /* Whatever is true, as in asyncio: a name in bytes, too, is to be verified. */
    int named =
        options->server_hostname == NULL || options->server_side ? 0 : PyObject_IsTrue(options->server_hostname);
    PyObject *hostname = named > 0 ? options->server_hostname : Py_None;
    PyObject *args = NULL, *kwargs = NULL, *object = NULL;
    if (method != NULL && named >= 0) {
        args = PyTuple_Pack(2, tls->incoming, tls->outgoing);
        kwargs = Py_BuildValue("{s:O,s:O}", "server_side", options->server_side ? Py_True : Py_False, "server_hostname",
                               hostname);
    }
    if (args != NULL && kwargs != NULL) {
        object = PyObject_Call(method, args, kwargs);
    }
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(method);
    return object;
}

/* 1; 0: the object is not what was expected; -1 with an exception set. */
static int wrap_shared(bolide_tls *tls, struct bolide_tls_shared *shared, const bolide_tls_options *options) {
    int plain = is_plain(tls);
    if (plain <= 0) {
        return plain;
    }
    tls->incoming = Py_NewRef(shared->incoming);
    tls->outgoing = Py_NewRef(shared->outgoing);
    tls->object = call_wrap_bio(tls, options);
    if (tls->object == NULL) {
        return -1;
    }
    bool expected = (PyObject *)Py_TYPE(tls->object) == tls->st->ssl_SSLObject;
    tls->raw = expected ? implementation_of(tls) : NULL;
    if (tls->raw == NULL) {
        Py_CLEAR(tls->object);
        Py_CLEAR(tls->incoming);
        Py_CLEAR(tls->outgoing);
        return 0;
    }
    return bolide_tls_guard_put(tls) < 0 ? -1 : 1;
}

static int wrap_alone(bolide_tls *tls, const bolide_tls_options *options) {
    tls->incoming = PyObject_CallNoArgs(tls->st->ssl_MemoryBIO);
    tls->outgoing = tls->incoming != NULL ? PyObject_CallNoArgs(tls->st->ssl_MemoryBIO) : NULL;
    tls->object = tls->outgoing != NULL ? call_wrap_bio(tls, options) : NULL;
    if (tls->object == NULL) {
        return -1;
    }
    int reads = is_original(tls, tls->st->str_read);
    int writes = reads >= 0 ? is_original(tls, tls->st->str_write) : -1;
    if (reads < 0 || writes < 0) {
        return -1;
    }
    if (reads && writes) {
        tls->raw = implementation_of(tls);
    }
    return 0;
}

int bolide_ssl_wrap(bolide_tls *tls, struct bolide_tls_shared *shared, const bolide_tls_options *options) {
    int status = wrap_shared(tls, shared, options);
    return status == 0 ? wrap_alone(tls, options) : status < 0 ? -1 : 0;
}

int bolide_ssl_init(PyObject *module, bolide_state *st) {
    return bolide_add_type(module, &window_spec, NULL, &st->WindowType, false);
}
