#include "loop/watchers.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

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
    }
    PyMem_RawFree(by_fd);
}

int bolide_watchers_traverse(bolide_loop *loop, visitproc visit, void *arg) {
    for (int i = 0; i < loop->watchers.cap; i++) {
        bolide_handle *handles[2] = {loop->watchers.by_fd[i].reader, loop->watchers.by_fd[i].writer};
        for (int side = 0; side < 2; side++) {
            if (handles[side] != NULL && Py_REFCNT(handles[side]) == 1) {
                int stop_code = bolide_handle_traverse(handles[side], visit, arg);
                if (stop_code) {
                    return stop_code;
                }
            }
        }
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
    return (watcher->reader != NULL ? BOLIDE_READABLE : 0) | (watcher->writer != NULL ? BOLIDE_WRITABLE : 0);
}

int bolide_watchers_add(bolide_loop *loop, int fd, int event, bolide_handle *handle) {
    bolide_watchers *w = &loop->watchers;
    if (fd < 0 || fd > FD_MAX) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        return -1;
    }
    if (ensure_room(w, fd) < 0) {
        return -1;
    }
    int before = interest(&w->by_fd[fd]);
    /* Even with the interest unchanged the kernel is told: the descriptor may have been closed and opened anew. */
    int status = bolide_fdset_change(w->fd, fd, before, before | event);
    if (status < 0) {
        bolide_error_set(status);
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

int bolide_watchers_remove(bolide_loop *loop, int fd, int event) {
    bolide_watchers *w = &loop->watchers;
    if (fd < 0 || fd >= w->cap) {
        return 0;
    }
    bolide_handle **slot = event == BOLIDE_READABLE ? &w->by_fd[fd].reader : &w->by_fd[fd].writer;
    bolide_handle *old = *slot;
    if (old == NULL) {
        return 0;
    }
    int before = interest(&w->by_fd[fd]);
    *slot = NULL;
    /* A failure means that the descriptor was closed before: then there is nothing to take out. */
    (void)bolide_fdset_change(w->fd, fd, before, before & ~event);
    bolide_handle_cancel(old);
    Py_DECREF(old);
    return 1;
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
        if (bolide_watchers_remove(loop, fd, event) < 0) {
            PyErr_Clear();
        }
        return;
    }
    Py_INCREF(handle);
    if (bolide_ring_push(&loop->ready, handle) < 0) {
        Py_DECREF(handle);
        bolide_loop_set_fatal(loop);
    }
}

void bolide_watchers_dispatch(bolide_loop *loop) {
    bolide_fd_event events[BATCH];
    int count = bolide_fdset_poll(loop->watchers.fd, events, BATCH);
    for (int i = 0; i < count; i++) {
        int fd = events[i].fd;
        if (fd >= loop->watchers.cap) {
            continue;
        }
        bolide_watcher *watcher = &loop->watchers.by_fd[fd];
        if (interest(watcher) == 0) {
            /* A descriptor duplicated before its original was closed: nobody waits for it any more. */
            (void)bolide_fdset_change(loop->watchers.fd, fd, BOLIDE_READABLE, 0);
            continue;
        }
        bolide_handle *writer = watcher->writer;
        if (events[i].events & BOLIDE_READABLE) {
            make_ready(loop, fd, watcher->reader, BOLIDE_READABLE);
        }
        if (events[i].events & BOLIDE_WRITABLE) {
            make_ready(loop, fd, writer, BOLIDE_WRITABLE);
        }
    }
}

int bolide_fileno(PyObject *obj) {
    return PyObject_AsFileDescriptor(obj);
}

/* --- methods of the loop
 * ---------------------------------------------------------------------------------------------- */

/* selectors.SelectSelector and its kin raise ValueError for what is no descriptor; so does this. */
static int fileno_of(PyObject *obj) {
    int fd = bolide_fileno(obj);
    if (fd < 0 && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Format(PyExc_ValueError, "Invalid file object: %R", obj);
    }
    return fd;
}

static int check_no_transport(bolide_loop *loop, int fd) {
    if (fd >= loop->watchers.cap || loop->watchers.by_fd[fd].transport == NULL) {
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R", fd,
                 loop->watchers.by_fd[fd].transport);
    return -1;
}

static PyObject *add(bolide_loop *loop, PyObject *const *args, Py_ssize_t nargs, int event, bool is_public) {
    if (nargs < 2) {
        PyErr_Format(PyExc_TypeError, "add_%s() takes a file descriptor and a callback",
                     event == BOLIDE_READABLE ? "reader" : "writer");
        return NULL;
    }
    if (bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    int fd = fileno_of(args[0]);
    if (fd < 0 || (is_public && check_no_transport(loop, fd) < 0)) {
        return NULL;
    }
    bolide_handle *handle = bolide_handle_new(loop, false, args[1], args + 2, nargs - 2, NULL);
    if (handle == NULL) {
        return NULL;
    }
    if (bolide_watchers_add(loop, fd, event, handle) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    if (is_public) {
        Py_DECREF(handle);
        Py_RETURN_NONE;
    }
    return (PyObject *)handle;
}

static PyObject *remove_one(bolide_loop *loop, PyObject *arg, int event, bool is_public) {
    if (is_public && loop->closed) {
        Py_RETURN_FALSE;
    }
    int fd = fileno_of(arg);
    if (fd < 0) {
        return NULL;
    }
    if (is_public && check_no_transport(loop, fd) < 0) {
        return NULL;
    }
    int had = bolide_watchers_remove(loop, fd, event);
    return had < 0 ? NULL : PyBool_FromLong(had);
}

#define WATCHER_METHODS(side, event)                                                                                   \
    static PyObject *add_##side(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {                             \
        return add((bolide_loop *)self, args, nargs, event, true);                                                     \
    }                                                                                                                  \
    static PyObject *_add_##side(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {                            \
        return add((bolide_loop *)self, args, nargs, event, false);                                                    \
    }                                                                                                                  \
    static PyObject *remove_##side(PyObject *self, PyObject *fd) {                                                     \
        return remove_one((bolide_loop *)self, fd, event, true);                                                       \
    }                                                                                                                  \
    static PyObject *_remove_##side(PyObject *self, PyObject *fd) {                                                    \
        return remove_one((bolide_loop *)self, fd, event, false);                                                      \
    }
