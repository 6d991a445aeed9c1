/* The server's part of the module state. */
#include "asgi/asgi.h"

static PyObject *import_from(const char *module_name, const char *name) {
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *value = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return value;
}

static int make_strings(bolide_asgi_state *as) {
#define BOLIDE_ASGI_STR(id, text)                                                                                      \
    if ((as->str_##id = PyUnicode_InternFromString(text)) == NULL) {                                                   \
        return -1;                                                                                                     \
    }
    BOLIDE_ASGI_STRINGS(BOLIDE_ASGI_STR)
#undef BOLIDE_ASGI_STR
    for (int i = 0; i < BOLIDE_METHODS; i++) {
        if ((as->methods[i] = PyUnicode_InternFromString(llhttp_method_name((llhttp_method_t)i))) == NULL) {
            return -1;
        }
    }
    return 0;
}

static int make_objects(bolide_asgi_state *as, bolide_state *st) {
    as->loop_names = PyTuple_Pack(1, st->str_loop);
    as->context_names = PyTuple_Pack(1, as->str_context);
    as->exc_info_names = PyTuple_Pack(1, as->str_exc_info);
    as->request_message = Py_BuildValue("{O:O,O:O,O:O}", st->str_type, as->str_http_request, as->str_body,
                                        st->empty_bytes, as->str_more_body, Py_False);
    as->task_done = PyObject_GetAttr(st->asyncio_Task, st->str_done);
    as->task_result = PyObject_GetAttrString(st->asyncio_Task, "result");
    if (as->loop_names == NULL || as->context_names == NULL || as->exc_info_names == NULL ||
        as->request_message == NULL || as->task_done == NULL || as->task_result == NULL) {
        return -1;
    }
    as->ensure_future = import_from("asyncio", "ensure_future");
    as->get_logger = as->ensure_future != NULL ? import_from("logging", "getLogger") : NULL;
    return as->get_logger != NULL ? 0 : -1;
}

static int make_types(PyObject *module, bolide_asgi_state *as) {
    if (bolide_add_type(module, &bolide_server_spec, NULL, &as->ServerType, true) < 0 ||
        bolide_add_type(module, &bolide_request_spec, NULL, &as->RequestType, false) < 0 ||
        bolide_add_type(module, &bolide_websocket_spec, NULL, &as->WebSocketType, false) < 0 ||
        bolide_add_type(module, &bolide_receive_spec, NULL, &as->ReceiveType, false) < 0 ||
        bolide_add_type(module, &bolide_awaitable_spec, NULL, &as->AwaitableType, false) < 0 ||
        bolide_add_type(module, &bolide_access_log_spec, NULL, &as->AccessLogType, true) < 0) {
        return -1;
    }
    bolide_awaitable *done = PyObject_GC_New(bolide_awaitable, as->AwaitableType);
    if (done == NULL) {
        return -1;
    }
    memset((char *)done + sizeof(PyObject), 0, sizeof(*done) - sizeof(PyObject));
    done->kind = BOLIDE_AWAIT_DONE;
    PyObject_GC_Track((PyObject *)done);
    as->done = (PyObject *)done;
    as->ClientDisconnected = PyErr_NewExceptionWithDoc(
        "bolide.ClientDisconnected",
        "Raised by an ASGI send() once the application has been told of the disconnect, or the connection is broken.",
        PyExc_ConnectionError, NULL);
    if (as->ClientDisconnected == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "ClientDisconnected", as->ClientDisconnected);
}

int bolide_asgi_init(PyObject *module, bolide_state *st) {
    bolide_asgi_state *as = PyMem_RawCalloc(1, sizeof(*as));
    if (as == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    st->asgi = as; /* freed with `st` */
    if (make_strings(as) < 0 || make_objects(as, st) < 0) {
        return -1;
    }
    return make_types(module, as);
}

int bolide_asgi_traverse(bolide_state *st, visitproc visit, void *arg) {
    bolide_asgi_state *as = st->asgi;
    if (as == NULL) {
        return 0;
    }
    Py_VISIT(as->ServerType);
    Py_VISIT(as->RequestType);
    Py_VISIT(as->WebSocketType);
    Py_VISIT(as->ReceiveType);
    Py_VISIT(as->AwaitableType);
    Py_VISIT(as->AccessLogType);
    Py_VISIT(as->ClientDisconnected);
    Py_VISIT(as->done);
    Py_VISIT(as->request_message);
    Py_VISIT(as->task_done);
    Py_VISIT(as->task_result);
    Py_VISIT(as->ensure_future);
    Py_VISIT(as->get_logger);
    return 0;
}

void bolide_asgi_clear(bolide_state *st) {
    bolide_asgi_state *as = st->asgi;
    if (as == NULL) {
        return;
    }
    bolide_freelist_close(&as->free_requests);
    bolide_freelist_close(&as->free_receives);
    bolide_freelist_close(&as->free_awaitables);
    Py_CLEAR(as->done);
    Py_CLEAR(as->ServerType);
    Py_CLEAR(as->RequestType);
    Py_CLEAR(as->WebSocketType);
    Py_CLEAR(as->ReceiveType);
    Py_CLEAR(as->AwaitableType);
    Py_CLEAR(as->AccessLogType);
    Py_CLEAR(as->ClientDisconnected);
    Py_CLEAR(as->request_message);
    Py_CLEAR(as->loop_names);
    Py_CLEAR(as->context_names);
    Py_CLEAR(as->exc_info_names);
    Py_CLEAR(as->task_done);
    Py_CLEAR(as->task_result);
    Py_CLEAR(as->ensure_future);
    Py_CLEAR(as->get_logger);
#define BOLIDE_ASGI_STR(id, text) Py_CLEAR(as->str_##id);
    BOLIDE_ASGI_STRINGS(BOLIDE_ASGI_STR)
#undef BOLIDE_ASGI_STR
    for (int i = 0; i < BOLIDE_METHODS; i++) {
        Py_CLEAR(as->methods[i]);
    }
}
