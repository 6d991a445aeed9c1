#include "transport/protocol.h"

void bolide_protocol_report(bolide_loop *loop, PyObject *transport, PyObject *protocol, PyObject *context,
                            PyObject *name, PyObject *a, PyObject *b) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *args[2] = {a, b};
    Py_ssize_t nargs = a == NULL ? 0 : b == NULL ? 1 : 2;
    PyObject *method = protocol != NULL ? PyObject_GetAttr(protocol, name) : NULL;
    bolide_handle *handle = method != NULL ? bolide_handle_new(loop, false, method, args, nargs, context) : NULL;
    Py_XDECREF(method);
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    if (handle != NULL) {
        bolide_handle_report(handle);
        Py_DECREF(handle);
    } else {
        bolide_loop_report(loop, "Exception in a method of the protocol", "transport", transport);
    }
}

void bolide_protocol_tell_handler(bolide_loop *loop, PyObject *transport, PyObject *protocol, const char *message,
                                  PyObject *exception) {
    PyObject *context = PyDict_New();
    PyObject *text = PyUnicode_FromString(message);
    bolide_state *st = loop->st;
    PyObject *result = NULL;
    if (context != NULL && text != NULL && PyDict_SetItem(context, st->str_message, text) == 0 &&
        PyDict_SetItem(context, st->str_exception, exception) == 0 &&
        PyDict_SetItem(context, st->str_transport, transport) == 0 &&
        (protocol == NULL || PyDict_SetItem(context, st->str_protocol, protocol) == 0)) {
        result = PyObject_CallMethodOneArg((PyObject *)loop, st->str_call_exception_handler, context);
    }
    if (result == NULL) {
        bolide_loop_set_fatal(loop);
    }
    Py_XDECREF(result);
    Py_XDECREF(text);
    Py_XDECREF(context);
}
