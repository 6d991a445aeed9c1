#include "loop/handle.h"

#include <structmember.h>
#include <unistd.h>

#include "loop/loop.h"

enum {
    HANDLE_RUNNING = 1 << 8, /* inside bolide_handle_run(): callback and arguments stay */
    HANDLE_BY_HAND = 1 << 9, /* ... called by the method _run(), in whatever thread */
    HANDLE_HIDDEN = 1 << 10, /* nobody else has seen the context: the garbage collector does not know it */
};

/* Memory kept for new handles: by a loop that has nothing to do, and by one that is at work. A burst that gives its
 * memory back finds fresh pages of the system's the next time, which cost more than all else. */
#define KEPT_IDLE 1024
#define KEPT_BUSY (128 * 1024)

/* From so many scheduled handles on, the contexts of further ones are hidden: each stays for a while, and the collector
 * would look at it again and again. */
#define CROWD 256

/* Handles that free each other: how deep that goes before it goes on without recursion. */
#define NESTED_MAX 32

static inline PyObject **arguments(bolide_handle *h) {
    return (h->nargs > BOLIDE_HANDLE_INLINE_ARGS ? h->more_args : h->args) + 1;
}

static inline bolide_timer *as_timer(bolide_handle *h) {
    return (bolide_timer *)h;
}

/* --- memory: a freelist for each of the two sizes --------------------------------------------- */

static bolide_handle *allocate(bolide_state *st, bool timer) {
    PyTypeObject *type = timer ? st->TimerHandleType : st->HandleType;
    bolide_handle *h = st->free_handles[timer];
    if (h == NULL) {
        return (bolide_handle *)_PyObject_New(type);
    }
    st->free_handles[timer] = (bolide_handle *)h->loop;
    st->free_handle_count--;
    return (bolide_handle *)PyObject_Init((PyObject *)h, type);
}

static void keep_or_free(bolide_state *st, bolide_handle *h) {
    if (st->free_handle_count < KEPT_BUSY && st->HandleType != NULL) {
        bool timer = h->flags & BOLIDE_HANDLE_TIMER;
        h->loop = (struct bolide_loop *)st->free_handles[timer];
        st->free_handles[timer] = h;
        st->free_handle_count++;
    } else {
        PyObject_Free(h);
    }
}

static void free_down_to(bolide_state *st, int count) {
    for (int timer = 0; timer < 2; timer++) {
        while (st->free_handle_count > count && st->free_handles[timer] != NULL) {
            bolide_handle *h = st->free_handles[timer];
            st->free_handles[timer] = (bolide_handle *)h->loop;
            st->free_handle_count--;
            PyObject_Free(h);
        }
    }
}

void bolide_handle_trim_kept(bolide_state *st) {
    free_down_to(st, KEPT_IDLE);
}

void bolide_handle_free_kept(bolide_state *st) {
    free_down_to(st, 0);
}

/* --- the context ------------------------------------------------------------------------------ */

/* Take the context that was just made for `h` out of the collector's sight, if it may have to wait there for long. As a
 * handle is no matter of the collector's, it could not be freed before the handle anyway. */
static void hide_context(bolide_handle *h, bool timer) {
    if (timer ? h->loop->timers.count >= CROWD : bolide_ring_count(&h->loop->ready) >= CROWD) {
        PyObject_GC_UnTrack(h->context);
        h->flags |= HANDLE_HIDDEN;
    }
}

/* Before anyone else sees it. */
static inline void show_context(bolide_handle *h) {
    if (h->flags & HANDLE_HIDDEN) {
        h->flags &= ~(uint32_t)HANDLE_HIDDEN;
        PyObject_GC_Track(h->context);
    }
}

/* --- callback and arguments ------------------------------------------------------------------- */

static void drop_callback(bolide_handle *h) {
    PyObject *callback = h->callback;
    uint32_t nargs = h->nargs;
    h->callback = NULL;
    h->nargs = 0;
    if (nargs > BOLIDE_HANDLE_INLINE_ARGS) {
        PyObject **more = h->more_args;
        for (uint32_t i = 1; i <= nargs; i++) {
            Py_DECREF(more[i]);
        }
        PyMem_Free(more);
    } else if (nargs > 0) {
        PyObject *args[BOLIDE_HANDLE_INLINE_ARGS];
        memcpy(args, h->args + 1, nargs * sizeof(PyObject *));
        for (uint32_t i = 0; i < nargs; i++) {
            Py_DECREF(args[i]);
        }
    }
    Py_XDECREF(callback);
}

