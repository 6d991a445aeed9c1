/* Fuzz target (libFuzzer): WebSocket frames, their masking, permessage-deflate and UTF-8, fed as a connection feeds
 * them, with what is checked besides memory safety said by abort().
 *
 * The first byte of the input chooses the parameters; the rest is a stream of frames, also parsed cut in two. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ws/deflate.h"
#include "ws/frame.h"
#include "ws/utf8.h"

#define OUTPUT_MAX (1 << 20)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "not so: %s (line %d)\n", #condition, __LINE__);                                           \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A buffer that output goes to, up to a limit. */
typedef struct {
    char *data;
    size_t len, cap;
} output;

static char *output_room(void *arg, size_t want, size_t *room) {
    output *out = arg;
    if (out->len >= OUTPUT_MAX) {
        return NULL;
    }
    if (out->cap - out->len < want) {
        out->cap = out->cap * 2 + want + 7;
        out->data = realloc(out->data, out->cap);
    }
    *room = out->cap - out->len;
    return out->data + out->len;
}

static bool output_wrote(void *arg, size_t len) {
    output *out = arg;
    CHECK(len <= out->cap - out->len);
    out->len += len;
    return true;
}

/* UTF-8 the slow way, for comparison: 1 valid, 0 incomplete at the end, -1 invalid. */
static int reference_utf8(const unsigned char *p, size_t len) {
    for (size_t i = 0; i < len;) {
        unsigned char c = p[i++];
        if (c < 0x80) {
            continue;
        }
        int need = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        uint32_t code = c & (0x3fu >> need), least = need == 1 ? 0x80 : need == 2 ? 0x800 : 0x10000;
        if (c < 0xc2 || c > 0xf4) {
            return -1;
        }
        for (int k = need; k > 0; k--) {
            if (i == len) {
                /* Could it still become a character? */
                uint32_t low = code << (6 * k), high = low | ((1u << (6 * k)) - 1);
                bool possible = high >= least && low <= 0x10ffff && !(low >= 0xd800 && high <= 0xdfff);
                return possible ? 0 : -1;
            }
            if ((p[i] & 0xc0) != 0x80) {
                return -1;
            }
            code = code << 6 | (p[i++] & 0x3fu);
        }
        if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
            return -1;
        }
    }
    return 1;
}

static void check_utf8(const char *data, size_t len, size_t cut) {
    bolide_utf8 whole = {0}, parts = {0};
    cut = len > 0 ? cut % (len + 1) : 0;
    bool valid = bolide_utf8_feed(&whole, data, len);
    bool in_parts = bolide_utf8_feed(&parts, data, cut) && bolide_utf8_feed(&parts, data + cut, len - cut);
    CHECK(valid == in_parts);
    int expected = reference_utf8((const unsigned char *)data, len);
    CHECK(valid == (expected >= 0));
    CHECK(!valid || bolide_utf8_complete(&whole) == (expected == 1));
}

static void check_mask(const char *data, size_t len, const uint8_t mask[4], uint64_t offset) {
    char *copy = malloc(len + 1), *again = malloc(len + 1);
    bolide_ws_unmask_copy(copy, data, len, mask, offset);
    memcpy(again, copy, len);
    for (size_t i = 0; i < len; i++) {
        CHECK((uint8_t)copy[i] == (uint8_t)((uint8_t)data[i] ^ mask[(offset + i) & 3]));
    }
    bolide_ws_unmask(again, len, mask, offset);
    CHECK(memcmp(again, data, len) == 0);
    free(copy);
    free(again);
}

static void round_trip(const bolide_deflate_params *params, const char *data, size_t len) {
    bolide_deflate *ours = bolide_deflate_new(params), *theirs;
    bolide_deflate_params mirrored = *params;
    mirrored.client_bits = params->server_bits;
    mirrored.client_no_context_takeover = params->server_no_context_takeover;
    theirs = bolide_deflate_new(&mirrored);
    for (int i = 0; i < 2; i++) {
        output packed = {0}, plain = {0};
        const bolide_deflate_sink pack = {output_room, output_wrote, &packed},
                                  unpack = {output_room, output_wrote, &plain};
        CHECK(bolide_deflate_message(ours, data, len, &pack) == BOLIDE_DEFLATE_OK);
        CHECK(packed.len >= 4 && memcmp(packed.data + packed.len - 4, "\x00\x00\xff\xff", 4) == 0);
        CHECK(bolide_inflate_piece(theirs, packed.data, packed.len - 4, true, &unpack) == BOLIDE_DEFLATE_OK);
        CHECK(plain.len == len && memcmp(plain.data, data, len) == 0);
        free(packed.data);
        free(plain.data);
    }
    bolide_deflate_free(ours);
    bolide_deflate_free(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    if (size < 2) {
        return 0;
    }
    unsigned choice = input[0], cut = input[1];
    const char *data = (const char *)input + 2;
    size_t len = size - 2;
    bolide_deflate_params params = {.enabled = true,
                                    .server_bits = (uint8_t)(9 + choice % 7),
                                    .client_bits = (uint8_t)(8 + choice / 8 % 8),
                                    .client_no_context_takeover = (choice & 64) != 0,
                                    .server_no_context_takeover = (choice & 128) != 0};
    bolide_deflate_params agreed;
    if (bolide_deflate_negotiate(data, len, &agreed) > 0) {
        char answer[BOLIDE_DEFLATE_RESPONSE_MAX];
        CHECK(bolide_deflate_response(&agreed, answer) <= sizeof(answer));
        CHECK(agreed.server_bits >= 9 && agreed.server_bits <= 15);
    }
    check_utf8(data, len, cut);
    if (len > 0 && len < 4096) {
        round_trip(&params, data, len);
    }
    bolide_deflate *deflate = bolide_deflate_new(&params);
    output out = {0};
    const bolide_deflate_sink sink = {output_room, output_wrote, &out};
    while (len > 0) {
        bolide_ws_frame frame, early;
        int used = bolide_ws_frame_parse(data, len, true, &frame);
        for (size_t part = 0; part < len && part < BOLIDE_WS_HEADER_MAX; part++) {
            int result = bolide_ws_frame_parse(data, part, true, &early);
            CHECK(result == 0 || result == used); /* early or late, the same */
        }
        if (used <= 0) {
            CHECK(used == 0 ? len < BOLIDE_WS_HEADER_MAX : used == -BOLIDE_WS_PROTOCOL_ERROR);
            break;
        }
        CHECK((size_t)used <= len && frame.len >> 63 == 0);
        data += used;
        len -= (size_t)used;
        size_t have = frame.len < len ? (size_t)frame.len : len;
        check_mask(data, have, frame.mask, cut);
        char *payload = malloc(have + 1);
        bolide_ws_unmask_copy(payload, data, have, frame.mask, 0);
        size_t half = have > 0 ? cut % have : 0;
        out.len = 0;
        bolide_deflate_status status = bolide_inflate_piece(deflate, payload, half, false, &sink);
        if (status == BOLIDE_DEFLATE_OK) {
            status = bolide_inflate_piece(deflate, payload + half, have - half, frame.fin, &sink);
        }
        free(payload);
        CHECK(status != BOLIDE_DEFLATE_MEMORY);
        if (status != BOLIDE_DEFLATE_OK) {
            break;
        }
        data += have;
        len -= have;
    }
    free(out.data);
    bolide_deflate_free(deflate);
    return 0;
}
