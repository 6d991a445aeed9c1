/* Socket addresses as the objects that the socket module makes of them. */
#ifndef BOLIDE_COMMON_SOCKADDR_H
#define BOLIDE_COMMON_SOCKADDR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* The address of one side of a connection. */
typedef struct {
    struct sockaddr_in6 address; /* or one of another family that is no longer, as told by sin6_family */
    socklen_t len;               /* 0: not known, or a longer one, as the path of a Unix socket */
} bolide_address;

/* (host, port), (host, port, flowinfo, scope_id), or the path of a Unix socket as str (abstract names: bytes).
 * New reference (None for other families), or NULL with an exception set. */
PyObject *bolide_sockaddr_object(const struct sockaddr *address, socklen_t len);

#endif
