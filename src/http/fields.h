/* Field lines outside of the head of a response: those of an interim response, and trailers. */
#ifndef BOLIDE_HTTP_FIELDS_H
#define BOLIDE_HTTP_FIELDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

/* The bytes of 103 Early Hints (RFC 8297), a `link` field for each of `links`, an iterable of bytes. New reference, or
 * NULL with an exception set. May run code of the application. */
PyObject *bolide_early_hints(PyObject *links);

/* The bytes of trailer fields (RFC 9110, section 6.5) and, with `last`, of the end of the chunked body. `headers`: an
 * iterable of pairs of bytes, or NULL. New reference, or NULL with an exception set. May run code of the application.
 */
PyObject *bolide_trailers(PyObject *headers, bool last);

#endif
