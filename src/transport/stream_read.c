/* The input of a stream. */
#include <errno.h>
#include <sys/socket.h>

#include "transport/stream.h"
#include "transport/tls.h"

/* Read in libuv's place, by recv(), which costs the kernel less than read(): true with the number of bytes, or a
 * negative uv code, in loop->received. False when there is nothing, or this is no socket: libuv finds out. */
static bool receive(bolide_stream *s, const uv_buf_t *buf) {
    ssize_t got = recv(bolide_stream_fileno(s), buf->base, buf->len, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOTSOCK)) {
        return false;
    }
    bolide_stream_loop(s)->received = got > 0 ? got : got == 0 ? UV_EOF : -errno;
    bolide_stream_loop(s)->received_to = *buf;
    s->flags |= BOLIDE_STREAM_RECEIVED;
    return true;
}

/* What receive() has brought, as uv_read_start() would tell it. */
static ssize_t take_received(bolide_stream *s, uv_buf_t *buf) {
    s->flags &= ~(unsigned)BOLIDE_STREAM_RECEIVED;
    *buf = bolide_stream_loop(s)->received_to;
    if (bolide_stream_loop(s)->received < 0) {
        uv_read_stop(&s->uv.stream);
    }
    return bolide_stream_loop(s)->received;
}

static void on_alloc(uv_handle_t *handle, size_t hint, uv_buf_t *buf) {
    (void)hint;
    bolide_stream *s = (bolide_stream *)handle;
    bolide_loop_enter(bolide_stream_loop(s));
    *buf = uv_buf_init(bolide_stream_loop(s)->read_buf, BOLIDE_READ_BUF);
    bool wanted = (s->flags & BOLIDE_STREAM_POLLED) != 0;
    if (wanted && s->tls == NULL && s->ops->on_alloc != NULL) {
        s->flags |= BOLIDE_STREAM_ALLOCATING;
        s->ops->on_alloc(s, buf);
        s->flags &= ~(unsigned)BOLIDE_STREAM_ALLOCATING;
    }
    /* An owner that stops reading in there still gets what it has made room for. */
    if (!wanted || !(s->flags & BOLIDE_STREAM_OPEN)) {
        *buf = uv_buf_init(NULL, 0); /* on_read() follows with UV_ENOBUFS */
    } else if (buf->len > 0 && !(s->flags & BOLIDE_STREAM_MORE) && receive(s, buf)) {
        *buf = uv_buf_init(NULL, 0); /* likewise */
    }
}

/* There is input, but on_alloc() gave no room for it: the owner has stopped reading, or has closed the stream in there,
 * where libuv does not stand it. */
static void refuse_input(bolide_stream *s) {
    if (!(s->flags & BOLIDE_STREAM_OPEN)) {
        bolide_stream_close_handle(s);
    } else if (s->flags & BOLIDE_STREAM_MORE) {
        s->flags &= ~(unsigned)BOLIDE_STREAM_MORE; /* the owner may want it before the next poll */
    } else {
        s->flags &= ~(unsigned)BOLIDE_STREAM_STARTED;
        uv_read_stop(&s->uv.stream);
    }
}

/* Nothing came for what on_alloc() gave. False: the owner has closed the stream. */
static bool unused(bolide_stream *s) {
    if (s->tls == NULL && s->ops->on_unused != NULL) {
        s->ops->on_unused(s);
    }
    return (s->flags & BOLIDE_STREAM_OPEN) != 0;
}

static void on_read(uv_stream_t *handle, ssize_t nread, const uv_buf_t *buf) {
    bolide_stream *s = (bolide_stream *)handle;
    uv_buf_t received;
    bolide_loop_enter(bolide_stream_loop(s));
    if (s->flags & BOLIDE_STREAM_RECEIVED) {
        nread = take_received(s, &received);
        buf = &received;
    }
    if (nread > 0) {
        s->flags = (s->flags & ~(unsigned)BOLIDE_STREAM_MORE) | ((size_t)nread == buf->len ? BOLIDE_STREAM_MORE : 0);
        if (s->tls != NULL) {
            bolide_tls_input(s, buf->base, (size_t)nread);
        } else {
            s->ops->on_read(s, buf->base, (size_t)nread);
        }
    } else if (nread == UV_EOF) {
        s->flags &= ~(unsigned)BOLIDE_STREAM_STARTED; /* libuv reads on only if it is told to */
        if (!(s->flags & BOLIDE_STREAM_POLLED) && buf->base == NULL) {
            return; /* nobody has asked */
        }
        bolide_stream_poll_stop(s);
        if (s->tls != NULL) {
            bolide_tls_eof(s);
        } else if (unused(s)) {
            s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
            s->ops->on_eof(s);
        }
    } else if (nread == 0 || nread == UV_ENOBUFS) {
        if (nread != 0 && !(s->flags & BOLIDE_STREAM_POLLED)) {
            refuse_input(s);
        }
        (void)unused(s);
    } else if (unused(s)) {
        s->flags = (s->flags & ~(unsigned)BOLIDE_STREAM_STARTED) | BOLIDE_STREAM_READ_FAILED;
        bolide_stream_fail(s, (int)nread);
    }
}

int bolide_stream_poll_start(bolide_stream *s) {
    bolide_loop_claim(bolide_stream_loop(s));
    if (s->flags & BOLIDE_STREAM_POLLED) {
        return 0;
    }
    if (!(s->flags & BOLIDE_STREAM_OPEN)) {
        return UV_EBADF;
    }
    int status = s->flags & BOLIDE_STREAM_STARTED ? 0 : uv_read_start(&s->uv.stream, on_alloc, on_read);
    if (status == 0) {
        s->flags |= BOLIDE_STREAM_POLLED | BOLIDE_STREAM_STARTED;
    }
    return status;
}

/* libuv is told when there is input that nobody wants, in refuse_input(). Mostly the owner reads on before there is,
 * and the kernel need not be told of either. */
void bolide_stream_poll_stop(bolide_stream *s) {
    s->flags &= ~(unsigned)BOLIDE_STREAM_POLLED;
}

int bolide_stream_read_start(bolide_stream *s) {
    if (s->flags & BOLIDE_STREAM_READING) {
        return 0;
    }
    int status = bolide_stream_poll_start(s);
    if (status == 0) {
        s->flags |= BOLIDE_STREAM_READING;
        if (s->tls != NULL) {
            bolide_tls_resume(s);
        }
    }
    return status;
}

void bolide_stream_read_stop(bolide_stream *s) {
    if (s->flags & BOLIDE_STREAM_READING) {
        s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
        if (s->tls == NULL || bolide_tls_may_pause(s->tls)) {
            bolide_stream_poll_stop(s);
        }
    }
}
