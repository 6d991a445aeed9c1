/* The ssl module as the TLS filter calls it: buffers of ours in, no copies, no exceptions where none is needed. */
#ifndef BOLIDE_TRANSPORT_TLS_SSL_H
#define BOLIDE_TRANSPORT_TLS_SSL_H

#include "transport/tls.h"

#define BOLIDE_TLS_RECORD 16384 /* plaintext of a record, RFC 8446, section 5.1 */

/* What the TLS streams of a loop share, made with the first of them. */
struct bolide_tls_shared {
    struct bolide_window *window;
    PyObject *incoming; /* ssl.MemoryBIO of all the streams: ciphertext from the peer of the one that is at work */
    PyObject *outgoing; /* the same: ciphertext for its peer */
    bool busy;          /* a stream is at work further up on the C stack, or in a thread that has given up the GIL */
    bool orphaned;      /* the loop was closed meanwhile */
    bool dirty;         /* for want of memory the BIOs could not be emptied */
    char out[BOLIDE_TLS_RECORD]; /* output of a record to be, gathered */
    char in[BOLIDE_READ_BUF];
};

/* Import what is needed of the ssl module, which a program without TLS does not have to have. 0, or -1 with an
 * exception set. */
int bolide_ssl_load(bolide_state *st);

/* loop->tls, made if it was not there. NULL with MemoryError set. */
struct bolide_tls_shared *bolide_ssl_shared(bolide_loop *loop);

/* Make the object: context.wrap_bio(incoming, outgoing, server_side=, server_hostname=), over the shared BIOs and
 * behind a guard (tls_guard.h); over BIOs of its own where the context or the object have code of a user's. 0, or -1
 * with an exception set. */
int bolide_ssl_wrap(bolide_tls *tls, struct bolide_tls_shared *shared, const bolide_tls_options *options);

/* The streams of a loop share their BIOs, which are empty between this and that call: one stream works with them at a
 * time, from begin to end, and no code of its owner runs meanwhile. What the context's callbacks run, or other threads,
 * finds them taken: NULL without an exception set. NULL too once the stream is closed. */
struct bolide_tls_shared *bolide_ssl_begin(bolide_tls *tls);

/* Queue what was made for the peer, and drop input that was not read, which an error leaves behind, or a stream that
 * was closed meanwhile. 0, or -1 with MemoryError set. An exception that is set stays. */
int bolide_ssl_end(bolide_tls *tls, struct bolide_tls_shared *shared);

/* The same when nothing was fed and all was drained. */
void bolide_ssl_leave(struct bolide_tls_shared *shared);

/* Between begin and end. Move ciphertext from the socket into the BIO. 0, or -1 with an exception set. */
int bolide_ssl_feed(bolide_tls *tls, const char *data, size_t len);

/* Between begin and end. Decrypt up to `room` bytes, of one record at most. 0: the peer has sent close_notify. -1 with
 * an exception set. */
Py_ssize_t bolide_ssl_read(bolide_tls *tls, char *to, size_t room);

/* Between begin and end. Encrypt `len` bytes into the BIO: the number taken, or -1 with an exception set. */
Py_ssize_t bolide_ssl_write(bolide_tls *tls, const char *data, size_t len);

/* Between begin and end. Go on with the handshake, or make a close_notify and look for the peer's. 0, or -1 with an
 * exception set. */
int bolide_ssl_handshake(bolide_tls *tls);
int bolide_ssl_shutdown(bolide_tls *tls);

/* Nobody can take the BIOs now, but somebody will be able to later: come back then. */
bool bolide_ssl_is_taken(const bolide_tls *tls);

/* Queue the ciphertext that was made for the socket: its length, or -1 with an exception set. */
Py_ssize_t bolide_ssl_drain(bolide_tls *tls);

/* After a failed call: did it only want more input? Then the exception is cleared. */
bool bolide_ssl_wants_input(bolide_tls *tls);

int bolide_ssl_init(PyObject *module, bolide_state *st);

#endif
