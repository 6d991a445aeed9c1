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

PyObject *bolide_task_new(bolide_server *server, PyObject *coro, PyObject **context) {
    bolide_asgi_state *as = server->st->asgi;
    PyObject *loop = (PyObject *)server->loop;
    size_t nargsf = 1 | PY_VECTORCALL_ARGUMENTS_OFFSET;
    if (!PyCoro_CheckExact(coro)) {
        PyObject *args[] = {NULL, coro, loop};
        return PyObject_Vectorcall(as->ensure_future, args + 1, nargsf, as->loop_names);
    }
    if (server->loop->task_factory != NULL && server->loop->task_factory != Py_None) {
        return create_task(server, coro);
    }
    *context = PyContext_Copy(server->context);
    if (*context == NULL) {
        return NULL;
    }
    PyObject *args[] = {NULL, coro, loop, *context, Py_True};
    return PyObject_Vectorcall(server->st->asyncio_Task, args + 1, nargsf, as->task_names);
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
