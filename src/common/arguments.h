/* Arguments of methods that are called as METH_FASTCALL | METH_KEYWORDS. */
#ifndef BOLIDE_COMMON_ARGUMENTS_H
#define BOLIDE_COMMON_ARGUMENTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* What a method table says of such a method, and of one with PyArg_ParseTupleAndKeywords(). */
#define BOLIDE_FASTCALL_KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS
#define BOLIDE_KEYWORDS(function)          (PyCFunction)(void (*)(void)) function, METH_VARARGS | METH_KEYWORDS

/* All of the `count` required arguments, given by place or by name, as a Python function takes them: values[i] is
 * borrowed. 0, or -1 with TypeError set. */
int bolide_arguments(const char *method, const char *const *wanted, Py_ssize_t count, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *names, PyObject **values);

#endif
