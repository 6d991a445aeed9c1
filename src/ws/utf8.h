/* UTF-8 (RFC 3629) checked piece by piece, as the bytes of a message come in. No Python. */
#ifndef BOLIDE_WS_UTF8_H
#define BOLIDE_WS_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where in a character the bytes so far end. All zero: at a boundary. */
typedef struct {
    uint8_t need;   /* continuation bytes that must still come */
    uint8_t lo, hi; /* range of the next of them */
} bolide_utf8;

/* Do the next `len` bytes go on as valid UTF-8? False as soon as no continuation could make them valid. */
bool bolide_utf8_feed(bolide_utf8 *u, const char *data, size_t len);

/* May the text end here? */
static inline bool bolide_utf8_complete(const bolide_utf8 *u) {
    return u->need == 0;
}

#endif
