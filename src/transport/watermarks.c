#include "transport/watermarks.h"

int bolide_parse_watermarks(PyObject *args, PyObject *kwargs, size_t fallback, size_t *high_out, size_t *low_out) {
    static char *names[] = {"high", "low", NULL};
    PyObject *high_arg = Py_None, *low_arg = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits", names, &high_arg, &low_arg)) {
        return -1;
    }
    Py_ssize_t low = low_arg != Py_None ? PyNumber_AsSsize_t(low_arg, PyExc_OverflowError) : 0;
    if (low == -1 && PyErr_Occurred()) {
        return -1;
    }
    Py_ssize_t high = (Py_ssize_t)fallback;
    if (high_arg != Py_None) {
        high = PyNumber_AsSsize_t(high_arg, PyExc_OverflowError);
        if (high == -1 && PyErr_Occurred()) {
            return -1;
        }
    } else if (low_arg != Py_None) {
        high = low > PY_SSIZE_T_MAX / 4 ? PY_SSIZE_T_MAX : 4 * low;
    }
    if (low_arg == Py_None) {
        low = high / 4;
    }
    if (!(high >= low && low >= 0)) {
        PyErr_Format(PyExc_ValueError, "high (%zd) must be >= low (%zd) must be >= 0", high, low);
        return -1;
    }
    *high_out = (size_t)high;
    *low_out = (size_t)low;
    return 0;
}
