/* The end of a transport, in the order that asyncio keeps: once a connection is lost or has nothing left to send,
 * connection_lost() is scheduled as by call_soon(), and finds the socket open. It is closed right afterwards. With TLS,
 * where asyncio has two transports and two protocols, the socket is closed first, and connection_lost() scheduled then.
 */
#include "common/error.h"
#include "transport/transport.h"

/* --- the server and the socket ----------------------------------------------------------------- */

static void detach_server(bolide_transport *t) {
    if (!(t->flags & BOLIDE_TRANSPORT_ATTACHED) || t->server == NULL) {
        return; /* or its loop was closed meanwhile */
    }
    t->flags &= ~(unsigned)BOLIDE_TRANSPORT_ATTACHED;
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *result = PyObject_CallMethodOneArg(t->server, t->loop->st->str__detach, (PyObject *)t);
#else
    PyObject *result = PyObject_CallMethodNoArgs(t->server, t->loop->st->str__detach);
#endif
    if (result == NULL) {
        bolide_loop_report(t->loop, "server._detach() failed", "transport", (PyObject *)t);
    }
    Py_XDECREF(result);
}

void bolide_transport_drop_socket(bolide_transport *t) {
    if (t->sock == NULL || (t->flags & BOLIDE_TRANSPORT_DROPPED)) {
        return;
    }
    t->flags |= BOLIDE_TRANSPORT_DROPPED;
    PyObject *sock = Py_NewRef(t->sock);
    bolide_state *st = t->loop->st;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if ((t->flags & (BOLIDE_TRANSPORT_SHARED | BOLIDE_TRANSPORT_FAILED)) !=
        (BOLIDE_TRANSPORT_SHARED | BOLIDE_TRANSPORT_FAILED)) {
        PyObject *method = t->flags & BOLIDE_TRANSPORT_SHARED ? st->str_close : st->str_detach;
        PyObject *result = PyObject_CallMethodNoArgs(sock, method);
        if (result == NULL) {
            PyErr_Clear(); /* closed by its user, or no socket of the socket module */
        }
        Py_XDECREF(result);
    }
    Py_DECREF(sock);
    PyErr_Restore(type, value, traceback);
}

/* The descriptor may be watched by others from now on. */
static void give_up_descriptor(bolide_transport *t) {
    if (t->flags & BOLIDE_TRANSPORT_REGISTERED) {
        t->flags &= ~(unsigned)BOLIDE_TRANSPORT_REGISTERED;
        (void)bolide_watchers_set_transport(t->loop, t->fd, NULL);
    }
}

/* For get_extra_info(), when the stream forgets it. */
static void keep_tls(bolide_transport *t) {
    if (t->stream.tls != NULL && t->tls == NULL && (t->flags & BOLIDE_TRANSPORT_STARTED)) {
        t->tls = (bolide_tls *)Py_NewRef(t->stream.tls);
    }
}

void bolide_transport_on_closing(bolide_stream *s) {
    bolide_transport *t = bolide_transport_of_stream(s);
    give_up_descriptor(t);
    keep_tls(t);
    bolide_transport_drop_socket(t);
}

static void forget_protocol(bolide_transport *t) {
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->server);
    Py_CLEAR(t->exception); /* its traceback may lead back to the transport */
}

void bolide_transport_on_close(bolide_stream *s) {
    bolide_transport *t = bolide_transport_of_stream(s);
    bolide_resource_remove(&t->resource);
    bolide_transport_end_read(t);
    forget_protocol(t);
    Py_DECREF(t); /* the loop's */
}

/* --- connection_lost() -------------------------------------------------------------------------- */

/* Give `exception`, or one of `class` with `message` if that is NULL, to the future in *slot. */
static void fail_future(bolide_transport *t, PyObject **slot, PyObject *class, const char *message) {
    if (*slot == NULL) {
        return;
    }
    PyObject *exception = t->exception != NULL ? Py_NewRef(t->exception) : PyObject_CallFunction(class, "s", message);
    if (exception == NULL) {
        exception = bolide_error_take();
    }
    bolide_transport_resolve(t, slot, exception);
    Py_XDECREF(exception);
}

/* Tell the protocol, at once or, with TLS, by another callback. 0, or -1 with an exception set. */
static int tell_protocol(bolide_transport *t) {
    bolide_state *st = t->loop->st;
    PyObject *arg = t->exception != NULL ? t->exception : Py_None;
    if ((t->flags & (BOLIDE_TRANSPORT_STARTED | BOLIDE_TRANSPORT_UPGRADING)) != BOLIDE_TRANSPORT_STARTED) {
        if (t->server != NULL && t->exception != NULL && t->loop->debug) {
            bolide_transport_tell_handler(t, "Error on transport creation for incoming connection", t->exception);
        }
        return 0;
    }
    if (t->tls == NULL) {
        PyObject *result = bolide_transport_call(t, st->str_connection_lost, arg);
        Py_XDECREF(result);
        return result != NULL ? 0 : -1;
    }
    PyObject *method = PyObject_GetAttr(t->protocol, st->str_connection_lost);
    int status = method != NULL ? bolide_loop_schedule(t->loop, method, &arg, 1, t->context) : -1;
    Py_XDECREF(method);
    return status;
}

