/* The Python face of the loop. */
#include "loop/loop.h"

#include <errno.h>
#include <math.h>
#include <structmember.h>
#include <unistd.h>

#include "common/error.h"
#include "common/memory.h"
#include "loop/sock.h"
#include "transport/datagram.h"
#include "transport/transport.h"

#define KNOWN_KEYWORDS 3 /* of create_task(): name, context, eager_start */

/* --- scheduling ------------------------------------------------------------------------------- */

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
static const char *const LATER_REQUIRED[] = {"delay", "callback"};
static const char *const AT_REQUIRED[] = {"when", "callback"};

static PyObject *call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    bolide_loop *loop = (bolide_loop *)self;
    bolide_call call;
    if (parse_call("call_soon", SOON_REQUIRED, 1, args, nargs, names, &call) < 0 ||
        bolide_loop_check_closed(loop) < 0 ||
        (loop->debug && debug_checks(loop, call.args[0], "call_soon", true) < 0)) {
        return NULL;
    }
    return (PyObject *)bolide_loop_push_soon(loop, call.args[0], call.args + 1, call.nargs - 1, call.context);
}

static PyObject *call_soon_threadsafe(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    bolide_loop *loop = (bolide_loop *)self;
    bolide_call call;
    if (parse_call("call_soon_threadsafe", SOON_REQUIRED, 1, args, nargs, names, &call) < 0 ||
        bolide_loop_check_closed(loop) < 0 ||
        (loop->debug && debug_checks(loop, call.args[0], "call_soon_threadsafe", false) < 0)) {
        return NULL;
    }
    bolide_handle *handle = bolide_loop_push_soon(loop, call.args[0], call.args + 1, call.nargs - 1, call.context);
    if (handle != NULL) {
        handle->flags |= BOLIDE_HANDLE_SHARED;
        bolide_loop_wake(loop);
    }
    return (PyObject *)handle;
}

/* The number of seconds in `value`, which must not be None. -1 with an exception set on failure. */
static double parse_seconds(PyObject *value, const char *method, const char *name) {
    if (value == Py_None) {
        PyErr_Format(PyExc_TypeError, "%s %s be None", name, method[5] == 'l' ? "must not" : "cannot");
        return -1;
    }
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds)) {
        PyErr_Format(PyExc_ValueError, "%s(): %s must not be NaN", method, name);
        return -1;
    }
    return seconds;
}

static PyObject *schedule_timer(bolide_loop *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                                const char *method, const char *const *required, double base) {
    bolide_call call;
    if (parse_call(method, required, 2, args, nargs, names, &call) < 0) {
        return NULL;
    }
    double seconds = parse_seconds(call.args[0], method, required[0]);
    if ((seconds == -1 && PyErr_Occurred()) || bolide_loop_check_closed(loop) < 0 ||
        (loop->debug && debug_checks(loop, call.args[1], "call_at", true) < 0)) { /* asyncio's own calls that */
        return NULL;
    }
    return bolide_loop_push_timer(loop, base + seconds, call.args + 1, call.nargs - 1, call.context);
}

/* As asyncio: self.call_at(self.time() + delay, callback, *args, context=context), of a subclass that has its own. */
static PyObject *call_own_at(bolide_loop *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *names, double base) {
    bolide_call call;
    if (parse_call("call_later", LATER_REQUIRED, 2, args, nargs, names, &call) < 0) {
        return NULL;
    }
    double seconds = parse_seconds(call.args[0], "call_later", "delay");
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
    return schedule_timer(loop, args, nargs, names, "call_later", LATER_REQUIRED, now);
}

static PyObject *call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    return schedule_timer((bolide_loop *)self, args, nargs, names, "call_at", AT_REQUIRED, 0);
}

/* --- the other methods ------------------------------------------------------------------------ */

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

static PyObject *stop(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_loop *loop = (bolide_loop *)self;
    loop->stopping = true;
    Py_RETURN_NONE;
}

/* Is the method `name` of the loop another than `function`? So is one that cannot be had. */
static bool is_overridden(PyObject *self, PyObject *name, PyCFunction function) {
    PyObject *method = PyObject_GetAttr(self, name);
    bool same = method != NULL && PyCFunction_Check(method) && PyCFunction_GET_FUNCTION(method) == function;
    Py_XDECREF(method);
    PyErr_Clear();
    return !same;
}

