/* Request header fields as ASGI wants them: (name, value) tuples of bytes, names in lower case.
 *
 * Two tables save most of the work. The names that are common in requests exist once, as bytes objects. And a
 * direct-mapped cache keeps recent (name, value) pairs, so that a field which came before, on whatever connection, is
 * the same tuple again; connections keep nothing. Values that are secrets never enter it. */
#ifndef BOLIDE_HTTP_HEADERS_H
#define BOLIDE_HTTP_HEADERS_H

#include "common/state.h"

/* The fields that the server itself looks at. */
typedef enum {
    BOLIDE_FIELD_OTHER = 0,
    BOLIDE_FIELD_CONNECTION,
    BOLIDE_FIELD_CONTENT_LENGTH,
    BOLIDE_FIELD_EXPECT,
    BOLIDE_FIELD_FORWARDED, /* x-forwarded-for, x-forwarded-proto */
    BOLIDE_FIELD_HOST,
    BOLIDE_FIELD_TRANSFER_ENCODING,
    BOLIDE_FIELD_UPGRADE,
    BOLIDE_FIELD_SECRET, /* authorization, cookie, ...: not to be cached */
} bolide_field_id;

#define BOLIDE_NAME_SLOTS 512
#define BOLIDE_PAIR_SLOTS 512
#define BOLIDE_PAIR_MAX   256

typedef struct {
    PyObject *name;     /* bytes in lower case, or NULL: an empty slot */
    bolide_field_id id; /* what the server makes of it */
} bolide_known_name;

typedef struct {
    uint64_t hash;      /* of name (folded) and value */
    PyObject *pair;     /* (name, value), or NULL: an empty slot */
    bolide_field_id id; /* of the name */
} bolide_known_pair;

typedef struct {
    uint64_t seed;                              /* of the hashes */
    bolide_known_name names[BOLIDE_NAME_SLOTS]; /* open addressing, filled once */
    bolide_known_pair pairs[BOLIDE_PAIR_SLOTS]; /* direct mapped */
} bolide_headers;

/* Fill the table of names. 0, or -1 with an exception set; clear it either way. */
int bolide_headers_init(bolide_headers *h);
void bolide_headers_clear(bolide_headers *h);

/* The (name, value) tuple of a field whose name is a valid token; *id says what it is. New reference, or NULL with an
 * exception set. */
PyObject *bolide_headers_pair(bolide_headers *h, const char *name, size_t name_len, const char *value, size_t value_len,
                              bolide_field_id *id);

/* Does the comma-separated list `value` have the token `token` (in lower case)? RFC 9110, 5.6.1. */
bool bolide_has_token(const char *value, size_t len, const char *token, size_t token_len);

#endif
