#include "transport/transport.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/error.h"
#include "transport/protocol.h"

static inline bolide_transport *of_resource(bolide_resource *res) {
    return (bolide_transport *)((char *)res - offsetof(bolide_transport, resource));
}

/* --- errors ----------------------------------------------------------------------------------- */

static void finish_debug(bolide_transport *t, PyObject *result) {
    if (result == NULL) {
        bolide_loop_report(t->loop, "logging failed", "transport", (PyObject *)t);
    }
    Py_XDECREF(result);
}

void bolide_transport_debug(bolide_transport *t, const char *format) {
    if (t->loop->debug) {
        finish_debug(t, PyObject_CallMethod(t->loop->st->asyncio_logger, "debug", "sO", format, t));
    }
}

void bolide_transport_debug_error(bolide_transport *t, const char *message, PyObject *exception) {
    if (!t->loop->debug) {
        return;
    }
    PyObject *method = PyObject_GetAttrString(t->loop->st->asyncio_logger, "debug");
    PyObject *args = Py_BuildValue("(sOs)", "%r: %s", t, message);
    PyObject *kwargs = Py_BuildValue("{s:O}", "exc_info", exception);
    bool ready = method != NULL && args != NULL && kwargs != NULL;
    finish_debug(t, ready ? PyObject_Call(method, args, kwargs) : NULL);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
}

void bolide_transport_tell_handler(bolide_transport *t, const char *message, PyObject *exception) {
    bolide_protocol_tell_handler(t->loop, (PyObject *)t, t->protocol, message, exception);
}

/* The exception that is set came out of a protocol method: report it. NULL when it is to end the loop; else it, a new
 * reference. */
static PyObject *report(bolide_transport *t, const char *message) {
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        bolide_loop_set_fatal(t->loop);
        return NULL;
    }
    PyObject *exception = bolide_error_take();
    bolide_transport_tell_handler(t, message, exception);
    return exception;
}

void bolide_transport_report_callback(bolide_transport *t, PyObject *name, PyObject *arg) {
    bolide_protocol_report(t->loop, (PyObject *)t, t->protocol, t->context, name, arg, NULL);
}

/* As report(), and close with it. */
void bolide_transport_fatal(bolide_transport *t, const char *message) {
    PyObject *exception = report(t, message);
    if (exception != NULL) {
        bolide_transport_force_close(t, exception);
        Py_DECREF(exception);
    }
}

/* protocol.<name>(arg) in the transport's context; arg NULL: no argument. New reference or NULL with an exception set.
 */
PyObject *bolide_transport_call(bolide_transport *t, PyObject *name, PyObject *arg) {
    bolide_loop *loop = (bolide_loop *)Py_NewRef(t->loop);
    loop->occupied++;
    PyObject *result = bolide_protocol_call(t->protocol, t->context, &t->in_context, name, arg, NULL);
    loop->occupied--;
    Py_DECREF(loop);
    return result;
}

static int attach_server(bolide_transport *t) {
    if (t->server == NULL) {
        return 0;
    }
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *result = PyObject_CallMethodOneArg(t->server, t->loop->st->str__attach, (PyObject *)t);
#else
    PyObject *result = PyObject_CallMethodNoArgs(t->server, t->loop->st->str__attach);
#endif
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    t->flags |= BOLIDE_TRANSPORT_ATTACHED;
    return 0;
}

/* Give the future in *slot, if there is one, its result (None) or exception, and forget it. */
void bolide_transport_resolve(bolide_transport *t, PyObject **slot, PyObject *exception) {
    PyObject *waiter = *slot;
    *slot = NULL;
    if (waiter == NULL) {
        return;
    }
    bolide_state *st = t->loop->st;
    PyObject *done = PyObject_CallMethodNoArgs(waiter, st->str_done);
    int is_done = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    PyObject *result = NULL;
    if (is_done == 0) {
        result = exception != NULL ? PyObject_CallMethodOneArg(waiter, st->str_set_exception, exception)
                                   : PyObject_CallMethodOneArg(waiter, st->str_set_result, Py_None);
    }
    if (is_done <= 0 && result == NULL) {
        bolide_loop_report(t->loop, "resolving a connection's waiter failed", "transport", (PyObject *)t);
    }
    Py_XDECREF(result);
    Py_DECREF(waiter);
}

