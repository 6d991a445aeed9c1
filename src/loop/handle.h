/* Handle and TimerHandle: a callback with inline arguments, its context and flags. */
#ifndef BOLIDE_LOOP_HANDLE_H
#define BOLIDE_LOOP_HANDLE_H

#include "common/state.h"

#define BOLIDE_HANDLE_INLINE_ARGS 3
#define BOLIDE_HANDLE_FREELIST    1024

enum {
    BOLIDE_HANDLE_CANCELLED = 1,
    BOLIDE_HANDLE_TIMER = 2,   /* an instance of TimerHandle */
    BOLIDE_HANDLE_REPEATS = 4, /* an fd watcher's: keeps its callback after a run */
};

typedef struct bolide_handle {
    PyObject_HEAD struct bolide_loop *loop; /* strong */
    PyObject *callback;                     /* NULL once cancelled, or run (unless it repeats) */
    PyObject *context;                      /* contextvars.Context to run in */
    PyObject **more_args; /* heap array when nargs > BOLIDE_HANDLE_INLINE_ARGS, its [0] spare as below */
    Py_ssize_t nargs;
    PyObject *args[1 + BOLIDE_HANDLE_INLINE_ARGS]; /* [0] is the spare slot of PY_VECTORCALL_ARGUMENTS_OFFSET */
    PyObject *source_traceback;                    /* debug mode: where it was made */
    PyObject *description;                         /* debug mode: what it was, for the repr after a cancel */
    PyObject *weakrefs;
    double when;           /* TimerHandle: the deadline in seconds of loop.time() */
    Py_ssize_t heap_index; /* TimerHandle: place in the loop's timer heap, or -1 */
    unsigned flags;        /* BOLIDE_HANDLE_* */
} bolide_handle;

/* A new handle; `context` NULL copies the current one. New reference, or NULL with an exception set. */
bolide_handle *bolide_handle_new(struct bolide_loop *loop, bool timer, PyObject *callback, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *context);

/* Run the callback in its context; exceptions go to the loop's exception handler. Drops callback and arguments unless
 * it repeats. */
void bolide_handle_run(bolide_handle *handle);

/* handle.cancel(): a timer leaves the heap at once. */
void bolide_handle_cancel(bolide_handle *handle);

int bolide_handle_init(PyObject *module, bolide_state *st);

#endif
