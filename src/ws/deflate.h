/* permessage-deflate (RFC 7692): its negotiation, and messages in and out of zlib. No Python. */
#ifndef BOLIDE_WS_DEFLATE_H
#define BOLIDE_WS_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was agreed upon. */
typedef struct {
    bool enabled;
    bool server_no_context_takeover;
    bool client_no_context_takeover;
    uint8_t server_bits; /* log2 of the window that we compress with */
    uint8_t client_bits; /* ... that the client may use */
    bool told_client;    /* the client said that it can be told its window's size */
} bolide_deflate_params;

#define BOLIDE_DEFLATE_RESPONSE_MAX 160

/* Find an offer to accept in the value of a Sec-WebSocket-Extensions field (several fields: call for each until one is
 * found). 1: *params is filled; 0: there is none; -1: the value is no list of extensions. */
int bolide_deflate_negotiate(const char *value, size_t len, bolide_deflate_params *params);

/* The value of the answer's field. `out` has BOLIDE_DEFLATE_RESPONSE_MAX bytes; returns the length. */
size_t bolide_deflate_response(const bolide_deflate_params *params, char *out);

typedef struct bolide_deflate bolide_deflate;

/* The streams are made when they are first needed and, without context takeover, given back after each message.
 * NULL: no memory. */
bolide_deflate *bolide_deflate_new(const bolide_deflate_params *params);
void bolide_deflate_free(bolide_deflate *d);

/* Where output goes: room for `want` or more bytes behind what was written so far; *room says how many. NULL: no more
 * is allowed, or there is no memory. */
typedef char *(*bolide_deflate_room)(void *arg, size_t want, size_t *room);
/* `len` bytes were written there. False ends the work. */
typedef bool (*bolide_deflate_wrote)(void *arg, size_t len);

typedef struct {
    bolide_deflate_room room;
    bolide_deflate_wrote wrote;
    void *arg;
} bolide_deflate_sink;

typedef enum {
    BOLIDE_DEFLATE_OK = 0,
    BOLIDE_DEFLATE_CORRUPT, /* no valid DEFLATE data */
    BOLIDE_DEFLATE_REFUSED, /* the sink said no */
    BOLIDE_DEFLATE_MEMORY,
} bolide_deflate_status;

/* Decompress a piece of a message; `last` says that it is the last one. */
bolide_deflate_status bolide_inflate_piece(bolide_deflate *d, const char *data, size_t len, bool last,
                                           const bolide_deflate_sink *sink);

/* Compress a message. */
bolide_deflate_status bolide_deflate_message(bolide_deflate *d, const char *data, size_t len,
                                             const bolide_deflate_sink *sink);

/* Let the next message that is compressed refer to nothing before it. To be called when the peer gets a message that
 * another stream has compressed on its own: any receiver understands such a message, but its window moves on. */
void bolide_deflate_forget(bolide_deflate *d);

/* What was agreed upon. */
const bolide_deflate_params *bolide_deflate_get_params(const bolide_deflate *d);

#endif
