#include "transport/outblock.h"

#include <string.h>

#include "transport/stream.h"

#define BLOCK_POOL 256
/* Smaller pieces are copied: cheaper than a reference and an iovec each. */
#define COPY_MAX 1024

_Static_assert(BOLIDE_OUT_DATA >= BOLIDE_RESERVE_MAX, "a reservation fits in one block");

/* `cap`: BOLIDE_OUT_DATA, or 0 for a block that has references only: small, as there may be one for each of thousands
 * of streams. NULL with MemoryError set. */
static bolide_outblock *block_new(bolide_loop *loop, size_t cap) {
    bolide_outblock **pool = cap > 0 ? &loop->free_blocks : &loop->free_small_blocks;
    bolide_outblock *block = *pool;
    if (block != NULL) {
        *pool = block->next;
        *(cap > 0 ? &loop->free_block_count : &loop->free_small_block_count) -= 1;
    } else {
        block = PyMem_RawMalloc(cap > 0 ? BOLIDE_OUT_BLOCK : offsetof(bolide_outblock, data));
        if (block == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    block->next = NULL;
    block->stream = NULL;
    block->first = block->count = 0;
    block->used = 0;
    block->cap = cap;
    return block;
}

static void block_free(bolide_loop *loop, bolide_outblock *block) {
    for (unsigned i = block->first; i < block->count; i++) {
        Py_XDECREF(block->owners[i]);
    }
    bolide_outblock **pool = block->cap > 0 ? &loop->free_blocks : &loop->free_small_blocks;
    int *count = block->cap > 0 ? &loop->free_block_count : &loop->free_small_block_count;
    if (*count < BLOCK_POOL && !loop->closed) {
        block->next = *pool;
        *pool = block;
        *count += 1;
    } else {
        PyMem_RawFree(block);
    }
}

static void free_pool(bolide_outblock **pool, int *count) {
    while (*pool != NULL) {
        bolide_outblock *block = *pool;
        *pool = block->next;
        PyMem_RawFree(block);
    }
    *count = 0;
}

void bolide_stream_free_blocks(bolide_loop *loop) {
    free_pool(&loop->free_blocks, &loop->free_block_count);
    free_pool(&loop->free_small_blocks, &loop->free_small_block_count);
}

/* Can the last block take another iovec, and `len` more bytes? */
static bool is_usable(const bolide_outlist *list, bool locked, size_t len) {
    const bolide_outblock *last = list->last;
    return last != NULL && !(locked && last == list->first) && last->count < BOLIDE_OUT_BUFS &&
           last->cap - last->used >= len;
}

static bolide_outblock *append_block(bolide_loop *loop, bolide_outlist *list, size_t cap) {
    bolide_outblock *block = block_new(loop, cap);
    if (block != NULL) {
        *(list->last != NULL ? &list->last->next : &list->first) = block;
        list->last = block;
    }
    return block;
}

bolide_outblock *bolide_out_room(bolide_loop *loop, bolide_outlist *list, bool locked, size_t len) {
    return is_usable(list, locked, len) ? list->last : append_block(loop, list, BOLIDE_OUT_DATA);
}

void bolide_out_commit(bolide_outblock *block, size_t len) {
    char *start = block->data + block->used;
    block->used += len;
    if (block->count > block->first) {
        uv_buf_t *last = &block->bufs[block->count - 1];
        if (block->owners[block->count - 1] == NULL && last->base + last->len == start) {
            last->len += len;
            return;
        }
    }
    block->owners[block->count] = NULL;
    block->bufs[block->count++] = uv_buf_init(start, (unsigned)len);
}

int bolide_out_write(bolide_loop *loop, bolide_outlist *list, bool locked, const char *data, size_t len) {
    while (len > 0) {
        bolide_outblock *block = bolide_out_room(loop, list, locked, 1);
        if (block == NULL) {
            return -1;
        }
        size_t room = BOLIDE_OUT_DATA - block->used;
        size_t part = len < room ? len : room;
        memcpy(block->data + block->used, data, part);
        bolide_out_commit(block, part);
        data += part;
        len -= part;
    }
    return 0;
}

static void refer(bolide_outblock *block, const char *data, size_t len, PyObject *owner) {
    block->owners[block->count] = Py_NewRef(owner);
    /* Assigned by hand: uv_buf_init() takes an unsigned int, which a body of 4 GiB exceeds. */
    block->bufs[block->count].base = (char *)(uintptr_t)data;
    block->bufs[block->count].len = len;
    block->count++;
}

int bolide_out_write_owned(bolide_loop *loop, bolide_outlist *list, bool locked, const char *data, size_t len,
                           PyObject *owner) {
    bolide_outblock *block = is_usable(list, locked, 0) ? list->last : append_block(loop, list, 0);
    if (block == NULL) {
        return -1;
    }
    refer(block, data, len, owner);
    return 0;
}

int bolide_out_write_object(bolide_loop *loop, bolide_outlist *list, bool locked, PyObject *bytes) {
    size_t len = (size_t)PyBytes_GET_SIZE(bytes);
    if (len <= COPY_MAX) {
        return bolide_out_write(loop, list, locked, PyBytes_AS_STRING(bytes), len);
    }
    bolide_outblock *block = bolide_out_room(loop, list, locked, 0);
    if (block == NULL) {
        return -1;
    }
    refer(block, PyBytes_AS_STRING(bytes), len, bytes);
    return 0;
}

size_t bolide_out_pending(const bolide_outblock *block) {
    size_t sum = 0;
    for (unsigned i = block->first; i < block->count; i++) {
        sum += block->bufs[i].len;
    }
    return sum;
}

void bolide_out_consume(bolide_outblock *block, size_t len) {
    while (len > 0 && len >= block->bufs[block->first].len) {
        len -= block->bufs[block->first].len;
        Py_CLEAR(block->owners[block->first]);
        block->first++;
    }
    if (len > 0) {
        block->bufs[block->first].base += len;
        block->bufs[block->first].len -= len;
    }
}

void bolide_out_pop(bolide_loop *loop, bolide_outlist *list) {
    bolide_outblock *block = list->first;
    list->first = block->next;
    if (list->first == NULL) {
        list->last = NULL;
    }
    block_free(loop, block);
}

void bolide_out_clear(bolide_loop *loop, bolide_outlist *list, bool locked) {
    bolide_outblock *block = list->first;
    if (block != NULL && locked) {
        list->last = block;
        block = block->next;
        list->first->next = NULL;
    } else {
        list->first = list->last = NULL;
    }
    while (block != NULL) {
        bolide_outblock *next = block->next;
        block_free(loop, block);
        block = next;
    }
}
