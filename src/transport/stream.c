#include "transport/stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#ifdef __linux__
#include <sys/sendfile.h>
#endif

#include "transport/tls.h"

/* Gathered output that has waited so long leaves between two steps. */
#define LATE_NS 500000
/* A step that takes longer makes the steps that follow suspect of the same, until so many in a row were quick. */
#define SLOW_STEP_NS  1000000
#define TRUSTED_STEPS 128
/* What one stream writes of a block in a turn, to be fair: as much as the kernel takes at once where the send buffer is
 * bounded to 256 KiB, which it doubles. */
#define FLUSH_QUANTUM (512 * 1024)

#ifdef MSG_NOSIGNAL
#define SEND_FLAGS (MSG_NOSIGNAL | MSG_DONTWAIT)
#else
#define SEND_FLAGS MSG_DONTWAIT
#endif

static const bolide_watermarks default_water = {BOLIDE_HIGH_WATER, BOLIDE_HIGH_WATER / 4};

/* --- the flush list --------------------------------------------------------------------------- */

void bolide_stream_list(bolide_stream *s) {
    bolide_loop *loop = bolide_stream_loop(s);
    if (s->flags & (BOLIDE_STREAM_LISTED | BOLIDE_STREAM_IN_FLIGHT)) {
        return;
    }
    s->flags |= BOLIDE_STREAM_LISTED;
    s->flush_next = NULL;
    s->flush_prev = loop->flush_last;
    if (loop->flush_last != NULL) {
        loop->flush_last->flush_next = s;
    } else {
        loop->flush_first = s;
        loop->flush_since = uv_hrtime();
    }
    loop->flush_last = s;
    loop->flush_count++;
    bolide_loop_wake(loop); /* when it is another thread that writes */
}

static void unlist(bolide_stream *s) {
    bolide_loop *loop = bolide_stream_loop(s);
    if (!(s->flags & BOLIDE_STREAM_LISTED)) {
        return;
    }
    s->flags &= ~(unsigned)BOLIDE_STREAM_LISTED;
    *(s->flush_prev != NULL ? &s->flush_prev->flush_next : &loop->flush_first) = s->flush_next;
    *(s->flush_next != NULL ? &s->flush_next->flush_prev : &loop->flush_last) = s->flush_prev;
    s->flush_next = s->flush_prev = NULL;
    loop->flush_count--;
}

void bolide_loop_flush(bolide_loop *loop) {
    loop->occupied++; /* output that is let go of may run a finalizer, which is not to close a stream for good here */
    /* What is listed while this runs waits for the next turn: a fast reader must not hold the loop up. */
    for (size_t n = loop->flush_count; n > 0 && loop->flush_first != NULL; n--) {
        bolide_stream_flush(loop->flush_first);
    }
    loop->occupied--;
}

void bolide_loop_begin_step(bolide_loop *loop) {
    if (loop->step_since == 0) {
        loop->step_since = uv_hrtime();
    }
    if (loop->flush_first != NULL && loop->quick_steps < TRUSTED_STEPS) {
        bolide_loop_flush(loop);
    }
}

void bolide_loop_end_step(bolide_loop *loop) {
    uint64_t now = uv_hrtime();
    if (loop->step_since != 0 && now - loop->step_since > SLOW_STEP_NS) {
        loop->quick_steps = 0;
    } else if (loop->quick_steps < TRUSTED_STEPS) {
        loop->quick_steps++;
    }
    loop->step_since = now;
    if (loop->flush_first != NULL && now - loop->flush_since > LATE_NS) {
        bolide_loop_flush(loop);
    }
}

/* --- output ----------------------------------------------------------------------------------- */

bool bolide_stream_takes_output(const bolide_stream *s) {
    unsigned refused = BOLIDE_STREAM_SHUTDOWN | BOLIDE_STREAM_FIN_SENT | BOLIDE_STREAM_CLOSE_AFTER |
                       BOLIDE_STREAM_BROKEN | BOLIDE_STREAM_UNWRAPPING;
    return (s->flags & BOLIDE_STREAM_OPEN) && !(s->flags & refused);
}

/* Where the owner's output is gathered. */
static bolide_outlist *gathered(bolide_stream *s) {
    return s->tls != NULL ? &s->tls->plain : &s->out;
}

/* Is the first block of that list in flight? */
static bool is_locked(const bolide_stream *s) {
    return s->tls == NULL && (s->flags & BOLIDE_STREAM_IN_FLIGHT) != 0;
}

static void note_full(bolide_stream *s) {
    if (s->pending > s->water->high) {
        s->flags |= BOLIDE_STREAM_FULL;
    }
}

