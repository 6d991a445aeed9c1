/* A listening socket that feeds connections to a server. */
#ifndef BOLIDE_HTTP_LISTENER_H
#define BOLIDE_HTTP_LISTENER_H

#include "http/connection.h"
#include "transport/acceptor.h"

typedef struct bolide_listener {
    bolide_acceptor acceptor; /* first, so that an acceptor is a listener */
    bolide_resource resource;
    struct bolide_listener *next;  /* the list that it was put on ... */
    struct bolide_listener **list; /* ... and its head */
    bolide_http *http;             /* its owner is kept alive until the acceptor is closed */
    PyObject *tls;                 /* ssl.SSLContext of the connections to come, or NULL: without TLS */
    int backlog;                   /* connections that the kernel keeps waiting, as asked for */
    bool pipe;                     /* a Unix socket */
    unsigned long number;          /* which tells it from the others of its list */
} bolide_listener;

/* Listen on a duplicate of the bound descriptor `fd` and put the listener in front of *list, whose largest number it
 * gets; `tls` is an ssl.SSLContext or NULL. 0, or a negative uv code. */
int bolide_listener_open(bolide_http *http, int fd, bool pipe, int backlog, PyObject *tls, bolide_listener **list);

/* Have the connections to come to those of *list that have TLS use another ssl.SSLContext. */
void bolide_listener_replace_tls(bolide_listener *list, PyObject *tls);

/* Have the kernel ignore the attempts to connect to the TCP socket `fd` that begin from now on, whoever has it open. 0,
 * or a negative uv code: it cannot do that. */
int bolide_listener_drop_syn(int fd);

/* Close those of *list that have the number `number`, or all when it is 0; `drain`: once the connections that wait were
 * accepted. */
void bolide_listener_close(bolide_listener **list, unsigned long number, bool drain);

#endif
