/* Exceptions as objects, and libuv codes as the same OSError subclass that asyncio raises. */
#ifndef BOLIDE_COMMON_ERROR_H
#define BOLIDE_COMMON_ERROR_H

#include "common/state.h"

/* The OSError (subclass by errno) for the negative uv code `status`. New reference, or NULL with an exception set. */
PyObject *bolide_error_new(int status);

/* Set it as the current exception. Always returns NULL. */
PyObject *bolide_error_set(int status);

/* Clear the exception that is set and return it, an instance with its traceback: a new reference, NULL when none is. */
PyObject *bolide_error_take(void);

#endif
