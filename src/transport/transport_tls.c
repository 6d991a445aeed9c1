/* asyncio's transport with TLS: what differs from one without. */
#include "common/error.h"
#include "transport/transport.h"

/* --- the stream's events ---------------------------------------------------------------------- */

static void log_handshake(bolide_transport *t) {
    char format[80];
    double ms = (double)(uv_hrtime() - t->stream.tls->since) / 1e6;
    PyOS_snprintf(format, sizeof(format), "%%r: SSL handshake took %.1f ms", ms);
    bolide_transport_debug(t, format);
}

void bolide_transport_on_secure(bolide_stream *s) {
    bolide_transport *t = bolide_transport_of_stream(s);
    Py_INCREF(t);
    t->flags &= ~(unsigned)BOLIDE_TRANSPORT_UPGRADING;
    if (t->loop->debug) {
        log_handshake(t);
    }
    bool failed = false;
    if (!(t->flags & BOLIDE_TRANSPORT_STARTED)) {
        t->flags |= BOLIDE_TRANSPORT_STARTED;
        PyObject *result = bolide_transport_call(t, t->loop->st->str_connection_made, (PyObject *)t);
        failed = result == NULL;
        if (failed) {
            bolide_transport_fatal(t, "Fatal error: protocol.buffer_updated() call failed.");
        }
        Py_XDECREF(result);
    }
    if (!(t->flags & (BOLIDE_TRANSPORT_PAUSED | BOLIDE_TRANSPORT_CLOSING))) {
        (void)bolide_stream_read_start(s);
    }
    if (!failed) {
        bolide_transport_resolve(t, &t->waiter, NULL);
    }
    Py_DECREF(t);
}

/* As asyncio: an OSError, which the peer can cause at will, is a matter for debug mode, anything else for the exception
 * handler. */
static void report(bolide_transport *t, PyObject *exception, const char *message) {
    if (PyObject_IsInstance(exception, PyExc_OSError)) {
        bolide_transport_debug_error(t, message, exception);
    } else {
        bolide_transport_tell_handler(t, message, exception);
    }
}

/* What asyncio says of an exception that ends TLS; NULL: nothing. */
static const char *describe(const bolide_transport *t, PyObject *exception) {
    if (bolide_tls_is_secure(t->stream.tls)) {
        bool timed_out = PyObject_IsInstance(exception, PyExc_TimeoutError);
        return timed_out ? NULL : "Fatal error on SSL protocol";
    }
    if (PyObject_IsInstance(exception, PyExc_ConnectionAbortedError)) { /* a timeout */
        return "Fatal error on transport";
    }
    PyObject *verify = PyObject_GetAttrString(exception, "verify_code"); /* only of SSLCertVerificationError */
    const char *message = verify != NULL ? "SSL handshake failed on verifying the certificate" : "SSL handshake failed";
    Py_XDECREF(verify);
    PyErr_Clear();
    return message;
}

void bolide_transport_on_tls_error(bolide_stream *s, PyObject *exception) {
    bolide_transport *t = bolide_transport_of_stream(s);
    Py_INCREF(t);
    const char *message = describe(t, exception);
    bool shaking_hands = !bolide_tls_is_secure(s->tls);
    bool timed_out = PyObject_IsInstance(exception, PyExc_ConnectionAbortedError);
    if (!timed_out) {
        t->flags &= ~(unsigned)BOLIDE_TRANSPORT_UPGRADING; /* not for a timeout, as in asyncio */
    }
    if (PyObject_IsInstance(exception, PyExc_KeyboardInterrupt) || PyObject_IsInstance(exception, PyExc_SystemExit)) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        bolide_loop_set_fatal(t->loop);
    } else if (message != NULL && !PyObject_IsInstance(exception, t->loop->st->asyncio_CancelledError)) {
        report(t, exception, message);
    }
    bolide_transport_force_close(t, exception);
    if (shaking_hands && !timed_out) {
        bolide_transport_resolve(t, &t->waiter, exception);
    }
    Py_DECREF(t);
}

void bolide_transport_tls_eof(bolide_transport *t) {
    if ((t->flags & BOLIDE_TRANSPORT_EOF_READ) || t->protocol == NULL) {
        return;
    }
    t->flags |= BOLIDE_TRANSPORT_EOF_READ;
    bolide_transport_debug(t, "%r received EOF");
    PyObject *result = bolide_transport_call(t, t->loop->st->str_eof_received, NULL);
    int keep_open = result != NULL ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    if (keep_open > 0) {
        result = PyObject_CallMethod(t->loop->st->asyncio_logger, "warning", "s",
                                     "returning true from eof_received() has no effect when using ssl");
        keep_open = result != NULL ? 0 : -1;
        Py_XDECREF(result);
    }
    if (keep_open < 0) {
        bolide_transport_fatal(t, "Error calling eof_received()");
    }
}

/* --- information ------------------------------------------------------------------------------ */

