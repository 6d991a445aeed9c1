/* Dicts that are made to be copied. */
#ifndef BOLIDE_COMMON_TEMPLATE_H
#define BOLIDE_COMMON_TEMPLATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* A dict equal to `items` (its keys are str) whose copies by PyDict_Copy() share one table of keys, as the attributes
 * of a class's instances do (PEP 412): a copy takes half the memory. `spare`: so many keys more may be set in a copy
 * before it has to get a table of its own. Where CPython does not do so, it is an ordinary dict. New reference, or NULL
 * with an exception set. */
PyObject *bolide_template_new(PyObject *items, Py_ssize_t spare);

#endif
