/* The listening sockets behind asyncio.Server: a transport and a protocol for each connection. */
#include <sys/socket.h>
#include <unistd.h>

#include "common/arguments.h"
#include "common/error.h"
#include "transport/acceptor.h"
#include "transport/transport.h"

typedef struct {
    bolide_resource resource;
    bolide_acceptor acceptor;
    bolide_loop *loop;          /* borrowed: this is a resource of it */
    PyObject *sock;             /* the listening socket.socket; the acceptor has a duplicate of its descriptor */
    PyObject *protocol_factory; /* called for each connection */
    PyObject *server;           /* asyncio.Server or None */
    PyObject *context;          /* contextvars.Context of which each connection gets a copy */
    bolide_tls_options tls;     /* its objects are owned; context NULL: no TLS */
    bool pipe;                  /* a Unix socket */
} listener;

static listener *of_acceptor(bolide_acceptor *a) {
    return (listener *)((char *)a - offsetof(listener, acceptor));
}

static listener *of_resource(bolide_resource *res) {
    return (listener *)((char *)res - offsetof(listener, resource));
}

static int listener_traverse(bolide_resource *res, visitproc visit, void *arg) {
    listener *l = of_resource(res);
    Py_VISIT(l->sock);
    Py_VISIT(l->protocol_factory);
    Py_VISIT(l->server);
    Py_VISIT(l->context);
    Py_VISIT(l->tls.context);
    Py_VISIT(l->tls.handshake_timeout);
    Py_VISIT(l->tls.shutdown_timeout);
    return 0;
}

static void on_close(bolide_acceptor *a) {
    listener *l = of_acceptor(a);
    bolide_resource_remove(&l->resource);
    Py_CLEAR(l->sock);
    Py_CLEAR(l->protocol_factory);
    Py_CLEAR(l->server);
    Py_CLEAR(l->context);
    Py_CLEAR(l->tls.context);
    Py_CLEAR(l->tls.handshake_timeout);
    Py_CLEAR(l->tls.shutdown_timeout);
    PyMem_RawFree(l);
}

static void listener_close(bolide_resource *res) {
    bolide_acceptor_close(&of_resource(res)->acceptor);
}

/* asyncio's line of debug mode, which shows the connection as a socket object. */
static void log_connection(bolide_loop *loop, int fd, PyObject *server) {
    bolide_state *st = loop->st;
    PyObject *kwargs = Py_BuildValue("{s:i}", "fileno", fd);
    PyObject *args = PyTuple_New(0);
    PyObject *sock = kwargs != NULL && args != NULL ? PyObject_Call(st->socket_socket, args, kwargs) : NULL;
    PyObject *peer = sock != NULL ? PyObject_CallMethodNoArgs(sock, st->str_getpeername) : NULL;
    if (peer == NULL && sock != NULL) { /* it is gone already */
        PyErr_Clear();
        peer = Py_NewRef(Py_None);
    }
    PyObject *result = NULL;
    if (peer != NULL) {
        result = PyObject_CallMethod(st->asyncio_logger, "debug", "sOOO", "%r got a new connection from %r: %r", server,
                                     peer, sock);
    }
    if (result == NULL) {
        bolide_loop_report(loop, "logging a new connection failed", NULL, NULL);
    }
    if (sock != NULL) { /* which must not close the descriptor */
        PyObject *detached = PyObject_CallMethodNoArgs(sock, st->str_detach);
        if (detached == NULL) {
            PyErr_WriteUnraisable(sock);
        }
        Py_XDECREF(detached);
    }
    Py_XDECREF(result);
    Py_XDECREF(peer);
    Py_XDECREF(sock);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
}

/* The exception that is set kept a connection from being made: as in asyncio a matter for debug mode alone. */
static void creation_failed(bolide_loop *loop) {
    if (loop->debug) {
        bolide_loop_report(loop, "Error on transport creation for incoming connection", NULL, NULL);
    } else if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        bolide_loop_set_fatal(loop);
    } else {
        PyErr_Clear();
    }
}

