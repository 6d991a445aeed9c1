#include "asgi/asgi.h"

#include <structmember.h>

#define FREELIST_MAX 256

PyObject *bolide_awaitable_new(bolide_request *r, bolide_await_kind kind) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    bolide_awaitable *a = (bolide_awaitable *)bolide_freelist_new(&as->free_awaitables, as->AwaitableType);
    if (a == NULL) {
        return NULL;
    }
    a->request = (bolide_request *)Py_NewRef(r);
    a->future = a->iter = NULL;
    a->prev = a->next = NULL;
    a->kind = kind;
    a->finished = false;
    PyObject_GC_Track((PyObject *)a);
    return (PyObject *)a;
}

/* Leave the request's waiters. */
static void unlink_waiter(bolide_awaitable *a) {
    if (a->future == NULL) {
        return;
    }
    *(a->prev != NULL ? &a->prev->next : &a->request->waiters) = a->next;
    if (a->next != NULL) {
        a->next->prev = a->prev;
    }
    a->prev = a->next = NULL;
    Py_CLEAR(a->future);
    Py_CLEAR(a->iter);
}

static void finish(bolide_awaitable *a) {
    unlink_waiter(a);
    a->finished = true;
}

/* Make the future to wait for. 0, or -1 with an exception set. */
static int begin_waiting(bolide_awaitable *a) {
    PyObject *future = bolide_loop_create_future(a->request->server->loop);
    if (future == NULL) {
        return -1;
    }
    PyObject *iter = PyObject_GetIter(future);
    if (iter == NULL) {
        Py_DECREF(future);
        return -1;
    }
    a->future = future;
    a->iter = iter;
    /* At the end: who waits first is woken first. */
    bolide_awaitable **link = &a->request->waiters;
    a->prev = a->next = NULL;
    while (*link != NULL) {
        a->prev = *link;
        link = &(*link)->next;
    }
    *link = a;
    return 0;
}

/* Is what `a` is for possible now? As bolide_receive_poll(). */
static int poll_request(bolide_awaitable *a, bool woken, PyObject **result) {
    bolide_request *r = a->request;
    if (bolide_request_check_thread(r) < 0) {
        return -1;
    }
    if (a->kind == BOLIDE_AWAIT_RECEIVE && r->ws != NULL) {
        return bolide_websocket_poll(r, result);
    }
    if (a->kind == BOLIDE_AWAIT_RECEIVE) {
        return bolide_receive_poll(r, woken, result);
    }
    if (r->conn == NULL && (r->flags & BOLIDE_REQUEST_COMPLETE) == 0) {
        PyErr_SetString(bolide_asgi_of(r)->ClientDisconnected, "the client has disconnected");
        return -1;
    }
    if (a->kind == BOLIDE_AWAIT_FILE) {
        int done = bolide_file_go_on(r);
        *result = done > 0 ? Py_NewRef(Py_None) : NULL;
        return done;
    }
    if (r->conn != NULL && bolide_conn_is_open(r->conn) && bolide_stream_is_full(&r->conn->stream)) {
        return 0;
    }
    *result = Py_NewRef(Py_None);
    return 1;
}

static PySendResult step(bolide_awaitable *a, PyObject **result) {
    *result = NULL;
    if (a->kind == BOLIDE_AWAIT_DONE) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    for (bool woken = false;; woken = false) {
        if (a->iter != NULL) {
            woken = true;
            PyObject *iter = Py_NewRef(a->iter);
            PySendResult sent = PyIter_Send(iter, Py_None, result);
            Py_DECREF(iter);
            if (sent == PYGEN_NEXT) {
                return PYGEN_NEXT;
            }
            unlink_waiter(a);
            if (sent == PYGEN_ERROR) {
                finish(a);
                return PYGEN_ERROR;
            }
            Py_CLEAR(*result);
        }
        if (a->finished) {
            PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited receive() or send()");
            return PYGEN_ERROR;
        }
        int ready = poll_request(a, woken, result);
        if (ready != 0 || begin_waiting(a) < 0) {
            finish(a);
            return ready > 0 ? PYGEN_RETURN : PYGEN_ERROR;
        }
    }
}

