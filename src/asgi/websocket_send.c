/* What the application of a WebSocket sends. */
#include "asgi/asgi.h"

/* Is there nobody to send to? Reading a message may have run code: to be asked again after it. */
static bool is_gone(const bolide_request *r) {
    return r->conn == NULL || r->ws->gone || !bolide_conn_is_open(r->conn);
}

/* An exception about calls that overlap: reading the message has sent another. */
static int overtaken(void) {
    PyErr_SetString(PyExc_RuntimeError, "another message was sent meanwhile");
    return -1;
}

/* message[key], or NULL when it is not there or None. 0, or -1 with an exception set. */
static int get_optional(PyObject *message, PyObject *key, PyObject **value) {
    int found = bolide_message_get(message, key, value);
    if (found > 0 && *value == Py_None) {
        Py_CLEAR(*value);
    }
    return found < 0 ? -1 : 0;
}

/* Log how the handshake ended. */
static void log_status(bolide_request *r, int status) {
    PyObject *text = status == 101 ? PyUnicode_FromString("[accepted]") : PyUnicode_FromFormat("%d", status);
    if (text == NULL) {
        PyErr_Clear();
        return;
    }
    bolide_log_websocket(r, text);
    Py_DECREF(text);
}

/* --- before the handshake is complete ----------------------------------------------------------------------------- */

/* websocket.accept */
static int send_accept(bolide_request *r, PyObject *message) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    bolide_websocket *ws = r->ws;
    PyObject *subprotocol = NULL, *headers = NULL;
    int result = -1;
    if (get_optional(message, as->str_subprotocol, &subprotocol) < 0 ||
        get_optional(message, as->str_headers, &headers) < 0) {
        goto done;
    }
    if (subprotocol != NULL && PyUnicode_Check(subprotocol) && PyUnicode_GET_LENGTH(subprotocol) == 0) {
        Py_CLEAR(subprotocol);
    }
    if (headers != NULL) {
        Py_SETREF(headers, bolide_plain_headers(headers)); /* no code runs between the next checks and the answer */
        if (headers == NULL) {
            goto done;
        }
    }
    if (is_gone(r)) {
        result = bolide_request_disconnected(r);
    } else if (ws->state != BOLIDE_WEBSOCKET_CONNECTING) {
        result = overtaken();
    } else {
        result = bolide_ws_handshake_answer(&ws->opening->handshake, &r->conn->stream, &r->server->http.defaults,
                                            subprotocol, headers);
    }
    if (result < 0) {
        goto done;
    }
    ws->state = BOLIDE_WEBSOCKET_OPEN;
    if (r->conn != NULL && bolide_ws_start(r->conn, &ws->opening->handshake.deflate) < 0) {
        bolide_conn_abort(r->conn);
        result = -1;
        goto done;
    }
    log_status(r, 101);
    /* It may be idle for hours: what only the handshake needed goes. */
    bolide_websocket_end_opening(ws);
    if (r->scope != NULL) {
        bolide_scope_learn(r->server, r->scope);
        Py_CLEAR(r->scope);
    }
done:
    Py_XDECREF(subprotocol);
    Py_XDECREF(headers);
    return result;
}

/* websocket.close in place of websocket.accept */
static int send_refusal(bolide_request *r) {
    bolide_websocket *ws = r->ws;
    ws->state = BOLIDE_WEBSOCKET_CLOSED;
    ws->code = BOLIDE_WS_ABNORMAL;
    log_status(r, 403);
    if (r->conn == NULL) {
        return bolide_request_disconnected(r);
    }
    if (bolide_response_simple(&r->conn->stream, &r->server->http.defaults, 403, false, "") < 0) {
        bolide_conn_abort(r->conn);
        return -1;
    }
    if (r->conn != NULL) {
        bolide_conn_finish(r->conn, false);
    }
    return 0;
}

/* websocket.http.response.start: its head goes out with the first piece of the body, when it may be known whether that
 * is all of it. */
static int send_denial_start(bolide_request *r, PyObject *message) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *headers = NULL;
    long code;
    if (bolide_message_status(message, as->str_status, &code) < 0) {
        return -1;
    }
    if (code < 200 || code > 599) {
        PyErr_Format(PyExc_RuntimeError, "Invalid HTTP status code '%ld' in response.", code);
        return -1;
    }
    if (get_optional(message, as->str_headers, &headers) < 0) {
        return -1;
    }
    Py_XSETREF(headers, headers != NULL ? bolide_plain_headers(headers) : PyTuple_New(0));
    if (headers != NULL) {
        Py_SETREF(headers, PySequence_List(headers)); /* ours, to be added to */
    }
    if (headers == NULL) {
        return -1;
    }
    if (is_gone(r) || r->ws->state != BOLIDE_WEBSOCKET_CONNECTING) {
        Py_DECREF(headers);
        return is_gone(r) ? bolide_request_disconnected(r) : overtaken();
    }
    r->ws->state = BOLIDE_WEBSOCKET_DENYING;
    r->ws->opening->headers = headers;
    r->ws->opening->response.status = (int)code;
    log_status(r, (int)code);
    return 0;
}

