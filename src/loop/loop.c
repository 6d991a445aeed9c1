#include "loop/loop.h"

#include <math.h>
#include <time.h>
#include <unistd.h>

#include "common/error.h"
#include "loop/fdset.h"
#include "transport/stream.h"
#include "transport/tls.h"

#if defined(BOLIDE_SYSTEM_LIBUV) && defined(__linux__)
#include "loop/epoll.h"
#define HAS_SETTLE
#endif

/* A chain of call_soon() does not poll the kernel every turn; it does so after this many turns or nanoseconds. */
#define SKIP_TURNS       64
#define SKIP_CLOCK_EVERY 4
#define SKIP_NS          100000

double bolide_loop_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double bolide_loop_now(bolide_loop *loop) {
    if (!loop->own_time) {
        return bolide_loop_time();
    }
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)loop, loop->st->str_time);
    double now = result != NULL ? PyFloat_AsDouble(result) : -1;
    Py_XDECREF(result);
    return now;
}

/* --- errors ----------------------------------------------------------------------------------- */

int bolide_loop_check_closed(bolide_loop *loop) {
    if (loop->closed) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    return 0;
}

void bolide_loop_set_fatal(bolide_loop *loop) {
    PyObject *exception = bolide_error_take();
    if (loop->fatal != NULL) {
        Py_XDECREF(exception); /* the first one is the cause */
    } else {
        loop->fatal = exception;
    }
}

int bolide_loop_raise_fatal(bolide_loop *loop) {
    PyObject *exception = loop->fatal;
    if (exception == NULL) {
        return 0;
    }
    loop->fatal = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return -1;
}

static int call_handler(bolide_loop *loop, PyObject *message, PyObject *exception, const char *key, PyObject *value,
                        PyObject *source_traceback) {
    bolide_state *st = loop->st;
    PyObject *context = PyDict_New();
    if (context == NULL || PyDict_SetItem(context, st->str_message, message) < 0 ||
        PyDict_SetItem(context, st->str_exception, exception) < 0 ||
        (key != NULL && value != NULL && PyDict_SetItemString(context, key, value) < 0) ||
        (source_traceback != NULL && PyDict_SetItem(context, st->str_source_traceback, source_traceback) < 0)) {
        Py_XDECREF(context);
        return -1;
    }
    PyObject *result = PyObject_CallMethodOneArg((PyObject *)loop, st->str_call_exception_handler, context);
    Py_DECREF(context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void bolide_loop_report_context(bolide_loop *loop, PyObject *message, const char *key, PyObject *value,
                                PyObject *source_traceback) {
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_SystemError, "an error was reported without an exception");
    }
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        bolide_loop_set_fatal(loop);
        return;
    }
    PyObject *exception = bolide_error_take();
    if (call_handler(loop, message != NULL ? message : Py_None, exception, key, value, source_traceback) < 0) {
        bolide_loop_set_fatal(loop); /* as asyncio: what the handler lets through ends the loop */
    }
    Py_DECREF(exception);
}

void bolide_loop_report(bolide_loop *loop, const char *message, const char *key, PyObject *value) {
    PyObject *type, *exception, *traceback;
    PyErr_Fetch(&type, &exception, &traceback);
    PyObject *text = PyUnicode_FromString(message);
    if (text == NULL) {
        PyErr_Clear();
    }
    PyErr_Restore(type, exception, traceback);
    bolide_loop_report_context(loop, text, key, value, NULL);
    Py_XDECREF(text);
}

/* --- resources -------------------------------------------------------------------------------- */

void bolide_resource_add(bolide_loop *loop, bolide_resource *res) {
    bolide_resource *head = &loop->resources;
    res->prev = head->prev;
    res->next = head;
    head->prev->next = res;
    head->prev = res;
}

void bolide_resource_remove(bolide_resource *res) {
    if (res->next != NULL) {
        res->prev->next = res->next;
        res->next->prev = res->prev;
        res->next = res->prev = NULL;
    }
}

/* --- the poll --------------------------------------------------------------------------------- */

void bolide_loop_reacquire(bolide_loop *loop) {
    PyThreadState *released = loop->released;
    PyEval_RestoreThread(released);
    /* Only now: while it was set, other threads that hold the GIL knew that they have to wake the poll. */
    loop->released = NULL;
}

