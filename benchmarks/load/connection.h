/*
 * One connection of the load generator: it sends a message, waits for the whole reply, and sends again.
 */
#ifndef LOAD_CONNECTION_H
#define LOAD_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef enum {
    KIND_TCP,
    KIND_UNIX,
    KIND_UDP,
    KIND_TLS,
    KIND_HTTP, /* a GET of the path, answered with 200 and always as many bytes */
    KIND_WEBSOCKET,
    KIND_BROADCAST,            /* WebSockets, of which one sends and all receive */
    KIND_BROADCAST_COMPRESSED, /* ... that offer permessage-deflate, as browsers do */
} connection_kind_t;

/* What all connections of a run have in common. */
typedef struct {
    connection_kind_t kind;
    const char *host;      /* a dotted IPv4 address, or the path of a Unix socket */
    int port;              /* unused for a Unix socket */
    const char *path;      /* of the URL */
    char *message;         /* the bytes to send, over and over */
    size_t message_length; /* bytes */
    char *reply;           /* the bytes that must come back */
    size_t reply_length;   /* bytes */
} exchange_t;

typedef struct {
    int fd;
    void *tls;        /* the SSL object, or NULL */
    size_t sent;      /* bytes of the message that left */
    size_t received;  /* bytes of the reply that arrived */
    uint64_t started; /* monotonic nanoseconds at which the message began to leave */
    bool waits;       /* for the rest of a reply */
    bool verified;    /* one whole reply was compared with what was expected */

    /* Of a broadcast: the frame that is being read. */
    unsigned char header[10];
    size_t header_length;  /* bytes of it that are there */
    uint64_t payload_left; /* bytes that must still come */
} connection_t;

typedef enum {
    PROGRESS_WAITING, /* for the socket, to read or to write */
    PROGRESS_REPLY,   /* a whole reply is here; nothing was sent since */
    PROGRESS_FAILED,  /* closed by the peer, an error, or not the expected bytes */
} progress_t;

/* Monotonic time in nanoseconds. */
uint64_t clock_now(void);

/* Connect and shake hands, blocking; the socket is non-blocking afterwards. Returns 0, or -1 with a word on stderr. */
int connection_open(connection_t *connection, exchange_t *exchange);

void connection_close(connection_t *connection);

/* Begin to send the message anew. Returns 0 or -1. */
int connection_send(connection_t *connection, const exchange_t *exchange);

/* Send and read whatever the socket allows now. */
progress_t connection_advance(connection_t *connection, const exchange_t *exchange);

/* Wrap the connected socket in TLS, blocking, without verifying the certificate. Returns 0 or -1. */
int tls_open(connection_t *connection);
void tls_close(connection_t *connection);

/* As read(2) and write(2): -1 with errno EAGAIN means later. */
ssize_t tls_read(connection_t *connection, void *bytes, size_t length);
ssize_t tls_write(connection_t *connection, const void *bytes, size_t length);

/* Fill in the message of HTTP requests for exchange->path. Returns 0 or -1. */
int http_request(exchange_t *exchange);

/* Send one request and read the answer, blocking; the first connection finds out how long answers are. Returns 0, or -1
 * with a word on stderr. */
int http_open(connection_t *connection, exchange_t *exchange);

/* Fill in the message and reply of an echo of `size` payload bytes as WebSocket frames. Returns 0 or -1. */
int websocket_frames(exchange_t *exchange, size_t size);

/* Ask for the upgrade and read the answer, blocking (RFC 6455, section 4). Returns 0 or -1. */
int websocket_open(connection_t *connection, const exchange_t *exchange);

#endif
