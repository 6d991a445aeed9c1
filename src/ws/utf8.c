#include "ws/utf8.h"

#include <string.h>

/* The length of the ASCII prefix, rounded down to whole steps. */
static size_t skip_ascii(const unsigned char *p, size_t len) {
    size_t i = 0;
    for (; i + 32 <= len; i += 32) {
        uint64_t w[4];
        memcpy(w, p + i, sizeof(w));
        if (((w[0] | w[1] | w[2] | w[3]) & 0x8080808080808080u) != 0) {
            break;
        }
    }
    return i;
}

/* Begin a character of several bytes. False when `byte` begins none. */
static bool begin(bolide_utf8 *u, unsigned char byte) {
    u->lo = 0x80;
    u->hi = 0xbf;
    if (byte >= 0xc2 && byte <= 0xdf) {
        u->need = 1;
    } else if (byte >= 0xe0 && byte <= 0xef) {
        u->need = 2;
        if (byte == 0xe0) {
            u->lo = 0xa0; /* below: fits in two bytes */
        } else if (byte == 0xed) {
            u->hi = 0x9f; /* above: a surrogate */
        }
    } else if (byte >= 0xf0 && byte <= 0xf4) {
        u->need = 3;
        if (byte == 0xf0) {
            u->lo = 0x90; /* below: fits in three bytes */
        } else if (byte == 0xf4) {
            u->hi = 0x8f; /* above: beyond U+10FFFF */
        }
    } else {
        return false;
    }
    return true;
}

bool bolide_utf8_feed(bolide_utf8 *u, const char *data, size_t len) {
    const unsigned char *p = (const unsigned char *)data, *end = p + len;
    while (p < end) {
        if (u->need > 0) {
            if (*p < u->lo || *p > u->hi) {
                return false;
            }
            u->lo = 0x80;
            u->hi = 0xbf;
            u->need--;
            p++;
        } else if (*p < 0x80) {
            size_t skipped = skip_ascii(p, (size_t)(end - p));
            p += skipped;
            while (p < end && *p < 0x80) {
                p++;
            }
        } else if (!begin(u, *p++)) {
            return false;
        }
    }
    return true;
}
