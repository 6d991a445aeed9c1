/* A freelist of garbage-collected objects of one size, linked through the first word after the object header. */
#ifndef BOLIDE_COMMON_FREELIST_H
#define BOLIDE_COMMON_FREELIST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef struct {
    PyObject *first;
    int count;
    int closed; /* keeps nothing any more */
} bolide_freelist;

static inline PyObject **bolide_freelist_link(PyObject *obj) {
    return (PyObject **)((char *)obj + sizeof(PyObject));
}

/* Memory of a dead object made anew as an instance of the heap type `type`, or a fresh one; the fields are not
 * initialised and the object is not tracked. NULL with MemoryError set. */
static inline PyObject *bolide_freelist_new(bolide_freelist *list, PyTypeObject *type) {
    PyObject *obj = list->first;
    if (obj == NULL) {
        return (PyObject *)_PyObject_GC_New(type);
    }
    list->first = *bolide_freelist_link(obj);
    list->count--;
    return PyObject_Init(obj, type);
}

/* In tp_dealloc, last: keep the untracked memory of `obj`, or free it when `max` are kept already. */
static inline void bolide_freelist_keep(bolide_freelist *list, PyObject *obj, int max) {
    if (list->count < max && !list->closed) {
        *bolide_freelist_link(obj) = list->first;
        list->first = obj;
        list->count++;
    } else {
        PyObject_GC_Del(obj);
    }
}

/* Free what is kept and keep nothing from now on. To be called while the type of the objects is alive: freeing looks at
 * it. */
static inline void bolide_freelist_close(bolide_freelist *list) {
    list->closed = 1;
    while (list->first != NULL) {
        PyObject *obj = list->first;
        list->first = *bolide_freelist_link(obj);
        PyObject_GC_Del(obj);
    }
    list->count = 0;
}

#endif
