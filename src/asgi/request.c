/* The life of a request: from its head to the end of its task. */
#include "asgi/asgi.h"

#include "common/error.h"
#include "http/batch.h"

/* Bytes of a body that wait for the application before reading stops. */
#define BODY_HIGH_WATER (64 * 1024)
/* How far the causes of an exception are followed. */
#define CHAIN_MAX 32

bool bolide_request_is_elsewhere(const bolide_request *r) {
    unsigned long owner = r->server->loop->thread_id;
    return owner != 0 && owner != PyThread_get_thread_ident();
}

/* Part from the connection. Drops the connection's reference: the caller has one of its own. */
static void detach(bolide_request *r) {
    if (r->conn != NULL) {
        r->conn->request = NULL;
        r->conn = NULL;
        bolide_file_end(r); /* the application may keep us for long */
        Py_DECREF(r);
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Was the application told that there is nobody to answer to, and gave up for that reason? */
static bool is_disconnect(bolide_asgi_state *as, PyObject *exc) {
    PyObject *next = Py_NewRef(exc);
    bool found = false;
    for (int i = 0; i < CHAIN_MAX && next != NULL && !found; i++) {
        found = PyErr_GivenExceptionMatches(next, as->ClientDisconnected);
        PyObject *cause = PyException_GetCause(next);
        Py_SETREF(next, cause != NULL ? cause : PyException_GetContext(next));
    }
    Py_XDECREF(next);
    return found;
}

/* The application has failed. Unless its response is complete: answer 500 if nothing was sent, else cut the connection,
 * so that the client sees that the response is not whole. */
static void give_up(bolide_request *r) {
    bolide_conn *c = r->conn;
    if (r->ws != NULL) {
        bolide_websocket_finish(r, true);
        return;
    }
    if (c == NULL || (r->flags & BOLIDE_REQUEST_COMPLETE) != 0) {
        return;
    }
    if ((r->flags & BOLIDE_REQUEST_STARTED) == 0) {
        r->flags |= BOLIDE_REQUEST_STARTED | BOLIDE_REQUEST_COMPLETE;
        if (bolide_response_simple(&c->stream, &r->server->http.defaults, 500, r->response.head,
                                   "Internal Server Error") != 0) {
            PyErr_Clear();
            bolide_conn_abort(c);
            return;
        }
        bolide_log_access(r, 500);
        if (r->conn != NULL) {
            bolide_conn_finish(c, false);
            bolide_server_answered(r->server);
        }
    } else {
        bolide_conn_close(c);
    }
    bolide_awaitable_wake_all(r);
}

static void failed(bolide_request *r, PyObject *exc) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    bool quiet = (r->flags & BOLIDE_REQUEST_ABORTED) != 0 &&
                 PyErr_GivenExceptionMatches(exc, r->server->st->asyncio_CancelledError);
    if (!quiet && !is_disconnect(as, exc)) {
        bolide_log_exception(r->server, "Exception in ASGI application\n", exc);
    }
    give_up(r);
}

static void returned(bolide_request *r, PyObject *result) {
    if (result != Py_None) {
        bolide_log_error(r->server, "ASGI callable should return None, but returned '%s'.", result);
        give_up(r);
    } else if (r->ws != NULL) {
        bolide_websocket_finish(r, false);
    } else if ((r->flags & BOLIDE_REQUEST_COMPLETE) != 0) {
        return;
    } else if (bolide_request_is_gone(r)) {
        if (r->conn != NULL) {
            bolide_conn_close(r->conn);
        }
    } else if ((r->flags & BOLIDE_REQUEST_STARTED) == 0) {
        bolide_log_error(r->server, "ASGI callable returned without starting response.", NULL);
        give_up(r);
    } else {
        bolide_log_error(r->server, "ASGI callable returned without completing response.", NULL);
        give_up(r);
    }
}

/* The application has returned `result` (a new reference), or with NULL raised the exception that is set. `suspended`:
 * its task was, so that the loop has seen the exceptions that end it. */
static void end(bolide_request *r, PyObject *result, bool suspended) {
    bolide_server *server = r->server;
    Py_INCREF(r);
    if (result != NULL) {
        if (result != Py_None || (r->flags & BOLIDE_REQUEST_COMPLETE) == 0) {
            returned(r, result);
        }
        Py_DECREF(result);
    } else if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        if (suspended) {
            PyErr_Clear();
        } else {
            bolide_loop_set_fatal(server->loop);
        }
        give_up(r);
    } else {
        PyObject *exc = bolide_error_take();
        if (exc != NULL) {
            failed(r, exc);
            Py_DECREF(exc);
        }
    }
    bolide_access_end(r);
    detach(r);
    Py_CLEAR(r->scope);
    server->running_count--;
    Py_DECREF(r);
    if (server->closing) {
        bolide_server_check_closed(server);
    }
}

