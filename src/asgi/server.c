/* The Python type Server. */
#include "asgi/asgi.h"

#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "common/error.h"
#include "transport/tls.h"

#define MAX_HEAD_LIMIT   (64u * 1024 * 1024)
#define MAX_FIELDS_LIMIT 65536
#define MAX_TIMEOUT_S    86400.0
#define MAX_BODY_RATE    (1 << 20)

/* The arguments of Server() before they are checked. */
typedef struct {
    PyObject *loop, *app, *root_path, *headers, *state, *access_log, *logger, *concurrency, *max_requests, *on_max,
        *forwarded, *tls_extension, *health_path;
    const char *scheme, *asgi_version;
    PyObject *ping_interval, *ping_timeout, *max_body, *body_timeout, *write_timeout;
    int server_header, date_header, reset_context, websockets, ws_deflate, access_details;
    Py_ssize_t head, fields, body_rate, ws_max_size, ws_max_queue;
    double keep_alive, head_timeout, ws_close_timeout;
} server_args;

static inline bolide_server *server_of(PyObject *self) {
    return (bolide_server *)self;
}

/* --- construction ----------------------------------------------------------------------------- */

static int parse_args(PyObject *args, PyObject *kwargs, server_args *a) {
    static char *names[] = {"loop",
                            "app",
                            "root_path",
                            "scheme",
                            "asgi_version",
                            "server_header",
                            "date_header",
                            "headers",
                            "state",
                            "access_log",
                            "logger",
                            "forwarded",
                            "tls_extension",
                            "reset_contextvars",
                            "limit_concurrency",
                            "limit_max_requests",
                            "on_max_requests",
                            "limit_request_head",
                            "limit_request_headers",
                            "timeout_keep_alive",
                            "timeout_request_head",
                            "websockets",
                            "ws_max_size",
                            "ws_max_queue",
                            "ws_ping_interval",
                            "ws_ping_timeout",
                            "ws_close_timeout",
                            "ws_per_message_deflate",
                            "limit_max_body",
                            "limit_body_rate",
                            "timeout_request_body",
                            "timeout_write",
                            "access_details",
                            "health_path",
                            NULL};
    *a = (server_args){.server_header = 1,
                       .date_header = 1,
                       .head = 131072,
                       .fields = 256,
                       .keep_alive = 5.0,
                       .head_timeout = 60.0,
                       .websockets = 1,
                       .ws_deflate = 1,
                       .ws_max_size = 16 * 1024 * 1024,
                       .ws_max_queue = 32,
                       .ws_close_timeout = 10.0,
                       .scheme = "http",
                       .asgi_version = "3.0"};
    return PyArg_ParseTupleAndKeywords(
               args, kwargs, "OO|$UssppOOOOOOpOOOnnddpnnOOdpOnOOpO:Server", names, &a->loop, &a->app, &a->root_path,
               &a->scheme, &a->asgi_version, &a->server_header, &a->date_header, &a->headers, &a->state, &a->access_log,
               &a->logger, &a->forwarded, &a->tls_extension, &a->reset_context, &a->concurrency, &a->max_requests,
               &a->on_max, &a->head, &a->fields, &a->keep_alive, &a->head_timeout, &a->websockets, &a->ws_max_size,
               &a->ws_max_queue, &a->ping_interval, &a->ping_timeout, &a->ws_close_timeout, &a->ws_deflate,
               &a->max_body, &a->body_rate, &a->body_timeout, &a->write_timeout, &a->access_details, &a->health_path)
               ? 0
               : -1;
}

/* Let malloc keep freed memory at hand. By default glibc gives the top of the heap back as soon as a body of some 100
 * KiB is freed, and the next one pays for its pages again: more than half the cost of a large upload. What is set here
 * is what glibc's own adaption may end at. Nothing is done if the user has tuned malloc. */
static void tune_malloc(void) {
#ifdef __GLIBC__
    if (getenv("MALLOC_TRIM_THRESHOLD_") == NULL && getenv("MALLOC_MMAP_THRESHOLD_") == NULL &&
        getenv("GLIBC_TUNABLES") == NULL) {
        (void)mallopt(M_MMAP_THRESHOLD, 8 * 1024 * 1024);
        (void)mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024);
        (void)mallopt(M_TOP_PAD, 512 * 1024);
    }
#endif
}

static PyObject *optional(PyObject *value) {
    return value == Py_None ? NULL : Py_XNewRef(value);
}

/* A count of at least 1, or 0 for None. -1 with an exception set. */
static int64_t optional_count(PyObject *value, const char *name) {
    if (value == NULL || value == Py_None) {
        return 0;
    }
    int64_t n = PyLong_AsLongLong(value);
    if (n < 1 && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "%s must be positive", name);
    }
    return n < 1 ? -1 : n;
}

