/* An awaitable that has to wait is also the future that it hands to the task: by the protocol of futures that are not
 * asyncio's own, in a third of the memory of one of those, which matters for as many WebSockets as wait in receive().
 */
#include "asgi/asgi.h"

#include <stdlib.h>

#define FREELIST_MAX 256

/* The states of a bolide_awaitable. */
enum {
    AWAIT_NEW,       /* not awaited yet */
    AWAIT_WAITING,   /* on request->waiters */
    AWAIT_WOKEN,     /* ... and to be resumed */
    AWAIT_CANCELLED, /* ... with CancelledError */
    AWAIT_FINISHED,  /* has given its result */
};

PyObject *bolide_awaitable_new(bolide_request *r, bolide_await_kind kind) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    bolide_awaitable *a = (bolide_awaitable *)bolide_freelist_new(&as->free_awaitables, as->AwaitableType);
    if (a == NULL) {
        return NULL;
    }
    a->request = (bolide_request *)Py_NewRef(r);
    a->callback = a->context = NULL;
    a->kind = (uint8_t)kind;
    a->state = AWAIT_NEW;
    a->blocking = a->bare = a->recent = false;
    PyObject_GC_Track((PyObject *)a);
    return (PyObject *)a;
}

PyObject *bolide_awaitable_of_message(bolide_request *r, PyObject *message) {
    PyObject *self = bolide_awaitable_new(r, BOLIDE_AWAIT_SEND);
    if (self != NULL) {
        ((bolide_awaitable *)self)->context = Py_NewRef(message);
    }
    return self;
}

static bool is_awaited(const bolide_awaitable *a) {
    return a->state >= AWAIT_WAITING && a->state <= AWAIT_CANCELLED;
}

/* --- the awaitables of a request that are suspended --------------------------------------------------------------- */

/* Those of `r`, r->waiter_count in number, in the order in which they began to wait. */
static bolide_awaitable **waiters_of(bolide_request *r) {
    return r->waiter_count > 1 ? r->waiters : &r->waiter;
}

/* At the end: who waits first is woken first. The request keeps it, and so the task that nobody else may know. 0, or
 * -1 with MemoryError set. */
static int add_waiter(bolide_request *r, bolide_awaitable *a) {
    if (r->waiter_count == 0) {
        r->waiter = a;
    } else {
        bolide_awaitable *first = r->waiter_count == 1 ? r->waiter : NULL;
        bolide_awaitable **items = realloc(first == NULL ? r->waiters : NULL, (r->waiter_count + 1) * sizeof(a));
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        items[0] = first != NULL ? first : items[0];
        items[r->waiter_count] = a;
        r->waiters = items;
    }
    r->waiter_count++;
    Py_INCREF(a);
    return 0;
}

/* The reference is the caller's. */
static void remove_waiter(bolide_request *r, const bolide_awaitable *a) {
    if (--r->waiter_count == 0) {
        r->waiter = NULL;
        return;
    }
    bolide_awaitable **items = r->waiters;
    uint32_t i = 0;
    while (items[i] != a) {
        i++;
    }
    memmove(items + i, items + i + 1, (r->waiter_count - i) * sizeof(*items));
    if (r->waiter_count == 1) {
        bolide_awaitable *last = items[0];
        free(items);
        r->waiter = last;
    }
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

/* Leave the request's waiters for the state `state`. */
static void end_waiting(bolide_awaitable *a, int state) {
    bool kept = is_awaited(a);
    if (kept) {
        remove_waiter(a->request, a);
    }
    a->state = (uint8_t)state;
    bolide_wakeup_keep(a);
    Py_CLEAR(a->callback);
    Py_CLEAR(a->context);
    if (kept) {
        Py_DECREF(a);
    }
}

int bolide_awaitable_traverse(bolide_request *r, visitproc visit, void *arg) {
    for (uint32_t i = 0; i < r->waiter_count; i++) {
        Py_VISIT((PyObject *)waiters_of(r)[i]);
    }
    return 0;
}

void bolide_awaitable_drop(bolide_request *r) {
    while (r->waiter_count > 0) {
        end_waiting(waiters_of(r)[0], AWAIT_FINISHED);
    }
}

/* Wait, in the state in which a future's own iterator would hand it to the task. 0, or -1 with an exception set. */
static int begin_waiting(bolide_awaitable *a) {
    if (a->state != AWAIT_NEW) {
        PyErr_SetString(PyExc_RuntimeError, "receive() or send() is being awaited already");
        return -1;
    }
    if (add_waiter(a->request, a) < 0) {
        return -1;
    }
    a->state = AWAIT_WAITING;
    a->blocking = true;
    return 0;
}

/* Send the message of another thread: `a` is from now on what send() has returned. false when there is nothing to wait
 * for, or with an exception set. */
static bool send_now(bolide_awaitable *a) {
    PyObject *message = a->context;
    if (message == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "send() is being awaited already");
        return false;
    }
    a->context = NULL;
    PyObject *sent = a->request->send((PyObject *)a->request, &message, 1, NULL);
    Py_DECREF(message);
    if (sent == NULL) {
        return false;
    }
    uint8_t kind = ((bolide_awaitable *)sent)->kind;
    Py_DECREF(sent);
    if (kind != BOLIDE_AWAIT_DONE) {
        a->kind = kind;
    }
    return kind != BOLIDE_AWAIT_DONE;
}

