#include "transport/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define RETRY_MS 1000

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_retry(uv_timer_t *timer) {
    bolide_acceptor *a = timer->data;
    if (uv_poll_start(&a->poll, UV_READABLE, on_readable) < 0) {
        uv_timer_start(&a->retry, on_retry, RETRY_MS, 0);
    }
}

/* The next connection's descriptor, or a negative errno value. */
static int accept_one(int listening, bolide_address *peer) {
    int fd;
    peer->len = sizeof(peer->address);
#ifdef __linux__
    fd = accept4(listening, (struct sockaddr *)&peer->address, &peer->len, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    fd = accept(listening, (struct sockaddr *)&peer->address, &peer->len);
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)) {
        int err = errno;
        close(fd);
        return -err;
    }
#endif
    if (peer->len > sizeof(peer->address)) {
        peer->len = 0;
    }
    return fd < 0 ? -errno : fd;
}

/* Rather than be woken again and again for what cannot be accepted. */
static void rest(bolide_acceptor *a, int status) {
    uv_poll_stop(&a->poll);
    uv_timer_start(&a->retry, on_retry, RETRY_MS, 0);
    a->ops->on_exhausted(a, status);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    bolide_acceptor *a = poll->data;
    (void)events;
    bolide_loop_enter(bolide_loop_of(poll));
    for (int left = a->batch; status == 0 && left > 0 && a->fd >= 0; left--) {
        bolide_address peer;
        int fd = accept_one(a->fd, &peer);
        if (fd >= 0) {
            a->ops->on_connection(a, fd, &peer);
        } else if (fd == -EAGAIN || fd == -EWOULDBLOCK) {
            return;
        } else if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM || fd == -EBADF || fd == -EINVAL ||
                   fd == -ENOTSOCK || fd == -EOPNOTSUPP) {
            status = fd;
        } /* else that connection has failed already: on to the next */
    }
    if (status < 0 && a->fd >= 0) {
        rest(a, status);
    }
}

void bolide_acceptor_drain(bolide_acceptor *a, int most) {
    for (; most > 0 && a->fd >= 0; most--) {
        bolide_address peer;
        int fd = accept_one(a->fd, &peer);
        if (fd >= 0) {
            a->ops->on_connection(a, fd, &peer);
        } else if (fd != -ECONNABORTED && fd != -EINTR && fd != -EPROTO) {
            return;
        }
    }
}

int bolide_acceptor_open(bolide_acceptor *a, bolide_loop *loop, int fd, int batch, const bolide_acceptor_ops *ops) {
    bolide_loop_claim(loop);
    if (!loop->uv_ready) {
        return UV_ECANCELED;
    }
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        return -errno;
    }
    int status = uv_poll_init(&loop->uv, &a->poll, copy); /* makes it non-blocking too */
    if (status < 0) {
        close(copy);
        return status;
    }
    uv_timer_init(&loop->uv, &a->retry);
    a->poll.data = a->retry.data = a;
    a->ops = ops;
    a->fd = copy;
    a->batch = batch > 0 ? batch : 1;
    a->uv_handles = 2;
    uv_poll_start(&a->poll, UV_READABLE, on_readable); /* fails only for a handle that is closing */
    return 0;
}

static void on_handle_closed(uv_handle_t *handle) {
    bolide_acceptor *a = handle->data;
    bolide_loop_enter(bolide_loop_of(handle));
    if (--a->uv_handles == 0) {
        a->ops->on_close(a);
    }
}

void bolide_acceptor_close(bolide_acceptor *a) {
    if (a->fd >= 0) {
        bolide_loop_claim(bolide_loop_of(&a->poll));
    }
    if (a->fd < 0) {
        return;
    }
    uv_close((uv_handle_t *)&a->poll, on_handle_closed);
    uv_close((uv_handle_t *)&a->retry, on_handle_closed);
    close(a->fd);
    a->fd = -1;
}