/* --- what ends a connection ------------------------------------------------------------------------------------- */

static void on_eof(bolide_stream *s) {
    bolide_transport *t = bolide_transport_of_stream(s);
    Py_INCREF(t);
    bolide_transport_end_read(t);
    if (s->tls != NULL) {
        bolide_transport_tls_eof(t);
        bolide_transport_close_gently(t);
        Py_DECREF(t);
        return;
    }
    t->flags |= BOLIDE_TRANSPORT_EOF_READ;
    bolide_transport_debug(t, "%r received EOF");
    PyObject *result = bolide_transport_call(t, t->loop->st->str_eof_received, NULL);
    int keep_open = result != NULL ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    if (keep_open < 0) {
        bolide_transport_fatal(t, "Fatal error: protocol.eof_received() call failed.");
    } else if (!keep_open) {
        bolide_transport_close_gently(t);
    }
    Py_DECREF(t);
}

static void on_error(bolide_stream *s, int status) {
    bolide_transport *t = bolide_transport_of_stream(s);
    PyObject *exception = bolide_error_new(status);
    if (exception == NULL) {
        exception = bolide_error_take();
    }
    Py_INCREF(t);
    bolide_transport_debug_error(t,
                                 s->flags & BOLIDE_STREAM_READ_FAILED ? "Fatal read error on socket transport"
                                                                      : "Fatal write error on socket transport",
                                 exception);
    bolide_transport_force_close(t, exception);
    Py_XDECREF(exception);
    Py_DECREF(t);
}

/* --- flow control ----------------------------------------------------------------------------- */

static void on_drain(bolide_stream *s) {
    bolide_transport *t = bolide_transport_of_stream(s);
    if (!(t->flags & BOLIDE_TRANSPORT_WRITING_PAUSED) || t->protocol == NULL) {
        return;
    }
    t->flags &= ~(unsigned)BOLIDE_TRANSPORT_WRITING_PAUSED;
    Py_INCREF(t);
    PyObject *result = bolide_transport_call(t, t->loop->st->str_resume_writing, NULL);
    if (result == NULL) {
        Py_XDECREF(report(t, "protocol.resume_writing() failed"));
    }
    Py_XDECREF(result);
    Py_DECREF(t);
}

void bolide_transport_flow(bolide_transport *t) {
    if (!bolide_stream_is_full(&t->stream) || (t->flags & BOLIDE_TRANSPORT_WRITING_PAUSED) || t->protocol == NULL) {
        return;
    }
    t->flags |= BOLIDE_TRANSPORT_WRITING_PAUSED;
    PyObject *result = bolide_transport_call(t, t->loop->st->str_pause_writing, NULL);
    if (result == NULL) {
        Py_XDECREF(report(t, "protocol.pause_writing() failed"));
    }
    Py_XDECREF(result);
}

static void on_flushed(bolide_stream *s) {
    bolide_transport *t = bolide_transport_of_stream(s);
    if (t->flushed != NULL) {
        bolide_transport_resolve(t, &t->flushed, NULL);
    }
    bolide_transport_sent(t);
}

static const bolide_stream_ops transport_ops = {
    .on_alloc = bolide_transport_on_alloc,
    .on_unused = bolide_transport_on_unused,
    .on_read = bolide_transport_on_read,
    .on_eof = on_eof,
    .on_error = on_error,
    .on_drain = on_drain,
    .on_flushed = on_flushed,
    .on_secure = bolide_transport_on_secure,
    .on_tls_error = bolide_transport_on_tls_error,
    .on_unwrapped = bolide_transport_on_unwrapped,
    .on_closing = bolide_transport_on_closing,
    .on_close = bolide_transport_on_close,
};

