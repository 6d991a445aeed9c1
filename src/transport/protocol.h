/* Calls of a protocol's methods in the transport's context, and what becomes of the exceptions that come out of them.
 */
#ifndef BOLIDE_TRANSPORT_PROTOCOL_H
#define BOLIDE_TRANSPORT_PROTOCOL_H

#include "loop/loop.h"

/* protocol.<name>(a, b) in `context`, absent arguments NULL. *entered tells whether the context is the transport's
 * already: a protocol that writes in data_received() may be told to pause_writing() inside that very call. New
 * reference or NULL with an exception set. */
static inline PyObject *bolide_protocol_call(PyObject *protocol, PyObject *context, bool *entered, PyObject *name,
                                             PyObject *a, PyObject *b) {
    bool nested = *entered;
    if (!nested && PyContext_Enter(context) < 0) {
        return NULL;
    }
    *entered = true;
    Py_INCREF(context);
    Py_INCREF(protocol);
    PyObject *args[4] = {NULL, protocol, a, b};
    size_t nargs = a == NULL ? 1 : b == NULL ? 2 : 3;
    PyObject *result = PyObject_VectorcallMethod(name, args + 1, nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(protocol);
    *entered = nested;
    if (!nested && PyContext_Exit(context) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(context);
    return result;
}

/* The exception that is set came out of protocol.<name>(a, b), absent arguments NULL: report it as one of a scheduled
 * callback, which asyncio makes of these calls. `protocol` may be NULL. */
void bolide_protocol_report(bolide_loop *loop, PyObject *transport, PyObject *protocol, PyObject *context,
                            PyObject *name, PyObject *a, PyObject *b);

/* Tell the loop's exception handler of `exception`, with `message`. `protocol` may be NULL. */
void bolide_protocol_tell_handler(bolide_loop *loop, PyObject *transport, PyObject *protocol, const char *message,
                                  PyObject *exception);

#endif
