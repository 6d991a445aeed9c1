/* The Python type Server. */
#include "asgi/asgi.h"

#include "common/error.h"
#include "transport/tls.h"

static inline bolide_server *server_of(PyObject *self) {
    return (bolide_server *)self;
}

/* --- listening -------------------------------------------------------------------------------- */

/* 0 when the calling thread may use the server; -1 with RuntimeError set. */
static int check_usable(bolide_server *s) {
    unsigned long owner = s->loop->thread_id;
    if (owner != 0 && owner != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "a Server must be used in the thread of its loop");
        return -1;
    }
    return bolide_loop_check_closed(s->loop);
}

/* Is the socket `fd` a Unix one? -1 with OSError set when it is no stream socket of a kind that we serve. */
static int is_unix(int fd) {
    struct sockaddr_storage address;
    socklen_t len = sizeof(address), type_len = sizeof(int);
    int type;
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    bool known = address.ss_family == AF_INET || address.ss_family == AF_INET6 || address.ss_family == AF_UNIX;
    if (type != SOCK_STREAM || !known) {
        PyErr_SetString(PyExc_ValueError, "a TCP or Unix stream socket is required");
        return -1;
    }
    return address.ss_family == AF_UNIX;
}

PyDoc_STRVAR(listen_doc, "listen(sock, backlog=2048, ssl_context=None)\n--\n\n"
                         "Accept connections on a duplicate of `sock`, a bound TCP or Unix stream socket; with TLS if "
                         "there is an ssl.SSLContext.\n\n"
                         "Returns a number for close_listeners(), more than 0.\n"
                         "Raises OSError when it cannot listen, RuntimeError after shutdown().");

static PyObject *server_listen(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"sock", "backlog", "ssl_context", NULL};
    bolide_server *s = server_of(self);
    PyObject *sock, *tls = Py_None;
    int backlog = 2048;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|iO:listen", names, &sock, &backlog, &tls) ||
        check_usable(s) < 0 || (tls != Py_None && bolide_tls_check_context(s->st, tls) < 0)) {
        return NULL;
    }
    tls = tls != Py_None ? tls : NULL;
    int fd = PyObject_AsFileDescriptor(sock);
    int is_pipe = fd >= 0 ? is_unix(fd) : -1;
    if (is_pipe < 0) {
        return NULL;
    }
    if (s->closing) {
        PyErr_SetString(PyExc_RuntimeError, "the server is shut down");
        return NULL;
    }
    int status = bolide_listener_open(&s->http, fd, is_pipe != 0, backlog, tls, &s->listeners);
    if (status < 0) {
        return bolide_error_set(status);
    }
    return PyLong_FromUnsignedLong(s->listeners->number);
}

PyDoc_STRVAR(
    drop_syn_doc,
    "drop_syn(sock)\n--\n\n"
    "Have the kernel ignore the attempts to connect to `sock`, a listening TCP socket, that begin from now on, in "
    "all processes that have it.\n\n"
    "Returns whether the system can do that: Linux can. Raises OSError or ValueError when `sock` is no stream "
    "socket of TCP or Unix.");

static PyObject *server_drop_syn(PyObject *Py_UNUSED(unused), PyObject *sock) {
    int fd = PyObject_AsFileDescriptor(sock);
    int is_pipe = fd >= 0 ? is_unix(fd) : -1;
    if (is_pipe < 0) {
        return NULL;
    }
    return PyBool_FromLong(is_pipe == 0 && bolide_listener_drop_syn(fd) == 0);
}

PyDoc_STRVAR(replace_doc,
             "replace_ssl_context(ssl_context)\n--\n\n"
             "Use another ssl.SSLContext for the connections to come of all listeners that have TLS; those "
             "that are open go on.");

static PyObject *server_replace_ssl_context(PyObject *self, PyObject *tls) {
    bolide_server *s = server_of(self);
    if (check_usable(s) < 0 || bolide_tls_check_context(s->st, tls) < 0) {
        return NULL;
    }
    bool was_running = bolide_loop_occupy(s->loop);
    bolide_listener_replace_tls(s->listeners, tls);
    bolide_loop_vacate(s->loop, was_running);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_listeners_doc,
             "close_listeners(number=0, *, drain=True)\n--\n\n"
             "Accept those connections that wait already (unless `drain` is false) and no more; those that are open go "
             "on. `number`, if it is not 0, is what listen() returned for the one listener to close.");