static int check_limits(const server_args *a) {
    if (a->head < 256 || a->head > MAX_HEAD_LIMIT || a->fields < 1 || a->fields > MAX_FIELDS_LIMIT) {
        PyErr_SetString(PyExc_ValueError, "limit_request_head or limit_request_headers is out of range");
        return -1;
    }
    if (!(a->keep_alive >= 0 && a->keep_alive <= MAX_TIMEOUT_S && a->head_timeout > 0 &&
          a->head_timeout <= MAX_TIMEOUT_S)) {
        PyErr_SetString(PyExc_ValueError, "timeout_keep_alive or timeout_request_head is out of range");
        return -1;
    }
    if (a->body_rate < 0 || a->body_rate > MAX_BODY_RATE) {
        PyErr_SetString(PyExc_ValueError, "limit_body_rate is out of range");
        return -1;
    }
    if (a->state != NULL && a->state != Py_None && !PyDict_Check(a->state)) {
        PyErr_SetString(PyExc_TypeError, "state must be a dict");
        return -1;
    }
    return 0;
}

/* Take the arguments that are objects. 0, or -1 with an exception set. */
static int take_objects(bolide_server *s, const server_args *a) {
    int64_t concurrency = optional_count(a->concurrency, "limit_concurrency");
    int64_t requests = optional_count(a->max_requests, "limit_max_requests");
    if (concurrency < 0 || requests < 0) {
        return -1;
    }
    s->max_concurrency = (size_t)concurrency;
    s->max_requests = (uint64_t)requests;
    s->app = Py_NewRef(a->app);
    s->state = optional(a->state);
    s->access_log = optional(a->access_log);
    s->on_max = optional(a->on_max);
    s->forwarded = optional(a->forwarded);
    s->tls_extension = optional(a->tls_extension);
    s->access_details = a->access_details != 0;
    s->context = a->reset_context ? PyContext_New() : PyContext_CopyCurrent();
    s->logger = optional(a->logger);
    if (s->logger == NULL) {
        s->logger = PyObject_CallFunction(s->st->asgi->get_logger, "s", "bolide.error");
    }
    s->waiters = PyList_New(0);
    return s->context != NULL && s->logger != NULL && s->waiters != NULL ? 0 : -1;
}

/* `value` seconds as milliseconds: `unset` when it was not given, 0 for None or 0. -1 with an exception set. */
static int64_t optional_ms(PyObject *value, double unset, const char *name) {
    double seconds = value == NULL ? unset : value == Py_None ? 0 : PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!(seconds >= 0 && seconds <= MAX_TIMEOUT_S)) {
        PyErr_Format(PyExc_ValueError, "%s is out of range", name);
        return -1;
    }
    return seconds > 0 && seconds < 0.001 ? 1 : (int64_t)(seconds * 1000);
}

static int set_up_websockets(bolide_server *s, const server_args *a) {
    int64_t interval = optional_ms(a->ping_interval, 20.0, "ws_ping_interval");
    int64_t timeout = interval >= 0 ? optional_ms(a->ping_timeout, 20.0, "ws_ping_timeout") : -1;
    if (timeout < 0) {
        return -1;
    }
    if (a->ws_max_size < 1 || a->ws_max_queue < 1 ||
        !(a->ws_close_timeout >= 0 && a->ws_close_timeout <= MAX_TIMEOUT_S)) {
        PyErr_SetString(PyExc_ValueError, "ws_max_size, ws_max_queue or ws_close_timeout is out of range");
        return -1;
    }
    s->websockets = a->websockets != 0;
    s->ws_deflate = a->ws_deflate != 0;
    s->ws_max_queue = (size_t)a->ws_max_queue;
    s->ws.ops = &bolide_websocket_ops;
    s->ws.max_size = (size_t)a->ws_max_size;
    s->ws.ping_interval_ms = (unsigned)interval;
    s->ws.ping_timeout_ms = (unsigned)timeout;
    s->ws.close_timeout_ms = (unsigned)(a->ws_close_timeout * 1000);
    unsigned tick = s->ws.close_timeout_ms > 100 ? s->ws.close_timeout_ms : 100;
    if (interval > 0) {
        tick = interval < tick ? (unsigned)interval : tick;
        tick = timeout > 0 && timeout < tick ? (unsigned)timeout : tick;
    }
    s->http.tick_ms = s->websockets ? tick : 0;
    return 0;
}

/* What a request for `path`, bytes or None, is answered with. 0, or -1 with an exception set. */
static int set_up_health(bolide_server *s, PyObject *path) {
    static const char body[] = "ok\n";
    if (path == NULL || path == Py_None) {
        return 0;
    }
    if (!PyBytes_Check(path) || PyBytes_GET_SIZE(path) == 0 || PyBytes_AS_STRING(path)[0] != '/') {
        PyErr_SetString(PyExc_ValueError, "health_path must be bytes that start with a slash");
        return -1;
    }
    s->health_path = Py_NewRef(path);
    s->health_body = PyBytes_FromString(body);
    s->health_headers = Py_BuildValue("((yy)(yy)(yy))", "content-type", "text/plain; charset=utf-8", "content-length",
                                      "3", "cache-control", "no-store");
    return s->health_body != NULL && s->health_headers != NULL ? 0 : -1;
}

