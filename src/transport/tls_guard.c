#include "transport/tls_guard.h"

#include <errno.h>

#include "transport/tls_ssl.h"

typedef struct {
    PyObject_HEAD bolide_tls *tls; /* borrowed; NULL once its stream is closed */
    PyObject *raw;                 /* what it stands for: the ssl module's implementation of the SSLObject */
    PyObject *over;                /* ssl.SSLZeroReturnError */
} guard;

/* --- what reads and writes -------------------------------------------------------------------- */

static bool is_foreign_thread(const bolide_loop *loop) {
    return loop->thread_id != 0 && loop->thread_id != PyThread_get_thread_ident();
}

/* The open stream's filter, borrowed; NULL with an exception set when there is none, or in another thread than the
 * loop's. */
static bolide_tls *usable(const guard *g) {
    bolide_tls *tls = g->tls;
    if (tls == NULL || tls->stream == NULL) {
        PyErr_SetString(g->over, "the transport is closed");
        return NULL;
    }
    if (is_foreign_thread(bolide_stream_loop(tls->stream))) {
        PyErr_SetString(PyExc_RuntimeError, "the SSLObject of a transport reads and writes only in its loop's thread");
        return NULL;
    }
    return tls;
}

/* raw.<name>(*args) while the BIOs are this stream's. What it makes leaves with the transport's output. */
static PyObject *call_alone(guard *g, bolide_tls *tls, const char *name, PyObject *args) {
    PyObject *method = PyObject_GetAttrString(g->raw, name);
    if (method == NULL) {
        return NULL;
    }
    struct bolide_tls_shared *shared = bolide_ssl_begin(tls);
    PyObject *result = NULL;
    if (shared == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the loop is at work with a TLS connection, as in the SSLContext's callbacks");
    } else {
        errno = 0; /* the ssl module takes an old one for the cause of an end without close_notify */
        result = PyObject_CallObject(method, args);
        if (bolide_ssl_end(tls, shared) < 0) {
            Py_CLEAR(result);
        }
    }
    Py_DECREF(method);
    if (tls->stream != NULL && tls->stream->pending > 0) {
        bolide_stream_list(tls->stream);
    }
    return result;
}

static PyObject *pass_on(PyObject *self, const char *name, PyObject *args) {
    guard *g = (guard *)self;
    bolide_tls *tls = usable(g);
    if (tls == NULL) {
        return NULL;
    }
    Py_INCREF(tls);
    PyObject *result = call_alone(g, tls, name, args);
    Py_DECREF(tls);
    return result;
}

static PyObject *guard_read(PyObject *self, PyObject *args) {
    return pass_on(self, "read", args);
}

static PyObject *guard_do_handshake(PyObject *self, PyObject *args) {
    return pass_on(self, "do_handshake", args);
}

static PyObject *guard_verify_client(PyObject *self, PyObject *args) {
    return pass_on(self, "verify_client_post_handshake", args);
}

static PyObject *guard_sendfile(PyObject *self, PyObject *args) {
    return pass_on(self, "sendfile", args);
}

/* A close_notify follows what was written before. */
static PyObject *guard_shutdown(PyObject *self, PyObject *args) {
    bolide_tls *tls = usable((guard *)self);
    if (tls == NULL) {
        return NULL;
    }
    bolide_stream_flush(tls->stream);
    return pass_on(self, "shutdown", args);
}

/* As by the transport, behind what that has not sent yet. */
static PyObject *guard_write(PyObject *self, PyObject *data) {
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    bolide_tls *tls = usable((guard *)self);
    if (tls != NULL && !bolide_stream_takes_output(tls->stream)) {
        PyErr_SetString(((guard *)self)->over, "the transport is closing");
    } else if (tls != NULL && bolide_stream_write(tls->stream, view.buf, (size_t)view.len) == 0) {
        result = PyLong_FromSsize_t(view.len);
    }
    PyBuffer_Release(&view);
    return result;
}

/* --- what tells ------------------------------------------------------------------------------- */

static PyObject *guard_getattro(PyObject *self, PyObject *name) {
    PyObject *value = PyObject_GenericGetAttr(self, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError) && ((guard *)self)->raw != NULL) {
        PyErr_Clear();
        value = PyObject_GetAttr(((guard *)self)->raw, name);
    }
    return value;
}

static int guard_setattro(PyObject *self, PyObject *name, PyObject *value) {
    PyObject *raw = ((guard *)self)->raw;
    return raw != NULL ? PyObject_SetAttr(raw, name, value) : PyObject_GenericSetAttr(self, name, value);
}

/* --- the type --------------------------------------------------------------------------------- */

int bolide_tls_guard_put(bolide_tls *tls) {
    guard *g = PyObject_GC_New(guard, tls->st->TLSGuardType);
    if (g == NULL) {
        return -1;
    }
    g->tls = tls;
    g->raw = Py_NewRef(tls->raw);
    g->over = Py_NewRef(tls->st->ssl_SSLZeroReturnError);
    PyObject_GC_Track((PyObject *)g);
    if (PyObject_SetAttrString(tls->object, "_sslobj", (PyObject *)g) < 0) {
        g->tls = NULL;
        Py_DECREF(g);
        return -1;
    }
    tls->guard = (PyObject *)g;
    return 0;
}

void bolide_tls_guard_forget(PyObject *self) {
    if (self != NULL) {
        ((guard *)self)->tls = NULL;
    }
}

static int guard_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((guard *)self)->raw);
    Py_VISIT(((guard *)self)->over);
    return 0;
}

static int guard_clear(PyObject *self) {
    ((guard *)self)->tls = NULL;
    Py_CLEAR(((guard *)self)->raw);
    Py_CLEAR(((guard *)self)->over);
    return 0;
}

static void guard_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    guard_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef guard_methods[] = {
    {"read", guard_read, METH_VARARGS,
     PyDoc_STR("Read what was decrypted and not delivered yet, as SSLObject.read().")},
    {"write", guard_write, METH_O, PyDoc_STR("Write by the transport; returns the number of bytes, all of them.")},
    {"do_handshake", guard_do_handshake, METH_VARARGS, PyDoc_STR("As SSLObject.do_handshake().")},
    {"shutdown", guard_shutdown, METH_VARARGS, PyDoc_STR("As SSLObject.unwrap().")},
    {"verify_client_post_handshake", guard_verify_client, METH_VARARGS,
     PyDoc_STR("As SSLSocket.verify_client_post_handshake().")},
    {"sendfile", guard_sendfile, METH_VARARGS,
     PyDoc_STR("As SSLSocket.sendfile(), which a transport's has no use for.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot guard_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The implementation of a TLS transport's SSLObject, as its users may use it.")},
    {Py_tp_getattro, guard_getattro},
    {Py_tp_setattro, guard_setattro},
    {Py_tp_traverse, guard_traverse},
    {Py_tp_clear, guard_clear},
    {Py_tp_dealloc, guard_dealloc},
    {Py_tp_methods, guard_methods},
    {0, NULL},
};

static PyType_Spec guard_spec = {
    .name = "bolide._core._TLSGuard",
    .basicsize = sizeof(guard),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = guard_slots,
};

int bolide_tls_guard_init(PyObject *module, bolide_state *st) {
    return bolide_add_type(module, &guard_spec, NULL, &st->TLSGuardType, false);
}
