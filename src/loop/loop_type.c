/* The Python face of the loop. */
#include "loop/loop.h"

#include <errno.h>
#include <structmember.h>
#include <unistd.h>

#include "common/error.h"
#include "common/memory.h"
#include "loop/nesting.h"
#include "loop/sock.h"
#include "transport/datagram.h"
#include "transport/transport.h"

/* --- methods ---------------------------------------------------------------------------------- */

static PyObject *stop(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_loop *loop = (bolide_loop *)self;
    loop->stopping = true;
    Py_RETURN_NONE;
}

/* loop._run(): turns until stop() or a KeyboardInterrupt, SystemExit from a callback. The Python side wraps it. */
static PyObject *run(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_loop *loop = (bolide_loop *)self;
    bolide_loop_find_overrides(loop); /* before the checks: it may run any code */
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
    if (bolide_loop_raise_fatal(loop) < 0) {
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
    bolide_loop_find_overrides(loop);
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
        bolide_loop_find_overrides(loop);
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

static PyMethodDef loop_methods[] = {
    {"stop", stop, METH_NOARGS, PyDoc_STR("stop($self, /)\n--\n\nEnd run_forever() after the current turn.")},
    {"is_running", is_running, METH_NOARGS, PyDoc_STR("is_running($self, /)\n--\n\nWhether run_forever() is at work.")},
    {"is_closed", is_closed, METH_NOARGS, PyDoc_STR("is_closed($self, /)\n--\n\nWhether close() was called.")},
    {"get_debug", is_debugged, METH_NOARGS, PyDoc_STR("get_debug($self, /)\n--\n\nWhether the debug mode is on.")},
    {"_run", run, METH_NOARGS, PyDoc_STR("_run($self, /)\n--\n\nTurns until stop(): the heart of run_forever().")},
    {"_close", close_loop, METH_NOARGS,
     PyDoc_STR("_close($self, /)\n--\n\nClose all that is open: the heart of close().")},
    {"_after_fork", after_fork, METH_NOARGS,
     PyDoc_STR(
         "_after_fork($self, /)\n--\n\nIn the child after a fork: part from what is shared with the parent. Returns "
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
static int add_methods(PyTypeObject *type, PyMethodDef *methods) {
    for (PyMethodDef *def = methods; def->ml_name != NULL; def++) {
        PyObject *method = PyDescr_NewMethod(type, def);
        if (method == NULL) {
            return -1;
        }
        int failed = PyDict_SetItemString(type->tp_dict, def->ml_name, method);
        Py_DECREF(method);
        if (failed) {
            return -1;
        }
    }
    PyType_Modified(type);
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
    PyMethodDef *const tables[] = {bolide_schedule_methods,     bolide_watchers_methods, bolide_nesting_methods,
                                   bolide_sock_methods,         bolide_datagram_methods, bolide_transport_methods,
                                   bolide_transport_tls_methods};
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        if (add_methods(st->LoopType, tables[i]) < 0) {
            return -1;
        }
    }
    return 0;
}
