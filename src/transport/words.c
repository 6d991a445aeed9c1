#include "transport/words.h"

/* asyncio.selector_events.<class>.<method>: a new reference, or NULL with an exception set. */
static PyObject *find_method(const char *class, const char *method) {
    PyObject *module = PyImport_ImportModule("asyncio.selector_events");
    PyObject *type = module != NULL ? PyObject_GetAttrString(module, class) : NULL;
    PyObject *function = type != NULL ? PyObject_GetAttrString(type, method) : NULL;
    Py_XDECREF(type);
    Py_XDECREF(module);
    return function;
}

void *bolide_refuse_data(const char *class, const char *method, PyObject *data) {
    PyObject *function = find_method(class, method);
    /* The type is looked at first: there is nothing that such a transport could be asked for. */
    PyObject *result = function != NULL ? PyObject_CallFunctionObjArgs(function, Py_None, data, NULL) : NULL;
    Py_XDECREF(function);
    if (result != NULL || !PyErr_ExceptionMatches(PyExc_TypeError)) {
        Py_XDECREF(result);
        PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%.200s'",
                     Py_TYPE(data)->tp_name);
        return NULL;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyException_SetTraceback(value, Py_None); /* it was not raised in there */
    Py_XDECREF(traceback);
    PyErr_Restore(type, value, NULL);
    return NULL;
}

bool bolide_counts_lost_lines(void) {
    PyObject *function = find_method("_SelectorSocketTransport", "writelines");
    PyObject *code = function != NULL ? PyObject_GetAttrString(function, "__code__") : NULL;
    PyObject *names = code != NULL ? PyObject_GetAttrString(code, "co_names") : NULL;
    PyObject *name = PyUnicode_FromString("_conn_lost");
    bool counts = names != NULL && name != NULL && PySequence_Contains(names, name) > 0;
    Py_XDECREF(name);
    Py_XDECREF(names);
    Py_XDECREF(code);
    Py_XDECREF(function);
    PyErr_Clear();
    return counts;
}
