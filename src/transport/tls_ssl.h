/* The ssl module as the TLS filter calls it: buffers of ours in, no copies, no exceptions where none is needed. */
#ifndef BOLIDE_TRANSPORT_TLS_SSL_H
#define BOLIDE_TRANSPORT_TLS_SSL_H

#include "transport/tls.h"

#define BOLIDE_TLS_RECORD 16384 /* plaintext of a record, RFC 8446, section 5.1 */

/* What the TLS streams of a loop share, made with the first of them. */
struct bolide_tls_shared {
    struct bolide_window *window;
    bool out_busy; /* `out` is in use further up on the C stack, or by a thread that has given up the GIL */
    char out[BOLIDE_TLS_RECORD]; /* output of a record to be, gathered */
    char in[BOLIDE_READ_BUF];
};

/* Import what is needed of the ssl module, which a program without TLS does not have to have. 0, or -1 with an
 * exception set. */
int bolide_ssl_load(bolide_state *st);

/* loop->tls, made if it was not there. NULL with MemoryError set. */
struct bolide_tls_shared *bolide_ssl_shared(bolide_loop *loop);

/* Make the object and its BIOs: context.wrap_bio(incoming, outgoing, server_side=, server_hostname=). 0, or -1 with an
 * exception set. */
int bolide_ssl_wrap(bolide_tls *tls, const bolide_tls_options *options);

/* Move ciphertext from the socket into the BIO. 0, or -1 with an exception set. */
int bolide_ssl_feed(bolide_tls *tls, const char *data, size_t len);

/* Decrypt up to `room` bytes, of one record at most. 0: the peer has sent close_notify. -1 with an exception set. */
Py_ssize_t bolide_ssl_read(bolide_tls *tls, char *to, size_t room);

/* Encrypt `len` bytes into the BIO: the number taken, or -1 with an exception set. */
Py_ssize_t bolide_ssl_write(bolide_tls *tls, const char *data, size_t len);

/* Bytes in one of the BIOs; -1 with an exception set. */
Py_ssize_t bolide_ssl_pending(bolide_tls *tls, PyObject *bio);

/* After a failed call: did it only want more input? Then the exception is cleared. */
bool bolide_ssl_wants_input(bolide_tls *tls);

int bolide_ssl_init(PyObject *module, bolide_state *st);

#endif
