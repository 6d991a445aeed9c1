/* bolide._core.Loop: the event loop.
 *
 * One turn is: poll (libuv runs the I/O callbacks inside it), move due timers to the ready ring, run what the ring
 * holds at that moment, flush the output that streams gathered. The kernel is polled at most once a turn.
 *
 * The GIL is given up only around a poll that can block. Every libuv callback that touches Python objects starts with
 * bolide_loop_enter(). */
#ifndef BOLIDE_LOOP_LOOP_H
#define BOLIDE_LOOP_LOOP_H

#include "common/state.h"
#include "loop/handle.h"
#include "loop/ring.h"
#include "loop/timers.h"
#include "loop/watchers.h"

struct bolide_stream;
struct bolide_outblock;
struct bolide_tls_shared;

/* Something open on a loop, in a doubly linked list whose head is loop->resources. loop.close() closes what is left. */
typedef struct bolide_resource {
    struct bolide_resource *prev, *next;
    /* Visit the Python objects that this resource keeps alive (for the garbage collector). */
    int (*traverse)(struct bolide_resource *self, visitproc visit, void *arg);
    /* The loop is closing: close the uv handles now, without calling user code. */
    void (*close)(struct bolide_resource *self);
} bolide_resource;

typedef struct bolide_loop {
    PyObject_HEAD bolide_state *st;
    PyObject *weakrefs;

    uv_loop_t uv;
    uv_async_t wake; /* another thread, or a signal, ends the poll */
    uv_timer_t tick; /* ends the poll when the earliest timer is due */
    uv_poll_t fds;   /* readable when the watched descriptors (fdset) have events */
#if defined(BOLIDE_SYSTEM_LIBUV) && defined(__linux__)
    uv_prepare_t settle; /* right before each poll, see bolide_epoll_settle() */
#endif
    double tick_when; /* the deadline for which `tick` is armed, or NaN */

    PyThreadState *released; /* set while the GIL is given up for a poll, and nowhere else */
    unsigned occupied;       /* calls of Python that stay on top: see bolide_loop_occupy(), nesting.h */
    unsigned claims;         /* threads in bolide_loop_interrupt(), for which the loop stays out of blocking polls */
    unsigned long thread_id; /* PyThread_get_thread_ident() of the thread in run_forever(), or 0 */
    PyObject *fatal;         /* KeyboardInterrupt or SystemExit, to be raised from run_forever() after the turn */

    bolide_ring ready;
    bolide_timers timers;
    unsigned polls_skipped; /* turns since the kernel was last polled */
    bool poll_due;          /* a descriptor is new to the watchers: this turn polls */
    uint64_t last_poll;     /* uv_hrtime() of that poll */

    struct bolide_stream *flush_first, *flush_last; /* streams with gathered output */
    size_t flush_count;                             /* length of that list */
    uint64_t flush_since;                           /* uv_hrtime() when the oldest of that output was queued, or 0 */
    uint64_t step_since;                 /* uv_hrtime() at the end of the last step of user code in this turn, or 0 */
    unsigned quick_steps;                /* how many in a row were quick, see bolide_loop_begin_step() */
    struct bolide_outblock *free_blocks; /* pool of output blocks */
    struct bolide_outblock *free_small_blocks; /* ... of those without data of their own */
    int free_block_count, free_small_block_count;
    char *read_buf;       /* BOLIDE_READ_BUF bytes, shared by all streams, valid during one read callback */
    ssize_t received;     /* what a stream has just read, in bytes, or a negative uv code */
    uv_buf_t received_to; /* ... and the room it had for it */
    char *sock_buf; /* as much for sock_recv(), between the system call and the bytes object; NULL before the first */

    struct bolide_tls_shared *tls; /* what its TLS streams share, or NULL */

    bolide_watchers watchers; /* add_reader/add_writer */
    PyObject *task_factory;   /* loop.set_task_factory(), NULL or None: none */
    PyObject *keywords;       /* {"loop": self} while it runs, else NULL: see bolide_loop_make() */
    double slow_callback;     /* loop.slow_callback_duration, seconds (debug mode) */

    bolide_resource resources; /* head of the list of open resources */

    bool uv_ready;  /* uv handles can be made: between uv_loop_init() and the begin of the teardown */
    bool abandoned; /* after a fork: not to be used any more, see bolide_loop_after_fork() */
    bool closed;
    bool tearing_down;
    bool running;
    bool polling; /* inside uv_run() */
    bool nests;   /* its callbacks may run it: see nesting.h */
    bool stopping;
    bool debug;
    bool own_time;    /* a subclass or the program has put its own time() in the place of ours */
    bool own_call_at; /* ... call_at() */
} bolide_loop;

#define BOLIDE_READ_BUF (256 * 1024)

/* --- for libuv callbacks ---------------------------------------------------------------------- */

void bolide_loop_reacquire(bolide_loop *loop);

/* Take the GIL back if this is the first callback of a poll that gave it up. */
static inline void bolide_loop_enter(bolide_loop *loop) {
    if (loop->released != NULL) {
        bolide_loop_reacquire(loop);
    }
}

/* Wake the poll for which another thread has given up the GIL, and wait until it has ended. */
void bolide_loop_interrupt(bolide_loop *loop);

