/* A set of descriptors watched for readiness, level-triggered: epoll on Linux, kqueue elsewhere. */
#ifndef BOLIDE_LOOP_FDSET_H
#define BOLIDE_LOOP_FDSET_H

typedef struct {
    int fd;
    int events; /* BOLIDE_READABLE | BOLIDE_WRITABLE */
} bolide_fd_event;

/* A new set's descriptor, or a negated errno. */
int bolide_fdset_new(void);

/* Change the interest in `fd` from `before` to `after` (0: not in the set). 0 or a negated errno. */
int bolide_fdset_change(int set, int fd, int before, int after);

/* What is ready now, at most `cap` entries. The count, or a negated errno. */
int bolide_fdset_poll(int set, bolide_fd_event *events, int cap);

#endif