int bolide_websocket_start_denial(bolide_request *r) {
    PyObject *headers = r->ws->opening->headers;
    r->ws->opening->headers = NULL;
    r->ws->opening->response.keep_alive = false;
    int result = bolide_response_start(&r->conn->stream, &r->server->http.defaults, &r->ws->opening->response, headers);
    Py_DECREF(headers);
    return result;
}

/* Give a denial response that comes in one piece, a bytes object or NULL, the length that its headers do not say. 0, or
 * -1 with an exception set. */
static int add_length(bolide_request *r, PyObject *body) {
    PyObject *headers = r->ws->opening->headers;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        PyObject *pair = PyList_GET_ITEM(headers, i), *name = NULL;
        if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) > 0) {
            name = PyTuple_GET_ITEM(pair, 0);
        } else if (PyList_Check(pair) && PyList_GET_SIZE(pair) > 0) {
            name = PyList_GET_ITEM(pair, 0);
        }
        if (name != NULL && PyBytes_Check(name) &&
            (PyOS_stricmp(PyBytes_AS_STRING(name), "content-length") == 0 ||
             PyOS_stricmp(PyBytes_AS_STRING(name), "transfer-encoding") == 0)) {
            return 0;
        }
    }
    PyObject *text = PyUnicode_FromFormat("%zd", body != NULL ? PyBytes_GET_SIZE(body) : 0);
    PyObject *value = text != NULL ? PyUnicode_AsASCIIString(text) : NULL;
    PyObject *pair = value != NULL ? Py_BuildValue("(yO)", "content-length", value) : NULL;
    int result = pair != NULL ? PyList_Append(headers, pair) : -1;
    Py_XDECREF(text);
    Py_XDECREF(value);
    Py_XDECREF(pair);
    return result;
}

/* websocket.http.response.body */
static int send_denial_body(bolide_request *r, PyObject *message) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *body = NULL, *more = NULL;
    int result = -1, is_more = 0;
    if (bolide_message_get(message, as->str_body, &body) < 0 ||
        bolide_message_get(message, as->str_more_body, &more) < 0 ||
        (more != NULL && (is_more = PyObject_IsTrue(more)) < 0)) {
        goto done;
    }
    if (bolide_body_as_bytes(&body) < 0) {
        goto done;
    }
    if (is_gone(r) || r->ws->state != BOLIDE_WEBSOCKET_DENYING) {
        result = is_gone(r) ? bolide_request_disconnected(r) : overtaken();
        goto done;
    }
    if (r->ws->opening->headers != NULL && !is_more && add_length(r, body) < 0) {
        goto done;
    }
    if (r->ws->opening->headers != NULL && bolide_websocket_start_denial(r) < 0) {
        /* Nothing was sent: the end of the application answers. */
        r->ws->state = BOLIDE_WEBSOCKET_CONNECTING;
        goto done;
    }
    if (r->conn == NULL) {
        result = bolide_request_disconnected(r);
        goto done;
    }
    result = bolide_response_body(&r->conn->stream, &r->ws->opening->response, body, is_more != 0);
    if (result == 0 && !is_more) {
        r->ws->state = BOLIDE_WEBSOCKET_CLOSED;
        r->ws->code = r->ws->code != 0 ? r->ws->code : BOLIDE_WS_ABNORMAL;
        if (r->conn != NULL) {
            bolide_conn_finish(r->conn, false);
        }
        bolide_awaitable_wake(r, BOLIDE_AWAIT_RECEIVE);
    }
done:
    Py_XDECREF(body);
    Py_XDECREF(more);
    return result;
}

/* --- on an open connection ---------------------------------------------------------------------------------------- */

/* websocket.send */
static int send_data(bolide_request *r, PyObject *message) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *data = NULL;
    if (get_optional(message, as->str_bytes, &data) < 0) {
        return -1;
    }
    if (data != NULL && PyUnicode_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "websocket.send: bytes must be a bytes-like object, not str");
        Py_DECREF(data);
        return -1;
    }
    if (data == NULL) {
        if (get_optional(message, as->str_text, &data) < 0) {
            return -1;
        }
        if (data == NULL || !PyUnicode_Check(data)) {
            PyErr_Format(PyExc_TypeError, "websocket.send: text must be str, not %.100s, if there are no bytes",
                         data != NULL ? Py_TYPE(data)->tp_name : "None");
            Py_XDECREF(data);
            return -1;
        }
    }
    int result =
        is_gone(r) || !bolide_ws_is_open(r->conn) ? bolide_request_disconnected(r) : bolide_ws_send(r->conn, data);
    Py_DECREF(data);
    return result;
}

