#include "transport/outblock.h"

#include <string.h>

#include "transport/stream.h"

#define BLOCK_POOL 256
/* Smaller pieces are copied: cheaper than a reference and an iovec each. */
#define COPY_MAX 1024

_Static_assert(BOLIDE_OUT_DATA >= BOLIDE_RESERVE_MAX, "a reservation fits in one block");

static bolide_outblock *block_new(bolide_loop *loop) {
    bolide_outblock *block = loop->free_blocks;
    if (block != NULL) {
        loop->free_blocks = block->next;
        loop->free_block_count--;
    } else {
        block = PyMem_RawMalloc(BOLIDE_OUT_BLOCK);
        if (block == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    block->next = NULL;
    block->stream = NULL;
    block->first = block->count = 0;
    block->used = 0;
    return block;
}

static void block_free(bolide_loop *loop, bolide_outblock *block) {
    for (unsigned i = block->first; i < block->count; i++) {
        Py_XDECREF(block->owners[i]);
    }
    if (loop->free_block_count < BLOCK_POOL && !loop->closed) {
        block->next = loop->free_blocks;
        loop->free_blocks = block;
        loop->free_block_count++;
    } else {
        PyMem_RawFree(block);
    }
}

void bolide_stream_free_blocks(bolide_loop *loop) {
    while (loop->free_blocks != NULL) {
        bolide_outblock *block = loop->free_blocks;
        loop->free_blocks = block->next;
        PyMem_RawFree(block);
    }
    loop->free_block_count = 0;
}

bolide_outblock *bolide_out_room(bolide_loop *loop, bolide_outlist *list, bool locked, size_t len) {
    bolide_outblock *last = list->last;
    bool usable = last != NULL && !(locked && last == list->first);
    if (usable && last->count < BOLIDE_OUT_BUFS && BOLIDE_OUT_DATA - last->used >= len) {
        return last;
    }
    bolide_outblock *block = block_new(loop);
    if (block == NULL) {
        return NULL;
    }
    *(last != NULL ? &last->next : &list->first) = block;
    list->last = block;
    return block;
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

int bolide_out_write_object(bolide_loop *loop, bolide_outlist *list, bool locked, PyObject *bytes) {
    size_t len = (size_t)PyBytes_GET_SIZE(bytes);
    if (len <= COPY_MAX) {
        return bolide_out_write(loop, list, locked, PyBytes_AS_STRING(bytes), len);
    }
    bolide_outblock *block = bolide_out_room(loop, list, locked, 0);
    if (block == NULL) {
        return -1;
    }
    block->owners[block->count] = Py_NewRef(bytes);
    /* Assigned by hand: uv_buf_init() takes an unsigned int, which a body of 4 GiB exceeds. */
    block->bufs[block->count].base = PyBytes_AS_STRING(bytes);
    block->bufs[block->count].len = len;
    block->count++;
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
