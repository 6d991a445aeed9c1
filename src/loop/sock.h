/* The sock_*() methods of the loop: awaitables that do the system call at once and wait only when they must. */
#ifndef BOLIDE_LOOP_SOCK_H
#define BOLIDE_LOOP_SOCK_H

#include "common/state.h"

/* For the method table of bolide._core.Loop. */
extern PyMethodDef bolide_sock_methods[];

#endif