void bolide_loop_wake(bolide_loop *loop) {
    if (loop->released != NULL) {
        uv_async_send(&loop->wake);
    }
}

static bool is_finalizing(void) {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

/* Let other threads have the GIL for a moment. */
static void give_way(void) {
    PyThreadState *state = PyEval_SaveThread();
    usleep(20);
    PyEval_RestoreThread(state);
}

void bolide_loop_interrupt(bolide_loop *loop) {
    if (is_finalizing()) {
        return; /* the thread that polls never gets the GIL */
    }
    loop->claims++;
    while (loop->released != NULL) {
        uv_async_send(&loop->wake);
        give_way();
    }
    loop->claims--;
}

static void on_wake(uv_async_t *wake) {
    (void)wake; /* it has done its work by ending the poll */
}

static void on_tick(uv_timer_t *tick) {
    bolide_loop_of(tick)->tick_when = NAN;
}

/* Arm `tick` for the earliest timer. False when that is due already. */
static bool arm_tick(bolide_loop *loop) {
    if (loop->timers.count == 0) {
        if (!isnan(loop->tick_when)) {
            uv_timer_stop(&loop->tick);
            loop->tick_when = NAN;
        }
        return true;
    }
    double when = loop->timers.entries[0].when;
    if (when == loop->tick_when && !loop->own_time) {
        return true;
    }
    double now = bolide_loop_now(loop);
    if (now == -1 && PyErr_Occurred()) {
        bolide_loop_set_fatal(loop);
        return false;
    }
    if (loop->timers.count == 0) { /* a time() of the program's own has cancelled them */
        return false;
    }
    when = loop->timers.entries[0].when; /* ... or has made an earlier one */
    uv_update_time(&loop->uv);
    /* libuv waits a whole number of milliseconds from here on. A deadline taken as a point on its clock, which is cut
     * to milliseconds, would come up to one more late. */
    double delay = ceil((when - now) * 1e3);
    if (delay <= 0) {
        return false;
    }
    uv_timer_start(&loop->tick, on_tick, delay < 1e12 ? (uint64_t)delay : (uint64_t)1e12, 0);
    loop->tick_when = when;
    return true;
}

/* Whether a turn with work at hand may leave the kernel alone this time. */
static bool may_skip_poll(bolide_loop *loop) {
    if (loop->stopping || loop->poll_due || loop->uv.closing_handles != NULL || loop->polls_skipped >= SKIP_TURNS) {
        return false;
    }
    return loop->polls_skipped % SKIP_CLOCK_EVERY != SKIP_CLOCK_EVERY - 1 || uv_hrtime() - loop->last_poll < SKIP_NS;
}

static void poll_kernel(bolide_loop *loop) {
    bool busy = bolide_ring_count(&loop->ready) > 0 || loop->stopping || loop->flush_first != NULL;
    if (busy && may_skip_poll(loop)) {
        loop->polls_skipped++;
        return;
    }
    loop->step_since = 0;
    loop->poll_due = false;
    if (loop->claims > 0) {
        give_way(); /* not in the poll: it is what they wait for the end of */
        busy = true;
    }
    if (busy || !arm_tick(loop)) {
        loop->polling = true;
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        loop->last_poll = uv_hrtime();
    } else {
        bolide_handle_trim_kept(loop->st);
        /* Before the GIL goes, not after: another thread may take it at once, schedule something and not wake us. */
        loop->released = PyThreadState_Get();
        PyEval_SaveThread();
        loop->polling = true;
        uv_run(&loop->uv, UV_RUN_ONCE);
        bolide_loop_enter(loop);
    }
    loop->polling = false;
    loop->polls_skipped = 0;
    /* As out of asyncio's select(): what a handler of signal.signal() raises leaves the run. A callback would only have
     * it reported. */
    if (PyErr_CheckSignals() < 0) {
        bolide_loop_set_fatal(loop);
    }
}

/* --- a turn ----------------------------------------------------------------------------------- */

static int expire_timers(bolide_loop *loop) {
    if (loop->timers.count == 0) {
        return 0;
    }
    double now = bolide_loop_now(loop);
    if (now == -1 && PyErr_Occurred()) {
        return -1;
    }
    while (loop->timers.count > 0 && loop->timers.entries[0].when <= now) {
        bolide_handle *handle = (bolide_handle *)bolide_timers_pop(&loop->timers);
        if (bolide_ring_push(&loop->ready, handle) < 0) {
            Py_DECREF(handle);
            return -1;
        }
    }
    return 0;
}

/* Debug mode: run, and report a callback that took longer than slow_callback_duration. */
static void run_watched(bolide_loop *loop, bolide_handle *handle) {
    if (handle->flags & BOLIDE_HANDLE_CANCELLED) {
        return;
    }
    uint32_t repeats = handle->flags & BOLIDE_HANDLE_REPEATS;
    handle->flags |= BOLIDE_HANDLE_REPEATS; /* its callback is needed for the report */
    double start = bolide_loop_time();
    bolide_handle_run(handle);
    double took = bolide_loop_time() - start;
    handle->flags = (handle->flags & ~(uint32_t)BOLIDE_HANDLE_REPEATS) | repeats;
    if (took < loop->slow_callback) {
        bolide_handle_retire(handle);
        return;
    }
    PyObject *text = PyObject_CallOneArg(loop->st->asyncio_format_handle, (PyObject *)handle);
    PyObject *seconds = PyFloat_FromDouble(took);
    PyObject *result = NULL;
    if (text != NULL && seconds != NULL) {
        result = PyObject_CallMethod(loop->st->asyncio_logger, "warning", "sOO", "Executing %s took %.3f seconds", text,
                                     seconds);
    }
    if (result == NULL) {
        bolide_loop_report(loop, "reporting a slow callback failed", NULL, NULL);
    }
    Py_XDECREF(result);
    Py_XDECREF(seconds);
    Py_XDECREF(text);
    bolide_handle_retire(handle);
}

/* Run the first `n` handles of the ring, which are all that it holds as a turn begins; a callback that runs the loop
 * has taken some of them. */
static void run_ready(bolide_loop *loop, size_t n) {
    for (; n > 0 && loop->fatal == NULL && bolide_ring_count(&loop->ready) > 0; n--) {
        bolide_handle *handle = bolide_ring_pop(&loop->ready);
        if (loop->flush_first != NULL) {
            bolide_loop_begin_step(loop);
        }
        if (loop->debug) {
            run_watched(loop, handle);
        } else {
            bolide_handle_run(handle);
        }
        Py_DECREF(handle);
        if (loop->flush_first != NULL) {
            bolide_loop_end_step(loop);
        }
    }
}

static void run_scheduled(bolide_loop *loop) {
    if (expire_timers(loop) < 0) {
        bolide_loop_set_fatal(loop);
    }
    run_ready(loop, bolide_ring_count(&loop->ready));
    if (loop->flush_first != NULL) {
        bolide_loop_flush(loop);
    }
}

void bolide_loop_nested_turn(bolide_loop *loop) {
    poll_kernel(loop);
    run_scheduled(loop);
}

/* What was scheduled goes before what the kernel reports, the order that asyncio keeps. A run that begins after stop()
 * is one turn, in which the kernel is asked first. */
static void run_turn(bolide_loop *loop) {
    bool single = loop->stopping;
    if (single) {
        poll_kernel(loop);
    }
    run_scheduled(loop);
    if (!loop->stopping && loop->fatal == NULL) {
        poll_kernel(loop);
    }
}

/* The end of a run that has not polled: as in asyncio, `call_soon(stop); run_forever()` handles the events that are
 * there, after what was ready, but not what that scheduled for the next turn. */
static void run_events(bolide_loop *loop) {
    size_t later = bolide_ring_count(&loop->ready);
    poll_kernel(loop);
    size_t events = bolide_ring_count(&loop->ready) - later;
    for (; events > 0 && later > 0; later--) {
        (void)bolide_ring_push(&loop->ready, bolide_ring_pop(&loop->ready)); /* there is room for what was there */
    }
    run_ready(loop, events);
}

void bolide_loop_turns(bolide_loop *loop) {
    loop->running = true; /* first: the collector may run in any allocation, and what it finds may call close() */
    /* Not before a run, as nothing but the collector would end a cycle of the loop with itself. */
    loop->keywords = Py_BuildValue("{O:O}", loop->st->str_loop, (PyObject *)loop);
    if (loop->keywords == NULL) {
        PyErr_Clear(); /* it is a matter of speed only */
    }
    loop->polls_skipped = SKIP_TURNS;
    loop->thread_id = PyThread_get_thread_ident();
    do {
        run_turn(loop);
    } while (!loop->stopping && loop->fatal == NULL);
    if (loop->polls_skipped >= SKIP_TURNS && loop->fatal == NULL) {
        run_events(loop);
    }
    bolide_loop_flush(loop);
    bolide_handle_trim_kept(loop->st);
    loop->stopping = false;
    loop->running = false;
    loop->thread_id = 0;
    Py_CLEAR(loop->keywords);
}

/* --- opening and closing ---------------------------------------------------------------------- */

#ifdef HAS_SETTLE
/* Without the GIL: who changes watchers ends the poll first. */
static void on_settle(uv_prepare_t *prepare) {
    bolide_epoll_settle(prepare->loop);
}
#endif

int bolide_loop_open(bolide_loop *loop) {
    int status = uv_loop_init(&loop->uv);
    if (status < 0) {
        return status;
    }
    loop->uv.data = loop;
    status = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (status < 0) {
        uv_loop_close(&loop->uv);
        return status;
    }
    uv_timer_init(&loop->uv, &loop->tick);
    loop->tick_when = NAN;
    status = bolide_watchers_open(loop);
    if (status < 0) {
        uv_close((uv_handle_t *)&loop->wake, NULL);
        uv_close((uv_handle_t *)&loop->tick, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
        uv_loop_close(&loop->uv);
        return status;
    }
#ifdef HAS_SETTLE
    uv_prepare_init(&loop->uv, &loop->settle);
    uv_prepare_start(&loop->settle, on_settle);
    uv_unref((uv_handle_t *)&loop->settle);
#endif
    loop->uv_ready = true;
    return 0;
}

/* Put an unused readiness set in the place of the shared one, touching nothing that a thread which is gone may have
 * left half done. */
static void abandon(bolide_loop *loop) {
    loop->abandoned = true;
    loop->released = NULL;
    int backend = uv_backend_fd(&loop->uv);
    int unused = bolide_fdset_new();
    if (backend >= 0 && unused >= 0) {
        (void)dup2(unused, backend);
        (void)dup2(unused, loop->watchers.fd);
    }
    if (unused >= 0) {
        close(unused);
    }
}

int bolide_loop_after_fork(bolide_loop *loop) {
    loop->claims = 0; /* of threads that are not here */
    if (!loop->uv_ready || loop->abandoned) {
        return 0;
    }
    if (loop->released != NULL || (loop->running && loop->thread_id != PyThread_get_thread_ident())) {
        abandon(loop);
        return 0;
    }
    int status = uv_loop_fork(&loop->uv);
    if (status == 0) {
        status = bolide_watchers_renew(loop);
    }
    if (status < 0) {
        abandon(loop);
    }
    return status;
}

static void drop_scheduled(bolide_loop *loop) {
    while (bolide_ring_count(&loop->ready) > 0) {
        bolide_handle *handle = bolide_ring_pop(&loop->ready);
        Py_DECREF(handle);
    }
    bolide_timers_free(&loop->timers);
}

void bolide_loop_teardown(bolide_loop *loop) {
    if (loop->tearing_down) {
        return; /* what goes with the loop has called close() */
    }
    loop->closed = loop->tearing_down = true;
    drop_scheduled(loop);
    if (loop->uv_ready && !loop->abandoned) {
        loop->uv_ready = false;
        while (loop->resources.next != &loop->resources) {
            bolide_resource *res = loop->resources.next;
            bolide_resource_remove(res);
            res->close(res);
        }
        uv_close((uv_handle_t *)&loop->wake, NULL);
        uv_close((uv_handle_t *)&loop->tick, NULL);
        uv_close((uv_handle_t *)&loop->fds, NULL);
#ifdef HAS_SETTLE
        uv_close((uv_handle_t *)&loop->settle, NULL);
#endif
        uv_run(&loop->uv, UV_RUN_DEFAULT);
        uv_loop_close(&loop->uv);
    }
    bolide_watchers_clear(loop);
    drop_scheduled(loop);
    bolide_stream_free_blocks(loop);
    bolide_tls_free_shared(loop);
    PyMem_RawFree(loop->read_buf);
    PyMem_RawFree(loop->sock_buf);
    loop->read_buf = loop->sock_buf = NULL;
    loop->tearing_down = false;
}