/* Is what `a` is for possible now? As bolide_receive_poll(). */
static int poll_request(bolide_awaitable *a, bool woken, PyObject **result) {
    bolide_request *r = a->request;
    if (bolide_request_is_elsewhere(r)) {
        PyErr_SetString(PyExc_RuntimeError, "receive() and send() must be awaited in the thread of the event loop");
        return -1;
    }
    if (a->kind == BOLIDE_AWAIT_SEND && !send_now(a)) {
        *result = PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
        return *result != NULL ? 1 : -1;
    }
    if (a->kind == BOLIDE_AWAIT_RECEIVE && r->ws != NULL) {
        return bolide_websocket_poll(r, result);
    }
    if (a->kind == BOLIDE_AWAIT_RECEIVE) {
        return bolide_receive_poll(r, woken, result);
    }
    if (r->conn == NULL && (r->flags & BOLIDE_REQUEST_COMPLETE) == 0) {
        return bolide_request_disconnected(r);
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

static void set_cancelled_error(const bolide_awaitable *a) {
    PyObject *type = a->request->server->st->asyncio_CancelledError;
    PyObject *error = a->context != NULL ? PyObject_CallOneArg(type, a->context) : PyObject_CallNoArgs(type);
    if (error != NULL) {
        PyErr_SetObject(type, error);
        Py_DECREF(error);
    }
}

static PySendResult step(bolide_awaitable *a, PyObject **result) {
    *result = NULL;
    if (a->kind == BOLIDE_AWAIT_DONE) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    bool woken = a->state == AWAIT_WOKEN;
    if (a->state == AWAIT_WAITING) {
        PyErr_SetString(PyExc_RuntimeError, "receive() or send() is being awaited already");
        return PYGEN_ERROR;
    }
    if (a->state == AWAIT_CANCELLED) {
        set_cancelled_error(a);
        end_waiting(a, AWAIT_FINISHED);
        return PYGEN_ERROR;
    }
    if (a->state == AWAIT_FINISHED) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited receive() or send()");
        return PYGEN_ERROR;
    }
    if (woken) {
        end_waiting(a, AWAIT_NEW);
    }
    bool was_running = bolide_loop_occupy(a->request->server->loop);
    int ready = poll_request(a, woken, result);
    bolide_loop_vacate(a->request->server->loop, was_running);
    if (ready == 0) {
        if (begin_waiting(a) < 0) {
            return PYGEN_ERROR;
        }
        *result = Py_NewRef(a);
        return PYGEN_NEXT;
    }
    end_waiting(a, AWAIT_FINISHED);
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
    end_waiting((bolide_awaitable *)self, AWAIT_FINISHED);
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
    end_waiting((bolide_awaitable *)self, AWAIT_FINISHED);
    Py_RETURN_NONE;
}

/* --- as a future -------------------------------------------------------------------------------------------------- */

/* Have callback(a) called soon. Takes the references. 0, or -1 with an exception set. */
static int schedule(bolide_awaitable *a, PyObject *callback, PyObject *context) {
    bolide_server *server = a->request->server;
    PyObject *args[] = {(PyObject *)server->loop, callback, (PyObject *)a, context};
    PyObject *result = PyObject_VectorcallMethod(server->st->str_call_soon, args, 3, server->st->asgi->context_names);
    Py_DECREF(callback);
    Py_DECREF(context);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* The wait is over: let the task go on. 0, or -1 with an exception set. */
static int complete(bolide_awaitable *a, int state) {
    PyObject *callback = NULL;
    if (a->callback != NULL && (callback = bolide_wakeup_get(a)) == NULL) {
        return -1;
    }
    if (a->callback == NULL) {
        Py_CLEAR(callback); /* taken back by a finalizer */
    }
    if (a->state != AWAIT_WAITING) {
        Py_XDECREF(callback);
        return 0;
    }
    PyObject *kept = a->callback, *context = a->context;
    a->state = (uint8_t)state;
    bolide_wakeup_keep(a);
    a->callback = a->context = NULL;
    Py_XDECREF(kept);
    return callback != NULL ? schedule(a, callback, context) : 0;
}

static void wake(bolide_awaitable *a) {
    if (a->state == AWAIT_WAITING && complete(a, AWAIT_WOKEN) < 0) {
        bolide_loop_report(a->request->server->loop, "waking receive() or send() failed", NULL, NULL);
    }
}

static PyObject *get_blocking(PyObject *self, void *Py_UNUSED(closure)) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    /* None says that this is no future, but a coroutine to be wrapped in a task. */
    return is_awaited(a) ? PyBool_FromLong(a->blocking) : Py_NewRef(Py_None);
}

static int set_blocking(PyObject *self, PyObject *value, void *Py_UNUSED(closure)) {
    int blocking = value != NULL ? PyObject_IsTrue(value) : -1;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
    }
    if (blocking >= 0) {
        ((bolide_awaitable *)self)->blocking = blocking != 0;
    }
    return blocking >= 0 ? 0 : -1;
}

