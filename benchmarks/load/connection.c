#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SCRATCH_SIZE = 262144 };

uint64_t clock_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int connect_unix(connection_t *connection, const exchange_t *exchange) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(exchange->host) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, exchange->host);
    connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connection->fd < 0 ? -1 : connect(connection->fd, (struct sockaddr *)&address, sizeof(address));
}

static int connect_inet(connection_t *connection, const exchange_t *exchange) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)exchange->port)};
    int type = exchange->kind == KIND_UDP ? SOCK_DGRAM : SOCK_STREAM;
    int on = 1;
    if (inet_pton(AF_INET, exchange->host, &address.sin_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    connection->fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        return -1;
    }
    if (type == SOCK_STREAM) {
        /* BBR, the default of some systems, paces: a stretch in which the machine was busy with something else makes
         * it send less for a while, at ten times the cost. */
        (void)setsockopt(connection->fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
        return setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    return 0;
}

int connection_open(connection_t *connection, exchange_t *exchange) {
    struct timeval limit = {.tv_sec = 10};
    *connection = (connection_t){.fd = -1};
    int rc = exchange->kind == KIND_UNIX ? connect_unix(connection, exchange) : connect_inet(connection, exchange);
    if (rc < 0) {
        perror("pingpong: connect");
        return -1;
    }
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (exchange->kind == KIND_TLS && tls_open(connection) < 0) {
        return -1;
    }
    if (exchange->kind == KIND_HTTP && http_open(connection, exchange) < 0) {
        return -1;
    }
    if (exchange->kind >= KIND_WEBSOCKET && websocket_open(connection, exchange) < 0) {
        return -1;
    }
    return fcntl(connection->fd, F_SETFL, fcntl(connection->fd, F_GETFL) | O_NONBLOCK);
}

void connection_close(connection_t *connection) {
    if (connection->tls != NULL) {
        tls_close(connection);
    }
    if (connection->fd >= 0) {
        close(connection->fd);
        connection->fd = -1;
    }
}

/* Send what is left of the message. Returns 0, also when the socket is full, or -1. */
static int flush(connection_t *connection, const exchange_t *exchange) {
    while (connection->sent < exchange->message_length) {
        const char *bytes = exchange->message + connection->sent;
        size_t left = exchange->message_length - connection->sent;
        ssize_t sent = connection->tls != NULL ? tls_write(connection, bytes, left)
                                               : send(connection->fd, bytes, left, MSG_NOSIGNAL);
        if (sent < 0) {
            return errno == EAGAIN ? 0 : -1;
        }
        connection->sent += (size_t)sent;
    }
    return 0;
}

int connection_send(connection_t *connection, const exchange_t *exchange) {
    connection->sent = 0;
    connection->received = 0;
    connection->started = clock_now();
    return flush(connection, exchange);
}

/* Take `length` bytes that arrived. False if they are not those expected. */
static bool accept_bytes(connection_t *connection, const exchange_t *exchange, const char *bytes, size_t length) {
    if (length > exchange->reply_length - connection->received) {
        fprintf(stderr, "pingpong: the reply is longer than %zu bytes\n", exchange->reply_length);
        return false;
    }
    if (!connection->verified && memcmp(exchange->reply + connection->received, bytes, length) != 0) {
        fprintf(stderr, "pingpong: the reply is not what was sent\n");
        return false;
    }
    connection->received += length;
    return true;
}

progress_t connection_advance(connection_t *connection, const exchange_t *exchange) {
    static char scratch[SCRATCH_SIZE];
    /* Nobody looks at it: TCP need not copy it (tcp(7)), which leaves the client faster than the server. */
    int flags = exchange->kind == KIND_TCP && connection->verified ? MSG_TRUNC : 0;
    if (connection->sent < exchange->message_length && flush(connection, exchange) < 0) {
        return PROGRESS_FAILED;
    }
    for (;;) {
        ssize_t size = connection->tls != NULL ? tls_read(connection, scratch, sizeof(scratch))
                                               : recv(connection->fd, scratch, sizeof(scratch), flags);
        if (size < 0 && errno == EAGAIN) {
            return PROGRESS_WAITING;
        }
        if (size <= 0 || !accept_bytes(connection, exchange, scratch, (size_t)size)) {
            return PROGRESS_FAILED;
        }
        if (connection->received == exchange->reply_length) {
            connection->verified = true;
            return PROGRESS_REPLY;
        }
        /* A short read emptied the socket; a TLS record may be short while more stand behind it. */
        if (connection->tls == NULL && (size_t)size < sizeof(scratch)) {
            return PROGRESS_WAITING;
        }
    }
}