static PySendResult awaitable_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result) {
    return step((bolide_awaitable *)self, result);
}

static PyObject *awaitable_next(PyObject *self) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    if (a->kind == BOLIDE_AWAIT_DONE) {
        return NULL; /* means None, without the cost of a StopIteration */
    }
    PyObject *result;
    if (step(a, &result) == PYGEN_RETURN) {
        if (result != Py_None) {
            PyErr_SetObject(PyExc_StopIteration, result);
        }
        Py_CLEAR(result);
    }
    return result;
}

PyDoc_STRVAR(send_doc, "send(value)\n--\n\nResume; raises StopIteration with the result. As a coroutine's (PEP 492).");

static PyObject *method_send(PyObject *self, PyObject *Py_UNUSED(value)) {
    PyObject *result = awaitable_next(self);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

PyDoc_STRVAR(throw_doc, "throw(exception)\n--\n\nEnd it with the exception; no message is lost. As a coroutine's "
                        "(PEP 492).");

static PyObject *method_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes 1 to 3 arguments");
        return NULL;
    }
    PyObject *type = args[0], *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    finish((bolide_awaitable *)self);
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    }
    return NULL;
}

PyDoc_STRVAR(close_doc, "close()\n--\n\nEnd it without a result. As a coroutine's (PEP 492).");

static PyObject *method_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    finish((bolide_awaitable *)self);
    Py_RETURN_NONE;
}

void bolide_awaitable_wake(bolide_request *r, bolide_await_kind kind) {
    bolide_state *st = r->server->st;
    if (r->waiters == NULL || r->server->loop->closed) {
        return;
    }
    /* The futures are collected first: what completing one does is not ours to know. */
    PyObject *futures = PyList_New(0);
    for (bolide_awaitable *a = r->waiters; futures != NULL && a != NULL; a = a->next) {
        if (a->kind == kind && PyList_Append(futures, a->future) < 0) {
            Py_CLEAR(futures);
        }
    }
    for (Py_ssize_t i = 0; futures != NULL && i < PyList_GET_SIZE(futures); i++) {
        PyObject *future = PyList_GET_ITEM(futures, i);
        PyObject *done = PyObject_CallMethodNoArgs(future, st->str_done);
        if (done == Py_False) {
            Py_SETREF(done, PyObject_CallMethodOneArg(future, st->str_set_result, Py_None));
        }
        if (done == NULL) {
            bolide_loop_report(r->server->loop, "waking receive() or send() failed", NULL, NULL);
        }
        Py_XDECREF(done);
    }
    if (futures == NULL) {
        bolide_loop_report(r->server->loop, "waking receive() or send() failed", NULL, NULL);
    }
    Py_XDECREF(futures);
}

static int awaitable_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(a->request);
    Py_VISIT(a->future);
    Py_VISIT(a->iter);
    return 0;
}

static int awaitable_clear(PyObject *self) {
    finish((bolide_awaitable *)self);
    return 0;
}

static void awaitable_dealloc(PyObject *self) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (a->request == NULL) {
        PyObject_GC_Del(self);
    } else {
        bolide_request *r = a->request;
        unlink_waiter(a);
        bolide_freelist_keep(&bolide_asgi_of(r)->free_awaitables, self, FREELIST_MAX);
        Py_DECREF(r);
    }
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"send", method_send, METH_O, send_doc},
    {"throw", (PyCFunction)(void (*)(void))method_throw, METH_FASTCALL, throw_doc},
    {"close", method_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "What receive() and send() return; to be awaited once."},
    {Py_tp_dealloc, awaitable_dealloc},
    {Py_tp_traverse, awaitable_traverse},
    {Py_tp_clear, awaitable_clear},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, awaitable_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, awaitable_next},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec bolide_awaitable_spec = {
    .name = "bolide._core.Awaitable",
    .basicsize = sizeof(bolide_awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
