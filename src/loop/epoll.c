#include "loop/epoll.h"

#ifdef __linux__
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#ifdef BOLIDE_SYSTEM_LIBUV
#include <uv.h>
#endif

#undef epoll_ctl

/* Make the closed descriptor `fd` a socket that is not connected. False when another thread has opened it meanwhile, or
 * there is no descriptor left. */
static bool plug(int fd) {
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0 || sock == fd) {
        return sock == fd;
    }
    int copy = fcntl(sock, F_DUPFD_CLOEXEC, fd); /* not dup2(), which would close what is there by now */
    if (copy >= 0 && copy != fd) {
        close(copy);
    }
    close(sock);
    return copy == fd;
}

int bolide_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
    int status = epoll_ctl(epoll, op, fd, event);
    /* When libuv only asks whether it could be watched, the event does not name the descriptor. */
    if (status == 0 || op == EPOLL_CTL_DEL || event->data.fd != fd) {
        return status;
    }
    if (errno == EBADF && fcntl(fd, F_GETFD) < 0 && plug(fd)) {
        status = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event);
    } else if (errno == ENOENT) {
        status = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event); /* closed, and opened anew */
    }
    return status < 0 && errno == EEXIST ? status : 0;
}

#ifdef BOLIDE_SYSTEM_LIBUV
void bolide_epoll_settle(struct uv_loop_s *loop) {
    struct uv__queue *head = &loop->watcher_queue;
    while (head->next != head) {
        struct uv__queue *q = head->next;
        q->prev->next = q->next;
        q->next->prev = q->prev;
        q->next = q->prev = q;
        uv__io_t *w = (uv__io_t *)((char *)q - offsetof(uv__io_t, watcher_queue));
        int op = w->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
        struct epoll_event event;
        memset(&event, 0, sizeof(event));
        event.events = w->events = w->pevents;
        event.data.fd = w->fd;
        if (bolide_epoll_ctl(loop->backend_fd, op, w->fd, &event) < 0) { /* watched before, under that number */
            (void)epoll_ctl(loop->backend_fd, EPOLL_CTL_MOD, w->fd, &event);
        }
    }
}
#endif
#endif