/* --- the task --------------------------------------------------------------------------------- */

static void enlist(bolide_request *r) {
    bolide_server *server = r->server;
    r->flags |= BOLIDE_REQUEST_LISTED;
    r->prev = NULL;
    r->next = server->running;
    if (r->next != NULL) {
        r->next->prev = r;
    }
    server->running = (bolide_request *)Py_NewRef(r);
}

/* Returns whether it was on the list: then its reference is the caller's. */
static bool delist(bolide_request *r) {
    if ((r->flags & BOLIDE_REQUEST_LISTED) == 0) {
        return false;
    }
    r->flags &= ~(unsigned)BOLIDE_REQUEST_LISTED;
    *(r->prev != NULL ? &r->prev->next : &r->server->running) = r->next;
    if (r->next != NULL) {
        r->next->prev = r->prev;
    }
    r->prev = r->next = NULL;
    return true;
}

/* Have `receive` called when the task is done, in `context` (NULL: the current one), and keep the request until then.
 * 0, or -1 with an exception set. */
static int follow(bolide_request *r, PyObject *task, PyObject *receive, PyObject *context) {
    PyObject *args[] = {task, receive, context};
    PyObject *result = PyObject_VectorcallMethod(r->server->st->str_add_done_callback, args, 2,
                                                 context != NULL ? bolide_asgi_of(r)->context_names : NULL);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    r->task = Py_NewRef(task);
    enlist(r);
    return 0;
}

int bolide_request_end_task(bolide_request *r, PyObject *task) {
    if (bolide_request_is_elsewhere(r)) {
        PyErr_SetString(PyExc_RuntimeError, "the callback of a task must be called in the thread of the event loop");
        return -1;
    }
    int done = task == r->task ? bolide_task_is_done(r->server, task) : 0;
    if (done <= 0) {
        if (done == 0) {
            PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        }
        return -1;
    }
    if (delist(r)) {
        bolide_loop *loop = (bolide_loop *)Py_NewRef(r->server->loop);
        bool was_running = bolide_loop_occupy(loop);
        Py_INCREF(task);
        Py_CLEAR(r->task);
        end(r, bolide_task_result(r->server, task), true);
        Py_DECREF(task);
        Py_DECREF(r);
        bolide_loop_vacate(loop, was_running);
        Py_DECREF(loop);
    }
    return 0;
}

/* end() in the task's context, if it is known: what the log's handlers add to an error, and how they tell one that they
 * have seen, may be in its variables. */
static void end_in_context(bolide_request *r, PyObject *task, PyObject *context) {
    bool entered = context != NULL && PyContext_Enter(context) == 0;
    if (context != NULL && !entered) {
        PyErr_Clear();
    }
    end(r, bolide_task_result(r->server, task), false);
    if (entered && PyContext_Exit(context) < 0) {
        PyErr_Clear();
    }
}

/* The task has taken its first step, or all of them. */
static void after_start(bolide_request *r, PyObject *task, PyObject *receive, PyObject *context) {
    if ((r->flags & BOLIDE_REQUEST_COMPLETE) != 0) {
        /* Mostly it is done then and has returned None: no need to ask whether it is. */
        PyObject *result = bolide_task_result(r->server, task);
        if (result == Py_None) {
            end(r, result, false);
            return;
        }
        Py_XDECREF(result);
        PyErr_Clear();
    }
    int done = bolide_task_is_done(r->server, task);
    if (done > 0) {
        end_in_context(r, task, context);
    } else if (done < 0 || follow(r, task, receive, context) < 0) {
        end(r, NULL, false);
    }
}

/* Let the operator's callable put what a trusted proxy says into the scope. 0, or -1 with an exception set. */
static int apply_forwarded(bolide_request *r) {
    PyObject *result = PyObject_CallOneArg(r->server->forwarded, r->scope);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    bolide_request_line *line = bolide_request_get_line(r);
    if (line != NULL && line->client != NULL) {
        PyObject *client = PyDict_GetItemWithError(r->scope, bolide_asgi_of(r)->str_client);
        if (client == NULL) {
            return PyErr_Occurred() ? -1 : 0;
        }
        Py_SETREF(line->client, Py_NewRef(client));
    }
    return 0;
}