PyObject *bolide_transport_call_connection_lost(PyObject *self, PyObject *Py_UNUSED(exception)) {
    bolide_transport *t = (bolide_transport *)self;
    if ((t->flags & (BOLIDE_TRANSPORT_ENDING | BOLIDE_TRANSPORT_TOLD)) != BOLIDE_TRANSPORT_ENDING || t->loop->closed) {
        Py_RETURN_NONE; /* not its time */
    }
    t->flags |= BOLIDE_TRANSPORT_TOLD;
    int status = t->protocol != NULL ? tell_protocol(t) : 0;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    fail_future(t, &t->waiter, PyExc_ConnectionAbortedError, "the connection was closed");
    bolide_stream_close(&t->stream);
    fail_future(t, &t->flushed, PyExc_ConnectionError, "Connection is closed by peer");
    detach_server(t);
    forget_protocol(t);
    PyErr_Restore(type, value, traceback);
    return status == 0 ? Py_NewRef(Py_None) : NULL;
}

/* --- ends --------------------------------------------------------------------------------------- */

static void begin_to_close(bolide_transport *t) {
    t->flags |= BOLIDE_TRANSPORT_CLOSING;
    give_up_descriptor(t);
}

/* What is left is to call connection_lost(exception) and to close the socket. */
static void lose(bolide_transport *t, PyObject *exception) {
    if ((t->flags & BOLIDE_TRANSPORT_ENDING) || !bolide_stream_is_open(&t->stream)) {
        return;
    }
    begin_to_close(t);
    t->flags |= BOLIDE_TRANSPORT_LOST | BOLIDE_TRANSPORT_ENDING;
    PyObject *arg = exception != NULL ? exception : Py_None;
    if (arg != Py_None) {
        Py_XSETREF(t->exception, Py_NewRef(arg));
    }
    keep_tls(t);
    bolide_stream_discard(&t->stream);
    PyObject *method = PyObject_GetAttr((PyObject *)t, t->loop->st->str__call_connection_lost);
    if (method == NULL || bolide_loop_schedule(t->loop, method, &arg, 1, NULL) < 0) {
        bolide_loop_report(t->loop, "scheduling the end of a connection failed", "transport", (PyObject *)t);
        Py_XDECREF(bolide_transport_call_connection_lost((PyObject *)t, arg)); /* better too early than never */
        if (PyErr_Occurred()) {
            bolide_transport_report_callback(t, t->loop->st->str_connection_lost, arg);
        }
    }
    bolide_loop_wake(t->loop); /* when it is another thread that closes it */
    Py_XDECREF(method);
}

void bolide_transport_force_close(bolide_transport *t, PyObject *exception) {
    if (!(t->flags & BOLIDE_TRANSPORT_ENDING)) {
        bolide_stream_flush(&t->stream); /* asyncio would have sent it when it was written */
        lose(t, exception);
    }
}

/* Lose the connection once the output has left. */
static void lose_when_sent(bolide_transport *t) {
    if (bolide_stream_pending(&t->stream) > 0) {
        t->flags |= BOLIDE_TRANSPORT_DRAINING;
    } else {
        lose(t, NULL);
    }
}

void bolide_transport_sent(bolide_transport *t) {
    if (t->flags & BOLIDE_TRANSPORT_DRAINING) {
        lose(t, NULL);
    }
}

void bolide_transport_close_gently(bolide_transport *t) {
    bool secure = t->stream.tls != NULL && bolide_tls_is_secure(t->stream.tls);
    if (!secure && bolide_stream_pending(&t->stream) > 0) {
        bolide_stream_flush(&t->stream); /* may call what closes it */
    }
    if ((t->flags & BOLIDE_TRANSPORT_CLOSING) || !bolide_stream_is_open(&t->stream)) {
        return;
    }
    begin_to_close(t);
    if (secure) {
        t->flags |= BOLIDE_TRANSPORT_LOST;
        bolide_stream_unwrap(&t->stream);
        bolide_stream_flush(&t->stream);
    } else if (t->stream.tls != NULL) {
        lose(t, NULL);
    } else {
        bolide_stream_read_stop(&t->stream);
        lose_when_sent(t);
    }
}

void bolide_transport_on_unwrapped(bolide_stream *s) {
    bolide_transport *t = bolide_transport_of_stream(s);
    Py_INCREF(t);
    bolide_transport_tls_eof(t);
    if (!(t->flags & BOLIDE_TRANSPORT_ENDING)) {
        lose_when_sent(t);
    }
    Py_DECREF(t);
}
