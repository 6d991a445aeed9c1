#include "transport/watermarks.h"

/* high // 4 of any number, as Python divides. */
static PyObject *quarter(PyObject *high) {
    PyObject *four = PyLong_FromLong(4);
    PyObject *result = four != NULL ? PyNumber_FloorDivide(high, four) : NULL;
    Py_XDECREF(four);
    return result;
}

static PyObject *four_times(PyObject *low) {
    PyObject *four = PyLong_FromLong(4);
    PyObject *result = four != NULL ? PyNumber_Multiply(four, low) : NULL;
    Py_XDECREF(four);
    return result;
}

/* A number >= 0 as a size: rounded down, which is the same for a comparison with a size, and the largest one for what
 * is larger. 0, or -1 with an exception set. */
static int to_size(PyObject *number, size_t *size) {
    PyObject *floor = PyNumber_Long(number);
    Py_ssize_t value = floor != NULL ? PyNumber_AsSsize_t(floor, NULL) : -1;
    Py_XDECREF(floor);
    if (value < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a mark is negative");
        }
        return -1;
    }
    *size = (size_t)value;
    return 0;
}

/* high >= low >= 0? -1 with an exception set. */
static int are_ordered(PyObject *high, PyObject *low) {
    PyObject *zero = PyLong_FromLong(0);
    int ordered = zero != NULL ? PyObject_RichCompareBool(high, low, Py_GE) : -1;
    if (ordered > 0) {
        ordered = PyObject_RichCompareBool(low, zero, Py_GE);
    }
    Py_XDECREF(zero);
    return ordered;
}

int bolide_parse_watermarks(PyObject *args, PyObject *kwargs, const char *format, size_t fallback, size_t *high_out,
                            size_t *low_out) {
    static char *names[] = {"high", "low", NULL};
    PyObject *high = Py_None, *low = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &high, &low)) {
        return -1;
    }
    high = high != Py_None ? Py_NewRef(high) : low != Py_None ? four_times(low) : PyLong_FromSize_t(fallback);
    low = high == NULL ? NULL : low != Py_None ? Py_NewRef(low) : quarter(high);
    size_t sizes[2];
    int status = -1;
    int ordered = low != NULL ? are_ordered(high, low) : -1;
    if (ordered == 0) {
        PyErr_Format(PyExc_ValueError, "high (%R) must be >= low (%R) must be >= 0", high, low);
    } else if (ordered > 0 && to_size(high, &sizes[0]) == 0 && to_size(low, &sizes[1]) == 0) {
        *high_out = sizes[0];
        *low_out = sizes[1];
        status = 0;
    }
    Py_XDECREF(high);
    Py_XDECREF(low);
    return status;
}

int bolide_parse_max_size(PyObject *value, unsigned *max_size) {
    Py_ssize_t size = value != NULL ? PyNumber_AsSsize_t(value, NULL) : BOLIDE_MAX_SIZE;
    if (size == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (size <= 0) {
        PyErr_SetString(PyExc_ValueError, "max_size must be a positive number of bytes");
        return -1;
    }
    *max_size = size < BOLIDE_MAX_SIZE ? (unsigned)size : 0;
    return 0;
}