/* Call the application and start its task. */
static void run(bolide_request *r) {
    PyObject *receive = NULL, *coro = NULL, *task = NULL, *context = NULL;
    if ((r->flags & BOLIDE_REQUEST_FORWARDED) == 0 || apply_forwarded(r) == 0) {
        receive = bolide_receive_new(r);
    }
    if (receive != NULL) {
        PyObject *args[] = {NULL, r->scope, receive, (PyObject *)r};
        coro = PyObject_Vectorcall(r->server->app, args + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        if (r->ws == NULL) {
            Py_CLEAR(r->scope);
        }
    }
    if (coro != NULL) {
        task = bolide_task_new(r->server, coro, &context);
        Py_DECREF(coro);
    }
    if (task != NULL) {
        after_start(r, task, receive, context);
        Py_DECREF(task);
    } else {
        end(r, NULL, false);
    }
    Py_XDECREF(receive);
    Py_XDECREF(context);
}

int bolide_request_cancel_all(bolide_server *server) {
    PyObject *tasks = PyList_New(0);
    for (bolide_request *r = server->running; tasks != NULL && r != NULL; r = r->next) {
        r->flags |= BOLIDE_REQUEST_ABORTED;
        if (PyList_Append(tasks, r->task) < 0) {
            Py_CLEAR(tasks);
        }
    }
    if (tasks == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(tasks); i++) {
        PyObject *result = PyObject_CallMethodNoArgs(PyList_GET_ITEM(tasks, i), server->st->asgi->str_cancel);
        if (result == NULL) {
            bolide_loop_report(server->loop, "cancelling a request failed", NULL, NULL);
        }
        Py_XDECREF(result);
    }
    Py_DECREF(tasks);
    return 0;
}

/* --- the connection's events ------------------------------------------------------------------ */

static bool over_limit(const bolide_server *server) {
    return server->max_concurrency != 0 &&
           (server->http.conn_count >= server->max_concurrency ||
            server->running_count + server->http.batch->start_count >= server->max_concurrency);
}

/* Is it a request that the server answers by itself? The limit of concurrency is not for it: whoever asks wants to know
 * whether the server works, not whether it has nothing to do. */
static bool asks_for_health(const bolide_server *server, const bolide_conn *c, const bolide_head *head) {
    size_t len = (size_t)PyBytes_GET_SIZE(server->health_path);
    const char *target = head->base + head->target;
    return (c->exchange->parser.method == HTTP_GET || c->exchange->parser.method == HTTP_HEAD) &&
           head->target_len >= len && memcmp(target, PyBytes_AS_STRING(server->health_path), len) == 0 &&
           (head->target_len == len || target[len] == '?');
}

static int on_head(bolide_conn *c, const bolide_head *head) {
    bolide_server *server = (bolide_server *)c->http->owner;
    bolide_head_facts facts;
    bolide_request *r = bolide_request_new(server, c, false);
    if (r == NULL) {
        return -1;
    }
    int status = bolide_scope_build(&r, head, &facts);
    r->conn = NULL;
    if (status == 0 && server->health_path != NULL && r->ws == NULL && asks_for_health(server, c, head)) {
        r->flags |= BOLIDE_REQUEST_HEALTH;
    } else if (status == 0) {
        status = bolide_access_begin(r);
    }
    if (status == 0 && over_limit(server) && (r->flags & BOLIDE_REQUEST_HEALTH) == 0) {
        bolide_log_access(r, 503);
        bolide_access_end(r);
        bolide_log_warning(server, "Exceeded concurrency limit.");
        status = 503;
    }
    if (status == 0 && r->ws != NULL && server->closing) {
        status = 503;
    }
    if (status != 0) {
        Py_DECREF(r);
        return status;
    }
    if (facts.expects_continue && (c->flags & BOLIDE_CONN_HTTP10) == 0) {
        c->flags |= BOLIDE_CONN_EXPECT;
    }
    bolide_request *previous = c->request;
    c->request = r;
    r->conn = c;
    PyObject_GC_Track((PyObject *)r);
    if (previous != NULL) {
        previous->conn = NULL; /* its response is complete; its task goes on */
        Py_DECREF(previous);
    }
    if (facts.forwarded && server->forwarded != NULL) {
        r->flags |= BOLIDE_REQUEST_FORWARDED;
    }
    if (c->exchange->parser.upgrade && r->ws == NULL) {
        bolide_log_warning(server, "Unsupported upgrade request.");
    }
    return 0;
}

/* Append to r->body, which nobody else has seen. 0, or -1 with an exception set. */
static int append_body(bolide_request *r, const char *data, size_t len) {
    if (r->body == NULL) {
        r->body = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
        return r->body != NULL ? 0 : -1;
    }
    Py_ssize_t before = PyBytes_GET_SIZE(r->body);
    if (before == 1) {
        /* CPython shares the objects of one byte: this one cannot be resized. */
        PyObject *body = PyBytes_FromStringAndSize(NULL, 1 + (Py_ssize_t)len);
        if (body == NULL) {
            return -1;
        }
        PyBytes_AS_STRING(body)[0] = PyBytes_AS_STRING(r->body)[0];
        Py_SETREF(r->body, body);
    } else if (_PyBytes_Resize(&r->body, before + (Py_ssize_t)len) < 0) {
        return -1;
    }
    memcpy(PyBytes_AS_STRING(r->body) + before, data, len);
    return 0;
}

static int on_body(bolide_conn *c, const char *data, size_t len) {
    bolide_request *r = c->request;
    if ((r->flags & (BOLIDE_REQUEST_COMPLETE | BOLIDE_REQUEST_TOLD)) != 0) {
        return 0;
    }
    if (append_body(r, data, len) < 0) {
        return -1;
    }
    if (PyBytes_GET_SIZE(r->body) > BODY_HIGH_WATER) {
        bolide_conn_pause_body(c);
    }
    return 0;
}

/* Neither logged nor counted: a probe every second is not to recycle a worker. */
static void answer_health(bolide_request *r) {
    bolide_server *server = r->server;
    bolide_conn *c = r->conn;
    r->flags |= BOLIDE_REQUEST_STARTED | BOLIDE_REQUEST_HEAD_SENT | BOLIDE_REQUEST_COMPLETE;
    r->response.status = server->closing ? 503 : 200;
    r->response.keep_alive = bolide_conn_may_keep_alive(c);
    if (bolide_response_start(&c->stream, &server->http.defaults, &r->response, server->health_headers) != 0 ||
        bolide_response_body(&c->stream, &r->response, server->health_body, false) != 0) {
        PyErr_Clear();
        bolide_conn_abort(c);
    } else {
        bolide_conn_finish(c, r->response.keep_alive);
        server->http.total_requests--;
    }
    end(r, Py_NewRef(Py_None), false);
}

static void on_start(bolide_conn *c) {
    bolide_request *r = (bolide_request *)Py_NewRef(c->request);
    r->server->running_count++;
    if ((c->flags & BOLIDE_CONN_MESSAGE) != 0) {
        r->flags |= BOLIDE_REQUEST_LAST;
    }
    if ((r->flags & BOLIDE_REQUEST_HEALTH) != 0) {
        answer_health(r);
    } else {
        r->server->loop->occupied++; /* by the connection's code, which goes on below */
        run(r);
        r->server->loop->occupied--;
    }
    Py_DECREF(r);
}

static void on_progress(bolide_conn *c) {
    bolide_request *r = (bolide_request *)Py_NewRef(c->request);
    if ((c->flags & BOLIDE_CONN_MESSAGE) != 0) {
        r->flags |= BOLIDE_REQUEST_LAST;
    }
    if (r->ws != NULL && (c->flags & BOLIDE_CONN_EOF) != 0) {
        bolide_websocket_gone(r);
    }
    bolide_awaitable_wake(r, BOLIDE_AWAIT_RECEIVE);
    Py_DECREF(r);
}

static void on_drain(bolide_conn *c) {
    bolide_request *r = (bolide_request *)Py_NewRef(c->request);
    bolide_awaitable_wake(r, BOLIDE_AWAIT_DRAIN);
    bolide_awaitable_wake(r, BOLIDE_AWAIT_FILE);
    Py_DECREF(r);
}

static void on_gone(bolide_conn *c) {
    bolide_request *r = (bolide_request *)Py_NewRef(c->request);
    detach(r);
    if (r->ws != NULL) {
        bolide_websocket_gone(r);
    }
    bolide_awaitable_wake_all(r);
    Py_DECREF(r);
}

static bool on_refused(bolide_conn *c, int status) {
    bolide_request *r = c->request;
    /* A request whose response is complete is the one before. */
    const unsigned state = BOLIDE_REQUEST_STARTED | BOLIDE_REQUEST_COMPLETE;
    bool answer = r == NULL || (r->flags & state) != BOLIDE_REQUEST_STARTED;
    if (status == 413) {
        bolide_log_warning((bolide_server *)c->http->owner, "Exceeded the limit of a request's body.");
    } else if (status != 408 && status != 503) { /* on_head() says why it is busy */
        bolide_log_warning((bolide_server *)c->http->owner, "Invalid HTTP request received.");
    }
    return answer;
}

static int traverse_conn(bolide_conn *c, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)c->request);
    return 0;
}

static void on_count(bolide_http *http) {
    bolide_server_check_closed((bolide_server *)http->owner);
}

const bolide_http_ops bolide_request_ops = {
    .on_head = on_head,
    .on_body = on_body,
    .on_start = on_start,
    .on_progress = on_progress,
    .on_drain = on_drain,
    .on_gone = on_gone,
    .on_refused = on_refused,
    .traverse = traverse_conn,
    .on_tick = bolide_ws_tick,
    .on_count = on_count,
};
