#include "loop/watchers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "common/arguments.h"
#include "common/error.h"
#include "loop/fdset.h"
#include "loop/loop.h"

#define FD_MAX (1 << 24)
#define BATCH  64

static void on_readable(uv_poll_t *poll, int status, int events) {
    (void)status;
    (void)events;
    bolide_loop *loop = bolide_loop_of(poll);
    bolide_loop_enter(loop);
    bolide_watchers_dispatch(loop);
}

int bolide_watchers_open(bolide_loop *loop) {
    int fd = bolide_fdset_new();
    if (fd < 0) {
        return fd;
    }
    int status = uv_poll_init(&loop->uv, &loop->fds, fd);
    if (status < 0) {
        close(fd);
        return status;
    }
    loop->watchers.fd = fd;
    return uv_poll_start(&loop->fds, UV_READABLE, on_readable);
}

void bolide_watchers_clear(bolide_loop *loop) {
    bolide_watchers *w = &loop->watchers;
    bolide_watcher *by_fd = w->by_fd;
    int cap = w->cap;
    w->by_fd = NULL;
    w->cap = 0;
    if (w->fd >= 0) {
        close(w->fd);
        w->fd = -1;
    }
    for (int i = 0; i < cap; i++) {
        Py_XDECREF(by_fd[i].reader);
        Py_XDECREF(by_fd[i].writer);
        Py_XDECREF(by_fd[i].waiters[0]);
        Py_XDECREF(by_fd[i].waiters[1]);
        Py_XDECREF(by_fd[i].sock_ref);
        Py_XDECREF(by_fd[i].source);
    }
    PyMem_RawFree(by_fd);
}

/* A handle that only this table refers to is a part of the loop; see the loop's own traverse function. */
static int visit_handle(bolide_handle *handle, visitproc visit, void *arg) {
    return handle != NULL && Py_REFCNT(handle) == 1 ? bolide_handle_traverse(handle, visit, arg) : 0;
}

int bolide_watchers_traverse(bolide_loop *loop, visitproc visit, void *arg) {
    for (int i = 0; i < loop->watchers.cap; i++) {
        bolide_watcher *watcher = &loop->watchers.by_fd[i];
        int stop_code = visit_handle(watcher->reader, visit, arg);
        if (stop_code || (stop_code = visit_handle(watcher->writer, visit, arg)) != 0) {
            return stop_code;
        }
        Py_VISIT(watcher->waiters[0]);
        Py_VISIT(watcher->waiters[1]);
        Py_VISIT(watcher->sock_ref);
        Py_VISIT(watcher->source);
    }
    return 0;
}

