/* The request target (RFC 9112, section 3.2) as ASGI wants it: path, raw_path and query_string. */
#ifndef BOLIDE_HTTP_TARGET_H
#define BOLIDE_HTTP_TARGET_H

#include "common/state.h"

#define BOLIDE_TARGET_SLOTS 256
#define BOLIDE_TARGET_MAX   256 /* longer targets are not cached */

/* Strong references. */
typedef struct {
    PyObject *path;     /* str: root_path and the percent-decoded path (UTF-8, U+FFFD for what is not) */
    PyObject *raw_path; /* bytes: root_path and the path as it came */
    PyObject *query;    /* bytes: what follows the "?", or empty */
    PyObject *logged;   /* str: the path quoted anew, and the query; NULL until asked for */
} bolide_target;

typedef struct {
    uint64_t hash; /* of the raw target */
    char *raw;     /* the raw target, or NULL: an empty slot */
    size_t len;    /* its length */
    bolide_target target;
    PyObject *extra; /* the owner's, made of the target; NULL until set */
} bolide_known_target;

typedef struct {
    uint64_t seed;
    PyObject *root_path;       /* str */
    PyObject *root_path_bytes; /* the same in UTF-8 */
    bolide_known_target slots[BOLIDE_TARGET_SLOTS];
} bolide_targets;

/* `root_path` is a str. 0, or -1 with an exception set; clear either way. */
int bolide_targets_init(bolide_targets *t, PyObject *root_path);
void bolide_targets_clear(bolide_targets *t);

/* The parts of the target `raw` for a request that is not CONNECT; `logged` also fills that one. 0; 400 when it is not
 * a valid target; or -1 with an exception set. On 0 the caller releases `out`, and *extra is the place for what the
 * owner makes of a target that has come before, or NULL; it is valid until the next call. */
int bolide_targets_parse(bolide_targets *t, const char *raw, size_t len, bool logged, bolide_target *out,
                         PyObject ***extra);
void bolide_target_release(bolide_target *target);

#endif
