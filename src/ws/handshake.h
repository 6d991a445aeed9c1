/* The opening handshake (RFC 6455, section 4.2): what the client asks for, and the answer. */
#ifndef BOLIDE_WS_HANDSHAKE_H
#define BOLIDE_WS_HANDSHAKE_H

#include "http/defaults.h"
#include "transport/stream.h"
#include "ws/deflate.h"

#define BOLIDE_WS_ACCEPT_LEN 28 /* base64 of a SHA-1 */

typedef struct {
    char accept[BOLIDE_WS_ACCEPT_LEN]; /* the value of Sec-WebSocket-Accept */
    bolide_deflate_params deflate;     /* what was found acceptable of the client's offers */
} bolide_ws_handshake;

/* Check the fields `headers` (a list of pairs of bytes, names in lower case) of a request for an upgrade to
 * "websocket". *subprotocols becomes a new list of str: those that the client offers. 0; the status to refuse it with:
 * 400, or 426 for another version than 13; or -1 with an exception set. */
int bolide_ws_handshake_read(bolide_ws_handshake *h, PyObject *headers, bool compression, PyObject **subprotocols);

/* Queue the 101 answer. `subprotocol`: a str, or NULL. `headers`: an iterable of pairs of bytes, or NULL; of these, the
 * fields that the handshake itself needs are left out. The lines of `d` follow, as in every response. 0, or -1 with an
 * exception set and nothing queued. */
int bolide_ws_handshake_answer(const bolide_ws_handshake *h, bolide_stream *s, bolide_defaults *d,
                               PyObject *subprotocol, PyObject *headers);

#endif
