#include "asgi/asgi.h"

#include <structmember.h>

#define FREELIST_MAX 256

/* The `receive` of an application. */
typedef struct {
    PyObject_HEAD bolide_request *request; /* strong; cycles through it are its own to break */
    vectorcallfunc call;
} receive_object;

static PyObject *disconnect_message(bolide_request *r) {
    PyObject *message = PyDict_New();
    if (message != NULL &&
        PyDict_SetItem(message, r->server->st->str_type, bolide_asgi_of(r)->str_http_disconnect) < 0) {
        Py_CLEAR(message);
    }
    return message;
}

static PyObject *body_message(bolide_request *r) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *message = PyDict_Copy(as->request_message);
    if (message == NULL) {
        return NULL;
    }
    if ((r->body != NULL && PyDict_SetItem(message, as->str_body, r->body) < 0) ||
        ((r->flags & BOLIDE_REQUEST_LAST) == 0 && PyDict_SetItem(message, as->str_more_body, Py_True) < 0)) {
        Py_DECREF(message);
        return NULL;
    }
    Py_CLEAR(r->body);
    if ((r->flags & BOLIDE_REQUEST_LAST) != 0) {
        r->flags |= BOLIDE_REQUEST_TAKEN;
    }
    return message;
}

int bolide_receive_poll(bolide_request *r, bool woken, PyObject **message) {
    if ((r->flags & BOLIDE_REQUEST_COMPLETE) != 0 || bolide_request_is_gone(r)) {
        r->flags |= BOLIDE_REQUEST_TOLD;
        *message = disconnect_message(r);
        return *message != NULL ? 1 : -1;
    }
    if ((r->flags & BOLIDE_REQUEST_STARTED) == 0) {
        bolide_conn_continue(r->conn);
    }
    bool left = r->conn == NULL || (r->conn->flags & BOLIDE_CONN_EOF) != 0;
    /* Woken by the peer's FIN, not by the end of the body, when that was taken already. */
    bool end = (r->flags & BOLIDE_REQUEST_LAST) != 0 && ((woken && !left) || (r->flags & BOLIDE_REQUEST_TAKEN) == 0);
    if (r->body != NULL || end) {
        *message = body_message(r);
        if (*message == NULL) {
            return -1;
        }
        if (r->conn != NULL) {
            bolide_conn_resume_body(r->conn);
        }
        return 1;
    }
    if (left) {
        r->flags |= BOLIDE_REQUEST_TOLD;
        *message = disconnect_message(r);
        return *message != NULL ? 1 : -1;
    }
    return 0;
}

static PyObject *receive_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names) {
    bolide_request *r = ((receive_object *)self)->request;
    if (PyVectorcall_NARGS(nargsf) != 0 || (names != NULL && PyTuple_GET_SIZE(names) != 0)) {
        /* A callback of its own would be one object more for each request that waits. */
        if (PyVectorcall_NARGS(nargsf) == 1 && names == NULL && r->task != NULL && args[0] == r->task) {
            return bolide_request_end_task(r, args[0]) == 0 ? Py_NewRef(Py_None) : NULL;
        }
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    return bolide_awaitable_new(r, BOLIDE_AWAIT_RECEIVE);
}

PyObject *bolide_receive_new(bolide_request *r) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    receive_object *self = (receive_object *)bolide_freelist_new(&as->free_receives, as->ReceiveType);
    if (self == NULL) {
        return NULL;
    }
    self->request = (bolide_request *)Py_NewRef(r);
    self->call = receive_call;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int receive_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((receive_object *)self)->request);
    return 0;
}

static void receive_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    bolide_request *r = ((receive_object *)self)->request;
    PyObject_GC_UnTrack(self);
    bolide_freelist_keep(&bolide_asgi_of(r)->free_receives, self, FREELIST_MAX);
    Py_DECREF(r);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(receive_object, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The receive() of one ASGI request: returns an awaitable of the next message."},
    {Py_tp_dealloc, receive_dealloc},
    {Py_tp_traverse, receive_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec bolide_receive_spec = {
    .name = "bolide._core.Receive",
    .basicsize = sizeof(receive_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
