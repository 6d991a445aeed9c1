/* What bolide asks of malloc(). */
#ifndef BOLIDE_COMMON_MEMORY_H
#define BOLIDE_COMMON_MEMORY_H

/* Let malloc() keep freed memory at hand. By default glibc gives the top of the heap back to the system as soon as some
 * 100 KiB are free there, and gets what is larger than that from the system each time: a program that reads and frees
 * large pieces pays for their pages again and again, often more than for all else that it does with them. Does nothing
 * when the user has tuned malloc, or with another malloc. */
void bolide_memory_keep(void);

#endif