/* Whether output should leave before the end of the turn. */
static bool is_much(const bolide_stream *s) {
    if ((s->flags & BOLIDE_STREAM_PATIENT) && !(s->flags & BOLIDE_STREAM_IN_FLIGHT) && s->tls == NULL) {
        return s->pending >= BOLIDE_FLUSH_LATER;
    }
    return s->pending > s->water->high || s->pending >= BOLIDE_FLUSH_NOW;
}

static void account(bolide_stream *s, size_t len) {
    s->pending += len;
    bolide_stream_list(s);
    if (is_much(s)) {
        bolide_stream_flush(s);
        note_full(s);
    }
}

int bolide_stream_write(bolide_stream *s, const char *data, size_t len) {
    if (len == 0 || !bolide_stream_takes_output(s)) {
        return 0;
    }
    if (bolide_out_write(bolide_stream_loop(s), gathered(s), is_locked(s), data, len) < 0) {
        return -1;
    }
    account(s, len);
    return 0;
}

int bolide_stream_write_object(bolide_stream *s, PyObject *bytes) {
    size_t len = (size_t)PyBytes_GET_SIZE(bytes);
    if (len == 0 || !bolide_stream_takes_output(s)) {
        return 0;
    }
    if (bolide_out_write_object(bolide_stream_loop(s), gathered(s), is_locked(s), bytes) < 0) {
        return -1;
    }
    account(s, len);
    return 0;
}

int bolide_stream_write_owned(bolide_stream *s, const char *data, size_t len, PyObject *owner) {
    if (len == 0 || !bolide_stream_takes_output(s)) {
        return 0;
    }
    if (bolide_out_write_owned(bolide_stream_loop(s), gathered(s), is_locked(s), data, len, owner) < 0) {
        return -1;
    }
    account(s, len);
    return 0;
}

char *bolide_stream_reserve(bolide_stream *s, size_t len) {
    bolide_outblock *block = bolide_out_room(bolide_stream_loop(s), gathered(s), is_locked(s), len);
    return block == NULL ? NULL : block->data + block->used;
}

void bolide_stream_commit(bolide_stream *s, size_t len) {
    if (len == 0 || !bolide_stream_takes_output(s)) {
        return;
    }
    bolide_out_commit(gathered(s)->last, len);
    account(s, len);
}

static void drop_output(bolide_stream *s) {
    /* What is in flight libuv still reads: its callback frees it. */
    bolide_out_clear(bolide_stream_loop(s), &s->out, (s->flags & BOLIDE_STREAM_IN_FLIGHT) != 0);
    if (s->tls != NULL) {
        bolide_out_clear(bolide_stream_loop(s), &s->tls->plain, false);
    }
    s->pending = 0;
}

void bolide_stream_fail(bolide_stream *s, int status) {
    if (s->flags & BOLIDE_STREAM_BROKEN) {
        return;
    }
    s->flags |= BOLIDE_STREAM_BROKEN;
    unlist(s);
    drop_output(s);
    s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
    bolide_stream_poll_stop(s);
    if (s->flags & BOLIDE_STREAM_CLOSE_AFTER) {
        bolide_stream_close(s); /* the owner has let go of it already */
    } else {
        s->ops->on_error(s, status);
    }
}

static void after_output(bolide_stream *s) {
    if ((s->flags & BOLIDE_STREAM_FULL) && s->pending <= s->water->low) {
        s->flags &= ~(unsigned)BOLIDE_STREAM_FULL;
        s->ops->on_drain(s);
    }
    if (s->pending > 0 || !(s->flags & BOLIDE_STREAM_OPEN)) {
        return;
    }
    if (s->tls != NULL && (s->flags & BOLIDE_STREAM_LISTED)) {
        return; /* the close_notify could not be made now */
    }
    if (s->flags & BOLIDE_STREAM_CLOSE_AFTER) {
        bolide_stream_close(s);
        return;
    }
    bool may_end = s->tls == NULL || bolide_tls_has_notified(s->tls);
    if ((s->flags & BOLIDE_STREAM_SHUTDOWN) && !(s->flags & BOLIDE_STREAM_FIN_SENT) && may_end) {
        s->flags |= BOLIDE_STREAM_FIN_SENT;
        (void)shutdown(bolide_stream_fileno(s), SHUT_WR); /* fails only when the peer is gone: reading tells */
    }
    if (s->ops->on_flushed != NULL) {
        s->ops->on_flushed(s);
    }
}

