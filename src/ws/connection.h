/* An open WebSocket connection (RFC 6455) on the stream of an HTTP connection that was upgraded.
 *
 * Frames are parsed in place in the loop's read buffer; what lasts from one read to the next is the message under
 * assembly, or the few bytes of a header that was cut. The owner (asgi/) gets whole messages. While it has enough of
 * them, nothing is read.
 *
 * The end: the owner is told once (on_end) when the peer closes, breaks the protocol or vanishes. Whoever closes, the
 * TCP connection is given up by the server once the closing handshake is over or takes too long. */
#ifndef BOLIDE_WS_CONNECTION_H
#define BOLIDE_WS_CONNECTION_H

#include "http/connection.h"
#include "ws/deflate.h"
#include "ws/frame.h"

typedef struct {
    /* A message: a str or an exact bytes object, whose reference passes to the owner; `len` is its size on the wire,
     * decompressed. Returns false when the owner wants no more for now; bolide_ws_resume() then goes on. */
    bool (*on_message)(bolide_conn *c, PyObject *message, size_t len);
    /* There will be no more messages, and nothing can be sent. `reason` is a borrowed str, or NULL when no close frame
     * was seen. Not called after bolide_ws_close(). */
    void (*on_end)(bolide_conn *c, int code, PyObject *reason);
    /* Output fell below its low-water mark. */
    void (*on_drain)(bolide_conn *c);
} bolide_ws_ops;

typedef struct bolide_ws_input bolide_ws_input;

/* What the connections of one server share: http->upgrades. */
typedef struct {
    const bolide_ws_ops *ops;
    size_t max_size;           /* bytes of a message from the client, decompressed */
    unsigned ping_interval_ms; /* 0: no pings */
    unsigned ping_timeout_ms;  /* 0: no limit */
    unsigned close_timeout_ms; /* for the peer's close frame, as long as it reads nothing */
    char *scratch;             /* for compressed output; owned */
    size_t scratch_len, scratch_cap;
    PyObject *last;         /* the message that was sent last, an exact str or bytes object, or NULL */
    bolide_conn *last_conn; /* to whom; only to be compared */
    PyObject *frame;        /* bytes: `last` as a frame, for many peers, or NULL */
    PyObject *compressed;   /* bytes: ... as a frame, compressed on its own, or NULL */
    bolide_ws_input *spare; /* for the next connection that reads, or NULL */
    uint8_t window_bits;    /* log2 of the window that `compressed` needs */
} bolide_ws_config;

void bolide_ws_config_clear(bolide_ws_config *config);

/* The 101 answer was queued: the connection speaks WebSocket from here on. `deflate`: what was agreed upon, or not
 * enabled. 0, or -1 with MemoryError set. c->http->upgrades is a bolide_ws_config. */
int bolide_ws_start(bolide_conn *c, const bolide_deflate_params *deflate);

/* Send a message: a str as text; any other object as its bytes, which must be contiguous. 0, or -1 with an exception
 * set (TypeError, UnicodeEncodeError, MemoryError) and nothing sent. Only while bolide_ws_is_open(). */
int bolide_ws_send(bolide_conn *c, PyObject *message);

/* Begin the closing handshake; `len` <= BOLIDE_WS_REASON_MAX bytes of UTF-8. Messages that still come are dropped. */
void bolide_ws_close(bolide_conn *c, int code, const char *reason, size_t len);

/* Close with 1001 and give the connection up at once: the server stops. */
void bolide_ws_shutdown(bolide_conn *c);

/* The owner takes messages again. */
void bolide_ws_resume(bolide_conn *c);

/* `ms` have passed since the last call. */
void bolide_ws_tick(bolide_conn *c, unsigned ms);

/* Can messages be sent? Neither side has closed. */
bool bolide_ws_is_open(const bolide_conn *c);

#endif
