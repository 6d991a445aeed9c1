#include "loop/handle.h"

#include <structmember.h>

#include "loop/loop.h"

enum {
    HANDLE_RUNNING = 1 << 8, /* inside bolide_handle_run(): callback and arguments stay */
};

static inline PyObject **arguments(bolide_handle *h) {
    return (h->more_args != NULL ? h->more_args : h->args) + 1;
}

static void drop_callback(bolide_handle *h) {
    PyObject *callback = h->callback;
    PyObject **more = h->more_args;
    Py_ssize_t nargs = h->nargs;
    h->callback = NULL;
    h->more_args = NULL;
    h->nargs = 0;
    if (more != NULL) {
        for (Py_ssize_t i = 1; i <= nargs; i++) {
            Py_DECREF(more[i]);
        }
        PyMem_Free(more);
    } else if (nargs > 0) {
        PyObject *args[BOLIDE_HANDLE_INLINE_ARGS];
        memcpy(args, h->args + 1, (size_t)nargs * sizeof(PyObject *));
        for (Py_ssize_t i = 0; i < nargs; i++) {
            Py_DECREF(args[i]);
        }
    }
    Py_XDECREF(callback);
}

static int set_arguments(bolide_handle *h, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs > BOLIDE_HANDLE_INLINE_ARGS) {
        h->more_args = PyMem_New(PyObject *, nargs + 1);
        if (h->more_args == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    PyObject **mine = arguments(h);
    for (Py_ssize_t i = 0; i < nargs; i++) {
        mine[i] = Py_NewRef(args[i]);
    }
    h->nargs = nargs;
    return 0;
}

/* Debug mode: the stack of the Python code that schedules. */
static PyObject *current_stack(bolide_state *st) {
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) {
        return Py_NewRef(Py_None);
    }
    return PyObject_CallOneArg(st->asyncio_extract_stack, (PyObject *)frame);
}

bolide_handle *bolide_handle_new(bolide_loop *loop, bool timer, PyObject *callback, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *context) {
    bolide_state *st = loop->st;
    PyObject *own_context = context != NULL && context != Py_None ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (own_context == NULL) {
        return NULL;
    }
    PyTypeObject *type = timer ? st->TimerHandleType : st->HandleType;
    bolide_handle *h = (bolide_handle *)bolide_freelist_new(&st->free_handles, type);
    if (h == NULL) {
        Py_DECREF(own_context);
        return NULL;
    }
    h->loop = (bolide_loop *)Py_NewRef(loop);
    h->callback = Py_NewRef(callback);
    h->context = own_context;
    h->more_args = NULL;
    h->nargs = 0;
    h->source_traceback = NULL;
    h->description = NULL;
    h->weakrefs = NULL;
    h->when = 0;
    h->heap_index = -1;
    h->flags = timer ? BOLIDE_HANDLE_TIMER : 0;
    PyObject_GC_Track((PyObject *)h);
    if (set_arguments(h, args, nargs) < 0) {
        goto fail;
    }
    if (loop->debug) {
        h->source_traceback = current_stack(st);
        if (h->source_traceback == NULL) {
            goto fail;
        }
    }
    return h;
fail:
    Py_DECREF(h);
    return NULL;
}

static void report_failure(bolide_handle *h) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *args = PyTuple_New(h->nargs);
    for (Py_ssize_t i = 0; args != NULL && i < h->nargs; i++) {
        PyTuple_SET_ITEM(args, i, Py_NewRef(arguments(h)[i]));
    }
    PyObject *message = NULL;
    if (args != NULL) {
        PyObject *source = PyObject_CallFunctionObjArgs(h->loop->st->asyncio_format_callback, h->callback, args, NULL);
        if (source != NULL) {
            message = PyUnicode_FromFormat("Exception in callback %U", source);
            Py_DECREF(source);
        }
        Py_DECREF(args);
    }
    if (message == NULL) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
    bolide_loop_report_context(h->loop, message, "handle", (PyObject *)h, h->source_traceback);
    Py_XDECREF(message);
}

void bolide_handle_run(bolide_handle *h) {
    if ((h->flags & BOLIDE_HANDLE_CANCELLED) || h->callback == NULL) {
        return;
    }
    h->flags |= HANDLE_RUNNING;
    PyObject *result = NULL;
    if (PyContext_Enter(h->context) == 0) {
        size_t nargsf = (size_t)h->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET;
        result = PyObject_Vectorcall(h->callback, arguments(h), nargsf, NULL);
        if (PyContext_Exit(h->context) < 0) {
            Py_CLEAR(result);
        }
    }
    if (result != NULL) {
        Py_DECREF(result);
    } else {
        report_failure(h);
    }
    h->flags &= ~(unsigned)HANDLE_RUNNING;
    if (!(h->flags & BOLIDE_HANDLE_REPEATS) || (h->flags & BOLIDE_HANDLE_CANCELLED)) {
        drop_callback(h);
    }
}