static int set_up_http(bolide_server *s, const server_args *a, PyObject *root_path) {
    bolide_http *http = &s->http;
    PyObject *headers = a->headers != NULL ? Py_NewRef(a->headers) : PyTuple_New(0);
    if (headers == NULL) {
        return -1;
    }
    int result = bolide_defaults_init(&http->defaults, a->date_header != 0, a->server_header != 0, headers);
    Py_DECREF(headers);
    if (result < 0 || bolide_headers_init(&http->headers) < 0 || bolide_targets_init(&http->targets, root_path) < 0) {
        return -1;
    }
    http->max_head = (uint32_t)a->head;
    http->keep_alive_ms = (unsigned)(a->keep_alive * 1000);
    http->head_timeout_ms = (unsigned)(a->head_timeout * 1000);
    int64_t max_body = optional_count(a->max_body, "limit_max_body");
    int64_t body_timeout = optional_ms(a->body_timeout, 60.0, "timeout_request_body");
    int64_t write_timeout = body_timeout >= 0 ? optional_ms(a->write_timeout, 60.0, "timeout_write") : -1;
    if (max_body < 0 || write_timeout < 0) {
        return -1;
    }
    http->max_body = max_body == 0 ? UINT64_MAX : (uint64_t)max_body;
    http->body_rate = (unsigned)a->body_rate;
    http->body_timeout_ms = (unsigned)body_timeout;
    http->write_timeout_ms = (unsigned)write_timeout;
    return bolide_http_init(http, s->loop, &bolide_request_ops, (PyObject *)s, (uint32_t)a->fields);
}

PyDoc_STRVAR(server_doc,
             "Server(loop, app, *, root_path='', scheme='http', asgi_version='3.0', server_header=True,\n"
             "       date_header=True, headers=(), state=None, access_log=None, logger=None, forwarded=None,\n"
             "       tls_extension=None,\n"
             "       reset_contextvars=False, limit_concurrency=None, limit_max_requests=None,\n"
             "       on_max_requests=None, limit_request_head=131072, limit_request_headers=256,\n"
             "       timeout_keep_alive=5.0, timeout_request_head=60.0, websockets=True,\n"
             "       ws_max_size=16777216, ws_max_queue=32, ws_ping_interval=20.0, ws_ping_timeout=20.0,\n"
             "       ws_close_timeout=10.0, ws_per_message_deflate=True, limit_max_body=None,\n"
             "       limit_body_rate=0, timeout_request_body=60.0, timeout_write=60.0,\n"
             "       access_details=False, health_path=None)\n--\n\n"
             "An HTTP/1.1 and WebSocket server for one ASGI 3.0 application on one loop; it speaks to the sockets "
             "given to listen().\n\n"
             "See the type stub for the arguments.");

static PyObject *server_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    server_args a;
    bolide_state *st = bolide_state_of_type(type);
    if (st == NULL || parse_args(args, kwargs, &a) < 0 || check_limits(&a) < 0) {
        return NULL;
    }
    if (!PyObject_TypeCheck(a.loop, st->LoopType)) {
        PyErr_Format(PyExc_TypeError, "loop must be a bolide.Loop, not %.100s", Py_TYPE(a.loop)->tp_name);
        return NULL;
    }
    if (bolide_loop_check_closed((bolide_loop *)a.loop) < 0) {
        return NULL;
    }
    bolide_server *s = (bolide_server *)type->tp_alloc(type, 0);
    if (s == NULL) {
        return NULL;
    }
    tune_malloc();
    s->loop = (bolide_loop *)Py_NewRef(a.loop);
    s->st = st;
    PyObject *root_path = a.root_path != NULL ? Py_NewRef(a.root_path) : PyUnicode_FromString("");
    if (root_path == NULL || take_objects(s, &a) < 0 || set_up_websockets(s, &a) < 0 ||
        set_up_health(s, a.health_path) < 0 || bolide_scope_init(s, root_path, a.scheme, a.asgi_version) < 0 ||
        set_up_http(s, &a, root_path) < 0) {
        Py_XDECREF(root_path);
        Py_DECREF(s);
        return NULL;
    }
    Py_DECREF(root_path);
    return (PyObject *)s;
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
    Py_VISIT(s->state);
    Py_VISIT(s->access_log);
    Py_VISIT(s->logger);
    Py_VISIT(s->on_max);
    Py_VISIT(s->forwarded);
    Py_VISIT(s->tls_extension);
    Py_VISIT(s->context);
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
    Py_CLEAR(s->client_host);
    Py_CLEAR(s->logger);
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
    {Py_tp_doc, (void *)server_doc}, {Py_tp_new, server_new},
    {Py_tp_dealloc, server_dealloc}, {Py_tp_traverse, server_traverse},
    {Py_tp_clear, server_clear},     {Py_tp_methods, methods},
    {Py_tp_getset, getters},         {0, NULL},
};

PyType_Spec bolide_server_spec = {
    .name = "bolide._core.Server",
    .basicsize = sizeof(bolide_server),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
