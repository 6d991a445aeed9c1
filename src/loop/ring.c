#include "loop/ring.h"

#define RING_INITIAL 256

int bolide_ring_init(bolide_ring *ring) {
    ring->slots = PyMem_RawMalloc(RING_INITIAL * sizeof(bolide_handle *));
    if (ring->slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    ring->mask = RING_INITIAL - 1;
    ring->head = ring->tail = 0;
    return 0;
}

int bolide_ring_grow(bolide_ring *ring) {
    size_t count = bolide_ring_count(ring);
    size_t cap = (ring->mask + 1) * 2;
    bolide_handle **slots = PyMem_RawMalloc(cap * sizeof(bolide_handle *));
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        slots[i] = ring->slots[(ring->head + i) & ring->mask];
    }
    PyMem_RawFree(ring->slots);
    ring->slots = slots;
    ring->mask = cap - 1;
    ring->head = 0;
    ring->tail = count;
    return 0;
}

void bolide_ring_free(bolide_ring *ring) {
    PyMem_RawFree(ring->slots);
    ring->slots = NULL;
    ring->mask = 0;
    ring->head = ring->tail = 0;
}