void bolide_handle_cancel(bolide_handle *h) {
    if (h->flags & BOLIDE_HANDLE_CANCELLED) {
        return;
    }
    h->flags |= BOLIDE_HANDLE_CANCELLED;
    if (h->loop->debug && h->description == NULL) {
        h->description = PyObject_Repr((PyObject *)h);
        if (h->description == NULL) {
            PyErr_Clear();
        }
    }
    bool scheduled = h->heap_index >= 0;
    if (scheduled) {
        bolide_timers_remove(&h->loop->timers, h);
    }
    if (!(h->flags & HANDLE_RUNNING)) {
        drop_callback(h);
    }
    if (scheduled) {
        Py_DECREF(h);
    }
}

/* --- the types
 * ---------------------------------------------------------------------------------------------------------- */

static int handle_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_handle *h = (bolide_handle *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(h->loop);
    Py_VISIT(h->callback);
    Py_VISIT(h->context);
    Py_VISIT(h->source_traceback);
    for (Py_ssize_t i = 0; i < h->nargs; i++) {
        Py_VISIT(arguments(h)[i]);
    }
    return 0;
}

static int handle_clear(PyObject *self) {
    bolide_handle *h = (bolide_handle *)self;
    drop_callback(h);
    Py_CLEAR(h->source_traceback);
    Py_CLEAR(h->description);
    return 0;
}

