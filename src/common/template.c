#include "common/template.h"

/* What CPython has room for in a class's shared keys. Each instance that is made takes one of those that are free. */
#define SHARED_KEYS_MAX 30

/* An instance of `type` with the attributes `items`. New reference, or NULL with an exception set. */
static PyObject *make_instance(PyObject *type, PyObject *items) {
    PyObject *instance = PyObject_CallNoArgs(type), *key, *value;
    Py_ssize_t pos = 0;
    while (instance != NULL && PyDict_Next(items, &pos, &key, &value)) {
        if (PyObject_SetAttr(instance, key, value) < 0) {
            Py_CLEAR(instance);
        }
    }
    return instance;
}

PyObject *bolide_template_new(PyObject *items, Py_ssize_t spare) {
    PyObject *type = PyObject_CallFunction((PyObject *)&PyType_Type, "s(){}", "Template");
    if (type == NULL) {
        return NULL;
    }
    /* The first instance names the keys; the others use up the room that is not wanted; the last one is it. */
    PyObject *instance = make_instance(type, items), *dict = NULL;
    for (Py_ssize_t free = SHARED_KEYS_MAX - PyDict_GET_SIZE(items); instance != NULL && free > spare + 2; free--) {
        Py_SETREF(instance, PyObject_CallNoArgs(type));
    }
    if (instance != NULL) {
        Py_SETREF(instance, make_instance(type, items));
    }
    if (instance != NULL) {
        dict = PyObject_GenericGetDict(instance, NULL);
        Py_DECREF(instance);
    }
    Py_DECREF(type);
    return dict;
}
