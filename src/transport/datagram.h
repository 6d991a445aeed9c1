/* The asyncio transport of a datagram socket (UDP or Unix). */
#ifndef BOLIDE_TRANSPORT_DATAGRAM_H
#define BOLIDE_TRANSPORT_DATAGRAM_H

#include "common/state.h"

/* _make_datagram_transport, for the method table of bolide._core.Loop. */
extern PyMethodDef bolide_datagram_methods[];

int bolide_datagram_init(PyObject *module, bolide_state *st);

#endif