WATCHER_METHODS(reader, BOLIDE_READABLE)
WATCHER_METHODS(writer, BOLIDE_WRITABLE)
#undef WATCHER_METHODS

static PyObject *ensure_fd_no_transport(PyObject *self, PyObject *arg) {
    int fd = fileno_of(arg);
    if (fd < 0 || check_no_transport((bolide_loop *)self, fd) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef bolide_watchers_methods[] = {
    {"add_reader", (PyCFunction)(void (*)(void))add_reader, METH_FASTCALL,
     PyDoc_STR(
         "add_reader(fd, callback, *args)\n--\n\nCall callback(*args) whenever fd (an int or an object with "
         "fileno()) is readable.\n\nReplaces an earlier reader of the same descriptor. Raises RuntimeError when a "
         "transport owns it.")},
    {"add_writer", (PyCFunction)(void (*)(void))add_writer, METH_FASTCALL,
     PyDoc_STR(
         "add_writer(fd, callback, *args)\n--\n\nCall callback(*args) whenever fd is writable; see add_reader().")},
    {"remove_reader", remove_reader, METH_O,
     PyDoc_STR("remove_reader(fd)\n--\n\nStop watching fd for reading. Returns whether it was watched.")},
    {"remove_writer", remove_writer, METH_O,
     PyDoc_STR("remove_writer(fd)\n--\n\nStop watching fd for writing. Returns whether it was watched.")},
    {"_add_reader", (PyCFunction)(void (*)(void))_add_reader, METH_FASTCALL, NULL},
    {"_add_writer", (PyCFunction)(void (*)(void))_add_writer, METH_FASTCALL, NULL},
    {"_remove_reader", _remove_reader, METH_O, NULL},
    {"_remove_writer", _remove_writer, METH_O, NULL},
    {"_ensure_fd_no_transport", ensure_fd_no_transport, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
