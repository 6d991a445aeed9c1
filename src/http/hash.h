/* Eight bytes at a time: hashing and case folding for the caches of the HTTP layer. Reads stay inside [p, p + len). */
#ifndef BOLIDE_HTTP_HASH_H
#define BOLIDE_HTTP_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t bolide_load64(const char *p) {
    uint64_t w;
    memcpy(&w, p, 8);
    return w;
}

static inline uint64_t bolide_load32(const char *p) {
    uint32_t w;
    memcpy(&w, p, 4);
    return w;
}

/* Up to 8 bytes as one word that tells apart any two strings of the same length. */
static inline uint64_t bolide_load_short(const char *p, size_t len) {
    if (len == 8) {
        return bolide_load64(p);
    }
    if (len >= 4) {
        return bolide_load32(p) | bolide_load32(p + len - 4) << 32;
    }
    if (len == 0) {
        return 0;
    }
    return (uint64_t)(unsigned char)p[0] | (uint64_t)(unsigned char)p[len / 2] << 8 |
           (uint64_t)(unsigned char)p[len - 1] << 16;
}

/* A-Z in each byte of `w` to lower case; other bytes unchanged. */
static inline uint64_t bolide_fold64(uint64_t w) {
    const uint64_t ones = 0x0101010101010101u;
    uint64_t low = w & 0x7f * ones;
    uint64_t above_z = low + (0x7f - 'Z') * ones;
    uint64_t from_a = low + (0x80 - 'A') * ones;
    uint64_t upper = ~w & (from_a ^ above_z) & 0x80 * ones;
    return w | upper >> 2;
}

static inline uint64_t bolide_mix(uint64_t h, uint64_t w) {
    h = (h ^ w) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* A hash of `len` bytes, continuing from `h`; `fold` ignores the case of ASCII letters. Only for caches that may miss.
 */
static inline uint64_t bolide_hash(uint64_t h, const char *p, size_t len, bool fold) {
    h = bolide_mix(h, len);
    while (len > 8) {
        uint64_t w = bolide_load64(p);
        h = bolide_mix(h, fold ? bolide_fold64(w) : w);
        p += 8;
        len -= 8;
    }
    uint64_t w = bolide_load_short(p, len);
    return bolide_mix(h, fold ? bolide_fold64(w) : w);
}

/* Is `raw` equal to `lower`, which is in lower case, but for the case of ASCII letters? Both have `len` bytes. */
static inline bool bolide_equal_folded(const char *raw, const char *lower, size_t len) {
    while (len > 8) {
        if (bolide_fold64(bolide_load64(raw)) != bolide_load64(lower)) {
            return false;
        }
        raw += 8;
        lower += 8;
        len -= 8;
    }
    return bolide_fold64(bolide_load_short(raw, len)) == bolide_load_short(lower, len);
}

#endif
