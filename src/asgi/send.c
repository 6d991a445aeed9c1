#include "asgi/asgi.h"

#include "http/fields.h"

int bolide_message_get(PyObject *message, PyObject *key, PyObject **value) {
    if (PyDict_CheckExact(message)) {
        *value = Py_XNewRef(PyDict_GetItemWithError(message, key));
        return *value != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
    }
    *value = PyObject_GetItem(message, key);
    if (*value != NULL) {
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_KeyError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/* May `message` have keys besides the `found` that were found? */
static bool has_more_keys(PyObject *message, Py_ssize_t found) {
    return !PyDict_CheckExact(message) || PyDict_GET_SIZE(message) > found;
}

int bolide_message_require(PyObject *message, PyObject *key, PyObject **value) {
    int found = bolide_message_get(message, key, value);
    if (found == 0) {
        PyErr_SetObject(PyExc_KeyError, key);
    }
    return found > 0 ? 0 : -1;
}

int bolide_message_status(PyObject *message, PyObject *key, long *status) {
    PyObject *value;
    if (bolide_message_require(message, key, &value) < 0) {
        return -1;
    }
    *status = PyLong_AsLong(value);
    Py_DECREF(value);
    return *status == -1 && PyErr_Occurred() ? -1 : 0;
}

bool bolide_message_is(PyObject *type, const char *wanted) {
    size_t len = strlen(wanted);
    return PyUnicode_Check(type) && PyUnicode_IS_COMPACT_ASCII(type) && (size_t)PyUnicode_GET_LENGTH(type) == len &&
           memcmp(PyUnicode_1BYTE_DATA(type), wanted, len) == 0;
}

int bolide_body_as_bytes(PyObject **body) {
    if (*body == NULL || PyBytes_CheckExact(*body)) {
        return 0;
    }
    if (!PyObject_CheckBuffer(*body)) {
        PyErr_Format(PyExc_TypeError, "a bytes-like object is required, not '%.100s'", Py_TYPE(*body)->tp_name);
        return -1;
    }
    Py_SETREF(*body, PyBytes_FromObject(*body));
    return *body != NULL ? 0 : -1;
}

/* Check the message's type. 0, or -1 with RuntimeError set. */
static int expect_type(PyObject *type, const char *wanted) {
    if (bolide_message_is(type, wanted)) {
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError, "Expected ASGI message '%s', but got '%S'.", wanted, type);
    return -1;
}

int bolide_request_disconnected(const bolide_request *r) {
    PyErr_SetString(bolide_asgi_of(r)->ClientDisconnected, "the client has disconnected");
    return -1;
}

/* http.response.start. 0, or -1 with an exception set. */
static int send_start(bolide_request *r, PyObject *message) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *headers = NULL, *trailers = NULL;
    int result = -1;
    long code;
    if (bolide_message_status(message, as->str_status, &code) < 0) {
        return -1;
    }
    if (code < 100 || code > 999) {
        PyErr_Format(PyExc_ValueError, "invalid HTTP status %ld", code);
        return -1;
    }
    if (bolide_message_get(message, as->str_headers, &headers) < 0 ||
        (has_more_keys(message, headers != NULL ? 3 : 2) &&
         bolide_message_get(message, as->str_trailers, &trailers) < 0)) {
        goto done;
    }
    int announced = trailers != NULL ? PyObject_IsTrue(trailers) : 0;
    if (announced < 0) {
        goto done;
    }
    /* Reading the message may have run code. */
    if (bolide_request_is_gone(r)) {
        result = bolide_request_disconnected(r);
        goto done;
    }
    r->response.status = (int)code;
    r->response.keep_alive = bolide_conn_may_keep_alive(r->conn);
    result = bolide_response_start(&r->conn->stream, &r->server->http.defaults, &r->response, headers);
    if (result == 0 && announced) {
        r->flags |= BOLIDE_REQUEST_TRAILERS;
    }
    if (result == 0 && r->server->access_log != NULL) {
        if (r->access != NULL) {
            Py_XSETREF(r->access->response_headers, Py_XNewRef(headers));
        }
        bolide_log_access(r, (int)code);
    }
done:
    Py_XDECREF(headers);
    Py_XDECREF(trailers);
    return result;
}

void bolide_request_complete(bolide_request *r) {
    r->flags |= BOLIDE_REQUEST_COMPLETE;
    if (r->conn != NULL) {
        bolide_conn_finish(r->conn, r->response.keep_alive);
    }
    bolide_awaitable_wake(r, BOLIDE_AWAIT_RECEIVE);
    bolide_server_answered(r->server);
    bolide_access_end(r);
}

int bolide_request_await_trailers(bolide_request *r) {
    r->flags |= BOLIDE_REQUEST_BODY_SENT;
    if (r->response.framing != BOLIDE_BODY_CHUNKED || r->conn == NULL) {
        return 0;
    }
    return bolide_stream_write(&r->conn->stream, "0\r\n", 3);
}

/* The end of a body that trailers follow. As send_body(). */
static int end_body(bolide_request *r, PyObject *body) {
    bool chunked = r->response.framing == BOLIDE_BODY_CHUNKED;
    int result = bolide_response_body(&r->conn->stream, &r->response, body, chunked);
    if (result == 0) {
        bolide_access_sent(r, body);
        result = bolide_request_await_trailers(r);
    }
    return result;
}

/* http.response.trailers. 0, or -1 with an exception set. */
static int send_trailers(bolide_request *r, PyObject *message) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *headers = NULL, *more = NULL, *lines = NULL;
    int result = -1, is_more = 0;
    if (bolide_message_get(message, as->str_headers, &headers) < 0 ||
        bolide_message_get(message, as->str_more_trailers, &more) < 0 ||
        (more != NULL && (is_more = PyObject_IsTrue(more)) < 0)) {
        goto done;
    }
    lines = bolide_trailers(headers, !is_more);
    if (lines == NULL) {
        goto done;
    }
    if (bolide_request_is_gone(r) || (r->flags & BOLIDE_REQUEST_COMPLETE) != 0) {
        result = bolide_request_disconnected(r);
        goto done;
    }
    /* Other framings have no place for them: they are dropped. */
    result = r->response.framing == BOLIDE_BODY_CHUNKED ? bolide_stream_write_object(&r->conn->stream, lines) : 0;
    if (result == 0 && !is_more) {
        bolide_request_complete(r);
    }
done:
    Py_XDECREF(headers);
    Py_XDECREF(more);
    Py_XDECREF(lines);
    return result;
}

