#include "loop/timers.h"

#define ARITY 4

static inline bool earlier(const bolide_timer_entry *a, const bolide_timer_entry *b) {
    return a->when < b->when || (a->when == b->when && a->seq < b->seq);
}

static inline void place(bolide_timers *timers, Py_ssize_t index, bolide_timer_entry entry) {
    timers->entries[index] = entry;
    entry.timer->heap_index = index;
}

static void sift_up(bolide_timers *timers, Py_ssize_t index, bolide_timer_entry entry) {
    while (index > 0) {
        Py_ssize_t parent = (index - 1) / ARITY;
        if (!earlier(&entry, &timers->entries[parent])) {
            break;
        }
        place(timers, index, timers->entries[parent]);
        index = parent;
    }
    place(timers, index, entry);
}

static void sift_down(bolide_timers *timers, Py_ssize_t index, bolide_timer_entry entry) {
    for (;;) {
        Py_ssize_t first = index * ARITY + 1;
        if (first >= timers->count) {
            break;
        }
        Py_ssize_t last = first + ARITY < timers->count ? first + ARITY : timers->count;
        Py_ssize_t best = first;
        for (Py_ssize_t child = first + 1; child < last; child++) {
            if (earlier(&timers->entries[child], &timers->entries[best])) {
                best = child;
            }
        }
        if (!earlier(&timers->entries[best], &entry)) {
            break;
        }
        place(timers, index, timers->entries[best]);
        index = best;
    }
    place(timers, index, entry);
}

int bolide_timers_add(bolide_timers *timers, bolide_timer *timer) {
    if (timers->count == timers->cap) {
        Py_ssize_t cap = timers->cap > 0 ? timers->cap * 2 : 64;
        bolide_timer_entry *entries = PyMem_RawRealloc(timers->entries, (size_t)cap * sizeof(bolide_timer_entry));
        if (entries == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        timers->entries = entries;
        timers->cap = cap;
    }
    bolide_timer_entry entry = {timer->when, timers->next_seq++, timer};
    Py_INCREF(timer);
    sift_up(timers, timers->count++, entry);
    return 0;
}

void bolide_timers_remove(bolide_timers *timers, bolide_timer *timer) {
    Py_ssize_t index = timer->heap_index;
    bolide_timer_entry last = timers->entries[--timers->count];
    timer->heap_index = -1;
    if (last.timer == timer) {
        return;
    }
    if (index > 0 && earlier(&last, &timers->entries[(index - 1) / ARITY])) {
        sift_up(timers, index, last);
    } else {
        sift_down(timers, index, last);
    }
}

bolide_timer *bolide_timers_pop(bolide_timers *timers) {
    bolide_timer *timer = timers->entries[0].timer;
    bolide_timers_remove(timers, timer);
    return timer;
}

void bolide_timers_free(bolide_timers *timers) {
    bolide_timer_entry *entries = timers->entries;
    Py_ssize_t count = timers->count;
    timers->entries = NULL;
    timers->count = timers->cap = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        entries[i].timer->heap_index = -1;
        Py_DECREF(entries[i].timer);
    }
    PyMem_RawFree(entries);
}
