#include "transport/tls.h"

#include <string.h>

#include "common/error.h"
#include "transport/tls_filter.h"
#include "transport/tls_guard.h"
#include "transport/tls_ssl.h"

/* --- failing ---------------------------------------------------------------------------------- */

static void cancel_timer(bolide_tls *tls) {
    PyObject *timer = tls->timer;
    tls->timer = NULL;
    if (timer != NULL) {
        bolide_loop_cancel(timer);
        Py_DECREF(timer);
    }
}

/* Tell the peer, by the alert that OpenSSL has made if any, and the owner. Steals `exception`. */
static void fail_with(bolide_tls *tls, PyObject *exception) {
    bolide_stream *s = tls->stream;
    if (s == NULL || (tls->flags & TLS_FAILED)) {
        Py_XDECREF(exception);
        return;
    }
    tls->flags |= TLS_FAILED;
    cancel_timer(tls);
    s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
    bolide_stream_poll_stop(s);
    if (!(s->flags & BOLIDE_STREAM_BROKEN)) {
        s->flags |= BOLIDE_STREAM_BROKEN; /* an error of the alert's sending is not the one to report */
        bolide_stream_send(s);
    }
    if (s->flags & BOLIDE_STREAM_CLOSE_AFTER) {
        bolide_stream_close(s);
    } else if (s->ops->on_tls_error != NULL && exception != NULL) {
        s->ops->on_tls_error(s, exception);
    } else {
        s->ops->on_error(s, UV_EPROTO);
    }
    Py_XDECREF(exception);
}

void bolide_tls_fail(bolide_tls *tls) {
    fail_with(tls, bolide_error_take());
}

void bolide_tls_fail_because(bolide_tls *tls, PyObject *class, PyObject *message) {
    PyObject *exception = PyObject_CallFunctionObjArgs(class, message, NULL);
    if (exception != NULL) {
        fail_with(tls, exception);
    } else {
        bolide_tls_fail(tls);
    }
}

/* Call the filter itself with one argument, True, after `seconds`. NULL: never. */
static void arm_timer(bolide_tls *tls, PyObject *seconds) {
    cancel_timer(tls);
    if (seconds == NULL) {
        return;
    }
    double delay = PyFloat_AsDouble(seconds);
    if (delay == -1 && PyErr_Occurred()) {
        bolide_tls_fail(tls);
        return;
    }
    PyObject *argv[1] = {Py_True};
    if (tls->stream == NULL) {
        return; /* closed by that conversion */
    }
    tls->timer = bolide_loop_call_later(bolide_stream_loop(tls->stream), delay, (PyObject *)tls, argv, 1, NULL);
    if (tls->timer == NULL) {
        bolide_tls_fail(tls);
    }
}

static void on_timeout(bolide_tls *tls) {
    if (tls->stream == NULL || tls->timer == NULL) {
        return;
    }
    cancel_timer(tls);
    bool secure = (tls->flags & TLS_SECURE) != 0;
    PyObject *message =
        secure ? PyUnicode_FromString("SSL shutdown timed out")
               : PyUnicode_FromFormat("SSL handshake is taking longer than %S seconds: aborting the connection",
                                      tls->handshake_timeout);
    if (message == NULL) {
        bolide_tls_fail(tls);
        return;
    }
    bolide_tls_fail_because(tls, secure ? PyExc_TimeoutError : PyExc_ConnectionAbortedError, message);
    Py_DECREF(message);
}

/* --- the handshake ---------------------------------------------------------------------------- */

static void become_secure(bolide_tls *tls) {
    bolide_stream *s = tls->stream;
    tls->flags |= TLS_SECURE;
    cancel_timer(tls);
    if (s->ops->on_secure != NULL) {
        s->ops->on_secure(s);
    }
    if (tls->stream == NULL || (tls->flags & TLS_FAILED)) {
        return;
    }
    if (!(s->flags & (BOLIDE_STREAM_READING | BOLIDE_STREAM_UNWRAPPING))) {
        bolide_stream_poll_stop(s);
    }
    bolide_stream_list(s); /* output that waited for this */
}