static int ensure_room(bolide_watchers *w, int fd) {
    if (fd < w->cap) {
        return 0;
    }
    int cap = w->cap > 0 ? w->cap : 64;
    while (cap <= fd) {
        cap *= 2;
    }
    bolide_watcher *by_fd = PyMem_RawRealloc(w->by_fd, (size_t)cap * sizeof(bolide_watcher));
    if (by_fd == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(by_fd + w->cap, 0, (size_t)(cap - w->cap) * sizeof(bolide_watcher));
    w->by_fd = by_fd;
    w->cap = cap;
    return 0;
}

static int interest(const bolide_watcher *watcher) {
    return (watcher->reader != NULL || watcher->waiters[0] != NULL ? BOLIDE_READABLE : 0) |
           (watcher->writer != NULL || watcher->waiters[1] != NULL ? BOLIDE_WRITABLE : 0);
}

static int side_of(int event) {
    return event == BOLIDE_READABLE ? 0 : 1;
}

/* Tell the kernel, even when it should know: the descriptor may have been closed and opened anew. 0 or -1 with OSError.
 */
static int arm(bolide_loop *loop, int fd, int events) {
    bolide_watchers *w = &loop->watchers;
    bolide_watcher *watcher = &w->by_fd[fd];
    Py_CLEAR(watcher->sock_ref);
    int status = bolide_fdset_change(w->fd, fd, watcher->armed, watcher->armed | events);
    if (status < 0) {
        watcher->armed = 0;
        bolide_error_set(status);
        return -1;
    }
    watcher->armed |= events;
    loop->poll_due = true;
    return 0;
}

int bolide_watchers_renew(bolide_loop *loop) {
    bolide_watchers *w = &loop->watchers;
    int fresh = bolide_fdset_new();
    if (fresh < 0) {
        return fresh;
    }
    uv_poll_stop(&loop->fds);
    int moved = dup2(fresh, w->fd);
    close(fresh);
    for (int fd = 0; moved >= 0 && fd < w->cap; fd++) {
        bolide_watcher *watcher = &w->by_fd[fd];
        watcher->armed = interest(watcher);
        Py_CLEAR(watcher->sock_ref);
        if (watcher->armed != 0 && bolide_fdset_change(w->fd, fd, 0, watcher->armed) < 0) {
            watcher->armed = 0;
        }
    }
    int status = uv_poll_start(&loop->fds, UV_READABLE, on_readable);
    return moved < 0 ? UV_EBADF : status;
}

/* The kernel watches more than is waited for: mend that. */
static void disarm(bolide_loop *loop, int fd) {
    bolide_watcher *watcher = &loop->watchers.by_fd[fd];
    int wanted = interest(watcher);
    if (bolide_fdset_change(loop->watchers.fd, fd, watcher->armed != 0 ? watcher->armed : BOLIDE_READABLE, wanted) <
        0) {
        (void)bolide_watchers_renew(loop);
        return;
    }
    watcher->armed = wanted;
    Py_CLEAR(watcher->sock_ref);
}

static int check_descriptor(bolide_watchers *w, int fd) {
    /* No table of hundreds of megabytes for a number that is no descriptor. */
    if (fd < 0 || fd > FD_MAX || (fd >= w->cap && fcntl(fd, F_GETFD) < 0)) {
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return ensure_room(w, fd);
}

int bolide_watchers_add(bolide_loop *loop, int fd, int event, bolide_handle *handle) {
    bolide_watchers *w = &loop->watchers;
    if (check_descriptor(w, fd) < 0 || arm(loop, fd, event) < 0) {
        return -1;
    }
    bolide_handle **slot = event == BOLIDE_READABLE ? &w->by_fd[fd].reader : &w->by_fd[fd].writer;
    bolide_handle *old = *slot;
    Py_INCREF(handle);
    handle->flags |= BOLIDE_HANDLE_REPEATS;
    *slot = handle;
    if (old != NULL) {
        bolide_handle_cancel(old);
        Py_DECREF(old);
    }
    return 0;
}

bool bolide_watchers_remove(bolide_loop *loop, int fd, int event) {
    bolide_watchers *w = &loop->watchers;
    if (fd < 0 || fd >= w->cap) {
        return false;
    }
    bolide_watcher *watcher = &w->by_fd[fd];
    bolide_handle **slot = event == BOLIDE_READABLE ? &watcher->reader : &watcher->writer;
    bolide_handle *old = *slot;
    if (old == NULL) {
        return false;
    }
    *slot = NULL;
    int wanted = interest(watcher);
    /* A failure means that the descriptor was closed before: then there is nothing to take out. */
    (void)bolide_fdset_change(w->fd, fd, watcher->armed, wanted);
    watcher->armed = wanted;
    PyObject *source = NULL;
    if (watcher->reader == NULL && watcher->writer == NULL) {
        source = watcher->source;
        watcher->source = NULL;
    }
    Py_CLEAR(watcher->sock_ref);
    bolide_handle_cancel(old);
    Py_DECREF(old);
    Py_XDECREF(source);
    return true;
}

static bool refers_to(PyObject *ref, PyObject *obj) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *target = NULL;
    bool same = PyWeakref_GetRef(ref, &target) > 0 && target == obj;
    Py_XDECREF(target);
    return same;
#else
    return PyWeakref_GET_OBJECT(ref) == obj;
#endif
}

/* Whether the last wait was for this same socket object: then the descriptor cannot have changed its meaning since. */
static bool armed_for(const bolide_watcher *watcher, PyObject *sock, int event) {
    return (watcher->armed & event) && watcher->sock_ref != NULL && refers_to(watcher->sock_ref, sock);
}

int bolide_watchers_wait(bolide_loop *loop, PyObject *sock, int fd, int event, PyObject *future) {
    bolide_watchers *w = &loop->watchers;
    if (check_descriptor(w, fd) < 0) {
        return -1;
    }
    if (!armed_for(&w->by_fd[fd], sock, event)) {
        if (arm(loop, fd, event) < 0) {
            return -1;
        }
        PyObject *ref = PyWeakref_NewRef(sock, NULL); /* which may run finalizers: by_fd may have moved after it */
        if (ref == NULL) {
            PyErr_Clear(); /* an object without weak references: the next wait tells the kernel again */
        }
        if (bolide_loop_check_closed(loop) < 0) {
            Py_XDECREF(ref);
            return -1;
        }
        Py_XSETREF(w->by_fd[fd].sock_ref, ref);
    }
    PyObject **slot = &w->by_fd[fd].waiters[side_of(event)];
    Py_XSETREF(*slot, Py_NewRef(future));
    return 0;
}

void bolide_watchers_forget(bolide_loop *loop, int fd, int event, PyObject *future) {
    if (fd >= 0 && fd < loop->watchers.cap) {
        PyObject **slot = &loop->watchers.by_fd[fd].waiters[side_of(event)];
        if (*slot == future) {
            Py_CLEAR(*slot);
        }
    }
}

void bolide_watchers_disarm(bolide_loop *loop, int fd) {
    if (fd >= 0 && fd < loop->watchers.cap && loop->watchers.by_fd[fd].armed != interest(&loop->watchers.by_fd[fd])) {
        disarm(loop, fd);
    }
}

int bolide_watchers_set_transport(bolide_loop *loop, int fd, PyObject *transport) {
    if (fd < 0 || fd > FD_MAX || (transport == NULL && fd >= loop->watchers.cap)) {
        return 0;
    }
    if (ensure_room(&loop->watchers, fd) < 0) {
        return -1;
    }
    loop->watchers.by_fd[fd].transport = transport;
    return 0;
}

static void make_ready(bolide_loop *loop, int fd, bolide_handle *handle, int event) {
    if (handle == NULL) {
        return;
    }
    if (handle->flags & BOLIDE_HANDLE_CANCELLED) {
        (void)bolide_watchers_remove(loop, fd, event);
        return;
    }
    Py_INCREF(handle);
    if (bolide_ring_push(&loop->ready, handle) < 0) {
        Py_DECREF(handle);
        bolide_loop_set_fatal(loop);
    }
}

/* Report the exception that is set, unless it says that the future was cancelled in the meantime. */
static void resolving_failed(bolide_loop *loop, PyObject *future) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *done = PyObject_CallMethodNoArgs(future, loop->st->str_cancelled);
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    if (done == Py_True) {
        PyErr_Clear();
    } else {
        bolide_loop_report(loop, "resuming a socket operation failed", NULL, NULL);
    }
    Py_XDECREF(done);
}