static void on_written(uv_write_t *req, int status) {
    bolide_outblock *block = req->data;
    bolide_stream *s = block->stream;
    bolide_loop_enter(bolide_stream_loop(s));
    s->flags &= ~(unsigned)BOLIDE_STREAM_IN_FLIGHT;
    bool dropped = !(s->flags & BOLIDE_STREAM_OPEN) || (s->flags & BOLIDE_STREAM_BROKEN);
    if (!dropped) {
        s->pending -= bolide_out_pending(block);
    }
    bolide_out_pop(bolide_stream_loop(s), &s->out);
    if (dropped) {
        return;
    }
    if (status < 0) {
        bolide_stream_fail(s, status);
        return;
    }
    bolide_stream_flush(s);
}

/* The socket takes no more: let libuv write the rest of the first block when it does. */
static int put_in_flight(bolide_stream *s) {
    bolide_outblock *block = s->out.first;
    block->stream = s;
    block->req.data = block;
    int status =
        uv_write(&block->req, &s->uv.stream, block->bufs + block->first, block->count - block->first, on_written);
    if (status == 0) {
        s->flags |= BOLIDE_STREAM_IN_FLIGHT;
    }
    return status;
}

/* sendmsg(), and send() for one piece: a little less for the kernel to look at than the writev() of uv_try_write(). How
 * many bytes have left, or a negative uv code. */
static ssize_t send_pieces(bolide_stream *s, const uv_buf_t *bufs, unsigned count) {
    int fd = bolide_stream_fileno(s);
    ssize_t sent;
    do {
        if (count == 1) {
            sent = send(fd, bufs[0].base, bufs[0].len, SEND_FLAGS);
        } else {
            struct msghdr message = {.msg_iov = (struct iovec *)bufs, .msg_iovlen = count};
            sent = sendmsg(fd, &message, SEND_FLAGS);
        }
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        return sent;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : -errno;
}

/* One write of at most FLUSH_QUANTUM bytes of `block`: how many have left, or a negative uv code. */
static ssize_t write_quantum(bolide_stream *s, bolide_outblock *block) {
    uv_buf_t bufs[BOLIDE_OUT_BUFS];
    unsigned count = 0;
    size_t room = FLUSH_QUANTUM;
    if (uv_stream_get_write_queue_size(&s->uv.stream) > 0) {
        return 0;
    }
    for (unsigned i = block->first; i < block->count && room > 0; i++) {
        bufs[count] = block->bufs[i];
        if (bufs[count].len > room) {
            bufs[count].len = room;
        }
        room -= bufs[count++].len;
    }
    return send_pieces(s, bufs, count);
}

/* Send what the socket takes at once of the first block. 0 when the whole block has left, else 1: the rest is in
 * flight, or waits for the next turn; or a negative uv code. */
static int send_block(bolide_stream *s) {
    bolide_outblock *block = s->out.first;
    if (block->first < block->count) {
        ssize_t sent = write_quantum(s, block);
        if (sent < 0) {
            return (int)sent;
        }
        if (sent > 0) {
            bolide_out_consume(block, (size_t)sent);
            s->pending -= (size_t)sent;
        }
        if (block->first < block->count && sent == FLUSH_QUANTUM) {
            bolide_stream_list(s); /* the other streams come first */
            return 1;
        }
        if (block->first < block->count) {
            int status = put_in_flight(s);
            return status < 0 ? status : 1;
        }
    }
    bolide_out_pop(bolide_stream_loop(s), &s->out);
    return 0;
}

void bolide_stream_send(bolide_stream *s) {
    int status = 0;
    while (status == 0 && s->out.first != NULL && !(s->flags & BOLIDE_STREAM_IN_FLIGHT)) {
        status = send_block(s);
    }
    if (status < 0) {
        bolide_stream_fail(s, status);
    }
}

void bolide_stream_flush(bolide_stream *s) {
    bolide_loop_claim(bolide_stream_loop(s));
    unlist(s);
    const unsigned halted = BOLIDE_STREAM_IN_FLIGHT | BOLIDE_STREAM_BROKEN;
    if (!(s->flags & BOLIDE_STREAM_OPEN) || (s->flags & halted)) {
        return;
    }
    bolide_stream_send(s);
    /* Encrypted by and by, as the socket takes it. */
    while (s->tls != NULL && !(s->flags & (halted | BOLIDE_STREAM_LISTED)) && bolide_tls_encrypt(s) > 0) {
        bolide_stream_send(s);
    }
    if ((s->flags & BOLIDE_STREAM_OPEN) && !(s->flags & BOLIDE_STREAM_BROKEN)) {
        if (s->flags & BOLIDE_STREAM_PATIENT) {
            note_full(s);
        }
        after_output(s);
    }
}

#ifdef __linux__
ssize_t bolide_stream_sendfile(bolide_stream *s, int fd, uint64_t offset, size_t len) {
    if (s->tls != NULL) {
        return 0;
    }
    if (s->pending > 0) {
        bolide_stream_flush(s);
    }
    if (s->pending > 0 || !bolide_stream_takes_output(s)) {
        return 0;
    }
    off_t position = (off_t)offset;
    ssize_t sent;
    do {
        sent = sendfile(bolide_stream_fileno(s), fd, &position, len);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        return sent;
    }
    /* The last two: not with this file system. */
    if (errno == EAGAIN || errno == EINVAL || errno == ENOSYS) {
        return 0;
    }
    int status = uv_translate_sys_error(errno);
    if (status == UV_EPIPE || status == UV_ECONNRESET || status == UV_ETIMEDOUT || status == UV_ENOTCONN) {
        bolide_stream_fail(s, status);
    }
    return status;
}
#else
ssize_t bolide_stream_sendfile(bolide_stream *s, int fd, uint64_t offset, size_t len) {
    (void)s, (void)fd, (void)offset, (void)len;
    return 0;
}
#endif

void bolide_stream_yield(bolide_stream *s) {
    if (bolide_stream_takes_output(s)) {
        s->flags |= BOLIDE_STREAM_FULL;
        bolide_stream_list(s);
    }
}

/* --- opening and closing ---------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle) {
    bolide_stream *s = (bolide_stream *)handle;
    bolide_loop_enter(bolide_stream_loop(s));
    drop_output(s); /* what was reserved after the close */
    s->ops->on_close(s);
}

