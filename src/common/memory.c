#include "common/memory.h"

#include <stdlib.h>

/* glibc keeps blocks of this size, and twice as much at the top of the heap. */
#define KEPT_BLOCK (8u * 1024 * 1024)

/* glibc adapts to the largest block that the program has freed, unless its tunables say how much to keep. So one is
 * freed, whose pages are never touched. */
void bolide_memory_keep(void) {
#ifdef __GLIBC__
    void *volatile block = malloc(KEPT_BLOCK); /* volatile: else the compiler leaves both calls out */
    free(block);
#endif
}
