/* What runs when: call_soon() and its kin, futures and tasks. */
#include "loop/loop.h"

#include <math.h>

#include "common/arguments.h"

#define KNOWN_KEYWORDS 3 /* of create_task(): name, context, eager_start */

/* --- for C ------------------------------------------------------------------------------------ */

/* A handle on the ready ring. New reference, or NULL with an exception set. */
static bolide_handle *push_soon(bolide_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *context) {
    bolide_handle *handle = bolide_handle_new(loop, false, callback, args, nargs, context);
    if (handle != NULL && bolide_ring_push(&loop->ready, (bolide_handle *)Py_NewRef(handle)) < 0) {
        Py_DECREF(handle);
        Py_CLEAR(handle);
    }
    return handle;
}

int bolide_loop_schedule(bolide_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *context) {
    if (bolide_loop_check_closed(loop) < 0) {
        return -1;
    }
    bolide_handle *handle = push_soon(loop, callback, args, nargs, context);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

PyObject *bolide_loop_make(bolide_loop *loop, PyObject *type, PyObject *arg) {
    if (loop->keywords == NULL) {
        PyObject *argv[] = {NULL, arg != NULL ? arg : (PyObject *)loop, (PyObject *)loop};
        size_t count = arg != NULL ? 1 : 0;
        return PyObject_Vectorcall(type, argv + 1, count | PY_VECTORCALL_ARGUMENTS_OFFSET, loop->st->loop_names);
    }
    PyObject *args = arg != NULL ? PyTuple_Pack(1, arg) : PyTuple_New(0);
    PyObject *made = args != NULL ? PyObject_Call(type, args, loop->keywords) : NULL;
    Py_XDECREF(args);
    return made;
}

PyObject *bolide_loop_create_future(bolide_loop *loop) {
    return bolide_loop_make(loop, loop->st->asyncio_Future, NULL);
}

/* A TimerHandle with the deadline `when`, in seconds of loop.time(). New reference, or NULL with an exception set. */
static PyObject *push_timer(bolide_loop *loop, double when, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *context) {
    bolide_handle *handle = bolide_handle_new(loop, true, callback, args, nargs, context);
    if (handle == NULL) {
        return NULL;
    }
    bolide_timer *timer = (bolide_timer *)handle;
    timer->when = when;
    if (bolide_timers_add(&loop->timers, timer) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    return (PyObject *)handle;
}

PyObject *bolide_loop_call_later(bolide_loop *loop, double seconds, PyObject *callback, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *context) {
    double now = bolide_loop_now(loop);
    if ((now == -1 && PyErr_Occurred()) || bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    return push_timer(loop, now + seconds, callback, args, nargs, context);
}

void bolide_loop_cancel(PyObject *handle) {
    bolide_handle_cancel((bolide_handle *)handle);
}

/* --- methods: callbacks ----------------------------------------------------------------------- */

/* Debug mode: the checks that asyncio makes, by its own methods (callback type, calling thread). */
static int debug_checks(bolide_loop *loop, PyObject *callback, const char *method, bool check_thread) {
    PyObject *result = PyObject_CallMethod((PyObject *)loop, "_check_callback", "Os", callback, method);
    if (result != NULL && check_thread) {
        Py_DECREF(result);
        result = PyObject_CallMethod((PyObject *)loop, "_check_thread", NULL);
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The arguments of a scheduling method: `args` holds what it requires and the callback's own ones after that. */
typedef struct {
    PyObject *const *args;
    Py_ssize_t nargs;
    PyObject *context;  /* NULL or None: a copy of the current one */
    PyObject *named[2]; /* when one of the required ones came by keyword: all of them */
} bolide_call;

/* The keyword `name`: a required argument by its place in `required`, or `required[count]` for the context. -1 with
 * TypeError set for any other and for what was given by position too. */
static int place_of(const char *method, PyObject *name, const char *const *required, Py_ssize_t count,
                    Py_ssize_t nargs) {
    for (Py_ssize_t i = 0; i <= count; i++) {
        if (PyUnicode_CompareWithASCIIString(name, i < count ? required[i] : "context") == 0) {
            if (i < count && i < nargs) {
                PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R", method, name);
                return -1;
            }
            return (int)i;
        }
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", method, name);
    return -1;
}

/* Is it the keyword that tasks and futures give with each call? Seen without a call: theirs is not the interned string.
 */
static inline bool is_context(PyObject *name) {
    return PyUnicode_IS_COMPACT_ASCII(name) && PyUnicode_GET_LENGTH(name) == 7 &&
           memcmp(PyUnicode_1BYTE_DATA(name), "context", 7) == 0;
}

static int parse_keywords(const char *method, const char *const *required, Py_ssize_t count, PyObject *names,
                          bolide_call *call) {
    PyObject *const *values = call->args + call->nargs;
    bool by_keyword = false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int place = is_context(name) ? (int)count : place_of(method, name, required, count, call->nargs);
        if (place < 0) {
            return -1;
        }
        by_keyword = by_keyword || place < count;
        *(place < count ? &call->named[place] : &call->context) = values[i];
    }
    if (by_keyword) {
        memcpy(call->named, call->args, (size_t)call->nargs * sizeof(PyObject *));
        call->args = call->named;
        call->nargs = count;
    }
    if (call->context != NULL && call->context != Py_None && !PyContext_CheckExact(call->context)) {
        PyErr_Format(PyExc_TypeError, "%s(): context must be a contextvars.Context, not %.100s", method,
                     Py_TYPE(call->context)->tp_name);
        return -1;
    }
    return 0;
}

/* Parse the arguments of a method that requires the `count` (1 or 2) `required` ones. 0, or -1 with TypeError set. */
static int parse_call(const char *method, const char *const *required, Py_ssize_t count, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *names, bolide_call *call) {
    *call = (bolide_call){.args = args, .nargs = nargs};
    if (names != NULL && parse_keywords(method, required, count, names, call) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i >= call->nargs || call->args[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", method, required[i]);
            return -1;
        }
    }
    return 0;
}

static const char *const SOON_REQUIRED[] = {"callback"};

/* A method that makes a timer. */
typedef struct {
    const char *name;
    const char *required[2];
    const char *none_refused; /* what is said of None for a number of seconds */
} timer_method;

static const timer_method LATER = {"call_later", {"delay", "callback"}, "delay must not be None"};
static const timer_method AT = {"call_at", {"when", "callback"}, "when cannot be None"};

static PyObject *call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    bolide_loop *loop = (bolide_loop *)self;
    bolide_call call;
    if (parse_call("call_soon", SOON_REQUIRED, 1, args, nargs, names, &call) < 0 ||
        bolide_loop_check_closed(loop) < 0 ||
        (loop->debug && debug_checks(loop, call.args[0], "call_soon", true) < 0)) {
        return NULL;
    }
    return (PyObject *)push_soon(loop, call.args[0], call.args + 1, call.nargs - 1, call.context);
}

static PyObject *call_soon_threadsafe(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    bolide_loop *loop = (bolide_loop *)self;
    bolide_call call;
    if (parse_call("call_soon_threadsafe", SOON_REQUIRED, 1, args, nargs, names, &call) < 0 ||
        bolide_loop_check_closed(loop) < 0 ||
        (loop->debug && debug_checks(loop, call.args[0], "call_soon_threadsafe", false) < 0)) {
        return NULL;
    }
    bolide_handle *handle = push_soon(loop, call.args[0], call.args + 1, call.nargs - 1, call.context);
    if (handle != NULL) {
        handle->flags |= BOLIDE_HANDLE_SHARED;
        bolide_loop_wake(loop);
    }
    return (PyObject *)handle;
}

/* The number of seconds in `value`. -1 with an exception set on failure. */
static double parse_seconds(const timer_method *method, PyObject *value) {
    if (value == Py_None) {
        PyErr_SetString(PyExc_TypeError, method->none_refused);
        return -1;
    }
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds)) {
        PyErr_Format(PyExc_ValueError, "%s(): %s must not be NaN", method->name, method->required[0]);
        return -1;
    }
    return seconds;
}

static PyObject *schedule_timer(bolide_loop *loop, const timer_method *method, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *names, double base) {
    bolide_call call;
    if (parse_call(method->name, method->required, 2, args, nargs, names, &call) < 0) {
        return NULL;
    }
    double seconds = parse_seconds(method, call.args[0]);
    if ((seconds == -1 && PyErr_Occurred()) || bolide_loop_check_closed(loop) < 0 ||
        (loop->debug && debug_checks(loop, call.args[1], "call_at", true) < 0)) { /* asyncio's own calls that */
        return NULL;
    }
    return push_timer(loop, base + seconds, call.args[1], call.args + 2, call.nargs - 2, call.context);
}

/* As asyncio: self.call_at(self.time() + delay, callback, *args, context=context), of a subclass that has its own. */
static PyObject *call_own_at(bolide_loop *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *names, double base) {
    bolide_call call;
    if (parse_call(LATER.name, LATER.required, 2, args, nargs, names, &call) < 0) {
        return NULL;
    }
    double seconds = parse_seconds(&LATER, call.args[0]);
    if (seconds == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *method = PyObject_GetAttr((PyObject *)loop, loop->st->str_call_at);
    PyObject *positional = PyTuple_New(call.nargs);
    PyObject *when = PyFloat_FromDouble(base + seconds);
    PyObject *context = call.context != NULL ? call.context : Py_None;
    PyObject *kwargs = PyDict_New();
    PyObject *handle = NULL;
    if (positional != NULL && when != NULL) {
        PyTuple_SET_ITEM(positional, 0, Py_NewRef(when));
        for (Py_ssize_t i = 1; i < call.nargs; i++) {
            PyTuple_SET_ITEM(positional, i, Py_NewRef(call.args[i]));
        }
        if (method != NULL && kwargs != NULL && PyDict_SetItem(kwargs, loop->st->str_context, context) == 0) {
            handle = PyObject_Call(method, positional, kwargs);
        }
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(when);
    Py_XDECREF(positional);
    Py_XDECREF(method);
    return handle;
}

static PyObject *call_later(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    bolide_loop *loop = (bolide_loop *)self;
    double now = bolide_loop_now(loop);
    if (now == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (loop->own_call_at) {
        return call_own_at(loop, args, nargs, names, now);
    }
    return schedule_timer(loop, &LATER, args, nargs, names, now);
}

static PyObject *call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    return schedule_timer((bolide_loop *)self, &AT, args, nargs, names, 0);
}

/* --- methods: futures and tasks --------------------------------------------------------------- */

static PyObject *create_future(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return bolide_loop_create_future((bolide_loop *)self);
}

/* Are all of them keywords that create_task() of this Python has? "eager_start" came with tasks that know it, though
 * asyncio's own loops pass it on only since CPython 3.13.3. Instances of a subclass of str may well give the same one
 * many times. */
static bool are_known_keywords(PyObject *names, Py_ssize_t count) {
    if (count > KNOWN_KEYWORDS) {
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        bool known = is_context(name) || PyUnicode_CompareWithASCIIString(name, "name") == 0;
#if PY_VERSION_HEX >= 0x030C0000
        known = known || PyUnicode_CompareWithASCIIString(name, "eager_start") == 0;
#endif
        if (!known) {
            return false;
        }
    }
    return true;
}

/* asyncio.tasks.Task(coro, loop=self, **kwargs), whatever class a program has put there; when a task factory is set,
 * or for keywords that this Python may not know, asyncio's own method. */
static PyObject *create_task(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    bolide_loop *loop = (bolide_loop *)self;
    bolide_state *st = loop->st;
    Py_ssize_t count = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    if (nargs != 1 || (loop->task_factory != NULL && loop->task_factory != Py_None) ||
        !are_known_keywords(names, count)) {
        PyObject *argv[16] = {self};
        if (nargs + count > 15) {
            PyErr_SetString(PyExc_TypeError, "create_task() got too many arguments");
            return NULL;
        }
        memcpy(argv + 1, args, (size_t)(nargs + count) * sizeof(PyObject *));
        return PyObject_Vectorcall(st->asyncio_create_task, argv, (size_t)nargs + 1, names);
    }
    if (bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    PyObject *class = PyDict_GetItemWithError(st->asyncio_tasks, st->str_Task);
    if (class == st->asyncio_Task && count == 0) {
        return bolide_loop_make(loop, class, args[0]);
    }
    PyObject *argv[3 + KNOWN_KEYWORDS] = {NULL, args[0], self};
    PyObject *all = class != NULL ? PyTuple_New(count + 1) : NULL;
    if (all == NULL) {
        if (class == NULL && !PyErr_Occurred()) {
            PyErr_SetString(PyExc_AttributeError, "module 'asyncio.tasks' has no attribute 'Task'");
        }
        return NULL;
    }
    PyTuple_SET_ITEM(all, 0, Py_NewRef(st->str_loop));
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTuple_SET_ITEM(all, i + 1, Py_NewRef(PyTuple_GET_ITEM(names, i)));
        argv[3 + i] = args[1 + i];
    }
    Py_INCREF(class);
    PyObject *task = PyObject_Vectorcall(class, argv + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, all);
    Py_DECREF(class);
    Py_DECREF(all);
    return task;
}

static PyObject *loop_time(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    (void)self;
    return PyFloat_FromDouble(bolide_loop_time());
}

/* Is the method `name` of the loop another than `function`? So is one that cannot be had. */
static bool is_overridden(PyObject *self, PyObject *name, PyCFunction function) {
    PyObject *method = PyObject_GetAttr(self, name);
    bool same = method != NULL && PyCFunction_Check(method) && PyCFunction_GET_FUNCTION(method) == function;
    Py_XDECREF(method);
    PyErr_Clear();
    return !same;
}

void bolide_loop_find_overrides(bolide_loop *loop) {
    PyObject *self = (PyObject *)loop;
    loop->own_time = is_overridden(self, loop->st->str_time, loop_time);
    loop->own_call_at = is_overridden(self, loop->st->str_call_at, (PyCFunction)(void (*)(void))call_at);
}

PyMethodDef bolide_schedule_methods[] = {
    {"call_soon", BOLIDE_FASTCALL_KEYWORDS(call_soon),
     PyDoc_STR("call_soon($self, callback, *args, context=None)\n--\n\nCall callback(*args) on the next turn, in order "
               "of registration, in context (a contextvars.Context; default: a copy of the current one).\n\nReturns a "
               "Handle. Raises RuntimeError when the loop is closed. Source: asyncio.loop.call_soon.")},
    {"call_soon_threadsafe", BOLIDE_FASTCALL_KEYWORDS(call_soon_threadsafe),
     PyDoc_STR("call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nlike call_soon(), from any thread, "
               "and wakes the loop.")},
    {"call_later", BOLIDE_FASTCALL_KEYWORDS(call_later),
     PyDoc_STR(
         "call_later($self, delay, callback, *args, context=None)\n--\n\nCall callback(*args) after delay "
         "seconds, never earlier.\n\nReturns a TimerHandle. Raises TypeError when delay is None, RuntimeError when "
         "the loop is closed.")},
    {"call_at", BOLIDE_FASTCALL_KEYWORDS(call_at),
     PyDoc_STR("call_at($self, when, callback, *args, context=None)\n--\n\nCall callback(*args) at the time when, in "
               "seconds of loop.time(). Returns a TimerHandle.")},
    {"create_future", create_future, METH_NOARGS,
     PyDoc_STR("create_future($self, /)\n--\n\nA new asyncio.Future of this loop.")},
    {"create_task", BOLIDE_FASTCALL_KEYWORDS(create_task),
     PyDoc_STR("create_task($self, coro, /, **kwargs)\n--\n\nSchedule a coroutine; the keywords (name, context, "
               "eager_start) are those of the running Python's asyncio.Task or task factory. Returns the Task.")},
    {"time", loop_time, METH_NOARGS, PyDoc_STR("time($self, /)\n--\n\nThe exact monotonic clock, in seconds.")},
    {NULL, NULL, 0, NULL},
};
