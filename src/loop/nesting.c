#include "loop/nesting.h"

#include "loop/loop.h"

/* Is the loop in a callback from which its turns may go on? 0, or -1 with RuntimeError set. */
static int check_nestable(bolide_loop *loop) {
    if (bolide_loop_check_closed(loop) < 0) {
        return -1;
    }
    if (!loop->running || loop->thread_id != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "This event loop does not run in this thread");
        return -1;
    }
    /* libuv's poll is not reentrant; and what it frees, C code further up is still going through. */
    if (loop->polling || loop->occupied > 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "This event loop cannot be run again from within a callback of a protocol, or the first step "
                        "of a request that began before nest_asyncio was applied; do it in a task, after an await");
        return -1;
    }
    return 0;
}

/* loop._run_turn(): one turn, within a callback of another. */
static PyObject *run_turn(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_loop *loop = (bolide_loop *)self;
    if (check_nestable(loop) < 0) {
        return NULL;
    }
    bool stopping = loop->stopping; /* of the run around this one, which goes on all the same until its callback ends */
    loop->stopping = false;
    bolide_loop_nested_turn(loop);
    loop->stopping |= stopping;
    if (bolide_loop_raise_fatal(loop) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *check_turn(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    if (check_nestable((bolide_loop *)self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *allow_nesting(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ((bolide_loop *)self)->nests = true;
    Py_RETURN_NONE;
}

PyMethodDef bolide_nesting_methods[] = {
    {"_run_turn", run_turn, METH_NOARGS,
     PyDoc_STR("_run_turn()\n--\n\nOne turn of the loop, from within one of its callbacks. Raises RuntimeError where "
               "that cannot be.")},
    {"_check_turn", check_turn, METH_NOARGS, PyDoc_STR("_check_turn()\n--\n\nRaise what _run_turn() would.")},
    {"_allow_nesting", allow_nesting, METH_NOARGS,
     PyDoc_STR("_allow_nesting()\n--\n\nFrom here on the server starts no task within the poll, where none could "
               "run the loop.")},
    {NULL, NULL, 0, NULL},
};