/* --- making one ------------------------------------------------------------------------------- */

static int resource_traverse(bolide_resource *res, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)of_resource(res));
    return 0;
}

static void resource_close(bolide_resource *res) {
    bolide_transport *t = of_resource(res);
    t->flags |= BOLIDE_TRANSPORT_LOST;
    bolide_stream_close(&t->stream); /* its on_close drops the loop's reference */
}

/* hasattr(): 1, 0, or -1 with an exception set. */
static int has_attribute(PyObject *obj, PyObject *name) {
    PyObject *value = PyObject_GetAttr(obj, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(value);
    return value != NULL ? 1 : -1;
}

/* 1 when data goes into the protocol's own buffer: it is an asyncio.BufferedProtocol, or of a class that asyncio does
 * not know, with get_buffer() and without data_received(). 0; or -1 with an exception set. */
static int brings_buffer(bolide_state *st, PyObject *protocol) {
    int buffered = PyObject_IsInstance(protocol, st->asyncio_BufferedProtocol);
    if (buffered != 0) {
        return buffered;
    }
    int receives = has_attribute(protocol, st->str_data_received);
    return receives != 0 ? -(receives < 0) : has_attribute(protocol, st->str_get_buffer);
}

int bolide_transport_set_protocol(bolide_transport *t, PyObject *protocol) {
    int buffered = brings_buffer(t->loop->st, protocol);
    if (buffered < 0) {
        return -1;
    }
    bool streams = Py_IS_TYPE(protocol, (PyTypeObject *)t->loop->st->asyncio_StreamReaderProtocol);
    t->flags &= ~(unsigned)(BOLIDE_TRANSPORT_BUFFERED | BOLIDE_TRANSPORT_STREAMS);
    t->flags |= (buffered ? BOLIDE_TRANSPORT_BUFFERED : 0) | (streams ? BOLIDE_TRANSPORT_STREAMS : 0);
    Py_XSETREF(t->protocol, Py_NewRef(protocol));
    return 0;
}

/* The garbage collector does not track it yet: who finds an object there may call its methods. */
static bolide_transport *allocate(bolide_loop *loop, PyObject *protocol, PyObject *server, PyObject *extra) {
    bolide_state *st = loop->st;
    bolide_transport *t = PyObject_GC_New(bolide_transport, st->StreamTransportType);
    if (t == NULL) {
        return NULL;
    }
    memset((char *)t + sizeof(PyObject), 0, sizeof(*t) - sizeof(PyObject));
    t->loop = (bolide_loop *)Py_NewRef(loop);
    t->fd = -1;
    t->server = server != NULL && server != Py_None ? Py_NewRef(server) : NULL;
    t->resource.traverse = resource_traverse;
    t->resource.close = resource_close;
    t->context = PyContext_CopyCurrent();
    if (t->context == NULL || bolide_transport_set_protocol(t, protocol) < 0) {
        goto fail;
    }
    if (extra != NULL && extra != Py_None) {
        t->extra = PyDict_New();
        if (t->extra == NULL || PyDict_Update(t->extra, extra) < 0) {
            goto fail;
        }
    }
    return t;
fail:
    Py_DECREF(t);
    return NULL;
}

/* Does the loop itself have made that socket, so that nobody else will close it? -1 with an exception set. */
static int is_own_socket(bolide_loop *loop, PyObject *sock) {
    PyObject *result = PyObject_CallMethodOneArg((PyObject *)loop, loop->st->str__take_own_socket, sock);
    int own = result != NULL ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    return own;
}

/* The descriptor for the stream over the socket object `sock`, which is that one's own, or a duplicate, with *shared,
 * when its user may close it: libuv aborts the process when a descriptor of its vanishes. -1 with an exception set. */
static int stream_descriptor(bolide_loop *loop, PyObject *sock, int fd, bool *shared) {
    int own = is_own_socket(loop, sock);
    *shared = own == 0;
    if (own != 0) {
        return own < 0 ? -1 : fd;
    }
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return copy;
}

static void remember_address(bolide_address *known, int fd, int (*ask)(int, struct sockaddr *, socklen_t *)) {
    known->len = sizeof(known->address);
    if (ask(fd, (struct sockaddr *)&known->address, &known->len) < 0 || known->len > sizeof(known->address)) {
        known->len = 0; /* or a Unix socket's path */
    }
}

/* After bolide_stream_open(). 0, or -1 with an exception set. */
static int settle_in(bolide_transport *t, int fd, bool pipe) {
    t->fd = fd;
    remember_address(&t->name, fd, getsockname);
    if (t->sock != NULL) { /* else accept() has told it */
        remember_address(&t->peer, fd, getpeername);
    }
    if (!pipe) {
        (void)uv_tcp_nodelay(&t->stream.uv.tcp, 1); /* a matter of speed only */
    }
    if (bolide_watchers_set_transport(t->loop, fd, (PyObject *)t) < 0) {
        return -1;
    }
    t->flags |= BOLIDE_TRANSPORT_REGISTERED;
    return pipe && bolide_transport_keep_paths(t) < 0 ? -1 : attach_server(t);
}

void bolide_transport_discard(bolide_transport *t) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    t->flags |= BOLIDE_TRANSPORT_FAILED;
    Py_CLEAR(t->waiter);
    Py_CLEAR(t->protocol);
    t->flags |= BOLIDE_TRANSPORT_LOST | BOLIDE_TRANSPORT_CLOSING;
    bolide_stream_close(&t->stream);
    Py_DECREF(t);
    PyErr_Restore(type, value, traceback);
}

