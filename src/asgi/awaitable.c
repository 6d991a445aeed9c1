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
    a->future = NULL;
    a->next = NULL;
    a->kind = kind;
    a->woken = a->finished = false;
    PyObject_GC_Track((PyObject *)a);
    return (PyObject *)a;
}

/* Leave the request's waiters. */
static void unlink_waiter(bolide_awaitable *a) {
    if (a->future == NULL) {
        return;
    }
    bolide_awaitable **link = &a->request->waiters;
    while (*link != a) {
        link = &(*link)->next;
    }
    *link = a->next;
    a->next = NULL;
    Py_CLEAR(a->future);
}

static void finish(bolide_awaitable *a) {
    unlink_waiter(a);
    a->finished = true;
}

/* Make the future to wait for, in the state in which its own iterator would hand it to the task. 0, or -1 with an
 * exception set. */
static int begin_waiting(bolide_awaitable *a) {
    PyObject *future = bolide_loop_create_future(a->request->server->loop);
    if (future == NULL) {
        return -1;
    }
    if (PyObject_SetAttr(future, a->request->server->st->str__asyncio_future_blocking, Py_True) < 0) {
        Py_DECREF(future);
        return -1;
    }
    if (a->future != NULL || a->finished) {
        /* Making the future has run code, which has awaited this too. */
        Py_DECREF(future);
        PyErr_SetString(PyExc_RuntimeError, "receive() or send() is being awaited already");
        return -1;
    }
    a->future = future;
    a->woken = false;
    /* At the end: who waits first is woken first. */
    bolide_awaitable **link = &a->request->waiters;
    a->next = NULL;
    while (*link != NULL) {
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

/* It was resumed: is the future done, and without an exception? 0, or -1 with an exception set. */
static int end_waiting(bolide_awaitable *a) {
    if (a->woken) {
        unlink_waiter(a);
        return 0;
    }
    /* By somebody else than us, or for no reason. */
    PyObject *future = Py_NewRef(a->future);
    PyObject *done = PyObject_CallMethodNoArgs(future, a->request->server->st->str_done), *result = NULL;
    if (done == Py_True) {
        result = PyObject_CallMethod(future, "result", NULL);
    } else if (done != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
    }
    int status = result != NULL ? 0 : -1;
    unlink_waiter(a);
    Py_DECREF(future);
    Py_XDECREF(done);
    Py_XDECREF(result);
    return status;
}

static PySendResult step(bolide_awaitable *a, PyObject **result) {
    *result = NULL;
    if (a->kind == BOLIDE_AWAIT_DONE) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    bool waited = a->future != NULL, woken = waited && a->woken;
    if (waited && end_waiting(a) < 0) {
        finish(a);
        return PYGEN_ERROR;
    }
    if (a->finished) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited receive() or send()");
        return PYGEN_ERROR;
    }
    bool was_running = bolide_loop_occupy(a->request->server->loop);
    int ready = poll_request(a, woken, result);
    bolide_loop_vacate(a->request->server->loop, was_running);
    if (ready == 0 && begin_waiting(a) == 0) {
        *result = Py_NewRef(a->future);
        return PYGEN_NEXT;
    }
    finish(a);
    return ready > 0 ? PYGEN_RETURN : PYGEN_ERROR;
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

static void wake(bolide_awaitable *a) {
    bolide_loop *loop = a->request->server->loop;
    if (a->future == NULL || a->woken) {
        return;
    }
    PyObject *future = Py_NewRef(a->future);
    PyObject *done = PyObject_CallMethodNoArgs(future, loop->st->str_done);
    if (done == Py_False) {
        a->woken = true;
        Py_SETREF(done, PyObject_CallMethodOneArg(future, loop->st->str_set_result, Py_None));
    }
    if (done == NULL) {
        bolide_loop_report(loop, "waking receive() or send() failed", NULL, NULL);
    }
    Py_XDECREF(done);
    Py_DECREF(future);
}

void bolide_awaitable_wake(bolide_request *r, bolide_await_kind kind) {
    if (r->waiters == NULL || r->server->loop->closed) {
        return;
    }
    if (r->waiters->next == NULL) {
        if (r->waiters->kind == kind) {
            PyObject *only = Py_NewRef(r->waiters);
            wake((bolide_awaitable *)only);
            Py_DECREF(only);
        }
        return;
    }
    /* They are collected first: what completing a future does is not ours to know. */
    PyObject *waiters = PyList_New(0);
    for (bolide_awaitable *a = r->waiters; waiters != NULL && a != NULL; a = a->next) {
        if (a->kind == kind && PyList_Append(waiters, (PyObject *)a) < 0) {
            Py_CLEAR(waiters);
        }
    }
    for (Py_ssize_t i = 0; waiters != NULL && i < PyList_GET_SIZE(waiters); i++) {
        wake((bolide_awaitable *)PyList_GET_ITEM(waiters, i));
    }
    if (waiters == NULL) {
        bolide_loop_report(r->server->loop, "waking receive() or send() failed", NULL, NULL);
    }
    Py_XDECREF(waiters);
}

static int awaitable_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(a->request);
    Py_VISIT(a->future);
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
