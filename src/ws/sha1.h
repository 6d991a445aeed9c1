/* SHA-1 (FIPS 180-4) of short inputs: all that the opening handshake needs. */
#ifndef BOLIDE_WS_SHA1_H
#define BOLIDE_WS_SHA1_H

#include <stddef.h>
#include <stdint.h>

#define BOLIDE_SHA1_LEN 20
#define BOLIDE_SHA1_MAX 119 /* bytes of input: two blocks with the padding */

void bolide_sha1(const void *data, size_t len, uint8_t digest[BOLIDE_SHA1_LEN]);

#endif