/* Before a change to the uv loop or to a handle of it: with the GIL alone another thread does not have the loop while
 * its own one polls. Python code may get there all the same: asyncio does not forbid it everywhere, and finalizers run
 * in any thread. May let other threads run: check again afterwards. */
static inline void bolide_loop_claim(bolide_loop *loop) {
    if (loop->released != NULL) {
        bolide_loop_interrupt(loop);
    }
}

static inline bolide_loop *bolide_loop_of(const void *uv_handle) {
    return (bolide_loop *)((const uv_handle_t *)uv_handle)->loop->data;
}

/* Around C code that goes through what only the uv loop's callbacks free, with calls of Python in between: outside of a
 * run too, the loop then counts as running, so that nothing down there can run or close it. */
static inline bool bolide_loop_occupy(bolide_loop *loop) {
    bool was_running = loop->running;
    loop->occupied++;
    loop->running = true;
    return was_running;
}

static inline void bolide_loop_vacate(bolide_loop *loop, bool was_running) {
    loop->occupied--;
    loop->running = was_running;
}

/* --- for the layers above --------------------------------------------------------------------- */

/* loop.call_soon(callback, *args) with `context` (NULL: a copy of the current one) for callers that drop the handle.
 * 0, or -1 with an exception set. */
int bolide_loop_schedule(bolide_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *context);

/* loop.call_later(seconds, callback, *args), `context` as above. New reference to the TimerHandle, or NULL with an
 * exception set. */
PyObject *bolide_loop_call_later(bolide_loop *loop, double seconds, PyObject *callback, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *context);

/* handle.cancel() */
void bolide_loop_cancel(PyObject *handle);

/* type(arg, loop=loop), or type(loop=loop) where `arg` is NULL, for asyncio.Task and asyncio.Future. Neither has a
 * vectorcall, so that a keyword given one by one would be put into a new dict each time. New reference or NULL. */
PyObject *bolide_loop_make(bolide_loop *loop, PyObject *type, PyObject *arg);

/* asyncio.Future(loop=loop). New reference or NULL. */
PyObject *bolide_loop_create_future(bolide_loop *loop);

/* The exact monotonic clock in seconds: what loop.time() tells unless it is overridden. */
double bolide_loop_time(void);

/* loop.time(), also of a subclass. -1 with an exception set when that fails. */
double bolide_loop_now(bolide_loop *loop);

/* The exception that is set goes to loop.call_exception_handler() with `message` and, when `key` is not NULL, that key
 * too (e.g. "transport"). KeyboardInterrupt and SystemExit instead end run_forever(). Clears the exception. */
void bolide_loop_report(bolide_loop *loop, const char *message, const char *key, PyObject *value);

/* The same with all that a context can hold; `message` is a str object, the others may be NULL. */
void bolide_loop_report_context(bolide_loop *loop, PyObject *message, const char *key, PyObject *value,
                                PyObject *source_traceback);

/* Keep the exception that is set (KeyboardInterrupt, SystemExit) for run_forever() to raise after this turn. Clears it.
 */
void bolide_loop_set_fatal(bolide_loop *loop);

/* Raise that exception, if there is one: -1. Else 0. */
int bolide_loop_raise_fatal(bolide_loop *loop);

/* Make the poll that blocks return, or the next one not block. Any thread that holds the GIL. */
void bolide_loop_wake(bolide_loop *loop);

/* 0, or -1 with RuntimeError("Event loop is closed"). */
int bolide_loop_check_closed(bolide_loop *loop);

void bolide_resource_add(bolide_loop *loop, bolide_resource *res);
void bolide_resource_remove(bolide_resource *res); /* idempotent */

/* --- between loop.c, loop_type.c and schedule.c ------------------------------------------------------------------- */

/* Prepare the uv loop and its own handles. 0, or a negative uv code: then nothing is open. */
int bolide_loop_open(bolide_loop *loop);

/* In the child after a fork: give the loop a readiness set, a wake-up and a descriptor set of its own, so that nothing
 * done with it here reaches the parent's. A loop that another thread was running is given up instead, as that thread is
 * not here. 0, or a negative uv code: then it is given up too. */
int bolide_loop_after_fork(bolide_loop *loop);

/* One turn within a callback of another, in asyncio's order: the kernel, waiting for it if nothing is ready, then the
 * callbacks. After it loop->fatal may hold an exception. */
void bolide_loop_nested_turn(bolide_loop *loop);

/* Turns until stop() or a fatal exception, which loop->fatal holds then. */
void bolide_loop_turns(bolide_loop *loop);

/* Close what is open without calling user code, and give everything back; idempotent. */
void bolide_loop_teardown(bolide_loop *loop);

/* See which methods that C would call by itself a subclass, or the program for this loop alone, has replaced. May run
 * any code. */
void bolide_loop_find_overrides(bolide_loop *loop);

/* call_soon() and its kin, for the method table of bolide._core.Loop. */
extern PyMethodDef bolide_schedule_methods[];

/* --- module ------------------------------------------------------------------------------------------------------- */

int bolide_loop_init(PyObject *module, bolide_state *st);

#endif