/* The protocol and the transport of a connection. NULL, with an exception set or not: the descriptor is closed. */
static bolide_transport *make_transport(listener *l, int fd, const bolide_address *peer, PyObject *factory,
                                        PyObject *server) {
    if (l->loop->debug) {
        log_connection(l->loop, fd, server);
    }
    PyObject *protocol = PyObject_CallNoArgs(factory);
    if (protocol == NULL || l->acceptor.fd < 0) {
        close(fd); /* the factory failed, or closed the server: what was accepted then goes too */
        Py_XDECREF(protocol);
        return NULL;
    }
    bolide_transport *t = bolide_transport_new(l->loop, NULL, fd, l->pipe, protocol, server, NULL);
    Py_DECREF(protocol);
    if (t != NULL) {
        t->peer = *peer;
    }
    return t;
}

static void on_connection(bolide_acceptor *a, int fd, const bolide_address *peer) {
    listener *l = of_acceptor(a);
    bolide_loop *loop = l->loop;
    PyObject *factory = Py_NewRef(l->protocol_factory);
    PyObject *server = Py_NewRef(l->server);
    PyObject *context = PyContext_Copy(l->context);
    bolide_transport *t = NULL;
    if (context != NULL && PyContext_Enter(context) == 0) {
        t = make_transport(l, fd, peer, factory, server);
        (void)PyContext_Exit(context);
    } else {
        close(fd);
    }
    if (t != NULL && l->tls.context != NULL) {
        (void)bolide_transport_secure(t, &l->tls);
    } else if (t != NULL) {
        bolide_transport_start(t);
    }
    Py_XDECREF(t);
    if (PyErr_Occurred()) {
        creation_failed(loop);
    }
    Py_XDECREF(context);
    Py_DECREF(server);
    Py_DECREF(factory);
}

static void on_exhausted(bolide_acceptor *a, int status) {
    listener *l = of_acceptor(a);
    PyObject *sock = PyObject_CallOneArg(l->loop->st->asyncio_TransportSocket, l->sock);
    if (sock == NULL) {
        PyErr_Clear();
    }
    bolide_error_set(status);
    bolide_loop_report(l->loop, "socket.accept() out of system resource", "socket", sock);
    Py_XDECREF(sock);
}

static const bolide_acceptor_ops acceptor_ops = {
    .on_connection = on_connection,
    .on_exhausted = on_exhausted,
    .on_close = on_close,
};

bool bolide_is_unix_socket(int fd) {
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    return getsockname(fd, (struct sockaddr *)&address, &len) == 0 && address.ss_family == AF_UNIX;
}

static int start(bolide_loop *loop, PyObject *sock, PyObject *factory, int backlog, PyObject *server, PyObject *context,
                 const bolide_tls_options *tls) {
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0) {
        return -1;
    }
    listener *l = PyMem_RawCalloc(1, sizeof(listener));
    if (l == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    l->context = context != Py_None ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (l->context == NULL) {
        PyMem_RawFree(l);
        return -1;
    }
    int status = bolide_acceptor_open(&l->acceptor, loop, fd, backlog, &acceptor_ops);
    if (status < 0) {
        Py_DECREF(l->context);
        PyMem_RawFree(l);
        bolide_error_set(status);
        return -1;
    }
    l->loop = loop;
    l->sock = Py_NewRef(sock);
    l->protocol_factory = Py_NewRef(factory);
    l->server = Py_NewRef(server);
    l->tls.server_side = true;
    l->tls.context = Py_XNewRef(tls->context);
    l->tls.handshake_timeout = Py_XNewRef(tls->handshake_timeout);
    l->tls.shutdown_timeout = Py_XNewRef(tls->shutdown_timeout);
    l->pipe = bolide_is_unix_socket(fd);
    l->resource.traverse = listener_traverse;
    l->resource.close = listener_close;
    bolide_resource_add(loop, &l->resource);
    return 0;
}

