/* Handle and TimerHandle: a callback with inline arguments, its context and flags. */
#ifndef BOLIDE_LOOP_HANDLE_H
#define BOLIDE_LOOP_HANDLE_H

#include "common/state.h"

#define BOLIDE_HANDLE_INLINE_ARGS 3

enum {
    BOLIDE_HANDLE_CANCELLED = 1,
    BOLIDE_HANDLE_TIMER = 2,   /* an instance of TimerHandle */
    BOLIDE_HANDLE_REPEATS = 4, /* an fd watcher's: keeps its callback after a run */
    BOLIDE_HANDLE_SHARED = 8,  /* of call_soon_threadsafe(): other threads may cancel it */
};

/* What debug mode keeps. */
typedef struct {
    PyObject *source_traceback; /* where the handle was made */
    PyObject *description;      /* its repr when it was cancelled, or NULL */
} bolide_handle_debug;

/* Not a garbage-collected type: half the cost of a burst of call_soon() was the collector looking at handles. A
 * scheduled handle is the loop's, which visits what it refers to; one that has run or was cancelled refers to nothing.
 */
typedef struct bolide_handle {
    PyObject_HEAD struct bolide_loop *loop; /* strong */
    PyObject *callback;                     /* NULL once cancelled, or run (unless it repeats) */
    PyObject *context;                      /* contextvars.Context to run in; hidden from the collector in a crowd */
    PyObject *weakrefs;                     /* also the link of st->doomed_handles */
    bolide_handle_debug *debug;             /* debug mode, else NULL */
    uint32_t nargs;
    uint32_t flags; /* BOLIDE_HANDLE_* */
    union {
        PyObject *args[1 + BOLIDE_HANDLE_INLINE_ARGS]; /* [0] is the spare slot of PY_VECTORCALL_ARGUMENTS_OFFSET */
        PyObject **more_args;                          /* heap array of the same form, when there are more arguments */
    };
} bolide_handle;

typedef struct {
    bolide_handle base;
    double when;           /* the deadline in seconds of loop.time() */
    Py_ssize_t heap_index; /* place in the loop's timer heap, or -1 */
} bolide_timer;

/* A new handle; `context` NULL copies the current one. New reference, or NULL with an exception set. */
bolide_handle *bolide_handle_new(struct bolide_loop *loop, bool timer, PyObject *callback, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *context);

/* Run the callback in its context; exceptions go to the loop's exception handler. Drops callback and arguments unless
 * it repeats. */
void bolide_handle_run(bolide_handle *handle);

/* Drop callback and arguments of a handle that is not to run again. */
void bolide_handle_retire(bolide_handle *handle);

/* The exception that is set came out of the callback: tell the loop's exception handler. */
void bolide_handle_report(bolide_handle *handle);

/* handle.cancel(): a timer leaves the heap at once. */
void bolide_handle_cancel(bolide_handle *handle);

/* Visit what `handle` refers to, on behalf of the loop whose only reference it is. */
int bolide_handle_traverse(bolide_handle *handle, visitproc visit, void *arg);

/* Free most of the memory that is kept for new handles: a loop has nothing to do. */
void bolide_handle_trim_kept(bolide_state *st);

/* Free all of it. */
void bolide_handle_free_kept(bolide_state *st);

int bolide_handle_init(PyObject *module, bolide_state *st);

#endif
