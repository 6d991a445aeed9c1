/* The timer heap: a 4-ary min-heap of TimerHandles by deadline, first come first served among equals. Each handle knows
 * its index, so that a cancel removes it at once. */
#ifndef BOLIDE_LOOP_TIMERS_H
#define BOLIDE_LOOP_TIMERS_H

#include "loop/handle.h"

typedef struct {
    double when;
    uint64_t seq;        /* order of insertion */
    bolide_timer *timer; /* strong */
} bolide_timer_entry;

typedef struct {
    bolide_timer_entry *entries;
    Py_ssize_t count, cap;
    uint64_t next_seq;
} bolide_timers;

/* Takes a new reference on success. 0, or -1 with MemoryError set. */
int bolide_timers_add(bolide_timers *timers, bolide_timer *timer);

/* Take `timer` (whose heap_index is >= 0) out; the heap's reference passes to the caller. */
void bolide_timers_remove(bolide_timers *timers, bolide_timer *timer);

/* Only when count > 0. The reference passes to the caller. */
bolide_timer *bolide_timers_pop(bolide_timers *timers);

void bolide_timers_free(bolide_timers *timers);

#endif
