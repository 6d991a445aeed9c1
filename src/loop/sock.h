/* sock_recv(), sock_recv_into() and sock_sendall(): awaitables that do the system call at once and wait only when they
 * must. */
#ifndef BOLIDE_LOOP_SOCK_H
#define BOLIDE_LOOP_SOCK_H

#include "common/state.h"

/* For the method table of bolide._core.Loop. */
extern PyMethodDef bolide_sock_methods[];

int bolide_sock_init(PyObject *module, bolide_state *st);

#endif
