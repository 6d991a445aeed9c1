/* The marks of transport.set_write_buffer_limits(). */
#ifndef BOLIDE_TRANSPORT_WATERMARKS_H
#define BOLIDE_TRANSPORT_WATERMARKS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>

/* Parse (high=None, low=None), in bytes, with asyncio's defaults: low is a quarter of high, high four times low or
 * `fallback`. `format` is that of PyArg_ParseTupleAndKeywords(). 0, or -1 with TypeError, OverflowError or ValueError
 * set and nothing changed. */
int bolide_parse_watermarks(PyObject *args, PyObject *kwargs, const char *format, size_t fallback, size_t *high,
                            size_t *low);

#define BOLIDE_MAX_SIZE (256 * 1024) /* asyncio's default */

/* A program has set transport.max_size, `value` NULL: deleted it, to which 0 answers. 0, or -1 with TypeError or
 * ValueError set. */
int bolide_parse_max_size(PyObject *value, unsigned *max_size);

#endif