static int set_arguments(bolide_handle *h, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs > BOLIDE_HANDLE_INLINE_ARGS) {
        PyObject **more = nargs < INT32_MAX ? PyMem_New(PyObject *, nargs + 1) : NULL;
        if (more == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        h->more_args = more;
    }
    h->nargs = (uint32_t)nargs;
    PyObject **mine = arguments(h);
    for (Py_ssize_t i = 0; i < nargs; i++) {
        mine[i] = Py_NewRef(args[i]);
    }
    return 0;
}

/* Debug mode: keep the stack of the Python code that schedules. */
static int remember_source(bolide_handle *h) {
    h->debug = PyMem_Calloc(1, sizeof(bolide_handle_debug));
    if (h->debug == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyFrameObject *frame = PyEval_GetFrame();
    h->debug->source_traceback =
        frame != NULL ? PyObject_CallOneArg(h->loop->st->asyncio_extract_stack, (PyObject *)frame) : Py_NewRef(Py_None);
    return h->debug->source_traceback == NULL ? -1 : 0;
}

bolide_handle *bolide_handle_new(bolide_loop *loop, bool timer, PyObject *callback, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *context) {
    bolide_state *st = loop->st;
    bool given = context != NULL && context != Py_None;
    PyObject *own_context = given ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (own_context == NULL) {
        return NULL;
    }
    bolide_handle *h = allocate(st, timer);
    if (h == NULL) {
        Py_DECREF(own_context);
        return NULL;
    }
    h->loop = (bolide_loop *)Py_NewRef(loop);
    h->callback = Py_NewRef(callback);
    h->context = own_context;
    h->weakrefs = NULL;
    h->debug = NULL;
    h->nargs = 0;
    h->flags = 0;
    if (timer) {
        h->flags = BOLIDE_HANDLE_TIMER;
        as_timer(h)->when = 0;
        as_timer(h)->heap_index = -1;
    }
    if (!given) {
        hide_context(h, timer);
    }
    if (set_arguments(h, args, nargs) < 0 || (loop->debug && remember_source(h) < 0)) {
        Py_DECREF(h);
        return NULL;
    }
    return h;
}

static PyObject *arguments_tuple(bolide_handle *h) {
    Py_ssize_t nargs = h->nargs;
    PyObject *args = PyTuple_New(nargs);
    if (args != NULL && h->nargs != nargs) { /* the collector has run code that cancelled it */
        Py_DECREF(args);
        return PyTuple_New(0);
    }
    for (Py_ssize_t i = 0; args != NULL && i < nargs; i++) {
        PyTuple_SET_ITEM(args, i, Py_NewRef(arguments(h)[i]));
    }
    return args;
}

/* The callback as asyncio's messages show it: a str, new reference, or NULL with an exception set. */
static PyObject *describe_callback(bolide_handle *h) {
    PyObject *callback = Py_NewRef(h->callback);
    PyObject *args = arguments_tuple(h);
    PyObject *call = args != NULL ? PyTuple_Pack(2, callback, args) : NULL;
    PyObject *kwargs = PyDict_New();
    int status = call != NULL && kwargs != NULL ? 0 : -1;
#if PY_VERSION_HEX >= 0x030D0000
    if (status == 0) { /* the arguments are for debug mode only */
        status = PyDict_SetItemString(kwargs, "debug", h->loop->debug ? Py_True : Py_False);
    }
#endif
    PyObject *text = status == 0 ? PyObject_Call(h->loop->st->asyncio_format_callback, call, kwargs) : NULL;
    Py_XDECREF(kwargs);
    Py_XDECREF(call);
    Py_XDECREF(args);
    Py_DECREF(callback);
    return text;
}

void bolide_handle_report(bolide_handle *h) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *source = describe_callback(h);
    PyObject *message = source != NULL ? PyUnicode_FromFormat("Exception in callback %U", source) : NULL;
    Py_XDECREF(source);
    if (message == NULL) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
    bolide_loop_report_context(h->loop, message, "handle", (PyObject *)h,
                               h->debug != NULL ? h->debug->source_traceback : NULL);
    Py_XDECREF(message);
}