/* See which methods that C would call by itself a subclass, or the program for this loop alone, has replaced. */
static void find_overrides(bolide_loop *loop) {
    PyObject *self = (PyObject *)loop;
    loop->own_time = is_overridden(self, loop->st->str_time, loop_time);
    loop->own_call_at = is_overridden(self, loop->st->str_call_at, (PyCFunction)(void (*)(void))call_at);
}

/* loop._run(): turns until stop() or a KeyboardInterrupt, SystemExit from a callback. The Python side wraps it. */
static PyObject *run(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_loop *loop = (bolide_loop *)self;
    find_overrides(loop); /* before the checks: it may run any code */
    if (bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    if (loop->running) {
        PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
        return NULL;
    }
    if (loop->abandoned) {
        PyErr_SetString(PyExc_RuntimeError, "This event loop was lost when the process forked");
        return NULL;
    }
    bolide_loop_turns(loop);
    if (loop->fatal != NULL) {
        PyObject *exception = loop->fatal;
        loop->fatal = NULL;
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *is_running(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((bolide_loop *)self)->running);
}

/* asyncio's C code asks for each future and task that it makes. */
static PyObject *is_debugged(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((bolide_loop *)self)->debug);
}

static PyObject *is_closed(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((bolide_loop *)self)->closed);
}

