#include "asgi/asgi.h"

#define LEVEL_INFO 20 /* logging.INFO */

static void report(bolide_server *server) {
    bolide_loop_report(server->loop, "logging failed", NULL, NULL);
}

void bolide_log_exception(bolide_server *server, const char *message, PyObject *exc) {
    bolide_asgi_state *as = server->st->asgi;
    PyObject *text = PyUnicode_FromString(message);
    PyObject *args[] = {server->logger, text, exc};
    PyObject *result = text != NULL ? PyObject_VectorcallMethod(as->str_error, args, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                                                as->exc_info_names)
                                    : NULL;
    if (result == NULL) {
        report(server);
    }
    Py_XDECREF(text);
    Py_XDECREF(result);
}

static void log_at(bolide_server *server, PyObject *level, const char *message, PyObject *arg) {
    PyObject *text = PyUnicode_FromString(message);
    PyObject *result = text != NULL ? PyObject_CallMethodObjArgs(server->logger, level, text, arg, NULL) : NULL;
    if (result == NULL) {
        report(server);
    }
    Py_XDECREF(text);
    Py_XDECREF(result);
}

void bolide_log_error(bolide_server *server, const char *message, PyObject *arg) {
    log_at(server, server->st->asgi->str_error, message, arg);
}

void bolide_log_warning(bolide_server *server, const char *message) {
    log_at(server, server->st->asgi->str_warning, message, NULL);
}

void bolide_log_access(bolide_request *r, int status) {
    bolide_server *server = r->server;
    bolide_asgi_state *as = server->st->asgi;
    const bolide_request_line *line = bolide_request_get_line(r);
    if (server->access_log == NULL || line == NULL || line->target == NULL) {
        return;
    }
    if (server->access_details) {
        if (r->ws == NULL && r->access != NULL) {
            r->access->status = status;
        }
        return;
    }
    PyObject *number = PyLong_FromLong(status), *result = NULL;
    if (number != NULL) {
        PyObject *version = r->ws == NULL && r->response.http10 ? as->str_http_1_0 : as->str_http_1_1;
        PyObject *args[] = {NULL, line->client, line->method, line->target, version, number};
        result = PyObject_Vectorcall(server->access_log, args + 1, 5 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    if (result == NULL) {
        bolide_loop_report(server->loop, "Exception in the access log", NULL, NULL);
    }
    Py_XDECREF(number);
    Py_XDECREF(result);
}

/* --- the access log with details ---------------------------------------------------------------------------------- */

static void access_free(bolide_access *a) {
    Py_XDECREF(a->headers);
    Py_XDECREF(a->response_headers);
    PyMem_Free(a);
}

int bolide_access_begin(bolide_request *r) {
    if (!r->server->access_details || r->ws != NULL || r->line.target == NULL) {
        return 0;
    }
    bolide_access *a = PyMem_Calloc(1, sizeof(*a));
    if (a == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    a->headers = Py_XNewRef(PyDict_GetItemWithError(r->scope, bolide_asgi_of(r)->str_headers));
    a->began = uv_hrtime();
    r->access = a;
    return 0;
}

void bolide_access_add(bolide_request *r, uint64_t len) {
    if (r->access != NULL) {
        r->access->sent += len;
    }
}

void bolide_access_sent(bolide_request *r, PyObject *body) {
    if (body != NULL && r->response.framing != BOLIDE_BODY_NONE) {
        bolide_access_add(r, (uint64_t)PyBytes_GET_SIZE(body));
    }
}

void bolide_access_end(bolide_request *r) {
    bolide_server *server = r->server;
    bolide_asgi_state *as = server->st->asgi;
    bolide_access *a = r->ws == NULL ? r->access : NULL;
    if (a == NULL) {
        return;
    }
    r->access = NULL;
    PyObject *result = NULL;
    PyObject *args = Py_BuildValue("(OOOOidKOO)", r->line.client != NULL ? r->line.client : Py_None, r->line.method,
                                   r->line.target, r->response.http10 ? as->str_http_1_0 : as->str_http_1_1, a->status,
                                   (double)(uv_hrtime() - a->began) / 1e9, (unsigned long long)a->sent,
                                   a->headers != NULL ? a->headers : Py_None,
                                   a->response_headers != NULL ? a->response_headers : Py_None);
    if (args != NULL && server->access_log != NULL) {
        result = PyObject_CallObject(server->access_log, args);
    }
    if (result == NULL && PyErr_Occurred()) {
        bolide_loop_report(server->loop, "Exception in the access log", NULL, NULL);
    }
    Py_XDECREF(args);
    Py_XDECREF(result);
    access_free(a);
}

void bolide_access_free(bolide_request *r) {
    if (r->access != NULL) {
        access_free(r->access);
        r->access = NULL;
    }
}

/* Is the level INFO wanted? */
static bool wants_info(bolide_server *server) {
    PyObject *result = PyObject_CallMethod(server->logger, "isEnabledFor", "i", LEVEL_INFO);
    bool wanted = result != NULL && PyObject_IsTrue(result) > 0;
    if (result == NULL) {
        report(server);
    }
    Py_XDECREF(result);
    return wanted;
}

void bolide_log_websocket(bolide_request *r, PyObject *what) {
    bolide_server *server = r->server;
    const bolide_request_line *line = bolide_request_get_line(r);
    if (line == NULL || line->target == NULL || !wants_info(server)) {
        return;
    }
    PyObject *client;
    if (line->client != NULL && PyTuple_Check(line->client) && PyTuple_GET_SIZE(line->client) == 2) {
        client = PyUnicode_FromFormat("%S:%S", PyTuple_GET_ITEM(line->client, 0), PyTuple_GET_ITEM(line->client, 1));
    } else {
        client = PyUnicode_FromString("");
    }
    PyObject *text = PyUnicode_FromString("%s - \"WebSocket %s\" %s"), *result = NULL;
    if (client != NULL && text != NULL) {
        result = PyObject_CallMethodObjArgs(server->logger, server->st->asgi->str_info, text, client, line->target,
                                            what, NULL);
    }
    if (result == NULL) {
        report(server);
    }
    Py_XDECREF(text);
    Py_XDECREF(client);
    Py_XDECREF(result);
}