void bolide_handle_run(bolide_handle *h) {
    /* Running already: in another thread, by its method _run(). */
    if ((h->flags & (BOLIDE_HANDLE_CANCELLED | HANDLE_RUNNING)) || h->callback == NULL) {
        return;
    }
    h->flags |= HANDLE_RUNNING;
    show_context(h);
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
        bolide_handle_report(h);
    }
    h->flags &= ~(uint32_t)HANDLE_RUNNING;
    bolide_handle_retire(h);
}

void bolide_handle_retire(bolide_handle *h) {
    bool repeats = (h->flags & (BOLIDE_HANDLE_REPEATS | BOLIDE_HANDLE_CANCELLED)) == BOLIDE_HANDLE_REPEATS;
    if (!repeats && !(h->flags & HANDLE_RUNNING)) {
        drop_callback(h);
    }
}

void bolide_handle_cancel(bolide_handle *h) {
    if (h->flags & BOLIDE_HANDLE_CANCELLED) {
        return;
    }
    h->flags |= BOLIDE_HANDLE_CANCELLED;
    if (h->debug != NULL && h->debug->description == NULL) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        h->debug->description = PyObject_Repr((PyObject *)h);
        PyErr_Restore(type, value, traceback);
    }
    bool scheduled = (h->flags & BOLIDE_HANDLE_TIMER) && as_timer(h)->heap_index >= 0;
    if (scheduled) {
        bolide_timers_remove(&h->loop->timers, as_timer(h));
    }
    if (!(h->flags & HANDLE_RUNNING)) {
        drop_callback(h);
    }
    if (scheduled) {
        Py_DECREF(h);
    }
}

/* --- the types -------------------------------------------------------------------------------- */

int bolide_handle_traverse(bolide_handle *h, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(h));
    Py_VISIT(h->loop);
    Py_VISIT(h->callback);
    if (h->flags & HANDLE_HIDDEN) {
        int stop_code = Py_TYPE(h->context)->tp_traverse(h->context, visit, arg); /* a part of the handle */
        if (stop_code) {
            return stop_code;
        }
    } else {
        Py_VISIT(h->context);
    }
    for (uint32_t i = 0; i < h->nargs; i++) {
        Py_VISIT(arguments(h)[i]);
    }
    return 0;
}

static void dispose(bolide_handle *h) {
    PyTypeObject *type = Py_TYPE(h);
    drop_callback(h);
    show_context(h);
    Py_CLEAR(h->context);
    if (h->debug != NULL) {
        Py_XDECREF(h->debug->source_traceback);
        Py_XDECREF(h->debug->description);
        PyMem_Free(h->debug);
    }
    bolide_loop *loop = h->loop;
    keep_or_free(loop->st, h);
    Py_DECREF(loop);
    Py_DECREF(type);
}

/* An argument of a handle may be a handle, and so on: a chain of many would be more than the C stack takes. What
 * CPython has against that is for garbage-collected types only. */
