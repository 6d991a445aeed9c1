/*
 * Broadcasts: one connection sends a message, and the server sends one to all of them.
 */
#ifndef LOAD_BROADCAST_H
#define LOAD_BROADCAST_H

#include "connection.h"

/* Send the message on the first connection and wait until each has got a message, whatever its content. Returns their
 * number, or -1 with a word on stderr. */
ssize_t broadcast_round(connection_t *connections, size_t count, int epoll, const exchange_t *exchange);

#endif