static void resolve(bolide_loop *loop, int fd, int event) {
    PyObject **slot = &loop->watchers.by_fd[fd].waiters[side_of(event)];
    PyObject *future = *slot;
    if (future == NULL) {
        return;
    }
    *slot = NULL;
    PyObject *result = PyObject_CallMethodOneArg(future, loop->st->str_set_result, Py_None);
    if (result == NULL) {
        resolving_failed(loop, future);
    }
    Py_XDECREF(result);
    Py_DECREF(future);
}

static void dispatch_one(bolide_loop *loop, bolide_fd_event event) {
    bolide_watcher *watcher = &loop->watchers.by_fd[event.fd];
    int wanted = interest(watcher);
    if (event.events & ~wanted & (watcher->armed != 0 ? watcher->armed : event.events)) {
        disarm(loop, event.fd);
    }
    /* Looked up for each step: the one before may have run code that adds and removes watchers. */
    if (event.events & BOLIDE_READABLE) {
        make_ready(loop, event.fd, loop->watchers.by_fd[event.fd].reader, BOLIDE_READABLE);
        resolve(loop, event.fd, BOLIDE_READABLE);
    }
    if (event.events & BOLIDE_WRITABLE) {
        make_ready(loop, event.fd, loop->watchers.by_fd[event.fd].writer, BOLIDE_WRITABLE);
        resolve(loop, event.fd, BOLIDE_WRITABLE);
    }
}

void bolide_watchers_dispatch(bolide_loop *loop) {
    bolide_fd_event events[BATCH];
    int count = bolide_fdset_poll(loop->watchers.fd, events, BATCH);
    for (int i = 0; i < count; i++) {
        if (events[i].fd < loop->watchers.cap) {
            dispatch_one(loop, events[i]);
        }
    }
}

/* --- methods of the loop ---------------------------------------------------------------------- */

/* The number that the method fileno() of `obj` gives, made an int as the selectors module does. New reference; NULL
 * with an exception set, which is ValueError for everything that is no file. */
static PyObject *call_fileno(PyObject *obj) {
    PyObject *result = PyObject_CallMethod(obj, "fileno", NULL);
    PyObject *number = result != NULL ? PyNumber_Long(result) : NULL;
    Py_XDECREF(result);
    if (number == NULL && (PyErr_ExceptionMatches(PyExc_AttributeError) || PyErr_ExceptionMatches(PyExc_TypeError) ||
                           PyErr_ExceptionMatches(PyExc_ValueError))) {
        PyErr_Clear(); /* asyncio: raise ... from None */
        PyErr_Format(PyExc_ValueError, "Invalid file object: %R", obj);
    }
    return number;
}