/* http.response.early_hint. 0, or -1 with an exception set. */
static int send_early_hint(bolide_request *r, PyObject *message) {
    PyObject *links = NULL;
    if (bolide_message_require(message, bolide_asgi_of(r)->str_links, &links) < 0) {
        return -1;
    }
    PyObject *lines = bolide_early_hints(links);
    Py_DECREF(links);
    if (lines == NULL) {
        return -1;
    }
    int result = 0;
    if (bolide_request_is_gone(r)) {
        result = bolide_request_disconnected(r);
    } else if ((r->flags & BOLIDE_REQUEST_STARTED) == 0 && !r->response.http10) {
        result = bolide_stream_write_object(&r->conn->stream, lines); /* HTTP/1.0 knows no interim responses */
    }
    Py_DECREF(lines);
    return result;
}

/* http.response.body. 0, or -1 with an exception set. */
static int send_body(bolide_request *r, PyObject *message) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *body = NULL, *more = NULL;
    int result = -1, is_more = 0;
    if (bolide_message_get(message, as->str_body, &body) < 0 ||
        (has_more_keys(message, body != NULL ? 2 : 1) && bolide_message_get(message, as->str_more_body, &more) < 0)) {
        goto done;
    }
    if (more != NULL && (is_more = PyObject_IsTrue(more)) < 0) {
        goto done;
    }
    if (bolide_body_as_bytes(&body) < 0) {
        goto done;
    }
    /* All of that may have run code of the application. */
    if ((r->flags & (BOLIDE_REQUEST_COMPLETE | BOLIDE_REQUEST_BODY_SENT)) != 0 || r->file != 0) {
        PyErr_SetString(PyExc_RuntimeError, "another message was sent meanwhile");
        goto done;
    }
    if (bolide_request_is_gone(r)) {
        result = bolide_request_disconnected(r);
        goto done;
    }
    if (body != NULL) {
        bolide_conn_expect_output(r->conn, (size_t)PyBytes_GET_SIZE(body));
    }
    if (!is_more && (r->flags & BOLIDE_REQUEST_TRAILERS) != 0) {
        result = end_body(r, body);
        goto done;
    }
    result = bolide_response_body(&r->conn->stream, &r->response, body, is_more != 0);
    if (result == 0) {
        bolide_access_sent(r, body);
    }
    if (result == 0 && !is_more) {
        bolide_request_complete(r);
    }
