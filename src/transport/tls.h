/* TLS between a stream's socket and its owner, by the ssl.SSLContext that the user passes.
 *
 * The filter drives an ssl.SSLObject from C over two ssl.MemoryBIO, which all the streams of a loop share: a stream
 * gives complete records in, takes all out again, and leaves both empty (tls_ssl.h). Output is gathered as plaintext
 * and encrypted, in records of up to 16 KiB, when the stream is flushed and the socket takes it.
 *
 * Nothing of the owner's is sent or delivered before the handshake is complete. Output that was queued before
 * bolide_stream_start_tls() leaves as it is, before the first byte of the handshake. */
#ifndef BOLIDE_TRANSPORT_TLS_H
#define BOLIDE_TRANSPORT_TLS_H

#include "transport/stream.h"

#define BOLIDE_TLS_READ_HIGH_WATER (256 * 1024)

typedef struct {
    PyObject *context;           /* ssl.SSLContext */
    PyObject *server_hostname;   /* str or bytes, or None; only for a client */
    PyObject *handshake_timeout; /* seconds, a number > 0; NULL: none */
    PyObject *shutdown_timeout;  /* seconds, a number > 0; NULL: none. Of bolide_stream_unwrap() */
    bool server_side;
} bolide_tls_options;

/* A Python object, so that the collector sees what it refers to and the loop can call it. */
typedef struct bolide_tls {
    PyObject_HEAD bolide_stream *stream; /* NULL once the stream is closed */
    bolide_state *st;                    /* kept by the loop that the stream belongs to */
    PyObject *context;                   /* ssl.SSLContext */
    PyObject *object;                    /* ssl.SSLObject */
    PyObject *raw;   /* what implements it and reads into our memory; NULL if its class has code of its own for that */
    PyObject *guard; /* what its users find in place of `raw`; NULL if the BIOs are not shared */
    PyObject *incoming; /* ssl.MemoryBIO, mostly that of the loop: ciphertext from the peer */
    PyObject *outgoing; /* ssl.MemoryBIO, mostly that of the loop: ciphertext for the peer */
    PyObject *timer;    /* TimerHandle: the end of the handshake or of the shutdown; or NULL */
    PyObject *handshake_timeout, *shutdown_timeout; /* numbers of seconds, or NULL */
    bolide_outlist plain;                           /* output that is not encrypted yet */
    uint32_t records; /* complete records in `incoming` that were not read; may be too high, never too low */
    char *kept;       /* ciphertext that `incoming` was not given yet: a part of a record, or the owner does not read */
    size_t kept_len, kept_room; /* bytes, and bytes of memory */
    size_t read_low, read_high; /* asyncio's marks for ciphertext that waits, which is never more than one read */
    uint64_t since;             /* when the handshake began, in ns: for debug mode */
    bool server_side;
    unsigned flags; /* TLS_* of tls_filter.h */
} bolide_tls;

/* Put TLS on an open stream: a client sends its hello, a server waits for one. The owner's callbacks resume with
 * on_secure or on_tls_error. 0, or -1 with an exception set: the stream then is as it was. */
int bolide_stream_start_tls(bolide_stream *s, const bolide_tls_options *options);

/* Take no more output, send what there is and a close_notify, and wait for the peer's, dropping what comes before it:
 * then on_unwrapped, or on_tls_error after the shutdown timeout. Only after on_secure; idempotent. */
void bolide_stream_unwrap(bolide_stream *s);

/* 0, or -1 with TypeError set: `context` is no ssl.SSLContext. */
int bolide_tls_check_context(bolide_state *st, PyObject *context);

/* The handshake is complete. */
bool bolide_tls_is_secure(const bolide_tls *tls);

/* Ciphertext that has come and waits, in bytes. */
static inline size_t bolide_tls_waiting(const bolide_tls *tls) {
    return tls->kept_len;
}

/* For tests of back-pressure: keep output as plaintext, however much, until it is released. */
void bolide_tls_hold(bolide_tls *tls, bool hold);

/* --- between stream.c, tls.c and tls_records.c ------------------------------------------------------------------- */

void bolide_tls_input(bolide_stream *s, const char *data, size_t len); /* bytes from the socket */

/* Bytes that came before bolide_stream_start_tls(): the loop goes through them soon. 0, or -1 with an exception set. */
int bolide_tls_ahead(bolide_stream *s, const char *data, size_t len);

void bolide_tls_eof(bolide_stream *s); /* the peer's FIN */

/* Encrypt some of the output. The number of bytes gained; 0: there is nothing to do, or it failed and the owner was
 * told. */
size_t bolide_tls_encrypt(bolide_stream *s);

/* A close_notify was sent, or cannot be. */
bool bolide_tls_has_notified(const bolide_tls *tls);

/* The owner reads again: deliver soon what was kept. */
void bolide_tls_resume(bolide_stream *s);

/* May the socket go unread while the owner does not want to read? */
bool bolide_tls_may_pause(const bolide_tls *tls);

/* The stream closes. */
void bolide_tls_release(bolide_stream *s);

/* --- for the loop and the module ---------------------------------------------------------------------------------- */

void bolide_tls_free_shared(bolide_loop *loop);
int bolide_tls_init(PyObject *module, bolide_state *st);

#endif
