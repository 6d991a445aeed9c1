/* Socket addresses as the objects that the socket module makes of them. */
#ifndef BOLIDE_COMMON_SOCKADDR_H
#define BOLIDE_COMMON_SOCKADDR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/socket.h>

/* (host, port), (host, port, flowinfo, scope_id), or the path of a Unix socket as str (abstract names: bytes).
 * New reference (None for other families), or NULL with an exception set. */
PyObject *bolide_sockaddr_object(const struct sockaddr *address, socklen_t len);

#endif
