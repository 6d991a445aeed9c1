#include "common/error.h"

#include <errno.h>

/* libuv reports errors as negated errno values, except for its own codes (EOF, address resolution) below -3000. */
static int errno_of(int status) {
    switch (status) {
    case UV_EOF:
        return ECONNRESET;
    case UV_EAI_MEMORY:
        return ENOMEM;
    default:
        return -status;
    }
}

PyObject *bolide_error_new(int status) {
    int err = errno_of(status);
    const char *text = err < 3000 ? strerror(err) : uv_strerror(status);
    PyObject *args = Py_BuildValue("(is)", err, text);
    if (args == NULL) {
        return NULL;
    }
    PyObject *exc = PyObject_Call(PyExc_OSError, args, NULL);
    Py_DECREF(args);
    return exc;
}

PyObject *bolide_error_set(int status) {
    PyObject *exc = bolide_error_new(status);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return NULL;
}

PyObject *bolide_error_take(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
}