PyDoc_STRVAR(get_loop_doc, "get_loop()\n--\n\nThe event loop. As a future's.");

static PyObject *get_loop(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_request *r = ((bolide_awaitable *)self)->request;
    return Py_NewRef(r != NULL ? (PyObject *)r->server->loop : Py_None);
}

PyDoc_STRVAR(
    add_done_callback_doc,
    "add_done_callback(callback, *, context=None)\n--\n\nHave callback(self) called in `context`, or in a copy "
    "of the current one, when it may be resumed. For the task that awaits it, and for nobody else: RuntimeError. "
    "As a future's.");

static PyObject *add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    Py_ssize_t keywords = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    if (nargs != 1 || keywords > 1 ||
        (keywords == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "context") != 0)) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback() takes a callback and the keyword argument context");
        return NULL;
    }
    PyObject *context = keywords == 1 && args[1] != Py_None ? Py_NewRef(args[1]) : PyContext_CopyCurrent();
    if (context == NULL) {
        return NULL;
    }
    if (!is_awaited(a) || a->callback != NULL) {
        Py_DECREF(context);
        PyErr_SetString(PyExc_RuntimeError, "only the task that awaits receive() or send() may add a callback");
        return NULL;
    }
    if (a->state != AWAIT_WAITING) {
        return schedule(a, Py_NewRef(args[0]), context) == 0 ? Py_NewRef(Py_None) : NULL;
    }
    bolide_wakeup_set(a, args[0], context);
    Py_DECREF(context);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(remove_done_callback_doc,
             "remove_done_callback(callback)\n--\n\nTake it back. Returns how many there were. "
             "As a future's.");

static PyObject *remove_done_callback(PyObject *self, PyObject *callback) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    int same = 0;
    if (a->callback != NULL) {
        bolide_wakeup_keep(a); /* it stays as it is while it is compared */
        PyObject *kept = Py_NewRef(a->callback), *ours = bolide_wakeup_get(a);
        same = ours != NULL ? PyObject_RichCompareBool(ours, callback, Py_EQ) : -1;
        if (same > 0 && a->callback == kept) {
            Py_CLEAR(a->callback);
            Py_CLEAR(a->context);
        }
        Py_XDECREF(ours);
        Py_DECREF(kept);
    }
    return same < 0 ? NULL : PyLong_FromLong(same);
}

PyDoc_STRVAR(cancel_doc,
             "cancel(msg=None)\n--\n\nHave CancelledError raised where it is awaited. Returns whether it was "
             "waiting. As a future's.");