PyObject *bolide_transport_tls_info(bolide_transport *t, PyObject *name) {
    bolide_state *st = t->loop->st;
    bolide_tls *tls = t->stream.tls != NULL ? t->stream.tls : t->tls;
    if (tls == NULL || !PyUnicode_Check(name)) {
        return NULL;
    }
    if (PyUnicode_Compare(name, st->str_sslcontext) == 0) {
        return Py_XNewRef(tls->context);
    }
    if (tls->object == NULL || !bolide_tls_is_secure(tls)) {
        return NULL;
    }
    if (PyUnicode_Compare(name, st->str_ssl_object) == 0) {
        return Py_XNewRef(tls->object);
    }
    PyObject *method = PyUnicode_Compare(name, st->str_peercert) == 0      ? st->str_getpeercert
                       : PyUnicode_Compare(name, st->str_cipher) == 0      ? st->str_cipher
                       : PyUnicode_Compare(name, st->str_compression) == 0 ? st->str_compression
                                                                           : NULL;
    return method != NULL ? PyObject_CallMethodNoArgs(tls->object, method) : NULL;
}

/* --- starting --------------------------------------------------------------------------------- */

int bolide_transport_secure(bolide_transport *t, const bolide_tls_options *options) {
    t->water.high = BOLIDE_TLS_HIGH_WATER;
    t->water.low = BOLIDE_TLS_HIGH_WATER / 4;
    if (bolide_stream_start_tls(&t->stream, options) == 0) {
        PyTypeObject *old = Py_TYPE(t);
        Py_SET_TYPE((PyObject *)t, (PyTypeObject *)Py_NewRef(t->loop->st->SSLTransportType)); /* the same layout */
        Py_DECREF(old);
        bolide_transport_debug(t, "%r starts SSL handshake");
        return 0;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bolide_transport_force_close(t, NULL);
    PyErr_Restore(type, value, traceback);
    return -1;
}

static PyObject *make_tls_transport(PyObject *self, PyObject *args) {
    bolide_loop *loop = (bolide_loop *)self;
    PyObject *sock, *protocol, *waiter, *extra, *server, *context;
    bolide_tls_options options = {0};
    int server_side;
    if (!PyArg_ParseTuple(args, "OOOOpOOOOOO:_make_tls_transport", &sock, &protocol, &options.context, &waiter,
                          &server_side, &options.server_hostname, &extra, &server, &options.handshake_timeout,
                          &options.shutdown_timeout, &context) ||
        bolide_check_context(context) < 0 || bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0) {
        return NULL;
    }
    options.server_side = server_side != 0;
    bolide_transport *t = bolide_transport_new(loop, sock, fd, bolide_is_unix_socket(fd), protocol, server, extra);
    if (t == NULL) {
        return NULL;
    }
    t->waiter = waiter != Py_None ? Py_NewRef(waiter) : NULL;
    if (context != Py_None) {
        Py_SETREF(t->context, Py_NewRef(context));
    }
    if (bolide_transport_secure(t, &options) < 0) {
        Py_CLEAR(t->waiter);
        Py_DECREF(t);
        return NULL;
    }
    return (PyObject *)t;
}

/* Upgrade: what the protocol was given before is no concern of TLS, but for `ahead`, which came too early. */
static PyObject *start_tls(PyObject *self, PyObject *args) {
    bolide_loop *loop = (bolide_loop *)self;
    bolide_transport *t;
    PyObject *protocol, *waiter;
    Py_buffer ahead;
    bolide_tls_options options = {0};
    int server_side;
    if (!PyArg_ParseTuple(args, "O!OOOpOOOy*:_start_tls", loop->st->StreamTransportType, &t, &protocol,
                          &options.context, &waiter, &server_side, &options.server_hostname, &options.handshake_timeout,
                          &options.shutdown_timeout, &ahead)) {
        return NULL;
    }
    options.server_side = server_side != 0;
    PyObject *result = NULL;
    if (t->loop != loop || (t->flags & BOLIDE_TRANSPORT_CLOSING) || !bolide_stream_is_open(&t->stream)) {
        PyErr_SetString(PyExc_ConnectionResetError, "the transport is closed, or not of this loop");
    } else if (bolide_transport_set_protocol(t, protocol) == 0) {
        t->flags &= ~(unsigned)(BOLIDE_TRANSPORT_PAUSED | BOLIDE_TRANSPORT_EOF_READ);
        Py_XSETREF(t->waiter, Py_NewRef(waiter));
        t->flags |= BOLIDE_TRANSPORT_UPGRADING;
        if (bolide_transport_secure(t, &options) == 0) {
            bool early = ahead.len > 0 && t->stream.tls != NULL;
            int status = early ? bolide_tls_ahead(&t->stream, ahead.buf, (size_t)ahead.len) : 0;
            result = status == 0 ? Py_NewRef(Py_None) : NULL;
        } else {
            t->flags &= ~(unsigned)BOLIDE_TRANSPORT_UPGRADING;
            Py_CLEAR(t->waiter);
        }
    }
    PyBuffer_Release(&ahead);
    return result;
}

PyMethodDef bolide_transport_tls_methods[] = {
    {"_make_tls_transport", make_tls_transport, METH_VARARGS,
     PyDoc_STR("_make_tls_transport(sock, protocol, sslcontext, waiter, server_side, server_hostname, extra, server, "
               "handshake_timeout, shutdown_timeout, context)\n--\n\n"
               "An SSLTransport with TLS over a connected socket; connection_made() follows after the handshake.")},
    {"_start_tls", start_tls, METH_VARARGS,
     PyDoc_STR("_start_tls(transport, protocol, sslcontext, waiter, server_side, server_hostname, handshake_timeout, "
               "shutdown_timeout, ahead)\n--\n\nPut TLS on a StreamTransport; `ahead` is ciphertext that was received "
               "already.")},
    {NULL, NULL, 0, NULL},
};
