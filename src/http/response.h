/* A response as bytes: status line, field lines, framing of the body. RFC 9112, sections 4 to 7. */
#ifndef BOLIDE_HTTP_RESPONSE_H
#define BOLIDE_HTTP_RESPONSE_H

#include "http/defaults.h"
#include "transport/stream.h"

typedef enum {
    BOLIDE_BODY_NONE,        /* the status, or HEAD, allows no body */
    BOLIDE_BODY_LENGTH,      /* Content-Length */
    BOLIDE_BODY_CHUNKED,     /* Transfer-Encoding: chunked */
    BOLIDE_BODY_UNTIL_CLOSE, /* HTTP/1.0 without a length */
} bolide_framing;

typedef struct {
    int status;             /* 100 to 999 */
    bool http10;            /* the request was HTTP/1.0 */
    bool head;              /* the request's method was HEAD */
    bool keep_alive;        /* may the connection stay open? The start of the response may say no */
    bolide_framing framing; /* set by the start */
    uint64_t left;          /* BOLIDE_BODY_LENGTH: bytes that must still come */
} bolide_response;

/* Copy a field name in lower case; false when it is not a token (RFC 9110, 5.6.2). */
bool bolide_copy_name(char *out, const char *name, size_t len);

/* Copy a field value; false when it has a control character other than a tab (RFC 9110, 5.5). */
bool bolide_copy_value(char *out, const char *value, size_t len);

/* Queue status line and field lines. `headers`: an iterable of pairs of bytes, or NULL. The field lines of `d` follow,
 * less those that the response has itself. The framing is decided here, and only here: the fields content-length,
 * transfer-encoding and connection are read and written anew. 0, or -1 with an exception set and nothing queued. */
int bolide_response_start(bolide_stream *s, bolide_defaults *d, bolide_response *r, PyObject *headers);

/* Queue a piece of the body, framed, and the end of it unless `more`. `body`: an exact bytes object, or NULL. 0, or -1
 * with an exception set: nothing of the piece was queued, except when the body ends short of its length. */
int bolide_response_body(bolide_stream *s, bolide_response *r, PyObject *body, bool more);

/* `headers` as a list or tuple whose items are lists or tuples: reading those runs no code of the application. New
 * reference, or NULL with an exception set. */
PyObject *bolide_plain_headers(PyObject *headers);

/* As bolide_response_body() for a piece of `len` bytes that the caller sends itself between these two: the first checks
 * the length, and queues what stands before the piece; the second queues what stands behind it. 0, or -1 with an
 * exception set. */
int bolide_response_open_piece(bolide_stream *s, bolide_response *r, uint64_t len, bool more);
int bolide_response_close_piece(bolide_stream *s, const bolide_response *r, uint64_t len, bool more);

/* Queue a whole response of the server's own: `text` as text/plain, "connection: close". 0, or -1 with MemoryError set.
 */
int bolide_response_simple(bolide_stream *s, bolide_defaults *d, int status, bool head, const char *text);

/* The reason phrase of RFC 9110 and its extensions, or "". */
const char *bolide_reason(int status);

#endif
