/* What the connections of a server read in one turn, taken in together: first all reads, then all heads, then all
 * applications. Each of these goes through more code than fits beside the others in the processor's instruction cache:
 * one connection after the other they would drive each other out of it, for every request. */
#ifndef BOLIDE_HTTP_BATCH_H
#define BOLIDE_HTTP_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bolide_conn bolide_conn;
typedef struct bolide_http bolide_http;

#define BOLIDE_BATCH_MAX   32          /* reads of a batch */
#define BOLIDE_BATCH_PIECE 2048        /* bytes of one; what is larger does not wait */
#define BOLIDE_BATCH_BYTES (32 * 1024) /* of all */

typedef struct {
    bolide_conn *conn; /* borrowed: its memory lasts until the turn's closing callbacks, which come later */
    uint32_t at, len;  /* its bytes in `data` */
} bolide_batch_read;

typedef struct bolide_batch {
    bolide_batch_read reads[BOLIDE_BATCH_MAX];
    bolide_conn *starts[BOLIDE_BATCH_MAX]; /* those whose request is complete and not started */
    unsigned read_count, start_count;
    uint32_t used; /* bytes of `data` */
    bool parsing;  /* heads are being parsed: what is complete waits in `starts` */
    bool running;  /* the batch is being worked off */
    char data[BOLIDE_BATCH_BYTES];
} bolide_batch;

/* NULL with MemoryError set. */
bolide_batch *bolide_batch_new(void);
void bolide_batch_free(bolide_batch *batch);

/* Copy what was read for `c`; it is parsed before the turn's poll is over, in the order of the calls. False: it is to
 * be parsed at once. May work the batch off, which runs applications. */
bool bolide_batch_add(bolide_conn *c, const char *data, size_t len);

/* Have the complete request of `c` started when the heads of the batch are parsed. False: it is to be started at once.
 */
bool bolide_batch_start_later(bolide_conn *c);

/* Work the batch off: runs applications, which may close any connection. */
void bolide_batch_run(bolide_http *http);

#endif
