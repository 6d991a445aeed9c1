#include "ws/frame.h"

#include <string.h>

static int parse_length(const unsigned char *p, size_t len, bolide_ws_frame *frame) {
    unsigned size = p[1] & 0x7fu;
    if (size < 126) {
        frame->len = size;
        return 2;
    }
    size_t bytes = size == 126 ? 2 : 8;
    if (len < 2 + bytes) {
        return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | p[2 + i];
    }
    if (value < 126 || (bytes == 8 && value < 65536) || value >> 63 != 0) {
        return -BOLIDE_WS_PROTOCOL_ERROR;
    }
    frame->len = value;
    return (int)(2 + bytes);
}

int bolide_ws_frame_parse(const char *data, size_t len, bool compression, bolide_ws_frame *frame) {
    const unsigned char *p = (const unsigned char *)data;
    if (len < 1) {
        return 0;
    }
    frame->fin = (p[0] & 0x80) != 0;
    frame->compressed = (p[0] & 0x40) != 0;
    frame->opcode = p[0] & 0x0f;
    bool control = bolide_ws_is_control(frame->opcode);
    if ((p[0] & 0x30) != 0 || (frame->compressed && (!compression || control || frame->opcode == 0)) ||
        (frame->opcode & 0x7) > 2 || (control && !frame->fin)) {
        return -BOLIDE_WS_PROTOCOL_ERROR;
    }
    if (len < 2) {
        return 0;
    }
    if ((p[1] & 0x80) == 0 || (control && (p[1] & 0x7f) > BOLIDE_WS_CONTROL_MAX)) {
        return -BOLIDE_WS_PROTOCOL_ERROR;
    }
    int used = parse_length(p, len, frame);
    if (used <= 0) {
        return used;
    }
    if (len < (size_t)used + 4) {
        return 0;
    }
    memcpy(frame->mask, p + used, 4);
    return used + 4;
}

size_t bolide_ws_frame_header(char *out, int opcode, bool compressed, uint64_t len) {
    out[0] = (char)(0x80 | (compressed ? 0x40 : 0) | opcode);
    if (len < 126) {
        out[1] = (char)len;
        return 2;
    }
    size_t bytes = len < 65536 ? 2 : 8;
    out[1] = bytes == 2 ? 126 : 127;
    for (size_t i = 0; i < bytes; i++) {
        out[2 + i] = (char)(len >> (8 * (bytes - 1 - i)));
    }
    return 2 + bytes;
}

/* The key, rotated to `offset`, twice over. */
static uint64_t spread(const uint8_t mask[4], uint64_t offset) {
    uint8_t key[8];
    for (unsigned i = 0; i < 8; i++) {
        key[i] = mask[(offset + i) & 3];
    }
    uint64_t word;
    memcpy(&word, key, 8);
    return word;
}

static void unmask_tail(char *dst, const char *src, size_t len, uint64_t key) {
    for (size_t i = 0; i < len; i++) {
        uint8_t byte;
        memcpy(&byte, (const char *)&key + i, 1);
        dst[i] = (char)(src[i] ^ (char)byte);
    }
}

/* Both loops are for the compiler to turn into vector instructions: words of 8 bytes, no aliasing. */
void bolide_ws_unmask(char *data, size_t len, const uint8_t mask[4], uint64_t offset) {
    uint64_t key = spread(mask, offset);
    size_t words = len / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t w;
        memcpy(&w, data + 8 * i, 8);
        w ^= key;
        memcpy(data + 8 * i, &w, 8);
    }
    unmask_tail(data + 8 * words, data + 8 * words, len & 7, key);
}

void bolide_ws_unmask_copy(char *restrict dst, const char *restrict src, size_t len, const uint8_t mask[4],
                           uint64_t offset) {
    uint64_t key = spread(mask, offset);
    size_t words = len / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t w;
        memcpy(&w, src + 8 * i, 8);
        w ^= key;
        memcpy(dst + 8 * i, &w, 8);
    }
    unmask_tail(dst + 8 * words, src + 8 * words, len & 7, key);
}

bool bolide_ws_code_is_valid(int code) {
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}
