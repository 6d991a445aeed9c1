/* What an open WebSocket consists of: for connection.c (its life, frames as they come), message.c (the payload of
 * messages that come) and output.c (frames that go). */
#ifndef BOLIDE_WS_SESSION_H
#define BOLIDE_WS_SESSION_H

#include "ws/connection.h"
#include "ws/utf8.h"

/* What is read, and what of it lasts from one read to the next. Between messages a connection has none. */
struct bolide_ws_input {
    PyObject *partial;     /* bytes object, ours alone: the message under assembly, or NULL */
    size_t partial_len;    /* bytes of it that are filled */
    char *tail;            /* a header or a control frame that was cut, or NULL */
    char *pong;            /* BOLIDE_WS_CONTROL_MAX bytes: a pong that waits for the output to drain, or NULL */
    bolide_ws_frame frame; /* the data frame under way: len counts down */
    uint64_t offset;       /* bytes of it that have come */
    bolide_utf8 utf8;      /* of the text message under assembly */
    uint8_t tail_len;      /* bytes of `tail` */
    uint8_t pong_len;      /* bytes of `pong` */
    uint8_t opcode;        /* of the message under way; 0: none */
    bool compressed;       /* it is compressed */
    bool reading;          /* on_read() has it, whatever becomes of the connection */
};

/* What a connection has as long as it is open. How long it has been in the state that times out is conn->since_ms. */
typedef struct {
    bolide_deflate *deflate; /* NULL: no compression */
    bolide_ws_input *input;  /* while something is read, or is not complete; else NULL */
    uint32_t pending;        /* output when the last tick looked, at most UINT32_MAX */
    uint32_t ping;           /* payload of the last ping */
    uint8_t flags;           /* WS_* */
} bolide_ws;

_Static_assert(sizeof(bolide_ws) <= BOLIDE_CONN_PROTOCOL_MAX, "it lies in the connection");

enum {
    WS_FULL = 1,       /* the owner wants no more messages */
    WS_PINGED = 2,     /* a ping has no answer yet */
    WS_CLOSE_SENT = 4, /* we have sent a close frame */
    WS_ENDED = 8,      /* the owner was told, or needs not be */
    WS_DELIVERED = 16, /* messages were delivered from the bytes that are being parsed */
    WS_DEFERRED = 32,  /* the frame that comes next breaks a rule, which may wait */
};

static inline bolide_ws *bolide_ws_of(const bolide_conn *c) {
    return (bolide_ws *)(void *)c->upgraded;
}

static inline bolide_ws_config *bolide_ws_config_of(const bolide_conn *c) {
    return c->http->upgrades;
}

/* --- connection.c ------------------------------------------------------------------------------------------------- */

/* The peer has broken a rule: close with `code`. */
void bolide_ws_fail(bolide_conn *c, int code, const char *text);

/* There is no memory, with the exception set. */
void bolide_ws_out_of_memory(bolide_conn *c);

/* --- message.c ---------------------------------------------------------------------------------------------------- */

/* The header of a data frame has come; `have` bytes stand behind it. Returns how many of those were used. */
size_t bolide_ws_begin_frame(bolide_conn *c, const bolide_ws_frame *f, char *data, size_t have);

/* Masked bytes of the frame under way. */
void bolide_ws_take_payload(bolide_conn *c, char *data, size_t len);

/* --- output.c ----------------------------------------------------------------------------------------------------- */

void bolide_ws_put_control(bolide_conn *c, int opcode, const char *data, size_t len);

/* Send a close frame, once; BOLIDE_WS_NO_STATUS stands for one without a code. */
void bolide_ws_put_close(bolide_conn *c, int code, const char *reason, size_t len);

#endif