bolide_transport *bolide_transport_new(bolide_loop *loop, PyObject *sock, int fd, bool pipe, PyObject *protocol,
                                       PyObject *server, PyObject *extra) {
    bool shared = false;
    int stream_fd = sock != NULL ? stream_descriptor(loop, sock, fd, &shared) : fd;
    if (stream_fd < 0) {
        return NULL;
    }
    bool ours = sock == NULL || shared; /* to be closed on failure */
    bolide_transport *t = allocate(loop, protocol, server, extra);
    int status = t != NULL ? bolide_stream_setup(&t->stream, loop, &transport_ops) : 0;
    if (t == NULL || status < 0) {
        if (ours) {
            close(stream_fd);
        }
        if (t != NULL) {
            bolide_error_set(status);
            Py_DECREF(t);
        }
        return NULL;
    }
    t->water = *t->stream.water;
    t->stream.water = &t->water;
    bolide_resource_add(loop, &t->resource);
    PyObject_GC_Track((PyObject *)t);
    Py_INCREF(t); /* the loop's; on_close drops it */
    status = bolide_stream_open(&t->stream, stream_fd);
    if (status == 0) {
        t->sock = Py_XNewRef(sock);
        t->flags |= shared ? BOLIDE_TRANSPORT_SHARED : 0u;
    } else if (ours) {
        close(stream_fd);
    }
    if (status < 0) {
        bolide_error_set(status);
    } else if (settle_in(t, fd, pipe) == 0) {
        return t;
    }
    bolide_transport_discard(t);
    return NULL;
}

void bolide_transport_start(bolide_transport *t) {
    if (!bolide_stream_is_open(&t->stream) || t->protocol == NULL) {
        return;
    }
    t->flags |= BOLIDE_TRANSPORT_STARTED; /* also of one that was closed meanwhile */
    PyObject *result = bolide_transport_call(t, t->loop->st->str_connection_made, (PyObject *)t);
    if (result == NULL) {
        bolide_transport_report_callback(t, t->loop->st->str_connection_made, (PyObject *)t);
    }
    Py_XDECREF(result);
    if (!(t->flags & (BOLIDE_TRANSPORT_PAUSED | BOLIDE_TRANSPORT_CLOSING))) {
        (void)bolide_stream_read_start(&t->stream);
    }
    bolide_transport_resolve(t, &t->waiter, NULL);
}