int bolide_check_context(PyObject *context) {
    if (context != Py_None && !PyContext_CheckExact(context)) {
        PyErr_Format(PyExc_TypeError, "context must be a contextvars.Context, not %.100s", Py_TYPE(context)->tp_name);
        return -1;
    }
    return 0;
}

static PyObject *listen_on(PyObject *self, PyObject *args) {
    PyObject *sock, *factory, *server, *context;
    int backlog;
    bolide_tls_options tls = {0};
    if (bolide_loop_check_closed((bolide_loop *)self) < 0 ||
        !PyArg_ParseTuple(args, "OOiOO|OOO:_listen", &sock, &factory, &backlog, &server, &context, &tls.context,
                          &tls.handshake_timeout, &tls.shutdown_timeout) ||
        bolide_check_context(context) < 0 ||
        start((bolide_loop *)self, sock, factory, backlog, server, context, &tls) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *stop_listening(PyObject *self, PyObject *sock) {
    bolide_loop *loop = (bolide_loop *)self;
    for (bolide_resource *res = loop->resources.next; res != &loop->resources; res = res->next) {
        if (res->close == listener_close && of_resource(res)->sock == sock && of_resource(res)->acceptor.fd >= 0) {
            listener_close(res);
            break;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *start_from_handle(PyObject *self, PyObject *transport) {
    bolide_loop *loop = (bolide_loop *)self;
    if (!Py_IS_TYPE(transport, loop->st->StreamTransportType)) {
        PyErr_SetString(PyExc_TypeError, "a StreamTransport is required");
        return NULL;
    }
    bolide_transport_start((bolide_transport *)transport);
    Py_RETURN_NONE;
}

static PyObject *make_socket_transport(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"sock", "protocol", "waiter", "extra", "server", "context", NULL};
    bolide_loop *loop = (bolide_loop *)self;
    PyObject *sock, *protocol, *waiter = Py_None, *extra = Py_None, *server = Py_None, *context = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O$OOO:_make_socket_transport", names, &sock, &protocol, &waiter,
                                     &extra, &server, &context) ||
        bolide_check_context(context) < 0 || bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(sock);
    PyObject *method = fd >= 0 ? PyObject_GetAttr(protocol, loop->st->str_connection_made) : NULL;
    if (method == NULL) { /* no protocol: known now, as in asyncio, and not when it is to be called */
        return NULL;
    }
    Py_DECREF(method);
    bolide_transport *t = bolide_transport_new(loop, sock, fd, bolide_is_unix_socket(fd), protocol, server, extra);
    if (t == NULL) {
        return NULL;
    }
    t->waiter = waiter != Py_None ? Py_NewRef(waiter) : NULL;
    if (context != Py_None) {
        Py_SETREF(t->context, Py_NewRef(context));
    }
    PyObject *starter = PyObject_GetAttrString(self, "_start_transport");
    PyObject *argv[1] = {(PyObject *)t};
    int failed = starter == NULL || bolide_loop_schedule(loop, starter, argv, 1, NULL) < 0;
    Py_XDECREF(starter);
    if (failed) {
        bolide_transport_discard(t);
        return NULL;
    }
    return (PyObject *)t;
}

PyMethodDef bolide_transport_methods[] = {
    {"_listen", listen_on, METH_VARARGS,
     PyDoc_STR("_listen(sock, protocol_factory, backlog, server, context, sslcontext, handshake_timeout, "
               "shutdown_timeout)\n--\n\nAccept connections of sock until _stop_listening(sock); the last three: with "
               "TLS.")},
    {"_stop_listening", stop_listening, METH_O, PyDoc_STR("_stop_listening(sock)\n--\n\nStop accepting.")},
    {"_start_transport", start_from_handle, METH_O, NULL},
    {"_make_socket_transport", BOLIDE_KEYWORDS(make_socket_transport),
     PyDoc_STR("_make_socket_transport(sock, protocol, waiter=None, *, extra=None, server=None, context=None)\n--\n\nA "
               "StreamTransport over "
               "a connected socket; connection_made() follows on the next turn.")},
    {NULL, NULL, 0, NULL},
};
