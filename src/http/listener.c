#include "http/listener.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

#ifdef __linux__
#include <linux/filter.h>
#endif

#include "common/error.h"

/* Connections taken in one go, before those that are there already have their turn. */
#define BATCH_MAX 256

static void unlist(bolide_listener *l) {
    for (bolide_listener **link = l->list; *link != NULL; link = &(*link)->next) {
        if (*link == l) {
            *link = l->next;
            return;
        }
    }
}

static void on_close(bolide_acceptor *a) {
    bolide_listener *l = (bolide_listener *)a;
    PyObject *owner = l->http->owner;
    bolide_resource_remove(&l->resource);
    unlist(l);
    Py_CLEAR(l->tls);
    free(l);
    Py_DECREF(owner);
}

static void on_connection(bolide_acceptor *a, int fd, const bolide_address *peer) {
    (void)peer; /* asked for with the first request: a connection that idles does not keep it */
    bolide_listener *l = (bolide_listener *)a;
    bolide_conn_open(l->http, fd, l->pipe, l->tls);
}

static void on_exhausted(bolide_acceptor *a, int status) {
    bolide_error_set(status);
    bolide_loop_report(((bolide_listener *)a)->http->loop, "socket.accept() out of system resource", NULL, NULL);
}

static const bolide_acceptor_ops acceptor_ops = {
    .on_connection = on_connection,
    .on_exhausted = on_exhausted,
    .on_close = on_close,
};

static bolide_listener *listener_of(bolide_resource *res) {
    return (bolide_listener *)((char *)res - offsetof(bolide_listener, resource));
}

static int resource_traverse(bolide_resource *res, visitproc visit, void *arg) {
    Py_VISIT(listener_of(res)->http->owner);
    Py_VISIT(listener_of(res)->tls);
    return 0;
}

static void resource_close(bolide_resource *res) {
    bolide_acceptor_close(&listener_of(res)->acceptor);
}

int bolide_listener_open(bolide_http *http, int fd, bool pipe, int backlog, PyObject *tls, bolide_listener **list) {
    if (listen(fd, backlog) != 0) {
        return -errno;
    }
    if (!pipe) {
        /* Inherited by the connections; a failure would only make them slower. */
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    bolide_listener *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return UV_ENOMEM;
    }
    int batch = backlog < 1 ? 1 : backlog > BATCH_MAX ? BATCH_MAX : backlog;
    int status = bolide_acceptor_open(&l->acceptor, http->loop, fd, batch, &acceptor_ops);
    if (status < 0) {
        free(l);
        return status;
    }
    l->http = http;
    l->pipe = pipe;
    l->backlog = backlog < 0 ? 0 : backlog;
    l->number = *list != NULL ? (*list)->number + 1 : 1;
    l->tls = Py_XNewRef(tls);
    Py_INCREF(http->owner);
    l->resource.traverse = resource_traverse;
    l->resource.close = resource_close;
    bolide_resource_add(http->loop, &l->resource);
    l->next = *list;
    l->list = list;
    *list = l;
    return 0;
}

void bolide_listener_replace_tls(bolide_listener *list, PyObject *tls) {
    for (bolide_listener *l = list; l != NULL; l = l->next) {
        if (l->tls != NULL) {
            Py_SETREF(l->tls, Py_NewRef(tls));
        }
    }
}

int bolide_listener_drop_syn(int fd) {
#if defined(__linux__) && defined(SO_ATTACH_FILTER)
    /* The filter sees the TCP header; its byte 13 holds the flags. The last packets of handshakes that have begun carry
     * an ACK without SYN, and pass. */
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog filter = {.len = sizeof(program) / sizeof(program[0]), .filter = program};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) == 0 ? 0 : -errno;
#else
    (void)fd;
    return UV_ENOSYS;
#endif
}

void bolide_listener_close(bolide_listener **list, unsigned long number, bool drain) {
    for (bolide_listener *l = *list, *next; l != NULL; l = next) {
        next = l->next; /* a listener leaves the list only when its handles are closed, which is later */
        if (number != 0 && number != l->number) {
            continue;
        }
        if (drain) {
            bolide_acceptor_drain(&l->acceptor, l->backlog < INT_MAX ? l->backlog + 1 : INT_MAX);
        }
        resource_close(&l->resource);
    }
}
