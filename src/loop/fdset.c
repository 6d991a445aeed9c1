#include "loop/fdset.h"

#include <errno.h>
#include <unistd.h>

#include "loop/watchers.h"

#define BATCH 64

#ifdef __linux__

#include <sys/epoll.h>

int bolide_fdset_new(void) {
    int set = epoll_create1(EPOLL_CLOEXEC);
    return set < 0 ? -errno : set;
}

static uint32_t mask_of(int events) {
    return (events & BOLIDE_READABLE ? EPOLLIN : 0) | (events & BOLIDE_WRITABLE ? EPOLLOUT : 0);
}

int bolide_fdset_change(int set, int fd, int before, int after) {
    struct epoll_event event = {.events = mask_of(after), .data.fd = fd};
    if (after == 0) {
        return epoll_ctl(set, EPOLL_CTL_DEL, fd, &event) < 0 ? -errno : 0;
    }
    int op = before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(set, op, fd, &event) == 0) {
        return 0;
    }
    /* The descriptor was closed, and maybe opened anew, without our being told. */
    if (op == EPOLL_CTL_MOD && errno == ENOENT) {
        op = EPOLL_CTL_ADD;
    } else if (op == EPOLL_CTL_ADD && errno == EEXIST) {
        op = EPOLL_CTL_MOD;
    } else {
        return -errno;
    }
    return epoll_ctl(set, op, fd, &event) < 0 ? -errno : 0;
}

int bolide_fdset_poll(int set, bolide_fd_event *events, int cap) {
    struct epoll_event batch[BATCH];
    int count = epoll_wait(set, batch, cap < BATCH ? cap : BATCH, 0);
    if (count < 0) {
        return -errno;
    }
    for (int i = 0; i < count; i++) {
        events[i].fd = batch[i].data.fd;
        /* An error or a hang-up makes both sides ready, so that each finds out by its own call. */
        events[i].events = (batch[i].events & ~(uint32_t)EPOLLOUT ? BOLIDE_READABLE : 0) |
                           (batch[i].events & ~(uint32_t)EPOLLIN ? BOLIDE_WRITABLE : 0);
    }
    return count;
}

#else

#include <sys/event.h>
#include <sys/time.h>

int bolide_fdset_new(void) {
    int set = kqueue();
    return set < 0 ? -errno : set;
}

static int change_filter(int set, int fd, int filter, int had, int wants) {
    if (had == wants) {
        return 0;
    }
    struct kevent change;
    EV_SET(&change, fd, filter, wants ? EV_ADD : EV_DELETE, 0, 0, NULL);
    if (kevent(set, &change, 1, NULL, 0, NULL) == 0 || (!wants && errno == ENOENT)) {
        return 0;
    }
    return -errno;
}

int bolide_fdset_change(int set, int fd, int before, int after) {
    int status = change_filter(set, fd, EVFILT_READ, before & BOLIDE_READABLE, after & BOLIDE_READABLE);
    int second = change_filter(set, fd, EVFILT_WRITE, before & BOLIDE_WRITABLE, after & BOLIDE_WRITABLE);
    return status < 0 ? status : second;
}

int bolide_fdset_poll(int set, bolide_fd_event *events, int cap) {
    struct kevent batch[BATCH];
    struct timespec now = {0, 0};
    int count = kevent(set, NULL, 0, batch, cap < BATCH ? cap : BATCH, &now);
    if (count < 0) {
        return -errno;
    }
    for (int i = 0; i < count; i++) {
        events[i].fd = (int)batch[i].ident;
        events[i].events = batch[i].filter == EVFILT_READ ? BOLIDE_READABLE : BOLIDE_WRITABLE;
    }
    return count;
}

#endif
