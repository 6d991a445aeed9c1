#include "transport/stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define BLOCK_SIZE 4096
#define BLOCK_BUFS 14
#define BLOCK_POOL 256
/* Smaller pieces are copied: cheaper than a reference and an iovec each. */
#define COPY_MAX 1024
#define LATE_NS  500000

/* Gathered output: iovecs that point into `data` or into bytes objects. */
struct bolide_outblock {
    bolide_outblock *next;
    bolide_stream *stream; /* for the callback of `req` */
    unsigned first, count; /* bufs[first .. count) have not left */
    size_t used;           /* bytes used in data */
    uv_buf_t bufs[BLOCK_BUFS];
    PyObject *owners[BLOCK_BUFS]; /* keeps bufs[i] alive, or NULL: it lies in data */
    uv_write_t req;               /* when the socket was not writable */
    char data[];
};

#define BLOCK_DATA (BLOCK_SIZE - offsetof(bolide_outblock, data))
_Static_assert(BLOCK_DATA >= BOLIDE_RESERVE_MAX, "a reservation fits in one block");

/* --- blocks ----------------------------------------------------------------------------------- */

static bolide_outblock *block_new(bolide_loop *loop) {
    bolide_outblock *block = loop->free_blocks;
    if (block != NULL) {
        loop->free_blocks = block->next;
        loop->free_block_count--;
    } else {
        block = PyMem_RawMalloc(BLOCK_SIZE);
        if (block == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    block->next = NULL;
    block->first = block->count = 0;
    block->used = 0;
    return block;
}

static void block_free(bolide_loop *loop, bolide_outblock *block) {
    for (unsigned i = block->first; i < block->count; i++) {
        Py_XDECREF(block->owners[i]);
    }
    if (loop->free_block_count < BLOCK_POOL && !loop->closed) {
        block->next = loop->free_blocks;
        loop->free_blocks = block;
        loop->free_block_count++;
    } else {
        PyMem_RawFree(block);
    }
}

void bolide_stream_free_blocks(bolide_loop *loop) {
    while (loop->free_blocks != NULL) {
        bolide_outblock *block = loop->free_blocks;
        loop->free_blocks = block->next;
        PyMem_RawFree(block);
    }
    loop->free_block_count = 0;
}

static size_t block_pending(const bolide_outblock *block) {
    size_t sum = 0;
    for (unsigned i = block->first; i < block->count; i++) {
        sum += block->bufs[i].len;
    }
    return sum;
}

/* `len` bytes from the front have left. */
static void block_consume(bolide_outblock *block, size_t len) {
    while (len > 0 && len >= block->bufs[block->first].len) {
        len -= block->bufs[block->first].len;
        Py_CLEAR(block->owners[block->first]);
        block->first++;
    }
    if (len > 0) {
        block->bufs[block->first].base += len;
        block->bufs[block->first].len -= len;
    }
}

/* --- the flush list --------------------------------------------------------------------------- */

static void list_for_flush(bolide_stream *s) {
    bolide_loop *loop = s->loop;
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
}

static void unlist(bolide_stream *s) {
    bolide_loop *loop = s->loop;
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
    /* What is listed while this runs waits for the next turn: a fast reader must not hold the loop up. */
    for (size_t n = loop->flush_count; n > 0 && loop->flush_first != NULL; n--) {
        bolide_stream_flush(loop->flush_first);
    }
}

void bolide_loop_flush_if_late(bolide_loop *loop) {
    if (loop->flush_first != NULL && uv_hrtime() - loop->flush_since > LATE_NS) {
        bolide_loop_flush(loop);
    }
}

/* --- output ----------------------------------------------------------------------------------- */

static bool takes_output(const bolide_stream *s) {
    unsigned refused =
        BOLIDE_STREAM_SHUTDOWN | BOLIDE_STREAM_FIN_SENT | BOLIDE_STREAM_CLOSE_AFTER | BOLIDE_STREAM_BROKEN;
    return (s->flags & BOLIDE_STREAM_OPEN) && !(s->flags & refused);
}

/* The block to append to: one that is not in flight, has a free iovec and `len` bytes of room. NULL with MemoryError
 * set. */
static bolide_outblock *room_for(bolide_stream *s, size_t len) {
    bolide_outblock *last = s->out_last;
    bool in_flight = last == s->out_first && (s->flags & BOLIDE_STREAM_IN_FLIGHT);
    if (last != NULL && !in_flight && last->count < BLOCK_BUFS && BLOCK_DATA - last->used >= len) {
        return last;
    }
    bolide_outblock *block = block_new(s->loop);
    if (block == NULL) {
        return NULL;
    }
    block->stream = s;
    *(last != NULL ? &last->next : &s->out_first) = block;
    s->out_last = block;
    return block;
}

static void account(bolide_stream *s, size_t len) {
    s->pending += len;
    list_for_flush(s);
    if (s->pending > s->high_water || s->pending >= BOLIDE_FLUSH_NOW) {
        bolide_stream_flush(s);
        if (s->pending > s->high_water) {
            s->flags |= BOLIDE_STREAM_FULL;
        }
    }
}

/* `len` bytes now stand at the end of the block's data: extend its last iovec, or begin one. */
static void append_data(bolide_outblock *block, size_t len) {
    char *start = block->data + block->used;
    block->used += len;
    if (block->count > block->first) {
        uv_buf_t *last = &block->bufs[block->count - 1];
        if (block->owners[block->count - 1] == NULL && last->base + last->len == start) {
            last->len += len;
            return;
        }
    }
    block->owners[block->count] = NULL;
    block->bufs[block->count++] = uv_buf_init(start, (unsigned)len);
}

int bolide_stream_write(bolide_stream *s, const char *data, size_t len) {
    if (!takes_output(s)) {
        return 0;
    }
    size_t total = len;
    while (len > 0) {
        bolide_outblock *block = room_for(s, 1);
        if (block == NULL) {
            return -1;
        }
        size_t room = BLOCK_DATA - block->used;
        size_t part = len < room ? len : room;
        memcpy(block->data + block->used, data, part);
        append_data(block, part);
        data += part;
        len -= part;
    }
    if (total > 0) {
        account(s, total);
    }
    return 0;
}

int bolide_stream_write_object(bolide_stream *s, PyObject *bytes) {
    size_t len = (size_t)PyBytes_GET_SIZE(bytes);
    if (len <= COPY_MAX) {
        return bolide_stream_write(s, PyBytes_AS_STRING(bytes), len);
    }
    if (!takes_output(s)) {
        return 0;
    }
    bolide_outblock *block = room_for(s, 0);
    if (block == NULL) {
        return -1;
    }
    block->owners[block->count] = Py_NewRef(bytes);
    /* Assigned by hand: uv_buf_init() takes an unsigned int, which a body of 4 GiB exceeds. */
    block->bufs[block->count].base = PyBytes_AS_STRING(bytes);
    block->bufs[block->count].len = len;
    block->count++;
    account(s, len);
    return 0;
}

char *bolide_stream_reserve(bolide_stream *s, size_t len) {
    bolide_outblock *block = room_for(s, len);
    return block == NULL ? NULL : block->data + block->used;
}

void bolide_stream_commit(bolide_stream *s, size_t len) {
    if (len == 0 || !takes_output(s)) {
        return;
    }
    append_data(s->out_last, len);
    account(s, len);
}

static void drop_output(bolide_stream *s) {
    bolide_outblock *block = s->out_first;
    if (block != NULL && (s->flags & BOLIDE_STREAM_IN_FLIGHT)) {
        /* libuv still reads it: its callback frees it. */
        s->out_last = block;
        block = block->next;
        s->out_first->next = NULL;
    } else {
        s->out_first = s->out_last = NULL;
    }
    while (block != NULL) {
        bolide_outblock *next = block->next;
        block_free(s->loop, block);
        block = next;
    }
    s->pending = 0;
}

static void fail(bolide_stream *s, int status) {
    if (s->flags & BOLIDE_STREAM_BROKEN) {
        return;
    }
    s->flags |= BOLIDE_STREAM_BROKEN;
    unlist(s);
    drop_output(s);
    bolide_stream_read_stop(s);
    if (s->flags & BOLIDE_STREAM_CLOSE_AFTER) {
        bolide_stream_close(s); /* the owner has let go of it already */
    } else {
        s->ops->on_error(s, status);
    }
}

static void after_output(bolide_stream *s) {
    if ((s->flags & BOLIDE_STREAM_FULL) && s->pending <= s->low_water) {
        s->flags &= ~(unsigned)BOLIDE_STREAM_FULL;
        s->ops->on_drain(s);
    }
    if (s->pending > 0 || !(s->flags & BOLIDE_STREAM_OPEN)) {
        return;
    }
    if (s->flags & BOLIDE_STREAM_CLOSE_AFTER) {
        bolide_stream_close(s);
        return;
    }
    if ((s->flags & BOLIDE_STREAM_SHUTDOWN) && !(s->flags & BOLIDE_STREAM_FIN_SENT)) {
        s->flags |= BOLIDE_STREAM_FIN_SENT;
        (void)shutdown(bolide_stream_fileno(s), SHUT_WR); /* fails only when the peer is gone: reading tells */
    }
    if (s->ops->on_flushed != NULL) {
        s->ops->on_flushed(s);
    }
}

static void pop_block(bolide_stream *s) {
    bolide_outblock *block = s->out_first;
    s->out_first = block->next;
    if (s->out_first == NULL) {
        s->out_last = NULL;
    }
    block_free(s->loop, block);
}

static void on_written(uv_write_t *req, int status) {
    bolide_outblock *block = req->data;
    bolide_stream *s = block->stream;
    bolide_loop_enter(s->loop);
    s->flags &= ~(unsigned)BOLIDE_STREAM_IN_FLIGHT;
    bool dropped = !(s->flags & BOLIDE_STREAM_OPEN) || (s->flags & BOLIDE_STREAM_BROKEN);
    if (!dropped) {
        s->pending -= block_pending(block);
    }
    pop_block(s);
    if (dropped) {
        return;
    }
    if (status < 0) {
        fail(s, status);
        return;
    }
    if (s->out_first != NULL) {
        bolide_stream_flush(s);
    } else {
        after_output(s);
    }
}

/* The socket takes no more: let libuv write the rest of the first block when it does. */
static int put_in_flight(bolide_stream *s) {
    bolide_outblock *block = s->out_first;
    block->req.data = block;
    int status =
        uv_write(&block->req, &s->uv.stream, block->bufs + block->first, block->count - block->first, on_written);
    if (status == 0) {
        s->flags |= BOLIDE_STREAM_IN_FLIGHT;
    }
    return status;
}

void bolide_stream_flush(bolide_stream *s) {
    unlist(s);
    if (!(s->flags & BOLIDE_STREAM_OPEN) || (s->flags & BOLIDE_STREAM_IN_FLIGHT)) {
        return;
    }
    while (s->out_first != NULL) {
        bolide_outblock *block = s->out_first;
        if (block->first < block->count) {
            int sent = uv_try_write(&s->uv.stream, block->bufs + block->first, block->count - block->first);
            if (sent < 0 && sent != UV_EAGAIN) {
                fail(s, sent);
                return;
            }
            if (sent > 0) {
                block_consume(block, (size_t)sent);
                s->pending -= (size_t)sent;
            }
            if (block->first < block->count) {
                int status = put_in_flight(s);
                if (status < 0) {
                    fail(s, status);
                    return;
                }
                break;
            }
        }
        pop_block(s);
    }
    after_output(s);
}

/* --- input ------------------------------------------------------------------------------------ */

static void on_alloc(uv_handle_t *handle, size_t hint, uv_buf_t *buf) {
    (void)hint;
    bolide_stream *s = handle->data;
    bolide_loop_enter(s->loop);
    if (s->ops->on_alloc == NULL) {
        *buf = uv_buf_init(s->loop->read_buf, BOLIDE_READ_BUF);
        return;
    }
    s->flags |= BOLIDE_STREAM_ALLOCATING;
    s->ops->on_alloc(s, buf);
    s->flags &= ~(unsigned)BOLIDE_STREAM_ALLOCATING;
    if (!(s->flags & BOLIDE_STREAM_READING)) {
        *buf = uv_buf_init(NULL, 0); /* on_read() follows with UV_ENOBUFS */
    }
}

static void on_closed(uv_handle_t *handle) {
    bolide_stream *s = handle->data;
    bolide_loop_enter(s->loop);
    drop_output(s); /* what was reserved after the close */
    s->ops->on_close(s);
}

/* The owner stopped reading or closed the stream in on_alloc(), where libuv does not stand it: do it now. */
static void stop_after_alloc(bolide_stream *s) {
    if (s->flags & BOLIDE_STREAM_OPEN) {
        uv_read_stop(&s->uv.stream);
    } else {
        uv_close(&s->uv.handle, on_closed);
    }
}

static void on_read(uv_stream_t *handle, ssize_t nread, const uv_buf_t *buf) {
    bolide_stream *s = handle->data;
    bolide_loop_enter(s->loop);
    if (nread > 0) {
        s->ops->on_read(s, buf->base, (size_t)nread);
    } else if (nread == UV_EOF) {
        bolide_stream_read_stop(s);
        s->ops->on_eof(s);
    } else if (nread == UV_ENOBUFS && !(s->flags & BOLIDE_STREAM_READING)) {
        stop_after_alloc(s);
    } else if (nread < 0 && nread != UV_ENOBUFS) {
        fail(s, (int)nread);
    }
}

int bolide_stream_read_start(bolide_stream *s) {
    if (s->flags & BOLIDE_STREAM_READING) {
        return 0;
    }
    if (!(s->flags & BOLIDE_STREAM_OPEN)) {
        return UV_EBADF;
    }
    /* In on_alloc() libuv reads already. */
    int status = s->flags & BOLIDE_STREAM_ALLOCATING ? 0 : uv_read_start(&s->uv.stream, on_alloc, on_read);
    if (status == 0) {
        s->flags |= BOLIDE_STREAM_READING;
    }
    return status;
}

void bolide_stream_read_stop(bolide_stream *s) {
    if (s->flags & BOLIDE_STREAM_READING) {
        s->flags &= ~(unsigned)BOLIDE_STREAM_READING;
        if (!(s->flags & BOLIDE_STREAM_ALLOCATING)) {
            uv_read_stop(&s->uv.stream);
        }
    }
}

/* --- opening and closing ---------------------------------------------------------------------- */

int bolide_stream_setup(bolide_stream *s, bolide_loop *loop, bool pipe, const bolide_stream_ops *ops) {
    memset(s, 0, sizeof(*s));
    s->loop = loop;
    s->ops = ops;
    s->high_water = BOLIDE_HIGH_WATER;
    s->low_water = BOLIDE_HIGH_WATER / 4;
    int status = pipe ? uv_pipe_init(&loop->uv, &s->uv.pipe, 0) : uv_tcp_init(&loop->uv, &s->uv.tcp);
    if (status == 0) {
        s->uv.handle.data = s;
        s->flags = BOLIDE_STREAM_OPEN;
    }
    return status;
}

int bolide_stream_open(bolide_stream *s, int fd) {
    return s->uv.handle.type == UV_TCP ? uv_tcp_open(&s->uv.tcp, fd) : uv_pipe_open(&s->uv.pipe, fd);
}

int bolide_stream_accept(bolide_stream *s, uv_stream_t *listener) {
    return uv_accept(listener, &s->uv.stream);
}

int bolide_stream_fileno(const bolide_stream *s) {
    uv_os_fd_t fd;
    int status = uv_fileno(&s->uv.handle, &fd);
    return status < 0 ? status : (int)fd;
}

void bolide_stream_shutdown(bolide_stream *s) {
    if (!takes_output(s)) {
        return;
    }
    s->flags |= BOLIDE_STREAM_SHUTDOWN;
    if (s->pending == 0) {
        after_output(s);
    }
}

void bolide_stream_close_when_flushed(bolide_stream *s) {
    if (!(s->flags & BOLIDE_STREAM_OPEN)) {
        return;
    }
    s->flags |= BOLIDE_STREAM_CLOSE_AFTER;
    bolide_stream_read_stop(s);
    if (s->pending == 0) {
        bolide_stream_close(s);
    } else {
        list_for_flush(s);
    }
}

void bolide_stream_close(bolide_stream *s) {
    if (!(s->flags & BOLIDE_STREAM_OPEN)) {
        return;
    }
    unlist(s);
    drop_output(s);
    s->flags &= ~(unsigned)(BOLIDE_STREAM_OPEN | BOLIDE_STREAM_READING);
    if (s->ops->on_closing != NULL) {
        s->ops->on_closing(s);
    }
    if (!(s->flags & BOLIDE_STREAM_ALLOCATING)) {
        uv_close(&s->uv.handle, on_closed);
    }
}
