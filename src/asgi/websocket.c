/* The ASGI side of a WebSocket but for what the application sends: its handshake, messages received, its end. */
#include "asgi/asgi.h"

#include <stdlib.h>

/* Bytes of messages that wait for the application before reading stops. */
#define QUEUE_HIGH_WATER (256 * 1024)
#define QUEUE_MIN        4u
/* A larger queue that has run empty is given back. */
#define QUEUE_KEPT 16u

/* --- the handshake ------------------------------------------------------------------------------------------------ */

bool bolide_websocket_is_wanted(const bolide_server *server, const bolide_conn *c, const bolide_head_facts *facts) {
    return server->websockets && facts->upgrade_websocket && c->exchange->parser.upgrade &&
           c->exchange->parser.method == HTTP_GET && (c->flags & BOLIDE_CONN_HTTP10) == 0;
}

int bolide_websocket_new(bolide_request **request, PyObject *headers, PyObject **subprotocols) {
    bolide_request *r = *request;
    const llhttp_t *parser = &r->conn->exchange->parser;
    if ((parser->flags & F_TRANSFER_ENCODING) != 0 || parser->content_length > 0) {
        return 400; /* what follows the request are frames */
    }
    bolide_websocket_opening *opening = calloc(1, sizeof(*opening));
    if (opening == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int status = bolide_ws_handshake_read(&opening->handshake, headers, r->server->ws_deflate, subprotocols);
    bolide_request *websocket = status == 0 ? bolide_request_new(r->server, r->conn, true) : NULL;
    if (websocket == NULL) {
        free(opening);
        return status != 0 ? status : -1;
    }
    opening->line = r->line;
    memset(&r->line, 0, sizeof(r->line));
    websocket->ws->opening = opening;
    r->conn = NULL;
    Py_DECREF(r);
    *request = websocket;
    return 0;
}

void bolide_websocket_end_opening(bolide_websocket *ws) {
    bolide_websocket_opening *opening = ws->opening;
    ws->opening = NULL;
    if (opening != NULL) {
        bolide_request_clear_line(&opening->line);
        Py_XDECREF(opening->headers);
        free(opening);
    }
}

void bolide_websocket_clear(bolide_websocket *ws) {
    bolide_message_queue *queue = ws->queue;
    while (ws->count > 0) {
        Py_DECREF(queue->items[queue->first++ & (queue->cap - 1)]);
        ws->count--;
    }
    free(queue);
    bolide_websocket_end_opening(ws);
    Py_XDECREF(ws->reason);
}

/* --- the queue of messages received ------------------------------------------------------------------------------- */

/* Room for one more message. False when there is no memory. */
static bool grow_queue(bolide_websocket *ws) {
    const bolide_message_queue *old = ws->queue;
    uint32_t cap = old == NULL ? QUEUE_MIN : old->cap * 2;
    bolide_message_queue *queue = malloc(sizeof(*queue) + cap * sizeof(PyObject *));
    if (queue == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < ws->count; i++) {
        queue->items[i] = old->items[(old->first + i) & (old->cap - 1)];
    }
    queue->first = 0;
    queue->cap = cap;
    queue->bytes = old != NULL ? old->bytes : 0;
    free(ws->queue);
    ws->queue = queue;
    return true;
}

/* Takes the reference. False when there is no memory. */
static bool push(bolide_websocket *ws, PyObject *message, size_t len) {
    if ((ws->queue == NULL || ws->count == ws->queue->cap) && !grow_queue(ws)) {
        Py_DECREF(message);
        return false;
    }
    bolide_message_queue *queue = ws->queue;
    queue->items[(queue->first + ws->count++) & (queue->cap - 1)] = message;
    queue->bytes += len;
    return true;
}

/* An upper bound of what `message` counted for. */
static size_t size_of(PyObject *message) {
    if (PyBytes_Check(message)) {
        return (size_t)PyBytes_GET_SIZE(message);
    }
    return (size_t)PyUnicode_GET_LENGTH(message) * (PyUnicode_IS_ASCII(message) ? 1 : 4);
}

static PyObject *pop(bolide_websocket *ws) {
    bolide_message_queue *queue = ws->queue;
    PyObject *message = queue->items[queue->first++ & (queue->cap - 1)];
    size_t len = size_of(message);
    queue->bytes = --ws->count == 0 || len > queue->bytes ? 0 : queue->bytes - len;
    if (ws->count == 0 && queue->cap > QUEUE_KEPT) {
        free(queue);
        ws->queue = NULL;
    }
    return message;
}

static bool is_full(const bolide_request *r) {
    const bolide_message_queue *queue = r->ws->queue;
    return r->ws->count >= r->server->ws_max_queue || (queue != NULL && queue->bytes >= QUEUE_HIGH_WATER);
}

/* --- receive() ---------------------------------------------------------------------------------------------------- */

/* {"type": type, key: value}, without the second item if `value` is NULL. */
static PyObject *make_message(bolide_request *r, PyObject *type, PyObject *key, PyObject *value) {
    PyObject *message = PyDict_New();
    if (message != NULL && (PyDict_SetItem(message, r->server->st->str_type, type) < 0 ||
                            (value != NULL && PyDict_SetItem(message, key, value) < 0))) {
        Py_CLEAR(message);
    }
    return message;
}

static PyObject *receive_message(bolide_request *r) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *data = pop(r->ws);
    PyObject *key = PyUnicode_Check(data) ? as->str_text : as->str_bytes;
    PyObject *message = make_message(r, as->str_websocket_receive, key, data);
    Py_DECREF(data);
    if (r->conn != NULL && !is_full(r)) {
        bolide_ws_resume(r->conn);
    }
    return message;
}

