/* Server(): its arguments, checked and put in their places. */
#include "asgi/asgi.h"

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
    int server_header, date_header, reset_context, websockets, ws_deflate, access_details, pathsend;
    Py_ssize_t head, fields, body_rate, ws_max_size, ws_max_queue;
    double keep_alive, head_timeout, ws_close_timeout;
} server_args;

static const server_args defaults = {.server_header = 1,
                                     .date_header = 1,
                                     .head = 131072,
                                     .fields = 256,
                                     .keep_alive = 5.0,
                                     .head_timeout = 60.0,
                                     .websockets = 1,
                                     .pathsend = 1,
                                     .ws_deflate = 1,
                                     .ws_max_size = 16 * 1024 * 1024,
                                     .ws_max_queue = 32,
                                     .ws_close_timeout = 10.0,
                                     .scheme = "http",
                                     .asgi_version = "3.0"};

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
                            "pathsend",
                            NULL};
    *a = defaults;
    return PyArg_ParseTupleAndKeywords(
               args, kwargs, "OO|$UssppOOOOOOpOOOnnddpnnOOdpOnOOpOp:Server", names, &a->loop, &a->app, &a->root_path,
               &a->scheme, &a->asgi_version, &a->server_header, &a->date_header, &a->headers, &a->state, &a->access_log,
               &a->logger, &a->forwarded, &a->tls_extension, &a->reset_context, &a->concurrency, &a->max_requests,
               &a->on_max, &a->head, &a->fields, &a->keep_alive, &a->head_timeout, &a->websockets, &a->ws_max_size,
               &a->ws_max_queue, &a->ping_interval, &a->ping_timeout, &a->ws_close_timeout, &a->ws_deflate,
               &a->max_body, &a->body_rate, &a->body_timeout, &a->write_timeout, &a->access_details, &a->health_path,
               &a->pathsend)
               ? 0
               : -1;
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
    s->http.upgrades = &s->ws;
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

const char bolide_server_doc[] =
    PyDoc_STR("Server(loop, app, *, root_path='', scheme='http', asgi_version='3.0', server_header=True,\n"
              "       date_header=True, headers=(), state=None, access_log=None, logger=None, forwarded=None,\n"
              "       tls_extension=None,\n"
              "       reset_contextvars=False, limit_concurrency=None, limit_max_requests=None,\n"
              "       on_max_requests=None, limit_request_head=131072, limit_request_headers=256,\n"
              "       timeout_keep_alive=5.0, timeout_request_head=60.0, websockets=True,\n"
              "       ws_max_size=16777216, ws_max_queue=32, ws_ping_interval=20.0, ws_ping_timeout=20.0,\n"
              "       ws_close_timeout=10.0, ws_per_message_deflate=True, limit_max_body=None,\n"
              "       limit_body_rate=0, timeout_request_body=60.0, timeout_write=60.0,\n"
              "       access_details=False, health_path=None, pathsend=True)\n--\n\n"
              "An HTTP/1.1 and WebSocket server for one ASGI 3.0 application on one loop; it speaks to the sockets "
              "given to listen().\n\n"
              "See the type stub for the arguments.");

PyObject *bolide_server_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
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
    PyObject_GC_UnTrack((PyObject *)s); /* else code that the arguments run could find it, and use it as it is */
    s->loop = (bolide_loop *)Py_NewRef(a.loop);
    s->st = st;
    s->pathsend = a.pathsend != 0;
    PyObject *root_path = a.root_path != NULL ? Py_NewRef(a.root_path) : PyUnicode_FromString("");
    if (root_path == NULL || take_objects(s, &a) < 0 || bolide_task_init(s) < 0 || set_up_websockets(s, &a) < 0 ||
        set_up_health(s, a.health_path) < 0 || bolide_scope_init(s, root_path, a.scheme, a.asgi_version) < 0 ||
        set_up_http(s, &a, root_path) < 0) {
        Py_XDECREF(root_path);
        Py_DECREF(s);
        return NULL;
    }
    Py_DECREF(root_path);
    PyObject_GC_Track((PyObject *)s);
    return (PyObject *)s;
}