static PyObject *server_close_listeners(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"number", "drain", NULL};
    bolide_server *s = server_of(self);
    unsigned long number = 0;
    int drain = true;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|k$p:close_listeners", names, &number, &drain) ||
        check_usable(s) < 0) {
        return NULL;
    }
    bool was_running = bolide_loop_occupy(s->loop);
    bolide_listener_close(&s->listeners, number, drain != 0);
    bolide_loop_vacate(s->loop, was_running);
    Py_RETURN_NONE;
}

/* --- closing ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(end_keep_alive_doc, "end_keep_alive()\n--\n\n"
                                 "From now on a connection closes after the response it is at, and when it is idle.");

static PyObject *server_end_keep_alive(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    if (check_usable(server_of(self)) < 0) {
        return NULL;
    }
    bolide_http_begin_closing(&server_of(self)->http);
    Py_RETURN_NONE;
}

static void begin_shutdown(bolide_server *s, bool drain) {
    bolide_listener_close(&s->listeners, 0, drain);
    s->closing = true;
    bolide_http_begin_closing(&s->http);
    for (bolide_conn *c = s->http.conns; c != NULL; c = c->next) {
        bolide_request *r = c->request;
        if ((c->flags & BOLIDE_CONN_UPGRADED) != 0 && r == NULL) {
            bolide_ws_shutdown(c);
        } else if (r != NULL && r->ws != NULL) {
            bolide_websocket_shutdown(r);
        }
    }
    bolide_server_check_closed(s);
}

PyDoc_STRVAR(shutdown_doc, "shutdown()\n--\n\nClose gracefully: the listeners as by close_listeners(), idle "
                           "connections when no request has come for a "
                           "moment, the others after the response they are at.");

static PyObject *server_shutdown(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_server *s = server_of(self);
    if (check_usable(s) < 0) {
        return NULL;
    }
    bool was_running = bolide_loop_occupy(s->loop);
    begin_shutdown(s, true);
    bolide_loop_vacate(s->loop, was_running);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(drop_doc,
             "drop_connections()\n--\n\nClose as shutdown() does, and all connections now. Running requests are "
             "told that their clients are gone, and go on.");

static PyObject *server_drop_connections(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_server *s = server_of(self);
    if (check_usable(s) < 0) {
        return NULL;
    }
    bool was_running = bolide_loop_occupy(s->loop);
    begin_shutdown(s, false);
    for (bolide_conn *c = s->http.conns; c != NULL; c = c->next) {
        bolide_conn_abort(c);
    }
    bolide_loop_vacate(s->loop, was_running);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(abort_doc,
             "abort()\n--\n\nClose by force: cancel the tasks of running requests and drop all connections.");

static PyObject *server_abort(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_server *s = server_of(self);
    if (check_usable(s) < 0) {
        return NULL;
    }
    bool was_running = bolide_loop_occupy(s->loop);
    begin_shutdown(s, false);
    int status = bolide_request_cancel_all(s);
    for (bolide_conn *c = s->http.conns; c != NULL && status == 0; c = c->next) {
        bolide_conn_abort(c);
    }
    bolide_loop_vacate(s->loop, was_running);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

void bolide_server_check_closed(bolide_server *s) {
    if (!s->closing || s->http.conn_count > 0 || s->running_count > 0 || s->loop->closed) {
        return;
    }
    while (PyList_GET_SIZE(s->waiters) > 0) {
        PyObject *future = Py_NewRef(PyList_GET_ITEM(s->waiters, 0));
        PyObject *done = NULL;
        if (PyList_SetSlice(s->waiters, 0, 1, NULL) == 0) {
            done = PyObject_CallMethodNoArgs(future, s->st->str_done);
        }
        if (done == Py_False) {
            Py_SETREF(done, PyObject_CallMethodOneArg(future, s->st->str_set_result, Py_None));
        }
        if (done == NULL) {
            bolide_loop_report(s->loop, "completing wait_closed() failed", NULL, NULL);
        }
        Py_XDECREF(done);
        Py_DECREF(future);
    }
}

PyDoc_STRVAR(wait_closed_doc, "wait_closed()\n--\n\nA future that is done once shutdown() has been called and no "
                              "connection and no running request is left.");

static PyObject *server_wait_closed(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_server *s = server_of(self);
    if (check_usable(s) < 0) {
        return NULL;
    }
    PyObject *future = bolide_loop_create_future(s->loop);
    if (future == NULL || PyList_Append(s->waiters, future) < 0) {
        Py_XDECREF(future);
        return NULL;
    }
    bolide_server_check_closed(s);
    return future;
}

void bolide_server_answered(bolide_server *s) {
    if (s->max_requests == 0 || s->http.total_requests < s->max_requests) {
        return;
    }
    s->max_requests = 0;
    if (s->on_max != NULL && bolide_loop_schedule(s->loop, s->on_max, NULL, 0, NULL) < 0) {
        bolide_loop_report(s->loop, "calling on_max_requests failed", NULL, NULL);
    }
}

/* --- the type --------------------------------------------------------------------------------- */