static PyObject *cancel(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"msg", NULL};
    bolide_awaitable *a = (bolide_awaitable *)self;
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &message)) {
        return NULL;
    }
    if (a->state != AWAIT_WAITING) {
        Py_RETURN_FALSE;
    }
    int status = complete(a, AWAIT_CANCELLED);
    if (message != Py_None && a->state == AWAIT_CANCELLED && a->context == NULL) {
        a->context = Py_NewRef(message);
    }
    return status == 0 ? Py_NewRef(Py_True) : NULL;
}

PyDoc_STRVAR(cancelled_doc, "cancelled()\n--\n\nWhether cancel() has ended the wait. As a future's.");

static PyObject *cancelled(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((bolide_awaitable *)self)->state == AWAIT_CANCELLED);
}

PyDoc_STRVAR(done_doc, "done()\n--\n\nWhether it may be resumed. As a future's.");

static PyObject *done(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((bolide_awaitable *)self)->state > AWAIT_WAITING);
}

PyDoc_STRVAR(result_doc, "result()\n--\n\nNone when it may be resumed; raises CancelledError after cancel(), else "
                         "InvalidStateError. As a future's: the message itself is what awaiting it gives.");

static PyObject *result(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    if (a->state == AWAIT_CANCELLED) {
        set_cancelled_error(a);
        return NULL;
    }
    if (a->state == AWAIT_WOKEN || a->state == AWAIT_FINISHED) {
        Py_RETURN_NONE;
    }
    PyErr_SetString(PyExc_RuntimeError, "receive() or send() is not done");
    return NULL;
}

void bolide_awaitable_wake(bolide_request *r, bolide_await_kind kind) {
    if (r->waiter_count == 0 || r->server->loop->closed) {
        return;
    }
    if (r->waiter_count == 1) {
        if (r->waiter->kind == kind) {
            PyObject *only = Py_NewRef(r->waiter);
            wake((bolide_awaitable *)only);
            Py_DECREF(only);
        }
        return;
    }
    /* They are collected first: what completing a future does is not ours to know. */
    PyObject *waiters = PyList_New(0);
    for (uint32_t i = 0; waiters != NULL && i < r->waiter_count; i++) {
        bolide_awaitable *a = waiters_of(r)[i];
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

void bolide_awaitable_wake_all(bolide_request *r) {
    bolide_awaitable_wake(r, BOLIDE_AWAIT_RECEIVE);
    bolide_awaitable_wake(r, BOLIDE_AWAIT_DRAIN);
    bolide_awaitable_wake(r, BOLIDE_AWAIT_FILE);
}

/* --- the type ----------------------------------------------------------------------------------------------------- */

static int awaitable_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_awaitable *a = (bolide_awaitable *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(a->request);
    Py_VISIT(a->callback);
    Py_VISIT(a->context);
    return 0;
}

static int awaitable_clear(PyObject *self) {
    end_waiting((bolide_awaitable *)self, AWAIT_FINISHED);
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
        end_waiting(a, AWAIT_FINISHED);
        bolide_freelist_keep(&bolide_asgi_of(r)->free_awaitables, self, FREELIST_MAX);
        Py_DECREF(r);
    }
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"send", method_send, METH_O, send_doc},
    {"throw", (PyCFunction)(void (*)(void))method_throw, METH_FASTCALL, throw_doc},
    {"close", method_close, METH_NOARGS, close_doc},
    {"get_loop", get_loop, METH_NOARGS, get_loop_doc},
    {"add_done_callback", (PyCFunction)(void (*)(void))add_done_callback, METH_FASTCALL | METH_KEYWORDS,
     add_done_callback_doc},
    {"remove_done_callback", remove_done_callback, METH_O, remove_done_callback_doc},
    {"cancel", (PyCFunction)(void (*)(void))cancel, METH_VARARGS | METH_KEYWORDS, cancel_doc},
    {"cancelled", cancelled, METH_NOARGS, cancelled_doc},
    {"done", done, METH_NOARGS, done_doc},
    {"result", result, METH_NOARGS, result_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"_asyncio_future_blocking", get_blocking, set_blocking, "How a task knows a future: True in one that awaits it.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
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
    {Py_tp_getset, attributes},
    {0, NULL},
};

PyType_Spec bolide_awaitable_spec = {
    .name = "bolide._core.Awaitable",
    .basicsize = sizeof(bolide_awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
