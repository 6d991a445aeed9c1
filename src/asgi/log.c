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
    if (server->access_log == NULL || r->target == NULL) {
        return;
    }
    PyObject *number = PyLong_FromLong(status), *result = NULL;
    if (number != NULL) {
        PyObject *version = r->response.http10 ? as->str_http_1_0 : as->str_http_1_1;
        PyObject *args[] = {NULL, r->client, r->method, r->target, version, number};
        result = PyObject_Vectorcall(server->access_log, args + 1, 5 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    if (result == NULL) {
        bolide_loop_report(server->loop, "Exception in the access log", NULL, NULL);
    }
    Py_XDECREF(number);
    Py_XDECREF(result);
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
    if (r->target == NULL || !wants_info(server)) {
        return;
    }
    PyObject *client;
    if (r->client != NULL && PyTuple_Check(r->client) && PyTuple_GET_SIZE(r->client) == 2) {
        client = PyUnicode_FromFormat("%S:%S", PyTuple_GET_ITEM(r->client, 0), PyTuple_GET_ITEM(r->client, 1));
    } else {
        client = PyUnicode_FromString("");
    }
    PyObject *text = PyUnicode_FromString("%s - \"WebSocket %s\" %s"), *result = NULL;
    if (client != NULL && text != NULL) {
        result =
            PyObject_CallMethodObjArgs(server->logger, server->st->asgi->str_info, text, client, r->target, what, NULL);
    }
    if (result == NULL) {
        report(server);
    }
    Py_XDECREF(text);
    Py_XDECREF(client);
    Py_XDECREF(result);
}
