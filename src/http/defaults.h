/* The field lines that stand in every response: date, server and what the operator added; formatted once a second. */
#ifndef BOLIDE_HTTP_DEFAULTS_H
#define BOLIDE_HTTP_DEFAULTS_H

#include "common/state.h"

#include <time.h>

#define BOLIDE_DATE_LINE 37 /* "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" */

typedef struct {
    time_t second;       /* that `lines` was made for; -1: never */
    char *lines;         /* date first (if on), then server (if on), then the others */
    size_t len;          /* of `lines` */
    size_t date_len;     /* BOLIDE_DATE_LINE, or 0 */
    size_t server_len;   /* of the server line, or 0 */
    bool has_own_server; /* `others` names a server: it stands in for ours */
} bolide_defaults;

/* `others`: (name, value) pairs of bytes, any iterable. 0, or -1 with an exception set; clear either way. */
int bolide_defaults_init(bolide_defaults *d, bool date, bool server, PyObject *others);
void bolide_defaults_clear(bolide_defaults *d);

/* Bring the date up to the second. */
void bolide_defaults_refresh(bolide_defaults *d);

#endif
