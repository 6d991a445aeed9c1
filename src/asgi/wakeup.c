/* What the task that awaits an awaitable wants called when it may go on. That is a builtin method of the task, an
 * object of 80 bytes for each WebSocket that waits. So of those that have waited for a while the task alone is kept,
 * and a method that is equal is made when it is to be called. */
#include "asgi/asgi.h"

/* Is it such a method? To one to which there are weak references code may be bound. */
static bool is_wakeup(bolide_server *server, PyObject *callback) {
    if (!PyCFunction_CheckExact(callback)) {
        return false;
    }
    const PyCFunctionObject *f = (PyCFunctionObject *)callback;
    bolide_asgi_state *as = server->st->asgi;
    if (f->m_self == NULL || !Py_IS_TYPE(f->m_self, (PyTypeObject *)server->st->asyncio_Task) || f->m_module != NULL ||
        f->m_weakreflist != NULL || f->m_ml->ml_flags != METH_O) {
        return false;
    }
    if (as->wakeup == NULL) {
        as->wakeup = f->m_ml;
    }
    return as->wakeup == f->m_ml;
}

/* `a` has waited for longer than as many others as there is room for. */
static void reduce(bolide_awaitable *a) {
    PyObject *callback = a->callback;
    a->recent = false;
    if (is_wakeup(a->request->server, callback)) {
        a->bare = true;
        a->callback = Py_NewRef(PyCFunction_GET_SELF(callback));
        Py_DECREF(callback);
    }
}

void bolide_wakeup_set(bolide_awaitable *a, PyObject *callback, PyObject *context) {
    bolide_asgi_state *as = bolide_asgi_of(a->request);
    bolide_awaitable **slot = &as->recent[as->next_recent];
    if (*slot != NULL) {
        reduce(*slot);
    }
    *slot = a;
    a->recent = true;
    a->slot = as->next_recent;
    as->next_recent = (uint8_t)((as->next_recent + 1) % BOLIDE_RECENT);
    a->bare = false;
    a->callback = Py_NewRef(callback);
    a->context = Py_NewRef(context);
}

PyObject *bolide_wakeup_get(const bolide_awaitable *a) {
    PyObject *callback = Py_NewRef(a->callback);
    if (a->bare) {
        /* Where this runs the garbage collector, a finalizer may end the wait. */
        Py_SETREF(callback, PyCFunction_New(bolide_asgi_of(a->request)->wakeup, callback));
    }
    return callback;
}

void bolide_wakeup_keep(bolide_awaitable *a) {
    if (a->recent) {
        bolide_asgi_of(a->request)->recent[a->slot] = NULL;
        a->recent = false;
    }
}