/* The descriptor that an int or a file object stands for. *fd is negative for a negative one, and more than FD_MAX for
 * what is none of the system's. 0, or -1 with an exception set: what asyncio raises. */
static int parse_fd(PyObject *obj, long *fd) {
    PyObject *number = PyLong_Check(obj) ? Py_NewRef(obj) : call_fileno(obj);
    if (number == NULL) {
        return -1;
    }
    int overflow;
    *fd = PyLong_AsLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (overflow != 0) {
        *fd = overflow < 0 ? LONG_MIN : LONG_MAX;
    }
    return 0;
}

/* INT_MAX, at which nobody looks, for what is too much. */
static int to_fd(long number) {
    return number < 0 ? -1 : number < INT_MAX ? (int)number : INT_MAX;
}

/* ValueError for the negative descriptor that `obj` stands for. */
static void *refuse_negative(PyObject *obj, long fd) {
    if (PyLong_Check(obj)) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S", obj);
    } else {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", fd);
    }
    return NULL;
}

int bolide_watchers_check_free(bolide_loop *loop, int fd) {
    if (fd < 0 || fd >= loop->watchers.cap || loop->watchers.by_fd[fd].transport == NULL) {
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R", fd,
                 loop->watchers.by_fd[fd].transport);
    return -1;
}

/* The keyword `context`, which asyncio's own transports pass since Python 3.15. *context is borrowed, NULL when absent.
 */
static int parse_context(bolide_loop *loop, PyObject *const *values, PyObject *names, PyObject **context) {
    *context = NULL;
    Py_ssize_t count = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    if (count == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(names, 0), loop->st->str_context) == 0 &&
        (values[0] == Py_None || PyContext_CheckExact(values[0]))) {
        *context = values[0];
    } else if (count > 0) {
        PyErr_SetString(PyExc_TypeError, "the only keyword argument is context, a contextvars.Context");
        return -1;
    }
    return 0;
}

static PyObject *add(bolide_loop *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *context, int event,
                     bool is_public) {
    if (nargs < 2) {
        PyErr_Format(PyExc_TypeError, "add_%s() takes a file descriptor and a callback",
                     event == BOLIDE_READABLE ? "reader" : "writer");
        return NULL;
    }
    long number;
    if (parse_fd(args[0], &number) < 0) {
        return NULL;
    }
    int fd = to_fd(number);
    if ((is_public && bolide_watchers_check_free(loop, fd) < 0) || bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    if (number < 0) {
        return refuse_negative(args[0], number);
    }
    if (number > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
        return NULL;
    }
    /* True is 1, of which some Pythons warn. */
    if (PyBool_Check(args[0]) && PyObject_AsFileDescriptor(args[0]) < 0) {
        return NULL;
    }
    bolide_handle *handle = bolide_handle_new(loop, false, args[1], args + 2, nargs - 2, context);
    if (handle == NULL) {
        return NULL;
    }
    if (bolide_watchers_add(loop, fd, event, handle) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    if (fd < loop->watchers.cap) { /* what the old callback let go of may have closed the loop */
        PyObject **source = &loop->watchers.by_fd[fd].source;
        Py_XSETREF(*source, PyLong_Check(args[0]) ? NULL : Py_NewRef(args[0]));
    }
    if (is_public) {
        Py_DECREF(handle);
        Py_RETURN_NONE;
    }
    return (PyObject *)handle;
}

/* The descriptor of an object that may have been closed since it was added, and then has none any more: libraries close
 * a socket first and remove its reader after that. -1 when it was not added. */
static int fd_since_added(const bolide_loop *loop, PyObject *obj) {
    for (int i = 0; i < loop->watchers.cap; i++) {
        if (loop->watchers.by_fd[i].source == obj) {
            return i;
        }
    }
    return -1;
}

static PyObject *remove_one(bolide_loop *loop, PyObject *arg, int event, bool is_public) {
    long number;
    if (parse_fd(arg, &number) < 0) {
        int fd = PyErr_ExceptionMatches(PyExc_ValueError) ? fd_since_added(loop, arg) : -1;
        if (fd < 0) {
            return NULL;
        }
        PyErr_Clear();
        number = fd;
    }
    if (is_public && bolide_watchers_check_free(loop, to_fd(number)) < 0) {
        return NULL;
    }
    if (loop->closed) {
        Py_RETURN_FALSE;
    }
    int fd = number >= 0 ? to_fd(number) : fd_since_added(loop, arg);
    if (fd < 0) {
        return refuse_negative(arg, number);
    }
    return PyBool_FromLong(bolide_watchers_remove(loop, fd, event));
}

static PyObject *add_public(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names, int event) {
    static const char *const wanted[] = {"fd", "callback"};
    PyObject *values[2];
    if (names != NULL && PyTuple_GET_SIZE(names) > 0) {
        const char *method = event == BOLIDE_READABLE ? "add_reader" : "add_writer";
        if (bolide_arguments(method, wanted, 2, args, nargs, names, values) < 0) {
            return NULL;
        }
        args = values;
        nargs = 2;
    }
    return add((bolide_loop *)self, args, nargs, NULL, event, true);
}

static PyObject *remove_public(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names, int event) {
    static const char *const wanted[] = {"fd"};
    const char *method = event == BOLIDE_READABLE ? "remove_reader" : "remove_writer";
    PyObject *fd;
    if (bolide_arguments(method, wanted, 1, args, nargs, names, &fd) < 0) {
        return NULL;
    }
    return remove_one((bolide_loop *)self, fd, event, true);
}

#define WATCHER_METHODS(side, event)                                                                                   \
    static PyObject *add_##side(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {            \
        return add_public(self, args, nargs, names, event);                                                            \
    }                                                                                                                  \
    static PyObject *_add_##side(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {           \
        bolide_loop *loop = (bolide_loop *)self;                                                                       \
        PyObject *context;                                                                                             \
        if (parse_context(loop, args + nargs, names, &context) < 0) {                                                  \
            return NULL;                                                                                               \
        }                                                                                                              \
        return add(loop, args, nargs, context, event, false);                                                          \
    }                                                                                                                  \
    static PyObject *remove_##side(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {         \
        return remove_public(self, args, nargs, names, event);                                                         \
    }                                                                                                                  \
    static PyObject *_remove_##side(PyObject *self, PyObject *fd) {                                                    \
        return remove_one((bolide_loop *)self, fd, event, false);                                                      \
    }