static void handle_dealloc(PyObject *self) {
    bolide_handle *h = (bolide_handle *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (h->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    handle_clear(self);
    Py_CLEAR(h->context);
    bolide_loop *loop = h->loop;
    bolide_freelist_keep(&loop->st->free_handles, self, BOLIDE_HANDLE_FREELIST);
    Py_DECREF(loop);
    Py_DECREF(type);
}

static PyObject *get_args(PyObject *self, void *closure) {
    (void)closure;
    bolide_handle *h = (bolide_handle *)self;
    if (h->callback == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *args = PyTuple_New(h->nargs);
    for (Py_ssize_t i = 0; args != NULL && i < h->nargs; i++) {
        PyTuple_SET_ITEM(args, i, Py_NewRef(arguments(h)[i]));
    }
    return args;
}

static PyObject *describe(bolide_handle *h) {
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(h), "__name__");
    PyObject *parts = name != NULL ? Py_BuildValue("[N]", name) : NULL;
    if (parts == NULL) {
        return NULL;
    }
    PyObject *part = NULL;
    if (h->flags & BOLIDE_HANDLE_CANCELLED) {
        part = PyUnicode_FromString("cancelled");
        if (part == NULL || PyList_Append(parts, part) < 0) {
            goto fail;
        }
        Py_CLEAR(part);
    }
    if (h->flags & BOLIDE_HANDLE_TIMER) {
        PyObject *when = PyFloat_FromDouble(h->when);
        part = when != NULL ? PyUnicode_FromFormat("when=%R", when) : NULL;
        Py_XDECREF(when);
        if (part == NULL || PyList_Append(parts, part) < 0) {
            goto fail;
        }
        Py_CLEAR(part);
    }
    if (h->callback != NULL) {
        PyObject *args = get_args((PyObject *)h, NULL);
        part = args != NULL
                   ? PyObject_CallFunctionObjArgs(h->loop->st->asyncio_format_callback, h->callback, args, NULL)
                   : NULL;
        Py_XDECREF(args);
        if (part == NULL || PyList_Append(parts, part) < 0) {
            goto fail;
        }
        Py_CLEAR(part);
    }
    if (h->source_traceback != NULL && PySequence_Check(h->source_traceback) &&
        PySequence_Size(h->source_traceback) > 0) {
        PyObject *frame = PySequence_GetItem(h->source_traceback, -1);
        PyObject *file = frame != NULL ? PySequence_GetItem(frame, 0) : NULL;
        PyObject *line = frame != NULL ? PySequence_GetItem(frame, 1) : NULL;
        part = file != NULL && line != NULL ? PyUnicode_FromFormat("created at %S:%S", file, line) : NULL;
        Py_XDECREF(frame);
        Py_XDECREF(file);
        Py_XDECREF(line);
        if (part == NULL || PyList_Append(parts, part) < 0) {
            goto fail;
        }
        Py_CLEAR(part);
    }
    PyObject *space = PyUnicode_FromString(" ");
    PyObject *text = space != NULL ? PyUnicode_Join(space, parts) : NULL;
    Py_XDECREF(space);
    Py_DECREF(parts);
    PyObject *whole = text != NULL ? PyUnicode_FromFormat("<%U>", text) : NULL;
    Py_XDECREF(text);
    return whole;
fail:
    Py_XDECREF(part);
    Py_DECREF(parts);
    return NULL;
}

static PyObject *handle_repr(PyObject *self) {
    bolide_handle *h = (bolide_handle *)self;
    return h->description != NULL ? Py_NewRef(h->description) : describe(h);
}

static PyObject *cancel(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_handle_cancel((bolide_handle *)self);
    Py_RETURN_NONE;
}

static PyObject *cancelled(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((bolide_handle *)self)->flags & BOLIDE_HANDLE_CANCELLED);
}

static PyObject *get_context(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return Py_NewRef(((bolide_handle *)self)->context);
}

static PyObject *when(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyFloat_FromDouble(((bolide_handle *)self)->when);
}

static PyObject *run(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_handle *h = (bolide_handle *)self;
    if (h->callback != NULL && !(h->flags & HANDLE_RUNNING)) {
        Py_INCREF(h);
        bolide_handle_run(h);
        Py_DECREF(h);
    }
    Py_RETURN_NONE;
}

static PyObject *is_scheduled(PyObject *self, void *closure) {
    (void)closure;
    return PyBool_FromLong(((bolide_handle *)self)->heap_index >= 0);
}

static PyObject *is_cancelled(PyObject *self, void *closure) {
    (void)closure;
    return cancelled(self, NULL);
}

static PyObject *timer_compare(PyObject *a, PyObject *b, int op) {
    bolide_state *st = ((bolide_handle *)a)->loop->st;
    if (!PyObject_TypeCheck(b, st->TimerHandleType)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    if (op == Py_EQ || op == Py_NE) {
        return PyBool_FromLong((a == b) == (op == Py_EQ));
    }
    double x = ((bolide_handle *)a)->when, y = ((bolide_handle *)b)->when;
    Py_RETURN_RICHCOMPARE(x, y, op);
}

static Py_hash_t timer_hash(PyObject *self) {
    return (Py_hash_t)((uintptr_t)self >> 4);
}

static PyMemberDef handle_members[] = {
    {"_callback", T_OBJECT, offsetof(bolide_handle, callback), READONLY, NULL},
    {"_context", T_OBJECT, offsetof(bolide_handle, context), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(bolide_handle, loop), READONLY, NULL},
    {"_source_traceback", T_OBJECT, offsetof(bolide_handle, source_traceback), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bolide_handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef handle_getset[] = {
    {"_args", get_args, NULL, NULL, NULL},
    {"_cancelled", is_cancelled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef handle_methods[] = {
    {"cancel", cancel, METH_NOARGS,
     PyDoc_STR("cancel()\n--\n\nCancel the callback. Does nothing when it was cancelled or has run.")},
    {"cancelled", cancelled, METH_NOARGS, PyDoc_STR("cancelled()\n--\n\nWhether the callback was cancelled.")},
    {"get_context", get_context, METH_NOARGS,
     PyDoc_STR("get_context()\n--\n\nThe contextvars.Context in which the callback runs.")},
    {"_run", run, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What call_soon() returns: a scheduled callback that can be cancelled.\n\n"
                                  "Source: asyncio.Handle.")},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_repr, handle_repr},
    {Py_tp_members, handle_members},
    {Py_tp_getset, handle_getset},
    {Py_tp_methods, handle_methods},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "bolide.Handle",
    .basicsize = sizeof(bolide_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_BASETYPE,
    .slots = handle_slots,
};

static PyGetSetDef timer_getset[] = {
    {"_scheduled", is_scheduled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef timer_members[] = {
    {"_when", T_DOUBLE, offsetof(bolide_handle, when), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    {"when", when, METH_NOARGS,
     PyDoc_STR("when()\n--\n\nThe deadline, in seconds of loop.time(). Source: asyncio.TimerHandle.when.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What call_later() and call_at() return: a Handle with a deadline.\n\n"
                                  "Source: asyncio.TimerHandle.")},
    {Py_tp_richcompare, timer_compare},
    {Py_tp_hash, timer_hash},
    {Py_tp_getset, timer_getset},
    {Py_tp_members, timer_members},
    {Py_tp_methods, timer_methods},
    {0, NULL},
};

static PyType_Spec timer_spec = {
    .name = "bolide.TimerHandle",
    .basicsize = sizeof(bolide_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = timer_slots,
};

int bolide_handle_init(PyObject *module, bolide_state *st) {
    if (bolide_add_type(module, &handle_spec, NULL, &st->HandleType, true) < 0) {
        return -1;
    }
    return bolide_add_type(module, &timer_spec, st->HandleType, &st->TimerHandleType, true);
}
