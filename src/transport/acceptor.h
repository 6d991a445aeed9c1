/* Accepts the connections of a listening socket for C owners, who embed one.
 *
 * It does so by itself, not by uv_listen(): when the process runs out of descriptors, libuv drops every connection that
 * waits, and spins when it cannot even do that. Here they stay in the kernel's queue and are tried again after a
 * second.
 *
 * All functions need the GIL; callbacks run with the GIL held and may close the acceptor. */
#ifndef BOLIDE_TRANSPORT_ACCEPTOR_H
#define BOLIDE_TRANSPORT_ACCEPTOR_H

#include "common/sockaddr.h"
#include "loop/loop.h"

typedef struct bolide_acceptor bolide_acceptor;

typedef struct {
    /* A connection was made by `peer`, who may have gone since: `fd` is non-blocking, closed on exec, and now the
     * owner's. */
    void (*on_connection)(bolide_acceptor *a, int fd, const bolide_address *peer);
    /* Accepting failed with the negative uv code `status`, for want of descriptors or memory; it is tried again after a
     * second. */
    void (*on_exhausted)(bolide_acceptor *a, int status);
    /* After bolide_acceptor_close(): the memory may be freed. */
    void (*on_close)(bolide_acceptor *a);
} bolide_acceptor_ops;

struct bolide_acceptor {
    uv_poll_t poll;   /* readable when a connection waits */
    uv_timer_t retry; /* goes on after on_exhausted */
    const bolide_acceptor_ops *ops;
    int fd;         /* its own duplicate of the listening descriptor, or -1 once closed */
    int batch;      /* connections to take at most before the loop goes on */
    int uv_handles; /* of the two above, those that are open or closing */
};

/* Begin to accept on the listening descriptor `fd`, of which a duplicate is made. 0, or a negative uv code: then
 * nothing needs to be closed. */
int bolide_acceptor_open(bolide_acceptor *a, bolide_loop *loop, int fd, int batch, const bolide_acceptor_ops *ops);

/* Accept what waits in the kernel's queue, `most` connections at most: when the last descriptor of a listening socket
 * is closed, those that are still there are reset. */
void bolide_acceptor_drain(bolide_acceptor *a, int most);

/* Stop accepting now; idempotent. on_close follows. */
void bolide_acceptor_close(bolide_acceptor *a);

#endif