static void handle_dealloc(PyObject *self) {
    bolide_handle *h = (bolide_handle *)self;
    bolide_state *st = h->loop->st;
    if (h->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    if (st->handle_nesting >= NESTED_MAX) {
        h->weakrefs = (PyObject *)st->doomed_handles;
        st->doomed_handles = h;
        return;
    }
    if (st->handle_nesting++ > 0) {
        dispose(h);
        st->handle_nesting--;
        return;
    }
    bolide_state_retain(st);
    dispose(h);
    while (st->doomed_handles != NULL) {
        h = st->doomed_handles;
        st->doomed_handles = (bolide_handle *)h->weakrefs;
        dispose(h);
    }
    st->handle_nesting--;
    bolide_state_release(st);
}

static PyObject *get_args(PyObject *self, void *closure) {
    (void)closure;
    bolide_handle *h = (bolide_handle *)self;
    if (h->callback == NULL) {
        Py_RETURN_NONE;
    }
    return arguments_tuple(h);
}

/* Append `part`, which is NULL with an exception set when it could not be made; steals it. 0 or -1. */
static int append(PyObject *parts, PyObject *part) {
    int status = part != NULL ? PyList_Append(parts, part) : -1;
    Py_XDECREF(part);
    return status;
}

static PyObject *describe_deadline(bolide_timer *timer) {
    PyObject *when = PyFloat_FromDouble(timer->when);
    PyObject *text = when != NULL ? PyUnicode_FromFormat("when=%R", when) : NULL;
    Py_XDECREF(when);
    return text;
}

/* Where the handle was made, by the last entry of `stack`. */
static PyObject *describe_source(PyObject *stack) {
    PyObject *frame = PySequence_GetItem(stack, -1);
    PyObject *file = frame != NULL ? PySequence_GetItem(frame, 0) : NULL;
    PyObject *line = frame != NULL ? PySequence_GetItem(frame, 1) : NULL;
    PyObject *text = file != NULL && line != NULL ? PyUnicode_FromFormat("created at %S:%S", file, line) : NULL;
    Py_XDECREF(frame);
    Py_XDECREF(file);
    Py_XDECREF(line);
    return text;
}

static int append_parts(bolide_handle *h, PyObject *parts) {
    PyObject *stack = h->debug != NULL ? h->debug->source_traceback : NULL;
    bool has_source = stack != NULL && PySequence_Check(stack) && PySequence_Size(stack) > 0;
    if (append(parts, PyObject_GetAttrString((PyObject *)Py_TYPE(h), "__name__")) < 0 ||
        ((h->flags & BOLIDE_HANDLE_CANCELLED) && append(parts, PyUnicode_FromString("cancelled")) < 0) ||
        ((h->flags & BOLIDE_HANDLE_TIMER) && append(parts, describe_deadline(as_timer(h))) < 0) ||
        (h->callback != NULL && append(parts, describe_callback(h)) < 0)) {
        return -1;
    }
    return has_source ? append(parts, describe_source(stack)) : 0;
}

static PyObject *describe(bolide_handle *h) {
    PyObject *parts = PyList_New(0);
    PyObject *space = PyUnicode_FromString(" ");
    PyObject *text = NULL;
    if (parts != NULL && space != NULL && append_parts(h, parts) == 0) {
        text = PyUnicode_Join(space, parts);
    }
    Py_XDECREF(space);
    Py_XDECREF(parts);
    PyObject *whole = text != NULL ? PyUnicode_FromFormat("<%U>", text) : NULL;
    Py_XDECREF(text);
    return whole;
}

static PyObject *handle_repr(PyObject *self) {
    bolide_handle *h = (bolide_handle *)self;
    return h->debug != NULL && h->debug->description != NULL ? Py_NewRef(h->debug->description) : describe(h);
}

#if PY_VERSION_HEX >= 0x030E0000
#define WAIT_MIN_US 20
#define WAIT_MAX_US 2000

/* As asyncio since CPython 3.14: who asks from another thread while the loop runs the callback waits for its end. 0, or
 * -1 with an exception set, by a signal. */
static int wait_for_end(bolide_handle *h) {
    const uint32_t mask = BOLIDE_HANDLE_SHARED | HANDLE_RUNNING | HANDLE_BY_HAND;
    unsigned delay = WAIT_MIN_US;
    while ((h->flags & mask) == (BOLIDE_HANDLE_SHARED | HANDLE_RUNNING) &&
           h->loop->thread_id != PyThread_get_thread_ident()) {
        PyThreadState *state = PyEval_SaveThread();
        usleep(delay);
        PyEval_RestoreThread(state);
        delay = delay < WAIT_MAX_US ? 2 * delay : delay;
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}
#else
static int wait_for_end(bolide_handle *h) {
    (void)h;
    return 0;
}
#endif

static PyObject *cancel(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    if (wait_for_end((bolide_handle *)self) < 0) {
        return NULL;
    }
    bolide_handle_cancel((bolide_handle *)self);
    Py_RETURN_NONE;
}

static PyObject *cancelled(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    if (wait_for_end((bolide_handle *)self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(((bolide_handle *)self)->flags & BOLIDE_HANDLE_CANCELLED);
}

static PyObject *get_context(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    show_context((bolide_handle *)self);
    return Py_NewRef(((bolide_handle *)self)->context);
}

static PyObject *when(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyFloat_FromDouble(((bolide_timer *)self)->when);
}

static PyObject *run(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_handle *h = (bolide_handle *)self;
    if (h->callback != NULL && !(h->flags & HANDLE_RUNNING)) {
        Py_INCREF(h);
        h->flags |= HANDLE_BY_HAND;
        bolide_handle_run(h);
        h->flags &= ~(uint32_t)HANDLE_BY_HAND;
        Py_DECREF(h);
    }
    Py_RETURN_NONE;
}

static PyObject *is_scheduled(PyObject *self, void *closure) {
    (void)closure;
    return PyBool_FromLong(((bolide_timer *)self)->heap_index >= 0);
}

static PyObject *get_source_traceback(PyObject *self, void *closure) {
    (void)closure;
    bolide_handle *h = (bolide_handle *)self;
    return Py_NewRef(h->debug != NULL ? h->debug->source_traceback : Py_None);
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
    double x = ((bolide_timer *)a)->when, y = ((bolide_timer *)b)->when;
    Py_RETURN_RICHCOMPARE(x, y, op);
}

static Py_hash_t timer_hash(PyObject *self) {
    PyObject *when = PyFloat_FromDouble(as_timer((bolide_handle *)self)->when);
    Py_hash_t hash = when != NULL ? PyObject_Hash(when) : -1;
    Py_XDECREF(when);
    return hash;
}

static PyMemberDef handle_members[] = {
    {"_callback", T_OBJECT, offsetof(bolide_handle, callback), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(bolide_handle, loop), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bolide_handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_context_attribute(PyObject *self, void *closure) {
    (void)closure;
    return get_context(self, NULL);
}

/* For isinstance(handle, asyncio.Handle): the class of asyncio's that stands in the slot of the state. To inherit from
 * it would bring its attributes, twice as much memory and the garbage collector. */
static PyObject *get_class(PyObject *self, void *slot) {
    PyObject *class = *(PyObject **)((char *)((bolide_handle *)self)->loop->st + (size_t)slot);
    return Py_NewRef(class != NULL ? class : (PyObject *)Py_TYPE(self)); /* at the interpreter's exit there is none */
}

static PyGetSetDef handle_getset[] = {
    {"__class__", get_class, NULL, NULL, (void *)offsetof(bolide_state, asyncio_Handle)},
    {"_args", get_args, NULL, NULL, NULL},
    {"_context", get_context_attribute, NULL, NULL, NULL},
    {"_cancelled", is_cancelled, NULL, NULL, NULL},
    {"_source_traceback", get_source_traceback, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef handle_methods[] = {
    {"cancel", cancel, METH_NOARGS,
     PyDoc_STR("cancel($self, /)\n--\n\nCancel the callback. Does nothing when it was cancelled or has run.")},
    {"cancelled", cancelled, METH_NOARGS, PyDoc_STR("cancelled($self, /)\n--\n\nWhether the callback was cancelled.")},
    {"get_context", get_context, METH_NOARGS,
     PyDoc_STR("get_context($self, /)\n--\n\nThe contextvars.Context in which the callback runs.")},
    {"_run", run, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What call_soon() returns: a scheduled callback that can be cancelled.\n\n"
                                  "Source: asyncio.Handle.")},
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
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_BASETYPE,
    .slots = handle_slots,
};

static PyGetSetDef timer_getset[] = {
    {"__class__", get_class, NULL, NULL, (void *)offsetof(bolide_state, asyncio_TimerHandle)},
    {"_scheduled", is_scheduled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef timer_members[] = {
    {"_when", T_DOUBLE, offsetof(bolide_timer, when), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    {"when", when, METH_NOARGS,
     PyDoc_STR("when($self, /)\n--\n\nThe deadline, in seconds of loop.time(). Source: asyncio.TimerHandle.when.")},
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
    .basicsize = sizeof(bolide_timer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = timer_slots,
};

int bolide_handle_init(PyObject *module, bolide_state *st) {
    if (bolide_add_type(module, &handle_spec, NULL, &st->HandleType, true) < 0) {
        return -1;
    }
    return bolide_add_type(module, &timer_spec, (PyObject *)st->HandleType, &st->TimerHandleType, true);
}