done:
    Py_XDECREF(body);
    Py_XDECREF(more);
    return result;
}

static int send_message(bolide_request *r, PyObject *message) {
    PyObject *type;
    if (bolide_message_require(message, r->server->st->str_type, &type) < 0) {
        return -1;
    }
    int result = -1;
    if ((r->flags & BOLIDE_REQUEST_COMPLETE) != 0) {
        PyErr_Format(PyExc_RuntimeError, "Unexpected ASGI message '%S' sent, after response already completed.", type);
    } else if (bolide_request_is_gone(r)) {
        bolide_request_disconnected(r);
    } else if ((r->flags & BOLIDE_REQUEST_STARTED) == 0 && bolide_message_is(type, "http.response.early_hint")) {
        result = send_early_hint(r, message);
    } else if ((r->flags & BOLIDE_REQUEST_STARTED) == 0) {
        result = expect_type(type, "http.response.start");
        if (result == 0) {
            r->flags |= BOLIDE_REQUEST_STARTED;
            result = send_start(r, message);
            r->flags |= result == 0 ? BOLIDE_REQUEST_HEAD_SENT : 0u;
        }
    } else if (r->file != 0) {
        PyErr_Format(PyExc_RuntimeError, "Unexpected ASGI message '%S' sent, while a file is being sent.", type);
    } else if ((r->flags & BOLIDE_REQUEST_BODY_SENT) != 0) {
        result = expect_type(type, "http.response.trailers");
        result = result == 0 ? send_trailers(r, message) : -1;
    } else if ((r->flags & BOLIDE_REQUEST_HEAD_SENT) != 0 && bolide_message_is(type, "http.response.pathsend")) {
        result = bolide_file_begin_path(r, message);
    } else if ((r->flags & BOLIDE_REQUEST_HEAD_SENT) != 0 && bolide_message_is(type, "http.response.zerocopysend")) {
        result = bolide_file_begin_descriptor(r, message);
    } else {
        result = expect_type(type, "http.response.body");
        if (result == 0 && (r->flags & BOLIDE_REQUEST_HEAD_SENT) == 0) {
            PyErr_SetString(PyExc_RuntimeError, "http.response.body sent after http.response.start failed");
            result = -1;
        } else if (result == 0) {
            result = send_body(r, message);
        }
    }
    Py_DECREF(type);
    return result;
}

PyObject *bolide_send(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names) {
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
    PyObject *awaitable = NULL;
    bool was_running = bolide_loop_occupy(r->server->loop);
    int status = send_message(r, args[0]);
    bolide_loop_vacate(r->server->loop, was_running);
    if (status == 0) {
        bool wait = (r->flags & BOLIDE_REQUEST_COMPLETE) == 0 && r->conn != NULL && bolide_conn_is_open(r->conn) &&
                    bolide_stream_is_full(&r->conn->stream);
        bolide_await_kind kind = r->file != 0 ? BOLIDE_AWAIT_FILE : BOLIDE_AWAIT_DRAIN;
        awaitable = wait || r->file != 0 ? bolide_awaitable_new(r, kind) : Py_NewRef(bolide_asgi_of(r)->done);
    }
    Py_DECREF(r);
    return awaitable;
}