static PyObject *get_connections(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromSize_t(server_of(self)->http.conn_count);
}

static PyObject *get_requests_running(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromSize_t(server_of(self)->running_count);
}

static PyObject *get_total_requests(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(server_of(self)->http.total_requests);
}

static int server_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_server *s = server_of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)s->loop);
    Py_VISIT(s->app);
    Py_VISIT(s->scope);
    Py_VISIT(s->ws_scope);
    Py_VISIT(s->asgi);
    Py_VISIT(s->extensions);
    Py_VISIT(s->ws_asgi);
    Py_VISIT(s->ws_denial);
    Py_VISIT(s->ws_subprotocols);
    Py_VISIT(s->state);
    Py_VISIT(s->access_log);
    Py_VISIT(s->logger);
    Py_VISIT(s->on_max);
    Py_VISIT(s->forwarded);
    Py_VISIT(s->tls_extension);
    Py_VISIT(s->context);
    Py_VISIT(s->task_keywords);
    Py_VISIT(s->waiters);
    for (bolide_request *r = s->running; r != NULL; r = r->next) {
        Py_VISIT((PyObject *)r);
    }
    return 0;
}

/* The loop, the logger and the waiters stay until the end: a request or a connection may still come to its own. */
static int server_clear(PyObject *self) {
    bolide_server *s = server_of(self);
    Py_CLEAR(s->app);
    Py_CLEAR(s->scope);
    Py_CLEAR(s->ws_scope);
    Py_CLEAR(s->state);
    Py_CLEAR(s->access_log);
    Py_CLEAR(s->on_max);
    Py_CLEAR(s->forwarded);
    Py_CLEAR(s->tls_extension);
    Py_CLEAR(s->context);
    return 0;
}

static void server_dealloc(PyObject *self) {
    bolide_server *s = server_of(self);
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    bolide_http_clear(&s->http);
    bolide_ws_config_clear(&s->ws);
    bolide_headers_clear(&s->http.headers);
    bolide_targets_clear(&s->http.targets);
    bolide_defaults_clear(&s->http.defaults);
    (void)server_clear(self);
    Py_CLEAR(s->asgi);
    Py_CLEAR(s->extensions);
    Py_CLEAR(s->health_path);
    Py_CLEAR(s->health_headers);
    Py_CLEAR(s->health_body);
    Py_CLEAR(s->ws_extensions);
    Py_CLEAR(s->ws_asgi);
    Py_CLEAR(s->ws_denial);
    Py_CLEAR(s->ws_subprotocols);
    Py_CLEAR(s->client_host);
    Py_CLEAR(s->logger);
    Py_CLEAR(s->task_keywords);
    Py_CLEAR(s->waiters);
    Py_CLEAR(s->server_name);
    Py_CLEAR(s->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"listen", (PyCFunction)(void (*)(void))server_listen, METH_VARARGS | METH_KEYWORDS, listen_doc},
    {"replace_ssl_context", server_replace_ssl_context, METH_O, replace_doc},
    {"drop_syn", server_drop_syn, METH_O | METH_STATIC, drop_syn_doc},
    {"close_listeners", (PyCFunction)(void (*)(void))server_close_listeners, METH_VARARGS | METH_KEYWORDS,
     close_listeners_doc},
    {"end_keep_alive", server_end_keep_alive, METH_NOARGS, end_keep_alive_doc},
    {"shutdown", server_shutdown, METH_NOARGS, shutdown_doc},
    {"drop_connections", server_drop_connections, METH_NOARGS, drop_doc},
    {"abort", server_abort, METH_NOARGS, abort_doc},
    {"wait_closed", server_wait_closed, METH_NOARGS, wait_closed_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getters[] = {
    {"connections", get_connections, NULL, "Open connections.", NULL},
    {"requests_running", get_requests_running, NULL, "Requests whose application has not returned.", NULL},
    {"total_requests", get_total_requests, NULL, "Requests answered since the start.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)bolide_server_doc},
    {Py_tp_new, bolide_server_new},
    {Py_tp_dealloc, server_dealloc},
    {Py_tp_traverse, server_traverse},
    {Py_tp_clear, server_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, getters},
    {0, NULL},
};

PyType_Spec bolide_server_spec = {
    .name = "bolide._core.Server",
    .basicsize = sizeof(bolide_server),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