static PyObject *disconnect_message(bolide_request *r) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *code = PyLong_FromLong(r->ws->code);
    PyObject *message = code != NULL ? make_message(r, as->str_websocket_disconnect, as->str_code, code) : NULL;
    Py_XDECREF(code);
    if (message != NULL && r->ws->reason != NULL && PyDict_SetItem(message, as->str_reason, r->ws->reason) < 0) {
        Py_CLEAR(message);
    }
    return message;
}

int bolide_websocket_poll(bolide_request *r, PyObject **message) {
    bolide_websocket *ws = r->ws;
    if (!ws->connect_taken) {
        ws->connect_taken = true;
        *message = make_message(r, bolide_asgi_of(r)->str_websocket_connect, NULL, NULL);
    } else if (ws->count > 0) {
        *message = receive_message(r);
    } else if (ws->code != 0) {
        *message = disconnect_message(r);
    } else {
        return 0;
    }
    return *message != NULL ? 1 : -1;
}

/* --- the connection's events -------------------------------------------------------------------------------------- */

static bool on_message(bolide_conn *c, PyObject *message, size_t len) {
    bolide_request *r = c->request;
    if (r == NULL || r->ws == NULL) {
        Py_DECREF(message);
        return true;
    }
    if (!push(r->ws, message, len)) {
        bolide_conn_abort(c);
        return true;
    }
    bool more = !is_full(r);
    if (r->waiter_count > 0) {
        Py_INCREF(r);
        bolide_awaitable_wake(r, BOLIDE_AWAIT_RECEIVE);
        Py_DECREF(r);
    }
    return more;
}

static void on_end(bolide_conn *c, int code, PyObject *reason) {
    bolide_request *r = c->request;
    if (r == NULL || r->ws == NULL || r->ws->code != 0) {
        return;
    }
    r->ws->gone = true;
    r->ws->code = code;
    r->ws->reason = Py_XNewRef(reason);
    Py_INCREF(r);
    bolide_awaitable_wake_all(r);
    Py_DECREF(r);
}

static void on_drain(bolide_conn *c) {
    if (c->request != NULL) {
        c->http->ops->on_drain(c);
    }
}

const bolide_ws_ops bolide_websocket_ops = {
    .on_message = on_message,
    .on_end = on_end,
    .on_drain = on_drain,
};

void bolide_websocket_gone(bolide_request *r) {
    if (!r->ws->gone) {
        r->ws->gone = true;
        r->ws->code = r->ws->code != 0 ? r->ws->code : BOLIDE_WS_ABNORMAL;
    }
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

/* Answer the handshake with `status`. */
static void refuse(bolide_request *r, int status) {
    bolide_conn *c = r->conn;
    r->ws->state = BOLIDE_WEBSOCKET_CLOSED;
    if (bolide_response_simple(&c->stream, &r->server->http.defaults, status, false, bolide_reason(status)) != 0) {
        PyErr_Clear();
        bolide_conn_abort(c);
    } else if (r->conn != NULL) {
        bolide_conn_finish(r->conn, false);
    }
}

/* Complete the denial response, of which the application has sent the start. */
static void finish_denial(bolide_request *r) {
    bolide_websocket *ws = r->ws;
    ws->state = BOLIDE_WEBSOCKET_CLOSED;
    bool whole = ws->opening->headers != NULL && bolide_websocket_start_denial(r) == 0 && r->conn != NULL &&
                 bolide_response_body(&r->conn->stream, &ws->opening->response, NULL, false) == 0;
    PyErr_Clear();
    if (r->conn == NULL) {
        return;
    }
    if (whole) {
        bolide_conn_finish(r->conn, false);
    } else {
        bolide_conn_close(r->conn);
    }
}

void bolide_websocket_finish(bolide_request *r, bool failed) {
    bolide_websocket *ws = r->ws;
    bool open = r->conn != NULL && !ws->gone;
    if (ws->state == BOLIDE_WEBSOCKET_CONNECTING) {
        if (!failed && open) {
            bolide_log_error(r->server, "ASGI callable returned without completing handshake.", NULL);
        }
        if (open) {
            refuse(r, 500);
        } else if (r->conn != NULL) {
            bolide_conn_close(r->conn);
        }
    } else if (ws->state == BOLIDE_WEBSOCKET_DENYING && r->conn != NULL) {
        finish_denial(r);
    } else if (ws->state == BOLIDE_WEBSOCKET_OPEN && open) {
        ws->state = BOLIDE_WEBSOCKET_CLOSED;
        bolide_ws_close(r->conn, failed ? BOLIDE_WS_INTERNAL_ERROR : BOLIDE_WS_NORMAL, "", 0);
    }
}

void bolide_websocket_shutdown(bolide_request *r) {
    bolide_websocket *ws = r->ws;
    Py_INCREF(r);
    if (r->conn != NULL && (r->conn->flags & BOLIDE_CONN_UPGRADED) != 0) {
        bolide_ws_shutdown(r->conn);
    } else if (r->conn != NULL && ws->state == BOLIDE_WEBSOCKET_CONNECTING && !ws->gone) {
        bolide_websocket_gone(r);
        refuse(r, 503);
        bolide_awaitable_wake_all(r);
    }
    Py_DECREF(r);
}
