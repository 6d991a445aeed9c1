#include "http/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void unlist(bolide_listener *l) {
    for (bolide_listener **link = l->list; link != NULL && *link != NULL; link = &(*link)->next) {
        if (*link == l) {
            *link = l->next;
            return;
        }
    }
}

static void on_close(uv_handle_t *handle) {
    bolide_loop_enter(bolide_loop_of(handle));
    bolide_listener *l = (bolide_listener *)handle;
    PyObject *owner = l->http->owner;
    unlist(l);
    bolide_resource_remove(&l->resource);
    free(l);
    Py_DECREF(owner);
}

static void on_connection(uv_stream_t *stream, int status) {
    bolide_loop_enter(bolide_loop_of(stream));
    bolide_listener *l = (bolide_listener *)stream;
    if (status == 0) {
        bolide_conn_accept(l->http, stream, l->pipe);
    }
}

static bolide_listener *listener_of(bolide_resource *res) {
    return (bolide_listener *)((char *)res - offsetof(bolide_listener, resource));
}

static int resource_traverse(bolide_resource *res, visitproc visit, void *arg) {
    Py_VISIT(listener_of(res)->http->owner);
    return 0;
}

static void resource_close(bolide_resource *res) {
    bolide_listener *l = listener_of(res);
    if (!uv_is_closing(&l->uv.handle)) {
        uv_close(&l->uv.handle, on_close);
    }
}

/* Give `fd` to the handle and listen. */
static int adopt(bolide_listener *l, int fd, int backlog) {
    int status = l->pipe ? uv_pipe_open(&l->uv.pipe, fd) : uv_tcp_open(&l->uv.tcp, fd);
    if (status != 0) {
        close(fd);
        return status;
    }
    if (!l->pipe) {
        /* Inherited by the connections; a failure would only make them slower. */
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    return uv_listen(&l->uv.stream, backlog, on_connection);
}

int bolide_listener_open(bolide_http *http, int fd, bool pipe, int backlog, bolide_listener **list) {
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) {
        return -errno;
    }
    bolide_listener *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        close(own);
        return UV_ENOMEM;
    }
    int status = pipe ? uv_pipe_init(&http->loop->uv, &l->uv.pipe, 0) : uv_tcp_init(&http->loop->uv, &l->uv.tcp);
    if (status != 0) {
        close(own);
        free(l);
        return status;
    }
    l->http = http;
    l->pipe = pipe;
    Py_INCREF(http->owner);
    l->resource.traverse = resource_traverse;
    l->resource.close = resource_close;
    bolide_resource_add(http->loop, &l->resource);
    status = adopt(l, own, backlog);
    if (status != 0) {
        uv_close(&l->uv.handle, on_close);
        return status;
    }
    l->next = *list;
    l->list = list;
    *list = l;
    return 0;
}

void bolide_listener_close_all(bolide_listener **list) {
    while (*list != NULL) {
        bolide_listener *l = *list;
        *list = l->next;
        resource_close(&l->resource);
    }
}