static PyObject *check_closed(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    if (bolide_loop_check_closed((bolide_loop *)self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *write_to_self(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_loop_wake((bolide_loop *)self);
    Py_RETURN_NONE;
}

static PyObject *after_fork(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_loop *loop = (bolide_loop *)self;
    int status = bolide_loop_after_fork(loop);
    return status < 0 ? bolide_error_set(status) : PyBool_FromLong(!loop->closed && !loop->abandoned);
}

static PyObject *close_loop(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_loop *loop = (bolide_loop *)self;
    if (loop->running) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    bolide_loop_teardown(loop);
    Py_RETURN_NONE;
}

/* --- the type --------------------------------------------------------------------------------- */

static PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)args;
    (void)kwargs;
    bolide_state *st = bolide_state_of_type(type);
    if (st == NULL) {
        return NULL;
    }
    if (st->LoopType == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bolide was taken down with the interpreter");
        return NULL;
    }
    bolide_loop *loop = (bolide_loop *)type->tp_alloc(type, 0);
    if (loop == NULL) {
        return NULL;
    }
    loop->st = st;
    bolide_state_retain(st);
    loop->watchers.fd = -1;
    loop->resources.next = loop->resources.prev = &loop->resources;
    loop->slow_callback = 0.1;
    loop->closed = true;
    loop->read_buf = PyMem_RawMalloc(BOLIDE_READ_BUF);
    if (loop->read_buf == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    if (bolide_ring_init(&loop->ready) < 0) {
        goto fail;
    }
    int status = bolide_loop_open(loop);
    if (status < 0) {
        bolide_error_set(status);
        goto fail;
    }
    loop->closed = false;
    find_overrides(loop);
    bolide_memory_keep();
    return (PyObject *)loop;
fail:
    Py_DECREF(loop);
    return NULL;
}

static int loop_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    (void)self;
    (void)args;
    (void)kwargs;
    return 0;
}

/* Tests put a clock of their own in the place of loop.time(). */
static int loop_setattr(PyObject *self, PyObject *name, PyObject *value) {
    bolide_loop *loop = (bolide_loop *)self;
    int status = PyObject_GenericSetAttr(self, name, value);
    if (status == 0 && PyUnicode_Check(name) &&
        (PyUnicode_Compare(name, loop->st->str_time) == 0 || PyUnicode_Compare(name, loop->st->str_call_at) == 0)) {
        find_overrides(loop);
    }
    return status;
}

/* A handle that only the loop refers to is a part of it. One that others hold too is left alone: as it is not known to
 * the collector, those references must count as coming from outside. */
#define VISIT_HANDLE(handle)                                                                                           \
    do {                                                                                                               \
        bolide_handle *visited = (handle);                                                                             \
        int stop_code = Py_REFCNT(visited) == 1 ? bolide_handle_traverse(visited, visit, arg) : 0;                     \
        if (stop_code) {                                                                                               \
            return stop_code;                                                                                          \
        }                                                                                                              \
    } while (0)

static int loop_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_loop *loop = (bolide_loop *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(loop->fatal);
    Py_VISIT(loop->task_factory);
    Py_VISIT(loop->keywords);
    for (size_t i = loop->ready.head; i != loop->ready.tail; i++) {
        VISIT_HANDLE(loop->ready.slots[i & loop->ready.mask]);
    }
    for (Py_ssize_t i = 0; i < loop->timers.count; i++) {
        VISIT_HANDLE((bolide_handle *)loop->timers.entries[i].timer);
    }
    for (bolide_resource *res = loop->resources.next; res != &loop->resources; res = res->next) {
        int stop_code = res->traverse != NULL ? res->traverse(res, visit, arg) : 0;
        if (stop_code) {
            return stop_code;
        }
    }
    return bolide_watchers_traverse(loop, visit, arg);
}

static int loop_clear(PyObject *self) {
    bolide_loop *loop = (bolide_loop *)self;
    bolide_loop_teardown(loop);
    Py_CLEAR(loop->fatal);
    Py_CLEAR(loop->task_factory);
    Py_CLEAR(loop->keywords);
    return 0;
}

static void loop_dealloc(PyObject *self) {
    bolide_loop *loop = (bolide_loop *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (loop->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    loop_clear(self);
    bolide_ring_free(&loop->ready);
    bolide_state_release(loop->st);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_thread_id(PyObject *self, void *closure) {
    (void)closure;
    bolide_loop *loop = (bolide_loop *)self;
    if (loop->thread_id == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(loop->thread_id);
}

/* asyncio's own code sets it when it begins and ends a run; this loop keeps the account itself. */
static int set_ignored(PyObject *self, PyObject *value, void *closure) {
    (void)self;
    (void)value;
    (void)closure;
    return 0;
}

static PyMemberDef loop_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bolide_loop, weakrefs), READONLY, NULL},
    {"_task_factory", T_OBJECT, offsetof(bolide_loop, task_factory), 0, NULL},
    {"slow_callback_duration", T_DOUBLE, offsetof(bolide_loop, slow_callback), 0,
     PyDoc_STR("Debug mode: callbacks that take this long (seconds) are logged. Default 0.1.")},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_closed(PyObject *self, void *closure) {
    (void)closure;
    return is_closed(self, NULL);
}

static PyObject *get_stopping(PyObject *self, void *closure) {
    (void)closure;
    return PyBool_FromLong(((bolide_loop *)self)->stopping);
}

static PyObject *get_debug(PyObject *self, void *closure) {
    (void)closure;
    return PyBool_FromLong(((bolide_loop *)self)->debug);
}

/* Whatever its truth is: set_debug(os.environ.get("DEBUG")) is common. */
static int set_debug(PyObject *self, PyObject *value, void *closure) {
    (void)closure;
    int debug = value != NULL ? PyObject_IsTrue(value) : 0;
    if (debug < 0) {
        return -1;
    }
    ((bolide_loop *)self)->debug = debug != 0;
    return 0;
}

static PyGetSetDef loop_getset[] = {
    {"_debug", get_debug, set_debug, NULL, NULL},
    {"_thread_id", get_thread_id, set_ignored, NULL, NULL},
    {"_closed", get_closed, set_ignored, NULL, NULL},
    {"_stopping", get_stopping, set_ignored, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FASTCALL_KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef loop_methods[] = {
    {"call_soon", FASTCALL_KEYWORDS(call_soon),
     PyDoc_STR("call_soon($self, callback, *args, context=None)\n--\n\nCall callback(*args) on the next turn, in order "
               "of registration, in context (a contextvars.Context; default: a copy of the current one).\n\nReturns a "
               "Handle. Raises RuntimeError when the loop is closed. Source: asyncio.loop.call_soon.")},
    {"call_soon_threadsafe", FASTCALL_KEYWORDS(call_soon_threadsafe),
     PyDoc_STR("call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nlike call_soon(), from any thread, "
               "and wakes the loop.")},
    {"call_later", FASTCALL_KEYWORDS(call_later),
     PyDoc_STR(
         "call_later($self, delay, callback, *args, context=None)\n--\n\nCall callback(*args) after delay "
         "seconds, never earlier.\n\nReturns a TimerHandle. Raises TypeError when delay is None, RuntimeError when "
         "the loop is closed.")},
    {"call_at", FASTCALL_KEYWORDS(call_at),
     PyDoc_STR("call_at($self, when, callback, *args, context=None)\n--\n\nCall callback(*args) at the time when, in "
               "seconds of loop.time(). Returns a TimerHandle.")},
    {"create_future", create_future, METH_NOARGS,
     PyDoc_STR("create_future()\n--\n\nA new asyncio.Future of this loop.")},
    {"create_task", FASTCALL_KEYWORDS(create_task),
     PyDoc_STR("create_task($self, coro, /, **kwargs)\n--\n\nSchedule a coroutine; the keywords (name, context, "
               "eager_start) are those of the running Python's asyncio.Task or task factory. Returns the Task.")},
    {"time", loop_time, METH_NOARGS, PyDoc_STR("time()\n--\n\nThe exact monotonic clock, in seconds.")},
    {"stop", stop, METH_NOARGS, PyDoc_STR("stop()\n--\n\nEnd run_forever() after the current turn.")},
    {"is_running", is_running, METH_NOARGS, PyDoc_STR("is_running()\n--\n\nWhether run_forever() is at work.")},
    {"is_closed", is_closed, METH_NOARGS, PyDoc_STR("is_closed()\n--\n\nWhether close() was called.")},
    {"get_debug", is_debugged, METH_NOARGS, PyDoc_STR("get_debug()\n--\n\nWhether the debug mode is on.")},
    {"_run", run, METH_NOARGS, PyDoc_STR("_run()\n--\n\nTurns until stop(): the heart of run_forever().")},
    {"_close", close_loop, METH_NOARGS, PyDoc_STR("_close()\n--\n\nClose all that is open: the heart of close().")},
    {"_after_fork", after_fork, METH_NOARGS,
     PyDoc_STR("_after_fork()\n--\n\nIn the child after a fork: part from what is shared with the parent. Returns "
               "whether the loop can be used. Raises OSError when no descriptor is left.")},
    {"_check_closed", check_closed, METH_NOARGS, NULL},
    {"_write_to_self", write_to_self, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The C part of bolide.Loop.")},
    {Py_tp_new, loop_new},
    {Py_tp_init, loop_init},
    {Py_tp_setattro, loop_setattr},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_members, loop_members},
    {Py_tp_getset, loop_getset},
    {Py_tp_methods, loop_methods},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "bolide._core.Loop",
    .basicsize = sizeof(bolide_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};

/* Methods of the loop that live in files of their own. */
static int add_methods(PyObject *module, bolide_state *st, PyMethodDef *methods) {
    (void)module;
    for (PyMethodDef *def = methods; def->ml_name != NULL; def++) {
        PyObject *method = PyDescr_NewMethod(st->LoopType, def);
        if (method == NULL) {
            return -1;
        }
        int failed = PyDict_SetItemString(st->LoopType->tp_dict, def->ml_name, method);
        Py_DECREF(method);
        if (failed) {
            return -1;
        }
    }
    PyType_Modified(st->LoopType);
    return 0;
}

/* The first libuv loop of a process sets up what all share, and aborts when it finds no descriptor for that. So one is
 * made here, once it is known that there are some. */
static int prepare_libuv(void) {
    int spare[4];
    uv_loop_t first;
    if (pipe(spare) < 0) {
        return -errno;
    }
    int status = pipe(spare + 2) < 0 ? -errno : 0;
    for (int i = 0; i < (status == 0 ? 4 : 2); i++) {
        close(spare[i]);
    }
    if (status == 0 && (status = uv_loop_init(&first)) == 0) {
        uv_loop_close(&first);
    }
    return status;
}

int bolide_loop_init(PyObject *module, bolide_state *st) {
    int status = prepare_libuv();
    if (status < 0) {
        bolide_error_set(status);
        return -1;
    }
    if (bolide_add_type(module, &loop_spec, NULL, &st->LoopType, true) < 0) {
        return -1;
    }
    if (add_methods(module, st, bolide_watchers_methods) < 0 || add_methods(module, st, bolide_sock_methods) < 0 ||
        add_methods(module, st, bolide_datagram_methods) < 0 || add_methods(module, st, bolide_transport_methods) < 0 ||
        add_methods(module, st, bolide_transport_tls_methods) < 0) {
        return -1;
    }
    return 0;
}
