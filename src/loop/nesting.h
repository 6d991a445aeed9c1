/* Turns of a loop from within one of its own callbacks: for run_until_complete() where nest_asyncio allows that. */
#ifndef BOLIDE_LOOP_NESTING_H
#define BOLIDE_LOOP_NESTING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyMethodDef bolide_nesting_methods[];

#endif