void bolide_stream_close_handle(bolide_stream *s) {
    uv_close(&s->uv.handle, on_closed);
}

int bolide_stream_setup(bolide_stream *s, bolide_loop *loop, const bolide_stream_ops *ops) {
    bolide_loop_claim(loop);
    if (!loop->uv_ready) {
        return UV_ECANCELED;
    }
    memset(s, 0, sizeof(*s));
    s->uv.handle.data = loop;
    s->ops = ops;
    s->water = &default_water;
    int status = uv_tcp_init(&loop->uv, &s->uv.tcp);
    if (status == 0) {
        s->flags = BOLIDE_STREAM_OPEN;
    }
    return status;
}

int bolide_stream_open(bolide_stream *s, int fd) {
    return uv_tcp_open(&s->uv.tcp, fd);
}

int bolide_stream_fileno(const bolide_stream *s) {
    uv_os_fd_t fd;
    int status = uv_fileno(&s->uv.handle, &fd);
    return status < 0 ? status : (int)fd;
}

void bolide_stream_shutdown(bolide_stream *s) {
    if (!bolide_stream_takes_output(s)) {
        return;
    }
    s->flags |= BOLIDE_STREAM_SHUTDOWN;
    if (s->tls != NULL) {
        bolide_stream_list(s); /* a close_notify goes first */
    } else if (s->pending == 0) {
        after_output(s);
    }
}

void bolide_stream_close_when_flushed(bolide_stream *s) {
    if (!(s->flags & BOLIDE_STREAM_OPEN)) {
        return;
    }
    s->flags |= BOLIDE_STREAM_CLOSE_AFTER;
    s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
    bolide_stream_poll_stop(s);
    if (s->tls != NULL ? !bolide_tls_is_secure(s->tls) : s->pending == 0) {
        bolide_stream_close(s);
    } else {
        bolide_stream_list(s);
    }
}

void bolide_stream_discard(bolide_stream *s) {
    unlist(s);
    drop_output(s);
    s->flags &= ~(unsigned)(BOLIDE_STREAM_READING | BOLIDE_STREAM_FULL);
    s->flags |= BOLIDE_STREAM_BROKEN;
    bolide_stream_poll_stop(s);
    bolide_tls_release(s);
}

void bolide_stream_close(bolide_stream *s) {
    bolide_loop_claim(bolide_stream_loop(s));
    if (!(s->flags & BOLIDE_STREAM_OPEN)) {
        return;
    }
    unlist(s);
    drop_output(s);
    s->flags &= ~(unsigned)(BOLIDE_STREAM_OPEN | BOLIDE_STREAM_READING | BOLIDE_STREAM_POLLED);
    if (!(s->flags & BOLIDE_STREAM_ALLOCATING)) {
        bolide_stream_close_handle(s); /* before on_closing() runs code that may close the loop */
    }
    if (s->ops->on_closing != NULL) {
        s->ops->on_closing(s);
    }
    bolide_tls_release(s);
}
