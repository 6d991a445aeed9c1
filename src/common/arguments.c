#include "common/arguments.h"

#include <string.h>

static int take_name(const char *method, const char *const *wanted, Py_ssize_t count, PyObject *name, PyObject *value,
                     PyObject **values) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyUnicode_CompareWithASCIIString(name, wanted[i]) != 0) {
            continue;
        }
        if (values[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", method, wanted[i]);
            return -1;
        }
        values[i] = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", method, name);
    return -1;
}

int bolide_arguments(const char *method, const char *const *wanted, Py_ssize_t count, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *names, PyObject **values) {
    if (nargs > count) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments but %zd were given", method, count, nargs);
        return -1;
    }
    memset(values, 0, (size_t)count * sizeof(PyObject *));
    for (Py_ssize_t i = 0; i < nargs; i++) {
        values[i] = args[i];
    }
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        if (take_name(method, wanted, count, PyTuple_GET_ITEM(names, i), args[nargs + i], values) < 0) {
            return -1;
        }
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing a required argument: '%s'", method, wanted[i]);
            return -1;
        }
    }
    return 0;
}