void bolide_tls_handshake(bolide_tls *tls, struct bolide_tls_shared *shared) {
    int status = bolide_ssl_handshake(tls);
    tls->records = 0;
    if (bolide_ssl_end(tls, shared) < 0) {
        status = -1;
    }
    if (tls->stream == NULL) { /* a callback of the context has closed it */
        PyErr_Clear();
        return;
    }
    bool again = status < 0 && bolide_ssl_wants_input(tls);
    if (status < 0 && !again) {
        bolide_tls_fail(tls);
    } else if (again) {
        bolide_stream_list(tls->stream);
    } else {
        become_secure(tls);
    }
}

/* --- shutdown --------------------------------------------------------------------------------- */

static bool peer_is_done(const bolide_tls *tls) {
    return (tls->flags & (TLS_PEER_CLOSED | TLS_EOF)) != 0;
}

void bolide_tls_finish_unwrap(bolide_tls *tls) {
    bolide_stream *s = tls->stream;
    if (s == NULL || (tls->flags & (TLS_FAILED | TLS_UNWRAPPED)) || !(tls->flags & TLS_NOTIFIED)) {
        return;
    }
    if ((s->flags & BOLIDE_STREAM_UNWRAPPING) && peer_is_done(tls)) {
        tls->flags |= TLS_UNWRAPPED;
        cancel_timer(tls);
        bolide_stream_poll_stop(s);
        s->ops->on_unwrapped(s);
    }
}

/* OpenSSL complains when there is data before the peer's close_notify. It is dropped. */
static bool is_late_data(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *reason = value != NULL ? PyObject_GetAttrString(value, "reason") : NULL;
    bool late = reason != NULL && PyUnicode_Check(reason) &&
                PyUnicode_CompareWithASCIIString(reason, "APPLICATION_DATA_AFTER_CLOSE_NOTIFY") == 0;
    Py_XDECREF(reason);
    PyErr_Clear();
    if (late) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    } else {
        PyErr_Restore(type, value, traceback);
    }
    return late;
}

/* Read what was fed, for nobody: not into the buffer for input, from which an owner further up on the C stack may be
 * reading what another stream has brought. -1 with an exception set; 0. */
static int read_for_nobody(bolide_tls *tls, struct bolide_tls_shared *shared) {
    Py_ssize_t len = 1; /* the last one ends with SSLWantReadError */
    while (len > 0 && tls->stream != NULL && !(tls->flags & (TLS_PEER_CLOSED | TLS_FAILED))) {
        len = bolide_ssl_read(tls, shared->out, BOLIDE_TLS_RECORD);
    }
    tls->records = 0;
    if (len == 0) {
        tls->flags |= TLS_PEER_CLOSED;
    }
    return len < 0 && !bolide_ssl_wants_input(tls) ? -1 : 0;
}

int bolide_tls_notify(bolide_tls *tls, struct bolide_tls_shared *shared) {
    tls->flags |= TLS_NOTIFIED;
    if (tls->flags & TLS_EOF) {
        return 0; /* asyncio does not either: the peer may be gone altogether */
    }
    /* What is left of a record would be an error for unwrap(), after which nothing can be read any more. */
    if (tls->records > 0 && !(tls->stream->flags & BOLIDE_STREAM_READING) && read_for_nobody(tls, shared) < 0) {
        return -1;
    }
    if (bolide_ssl_shutdown(tls) == 0) {
        tls->flags |= TLS_PEER_CLOSED;
    } else if (!bolide_ssl_wants_input(tls) && !is_late_data()) {
        return -1;
    }
    return 0;
}

void bolide_tls_drop_input(bolide_tls *tls, struct bolide_tls_shared *shared) {
    bool failed = read_for_nobody(tls, shared) < 0;
    if (bolide_ssl_end(tls, shared) < 0 || failed) {
        bolide_tls_fail(tls);
    } else {
        bolide_tls_finish_unwrap(tls);
    }
}

