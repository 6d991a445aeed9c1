/* The Python types of a request, which is the `send` of its application, and of one for a WebSocket. */
#include "asgi/asgi.h"

#include <structmember.h>

#define FREELIST_MAX 256

bolide_request *bolide_request_new(bolide_server *server, bolide_conn *conn, bool websocket) {
    bolide_asgi_state *as = server->st->asgi;
    PyTypeObject *type = websocket ? as->WebSocketType : as->RequestType;
    bolide_request *r = websocket ? PyObject_GC_New(bolide_request, type)
                                  : (bolide_request *)bolide_freelist_new(&as->free_requests, type);
    if (r == NULL) {
        return NULL;
    }
    memset((char *)r + sizeof(PyObject), 0, (size_t)type->tp_basicsize - sizeof(PyObject));
    r->ws = websocket ? &r->websocket : NULL;
    r->server = (bolide_server *)Py_NewRef(server);
    r->conn = conn;
    r->send = websocket ? bolide_websocket_send : bolide_send;
    return r;
}

void bolide_request_clear_line(bolide_request_line *line) {
    Py_CLEAR(line->method);
    Py_CLEAR(line->target);
    Py_CLEAR(line->client);
}

static int request_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_request *r = (bolide_request *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(r->server);
    Py_VISIT(r->scope);
    Py_VISIT(r->task);
    if (r->ws != NULL && r->ws->opening != NULL) {
        Py_VISIT(r->ws->opening->headers);
    }
    if (r->ws == NULL && r->access != NULL) {
        Py_VISIT(r->access->headers);
        Py_VISIT(r->access->response_headers);
    }
    return bolide_awaitable_traverse(r, visit, arg);
}

static int request_clear(PyObject *self) {
    bolide_request *r = (bolide_request *)self;
    /* Not the server: the type's other functions rely on it, and it breaks the cycles through itself. */
    bolide_awaitable_drop(r);
    Py_CLEAR(r->scope);
    Py_CLEAR(r->task);
    return 0;
}

static void request_dealloc(PyObject *self) {
    bolide_request *r = (bolide_request *)self;
    PyTypeObject *type = Py_TYPE(self);
    bolide_server *server = r->server;
    PyObject_GC_UnTrack(self);
    Py_CLEAR(r->scope);
    Py_CLEAR(r->task);
    if (r->ws != NULL) {
        bolide_websocket_clear(r->ws);
        PyObject_GC_Del(self);
    } else {
        bolide_request_clear_line(&r->line);
        bolide_access_free(r);
        Py_CLEAR(r->body);
        bolide_file_end(r);
        bolide_freelist_keep(&server->st->asgi->free_requests, self, FREELIST_MAX);
    }
    Py_DECREF(server);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(bolide_request, send), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The send() of one ASGI request: takes a message, returns an awaitable of None."},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec bolide_request_spec = {
    .name = "bolide._core.Send",
    .basicsize = sizeof(bolide_request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

PyType_Spec bolide_websocket_spec = {
    .name = "bolide._core.WebSocketSend",
    .basicsize = offsetof(bolide_request, websocket) + sizeof(bolide_websocket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
