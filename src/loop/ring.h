/* The ready ring: a growing power-of-two circular queue of handles (strong references). */
#ifndef BOLIDE_LOOP_RING_H
#define BOLIDE_LOOP_RING_H

#include "loop/handle.h"

typedef struct {
    bolide_handle **slots;
    size_t mask; /* capacity - 1 */
    size_t head; /* next to pop; free-running */
    size_t tail; /* next to push; free-running */
} bolide_ring;

int bolide_ring_init(bolide_ring *ring); /* 0, or -1 with MemoryError set */
int bolide_ring_grow(bolide_ring *ring); /* 0, or -1 with MemoryError set */
void bolide_ring_free(bolide_ring *ring);

static inline size_t bolide_ring_count(const bolide_ring *ring) {
    return ring->tail - ring->head;
}

/* Takes over the caller's reference on success. 0, or -1 with MemoryError set. */
static inline int bolide_ring_push(bolide_ring *ring, bolide_handle *handle) {
    if (ring->tail - ring->head > ring->mask && bolide_ring_grow(ring) < 0) {
        return -1;
    }
    ring->slots[ring->tail++ & ring->mask] = handle;
    return 0;
}

/* Only when not empty. The caller gets the reference. */
static inline bolide_handle *bolide_ring_pop(bolide_ring *ring) {
    return ring->slots[ring->head++ & ring->mask];
}

#endif
