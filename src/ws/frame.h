/* WebSocket frames (RFC 6455, section 5): headers, masking, close codes. No Python, no state. */
#ifndef BOLIDE_WS_FRAME_H
#define BOLIDE_WS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BOLIDE_WS_CONTINUATION = 0x0,
    BOLIDE_WS_TEXT = 0x1,
    BOLIDE_WS_BINARY = 0x2,
    BOLIDE_WS_CLOSE = 0x8,
    BOLIDE_WS_PING = 0x9,
    BOLIDE_WS_PONG = 0xa,
};

/* RFC 6455, section 7.4.1. */
enum {
    BOLIDE_WS_NORMAL = 1000,
    BOLIDE_WS_GOING_AWAY = 1001,
    BOLIDE_WS_PROTOCOL_ERROR = 1002,
    BOLIDE_WS_NO_STATUS = 1005, /* never sent: a close frame without a code */
    BOLIDE_WS_ABNORMAL = 1006,  /* never sent: no close frame */
    BOLIDE_WS_INVALID_DATA = 1007,
    BOLIDE_WS_TOO_BIG = 1009,
    BOLIDE_WS_INTERNAL_ERROR = 1011,
};

#define BOLIDE_WS_CONTROL_MAX    125 /* bytes of a control frame's payload */
#define BOLIDE_WS_REASON_MAX     123 /* ... of a close frame's reason */
#define BOLIDE_WS_HEADER_MAX     14  /* of a frame from a client, with its masking key */
#define BOLIDE_WS_OUT_HEADER_MAX 10  /* of a frame to a client */

/* The header of a frame from a client. */
typedef struct {
    uint64_t len;    /* bytes of the payload */
    uint8_t mask[4]; /* the masking key */
    uint8_t opcode;
    bool fin;
    bool compressed; /* RSV1 */
} bolide_ws_frame;

/* Read a frame's header from its first `len` bytes. Returns the header's length; 0 when more bytes are needed; or the
 * code to close with, negated, as early as a byte is wrong: reserved bits (RSV1 unless `compression` was negotiated) or
 * opcodes, no mask, a control frame that is fragmented or too long, a length not in its shortest form. */
int bolide_ws_frame_parse(const char *data, size_t len, bool compression, bolide_ws_frame *frame);

/* Write the header of an unfragmented frame to a client. Returns its length, at most BOLIDE_WS_OUT_HEADER_MAX. */
size_t bolide_ws_frame_header(char *out, int opcode, bool compressed, uint64_t len);

static inline bool bolide_ws_is_control(int opcode) {
    return (opcode & 0x8) != 0;
}

/* XOR with the masking key, whose first byte is for the payload's byte at `offset` & 3 == 0. In place, or from `src` to
 * `dst`, which do not overlap. */
void bolide_ws_unmask(char *data, size_t len, const uint8_t mask[4], uint64_t offset);
void bolide_ws_unmask_copy(char *dst, const char *src, size_t len, const uint8_t mask[4], uint64_t offset);

/* May this code stand in a close frame (RFC 6455, section 7.4; the IANA registry)? */
bool bolide_ws_code_is_valid(int code);

#endif