/* The code and the reason of websocket.close. 0, or -1 with an exception set. *reason becomes a new reference. */
static int read_close(bolide_request *r, PyObject *message, long *code, PyObject **reason) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *number = NULL;
    if (get_optional(message, as->str_code, &number) < 0) {
        return -1;
    }
    *code = number != NULL ? PyLong_AsLong(number) : BOLIDE_WS_NORMAL;
    Py_XDECREF(number);
    if (*code == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (*code < 0 || *code > 65535 || !bolide_ws_code_is_valid((int)*code)) {
        PyErr_Format(PyExc_ValueError, "invalid WebSocket close code %ld", *code);
        return -1;
    }
    if (get_optional(message, as->str_reason, reason) < 0) {
        return -1;
    }
    if (*reason == NULL) {
        *reason = PyUnicode_FromString("");
        return *reason != NULL ? 0 : -1;
    }
    if (!PyUnicode_Check(*reason)) {
        PyErr_Format(PyExc_TypeError, "reason must be str, not %.100s", Py_TYPE(*reason)->tp_name);
        Py_CLEAR(*reason);
        return -1;
    }
    return 0;
}

/* websocket.close */
static int send_close(bolide_request *r, PyObject *message) {
    PyObject *reason = NULL;
    long code;
    if (read_close(r, message, &code, &reason) < 0) {
        return -1;
    }
    int result = -1;
    Py_ssize_t len;
    const char *text = PyUnicode_AsUTF8AndSize(reason, &len);
    if (text != NULL && len > BOLIDE_WS_REASON_MAX) {
        PyErr_Format(PyExc_ValueError, "reason is longer than %d bytes", BOLIDE_WS_REASON_MAX);
    } else if (text != NULL && is_gone(r)) {
        bolide_request_disconnected(r);
    } else if (text != NULL && r->ws->state != BOLIDE_WEBSOCKET_OPEN) {
        overtaken();
    } else if (text != NULL) {
        r->ws->state = BOLIDE_WEBSOCKET_CLOSED;
        r->ws->code = (int)code;
        r->ws->reason = Py_NewRef(reason);
        bolide_ws_close(r->conn, (int)code, text, (size_t)len);
        bolide_awaitable_wake(r, BOLIDE_AWAIT_RECEIVE);
        result = 0;
    }
    Py_DECREF(reason);
    return result;
}

/* --- the message -------------------------------------------------------------------------------------------------- */

static int unexpected(const char *expected, PyObject *type) {
    PyErr_Format(PyExc_RuntimeError, "Expected ASGI message %s but got '%S'.", expected, type);
    return -1;
}

static int send_connecting(bolide_request *r, PyObject *message, PyObject *type) {
    if (bolide_message_is(type, "websocket.accept")) {
        return send_accept(r, message);
    }
    if (bolide_message_is(type, "websocket.close")) {
        return send_refusal(r);
    }
    if (bolide_message_is(type, "websocket.http.response.start")) {
        return send_denial_start(r, message);
    }
    return unexpected("'websocket.accept', 'websocket.close' or 'websocket.http.response.start'", type);
}

static int send_message(bolide_request *r, PyObject *message, PyObject *type) {
    bolide_websocket_state state = r->ws->state;
    if (state == BOLIDE_WEBSOCKET_CLOSED) {
        PyErr_Format(PyExc_RuntimeError, "Unexpected ASGI message '%S', after sending 'websocket.close'.", type);
        return -1;
    }
    if (is_gone(r)) {
        return bolide_request_disconnected(r);
    }
    if (state == BOLIDE_WEBSOCKET_CONNECTING) {
        return send_connecting(r, message, type);
    }
    if (state == BOLIDE_WEBSOCKET_DENYING) {
        if (bolide_message_is(type, "websocket.http.response.body")) {
            return send_denial_body(r, message);
        }
        return unexpected("'websocket.http.response.body'", type);
    }
    if (bolide_message_is(type, "websocket.send")) {
        return send_data(r, message);
    }
    if (bolide_message_is(type, "websocket.close")) {
        return send_close(r, message);
    }
    return unexpected("'websocket.send' or 'websocket.close',", type);
}

PyObject *bolide_websocket_send(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names) {
    bolide_request *r = (bolide_request *)self;
    if (PyVectorcall_NARGS(nargsf) != 1 || (names != NULL && PyTuple_GET_SIZE(names) != 0)) {
        PyErr_SetString(PyExc_TypeError, "send() takes one argument, the message");
        return NULL;
    }
    if (bolide_request_is_elsewhere(r)) {
        return bolide_awaitable_of_message(r, args[0]);
    }
    /* The application may drop its last reference to us from within its own code. */
    Py_INCREF(r);
    PyObject *awaitable = NULL, *type;
    bool was_running = bolide_loop_occupy(r->server->loop);
    if (bolide_message_require(args[0], r->server->st->str_type, &type) == 0) {
        if (send_message(r, args[0], type) == 0) {
            bool wait =
                r->ws->state != BOLIDE_WEBSOCKET_CLOSED && !is_gone(r) && bolide_stream_is_full(&r->conn->stream);
            awaitable = wait ? bolide_awaitable_new(r, BOLIDE_AWAIT_DRAIN) : Py_NewRef(bolide_asgi_of(r)->done);
        }
        Py_DECREF(type);
    }
    bolide_loop_vacate(r->server->loop, was_running);
    Py_DECREF(r);
    return awaitable;
}
