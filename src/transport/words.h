/* What differs between the releases of a CPython version in asyncio's own transports: asked of them. */
#ifndef BOLIDE_TRANSPORT_WORDS_H
#define BOLIDE_TRANSPORT_WORDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

/* Set the TypeError that the method `method` of asyncio's class `class` (in asyncio.selector_events) raises for `data`,
 * which is no bytes, bytearray or memoryview. Returns NULL. */
void *bolide_refuse_data(const char *class, const char *method, PyObject *data);

/* Does asyncio count a writelines() on a lost connection among the writes to be warned of? */
bool bolide_counts_lost_lines(void);

#endif