WATCHER_METHODS(reader, BOLIDE_READABLE)
WATCHER_METHODS(writer, BOLIDE_WRITABLE)
#undef WATCHER_METHODS

static PyObject *ensure_fd_no_transport(PyObject *self, PyObject *arg) {
    long number;
    if (parse_fd(arg, &number) < 0 || bolide_watchers_check_free((bolide_loop *)self, to_fd(number)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* loop._watched(fd): 1 for a reader, 2 for a writer, as selectors.EVENT_READ and EVENT_WRITE. */
static PyObject *watched(PyObject *self, PyObject *arg) {
    bolide_watchers *w = &((bolide_loop *)self)->watchers;
    long number;
    if (parse_fd(arg, &number) < 0) {
        return NULL;
    }
    int fd = to_fd(number);
    return PyLong_FromLong(fd >= 0 && fd < w->cap ? interest(&w->by_fd[fd]) : 0);
}

PyMethodDef bolide_watchers_methods[] = {
    {"add_reader", BOLIDE_FASTCALL_KEYWORDS(add_reader),
     PyDoc_STR(
         "add_reader($self, fd, callback, *args)\n--\n\nCall callback(*args) whenever fd (an int or an object with "
         "fileno()) is readable.\n\nReplaces an earlier reader of the same descriptor. Raises RuntimeError when a "
         "transport owns it.")},
    {"add_writer", BOLIDE_FASTCALL_KEYWORDS(add_writer),
     PyDoc_STR("add_writer($self, fd, callback, *args)\n--\n\nCall callback(*args) whenever fd is writable; see "
               "add_reader().")},
    {"remove_reader", BOLIDE_FASTCALL_KEYWORDS(remove_reader),
     PyDoc_STR("remove_reader($self, fd)\n--\n\nStop watching fd for reading. Returns whether it was watched.")},
    {"remove_writer", BOLIDE_FASTCALL_KEYWORDS(remove_writer),
     PyDoc_STR("remove_writer($self, fd)\n--\n\nStop watching fd for writing. Returns whether it was watched.")},
    {"_add_reader", BOLIDE_FASTCALL_KEYWORDS(_add_reader), NULL},
    {"_add_writer", BOLIDE_FASTCALL_KEYWORDS(_add_writer), NULL},
    {"_remove_reader", _remove_reader, METH_O, NULL},
    {"_remove_writer", _remove_writer, METH_O, NULL},
    {"_watched", watched, METH_O, NULL},
    {"_ensure_fd_no_transport", ensure_fd_no_transport, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
