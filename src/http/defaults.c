#include "http/defaults.h"

#include "http/response.h"

#include <string.h>

static const char server_line[] = "server: bolide\r\n";

/* Is the field name `name` in `others` (pairs that were checked)? */
static bool has_name(PyObject *others, const char *name) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(others); i++) {
        PyObject *n = PyTuple_GET_ITEM(PyList_GET_ITEM(others, i), 0);
        if (PyOS_stricmp(PyBytes_AS_STRING(n), name) == 0) {
            return true;
        }
    }
    return false;
}

/* A list of exact (bytes, bytes) tuples of `others`, or NULL with an exception set. */
static PyObject *checked_pairs(PyObject *others) {
    PyObject *list = PySequence_List(others);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *pair = PySequence_Tuple(PyList_GET_ITEM(list, i));
        if (pair != NULL && (PyTuple_GET_SIZE(pair) != 2 || !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 0)) ||
                             !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 1)))) {
            PyErr_SetString(PyExc_TypeError, "headers must be (name, value) pairs of bytes");
            Py_CLEAR(pair);
        }
        if (pair == NULL) {
            Py_CLEAR(list);
        } else {
            Py_SETREF(PyList_GET_ITEM(list, i), pair);
        }
    }
    return list;
}

/* Append the field lines of `pairs` to d->lines, which has room for them. 0, or -1 with ValueError set. */
static int append_pairs(bolide_defaults *d, PyObject *pairs) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs); i++) {
        PyObject *pair = PyList_GET_ITEM(pairs, i);
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        char *out = d->lines + d->len;
        if (!bolide_copy_name(out, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)) ||
            !bolide_copy_value(out + PyBytes_GET_SIZE(name) + 2, PyBytes_AS_STRING(value),
                               (size_t)PyBytes_GET_SIZE(value))) {
            PyErr_Format(PyExc_ValueError, "invalid header %R", pair);
            return -1;
        }
        memcpy(out + PyBytes_GET_SIZE(name), ": ", 2);
        d->len += (size_t)PyBytes_GET_SIZE(name) + 2 + (size_t)PyBytes_GET_SIZE(value);
        memcpy(d->lines + d->len, "\r\n", 2);
        d->len += 2;
    }
    return 0;
}

int bolide_defaults_init(bolide_defaults *d, bool date, bool server, PyObject *others) {
    int result = -1;
    size_t size = BOLIDE_DATE_LINE + sizeof(server_line);
    memset(d, 0, sizeof(*d));
    d->second = -1;
    PyObject *pairs = checked_pairs(others);
    if (pairs == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs); i++) {
        PyObject *pair = PyList_GET_ITEM(pairs, i);
        size += (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(pair, 0)) +
                (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(pair, 1)) + 4;
    }
    d->lines = PyMem_Malloc(size);
    if (d->lines == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (date && !has_name(pairs, "date")) {
        d->len = d->date_len = BOLIDE_DATE_LINE;
        memset(d->lines, ' ', d->date_len);
    }
    d->has_own_server = has_name(pairs, "server");
    if (server && !d->has_own_server) {
        d->server_len = sizeof(server_line) - 1;
        memcpy(d->lines + d->len, server_line, d->server_len);
        d->len += d->server_len;
    }
    result = append_pairs(d, pairs);
done:
    Py_DECREF(pairs);
    return result;
}

void bolide_defaults_clear(bolide_defaults *d) {
    PyMem_Free(d->lines);
    d->lines = NULL;
}

static void put_two(char *out, int n) {
    out[0] = (char)('0' + n / 10);
    out[1] = (char)('0' + n % 10);
}

void bolide_defaults_refresh(bolide_defaults *d) {
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = time(NULL);
    if (now == d->second || d->date_len == 0) {
        return;
    }
    struct tm tm;
    if (gmtime_r(&now, &tm) == NULL) {
        return;
    }
    char *out = d->lines;
    memcpy(out, "date: DDD, 00 MMM 0000 00:00:00 GMT\r\n", BOLIDE_DATE_LINE);
    memcpy(out + 6, days + 3 * tm.tm_wday, 3);
    put_two(out + 11, tm.tm_mday);
    memcpy(out + 14, months + 3 * tm.tm_mon, 3);
    put_two(out + 18, (tm.tm_year + 1900) / 100);
    put_two(out + 20, (tm.tm_year + 1900) % 100);
    put_two(out + 23, tm.tm_hour);
    put_two(out + 26, tm.tm_min);
    put_two(out + 29, tm.tm_sec);
    d->second = now;
}
