/* Gathered output: a list of pooled blocks, each with iovecs into its own data or into bytes objects. */
#ifndef BOLIDE_TRANSPORT_OUTBLOCK_H
#define BOLIDE_TRANSPORT_OUTBLOCK_H

#include "loop/loop.h"

#define BOLIDE_OUT_BUFS 14

typedef struct bolide_outblock {
    struct bolide_outblock *next;
    struct bolide_stream *stream; /* for the callback of `req` */
    unsigned first, count;        /* bufs[first .. count) have not left */
    size_t used, cap;             /* bytes used in data, and its size: BOLIDE_OUT_DATA, or 0 */
    uv_buf_t bufs[BOLIDE_OUT_BUFS];
    PyObject *owners[BOLIDE_OUT_BUFS]; /* keeps bufs[i] alive, or NULL: it lies in data */
    uv_write_t req;                    /* when the socket was not writable */
    char data[];
} bolide_outblock;

#define BOLIDE_OUT_BLOCK 4096 /* bytes of a block, all in all */
#define BOLIDE_OUT_DATA  (BOLIDE_OUT_BLOCK - offsetof(bolide_outblock, data))

typedef struct {
    bolide_outblock *first, *last;
} bolide_outlist;

/* The block to append to: one with a free iovec and `len` (<= BOLIDE_OUT_DATA) bytes of room, new if need be. `locked`:
 * the first block takes nothing more. NULL with MemoryError set. */
bolide_outblock *bolide_out_room(bolide_loop *loop, bolide_outlist *list, bool locked, size_t len);

/* `len` bytes were written behind the block's used data: they are output now. */
void bolide_out_commit(bolide_outblock *block, size_t len);

/* Append bytes that `owner` keeps as they are while there is a reference to it; no copy is made. 0, or -1 with
 * MemoryError set. */
int bolide_out_write_owned(bolide_loop *loop, bolide_outlist *list, bool locked, const char *data, size_t len,
                           PyObject *owner);

/* Append a copy of the bytes, or the bytes object itself when that is cheaper. 0, or -1 with MemoryError set. */
int bolide_out_write(bolide_loop *loop, bolide_outlist *list, bool locked, const char *data, size_t len);
int bolide_out_write_object(bolide_loop *loop, bolide_outlist *list, bool locked, PyObject *bytes);

size_t bolide_out_pending(const bolide_outblock *block);

/* `len` (<= its pending) bytes from the front of the block have left. */
void bolide_out_consume(bolide_outblock *block, size_t len);

/* Drop the first block. */
void bolide_out_pop(bolide_loop *loop, bolide_outlist *list);

/* Drop all blocks, but with `locked` not the first one. */
void bolide_out_clear(bolide_loop *loop, bolide_outlist *list, bool locked);

#endif
