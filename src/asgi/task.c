/* The task of a request. Mostly it is an asyncio.Task, whose methods are called without looking them up. */
#include "asgi/asgi.h"

/* loop.create_task(coro), for the user's task factory. It is called in a copy of the server's context, not with one:
 * not every factory takes that argument. New reference, or NULL with an exception set. */
static PyObject *create_task(bolide_server *server, PyObject *coro) {
    PyObject *context = PyContext_Copy(server->context), *task = NULL;
    if (context != NULL && PyContext_Enter(context) == 0) {
        task = PyObject_CallMethodOneArg((PyObject *)server->loop, server->st->asgi->str_create_task, coro);
        if (PyContext_Exit(context) < 0) {
            Py_CLEAR(task);
        }
    }
    Py_XDECREF(context);
    return task;
}

int bolide_task_init(bolide_server *server) {
    bolide_asgi_state *as = server->st->asgi;
    server->task_keywords =
        Py_BuildValue("{O:O,O:O}", server->st->str_loop, (PyObject *)server->loop, as->str_context, Py_None);
#if PY_VERSION_HEX >= 0x030C0000
    if (server->task_keywords != NULL && PyDict_SetItem(server->task_keywords, as->str_eager_start, Py_True) < 0) {
        return -1;
    }
#endif
    return server->task_keywords != NULL ? 0 : -1;
}

/* Tasks that may run the loop themselves have to start from the ready queue. 0, or -1 with an exception set. */
static int forbid_eager_start(bolide_server *server) {
#if PY_VERSION_HEX >= 0x030C0000
    return PyDict_SetItem(server->task_keywords, server->st->asgi->str_eager_start, Py_False);
#else
    (void)server;
    return 0;
#endif
}

/* asyncio.Task(coro, loop=..., context=context, eager_start=True): the type has no vectorcall, so that keywords given
 * one by one would be put into a new dict each time. New reference, or NULL with an exception set. */
static PyObject *call_task(bolide_server *server, PyObject *coro, PyObject *context) {
    PyObject *args = PyTuple_Pack(1, coro), *task = NULL, *str_context = server->st->asgi->str_context;
    if (server->loop->nests && forbid_eager_start(server) < 0) {
        Py_CLEAR(args);
    }
    if (args != NULL && PyDict_SetItem(server->task_keywords, str_context, context) == 0) {
        task = PyObject_Call(server->st->asyncio_Task, args, server->task_keywords);
        if (PyDict_SetItem(server->task_keywords, str_context, Py_None) < 0) {
            Py_CLEAR(task);
        }
    }
    Py_XDECREF(args);
    return task;
}

PyObject *bolide_task_new(bolide_server *server, PyObject *coro, PyObject **context) {
    if (!PyCoro_CheckExact(coro)) {
        bolide_asgi_state *as = server->st->asgi;
        PyObject *args[] = {NULL, coro, (PyObject *)server->loop};
        return PyObject_Vectorcall(as->ensure_future, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, as->loop_names);
    }
    if (server->loop->task_factory != NULL && server->loop->task_factory != Py_None) {
        return create_task(server, coro);
    }
    *context = PyContext_Copy(server->context);
    if (*context == NULL) {
        return NULL;
    }
    return call_task(server, coro, *context);
}

int bolide_task_is_done(bolide_server *server, PyObject *task) {
    PyObject *done;
    if (Py_IS_TYPE(task, (PyTypeObject *)server->st->asyncio_Task)) {
        done = PyObject_Vectorcall(server->st->asgi->task_done, &task, 1, NULL);
    } else {
        done = PyObject_CallMethodNoArgs(task, server->st->str_done);
    }
    int result = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    return result;
}

PyObject *bolide_task_result(bolide_server *server, PyObject *task) {
    if (Py_IS_TYPE(task, (PyTypeObject *)server->st->asyncio_Task)) {
        return PyObject_Vectorcall(server->st->asgi->task_result, &task, 1, NULL);
    }
    return PyObject_CallMethod(task, "result", NULL);
}