void bolide_stream_unwrap(bolide_stream *s) {
    bolide_tls *tls = s->tls;
    if (tls == NULL || !(s->flags & BOLIDE_STREAM_OPEN) || (s->flags & BOLIDE_STREAM_UNWRAPPING)) {
        return;
    }
    s->flags |= BOLIDE_STREAM_UNWRAPPING;
    s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
    Py_INCREF(tls); /* the timer's number may have code of its own, which closes the stream */
    bolide_stream_list(s);
    arm_timer(tls, tls->shutdown_timeout);
    if (tls->stream != NULL && !peer_is_done(tls) && !(tls->flags & TLS_FAILED)) {
        int status = bolide_stream_poll_start(s);
        if (status < 0) {
            bolide_stream_fail(s, status);
        }
    }
    if (tls->stream != NULL) {
        bolide_tls_resume(s); /* what was kept is of interest only for a close_notify in it */
    }
    Py_DECREF(tls);
}

bool bolide_tls_has_notified(const bolide_tls *tls) {
    return (tls->flags & TLS_NOTIFIED) != 0;
}

/* --- starting --------------------------------------------------------------------------------- */

static bolide_tls *tls_new(bolide_loop *loop, const bolide_tls_options *options) {
    bolide_state *st = loop->st;
    struct bolide_tls_shared *shared = bolide_ssl_load(st) == 0 ? bolide_ssl_shared(loop) : NULL;
    if (shared == NULL) {
        return NULL;
    }
    bolide_tls *tls = PyObject_GC_New(bolide_tls, st->TLSType);
    if (tls == NULL) {
        return NULL;
    }
    memset((char *)tls + sizeof(PyObject), 0, sizeof(*tls) - sizeof(PyObject));
    tls->st = st;
    tls->context = Py_NewRef(options->context);
    tls->handshake_timeout = Py_XNewRef(options->handshake_timeout);
    tls->shutdown_timeout = Py_XNewRef(options->shutdown_timeout);
    tls->server_side = options->server_side;
    tls->read_high = BOLIDE_TLS_READ_HIGH_WATER;
    tls->read_low = BOLIDE_TLS_READ_HIGH_WATER / 4;
    tls->since = uv_hrtime();
    if (bolide_ssl_wrap(tls, shared, options) < 0) {
        Py_DECREF(tls);
        return NULL;
    }
    PyObject_GC_Track((PyObject *)tls);
    return tls;
}

/* Send the client's hello, as soon as the BIOs are free. */
static void say_hello(bolide_tls *tls) {
    struct bolide_tls_shared *shared = bolide_ssl_begin(tls);
    if (shared != NULL) {
        tls->flags &= ~(unsigned)TLS_HELLO_DUE;
        bolide_tls_handshake(tls, shared);
    } else {
        tls->flags |= TLS_HELLO_DUE;
        bolide_tls_come_back(tls);
    }
}

int bolide_stream_start_tls(bolide_stream *s, const bolide_tls_options *options) {
    if (!(s->flags & BOLIDE_STREAM_OPEN) || s->tls != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the stream is closed, or has TLS already");
        return -1;
    }
    bolide_tls *tls = tls_new(bolide_stream_loop(s), options);
    if (tls == NULL) {
        return -1;
    }
    if (!(s->flags & BOLIDE_STREAM_OPEN) || s->tls != NULL) { /* by the context's own code */
        PyErr_SetString(PyExc_RuntimeError, "the stream was closed");
        Py_DECREF(tls);
        return -1;
    }
    s->tls = tls;
    tls->stream = s;
    s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
    Py_INCREF(tls);
    arm_timer(tls, tls->handshake_timeout);
    int status = tls->stream != NULL ? bolide_stream_poll_start(s) : 0;
    if (status < 0) {
        bolide_stream_fail(s, status);
    } else if (!tls->server_side && tls->stream != NULL && !(tls->flags & TLS_FAILED)) {
        say_hello(tls);
    }
    Py_DECREF(tls);
    return 0;
}

