/* The TLS filter of a stream (tls.h) from within: between tls.c, which has its life, and tls_records.c, through which
 * its bytes go. */
#ifndef BOLIDE_TRANSPORT_TLS_FILTER_H
#define BOLIDE_TRANSPORT_TLS_FILTER_H

#include "transport/tls.h"
#include "transport/tls_ssl.h"

/* Of bolide_tls.flags. */
enum {
    TLS_SECURE = 1,       /* the handshake is complete */
    TLS_PEER_CLOSED = 2,  /* the peer's close_notify was read */
    TLS_EOF = 4,          /* the peer's FIN was read */
    TLS_NOTIFIED = 8,     /* our close_notify is made */
    TLS_FAILED = 16,      /* the owner was told of an error */
    TLS_UNFRAMED = 32,    /* the input does not consist of TLS records: `records` is but a flag */
    TLS_BUSY = 64,        /* input is being processed further up on the C stack */
    TLS_HELD = 128,       /* bolide_tls_hold() */
    TLS_RESUMING = 256,   /* a call is scheduled that delivers what was kept */
    TLS_UNWRAPPED = 512,  /* on_unwrapped was called */
    TLS_HELLO_DUE = 1024, /* the client's hello waits for another stream to be done */
};

/* --- tls.c: failing, the handshake, the shutdown ------------------------------------------------------------------ */

/* Tell the peer, by the alert that OpenSSL has made if any, and the owner of the exception that is set. */
void bolide_tls_fail(bolide_tls *tls);

/* The same with one of a class and, unless NULL, a message. */
void bolide_tls_fail_because(bolide_tls *tls, PyObject *class, PyObject *message);

/* Go on with the handshake, as far as the input goes. This ends what the caller has begun. */
void bolide_tls_handshake(bolide_tls *tls, struct bolide_tls_shared *shared);

/* Between begin and end: make our close_notify. -1 with an exception set; 0. */
int bolide_tls_notify(bolide_tls *tls, struct bolide_tls_shared *shared);

/* Tell the owner if both ends have said good-bye. */
void bolide_tls_finish_unwrap(bolide_tls *tls);

/* Read what comes before the peer's close_notify, for nobody. This ends what the caller has begun. */
void bolide_tls_drop_input(bolide_tls *tls, struct bolide_tls_shared *shared);

/* --- tls_records.c ------------------------------------------------------------------------------------------------ */

/* Have the loop call the filter soon, which goes on with what was kept. */
void bolide_tls_come_back(bolide_tls *tls);

/* Drop what was kept. */
void bolide_tls_forget(bolide_tls *tls);

/* Deliver what was kept while the owner did not read. */
void bolide_tls_deliver_kept(bolide_tls *tls);

#endif