void bolide_tls_release(bolide_stream *s) {
    bolide_tls *tls = s->tls;
    if (tls != NULL) {
        s->tls = NULL;
        tls->stream = NULL;
        bolide_tls_guard_forget(tls->guard);
        bolide_tls_forget(tls);
        cancel_timer(tls);
        Py_DECREF(tls);
    }
}

bool bolide_tls_is_secure(const bolide_tls *tls) {
    return (tls->flags & TLS_SECURE) != 0;
}

/* --- the type --------------------------------------------------------------------------------- */

/* By the loop: filter(True) when time is up, filter() to deliver what was kept. */
static PyObject *tls_call(PyObject *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    bolide_tls *tls = (bolide_tls *)self;
    Py_INCREF(tls);
    if (PyTuple_GET_SIZE(args) > 0) {
        on_timeout(tls);
    } else {
        tls->flags &= ~(unsigned)TLS_RESUMING;
        if (tls->stream != NULL && (tls->flags & (TLS_HELLO_DUE | TLS_FAILED)) == TLS_HELLO_DUE) {
            say_hello(tls);
        }
        bolide_tls_deliver_kept(tls);
    }
    Py_DECREF(tls);
    Py_RETURN_NONE;
}

static int tls_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_tls *tls = (bolide_tls *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(tls->context);
    Py_VISIT(tls->object);
    Py_VISIT(tls->raw);
    Py_VISIT(tls->guard);
    Py_VISIT(tls->incoming);
    Py_VISIT(tls->outgoing);
    Py_VISIT(tls->timer);
    Py_VISIT(tls->handshake_timeout);
    Py_VISIT(tls->shutdown_timeout);
    return 0;
}

static int tls_clear(PyObject *self) {
    bolide_tls *tls = (bolide_tls *)self;
    if (tls->stream != NULL) {
        return 0; /* in use: it does not break while the stream is open */
    }
    Py_CLEAR(tls->context);
    Py_CLEAR(tls->object);
    Py_CLEAR(tls->raw);
    bolide_tls_guard_forget(tls->guard);
    Py_CLEAR(tls->guard);
    Py_CLEAR(tls->incoming);
    Py_CLEAR(tls->outgoing);
    Py_CLEAR(tls->timer);
    Py_CLEAR(tls->handshake_timeout);
    Py_CLEAR(tls->shutdown_timeout);
    return 0;
}

static void tls_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    tls_clear(self);
    bolide_tls_forget((bolide_tls *)self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *tls_pause_writing(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_tls_hold((bolide_tls *)self, true);
    Py_RETURN_NONE;
}

static PyObject *tls_resume_writing(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_tls_hold((bolide_tls *)self, false);
    Py_RETURN_NONE;
}

static PyMethodDef tls_methods[] = {
    {"pause_writing", tls_pause_writing, METH_NOARGS, PyDoc_STR("pause_writing()\n--\n\nEncrypt no output for now.")},
    {"resume_writing", tls_resume_writing, METH_NOARGS, PyDoc_STR("resume_writing()\n--\n\nEncrypt output again.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tls_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The TLS state of a stream.")},
    {Py_tp_call, tls_call},
    {Py_tp_traverse, tls_traverse},
    {Py_tp_clear, tls_clear},
    {Py_tp_dealloc, tls_dealloc},
    {Py_tp_methods, tls_methods},
    {0, NULL},
};

static PyType_Spec tls_spec = {
    .name = "bolide._core._TLS",
    .basicsize = sizeof(bolide_tls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = tls_slots,
};

int bolide_tls_init(PyObject *module, bolide_state *st) {
    if (bolide_ssl_init(module, st) < 0 || bolide_tls_guard_init(module, st) < 0) {
        return -1;
    }
    return bolide_add_type(module, &tls_spec, NULL, &st->TLSType, false);
}
