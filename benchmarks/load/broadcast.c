#include "broadcast.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    SCRATCH_SIZE = 262144,
    MAX_EVENTS = 256,
    PATIENCE = 20000, /* milliseconds without any frame after which the server counts as hung */
};

/* The length of a header whose first two bytes are those. */
static size_t header_length(const unsigned char *header) {
    size_t code = header[1] & 0x7f;
    return code == 126 ? 4 : code == 127 ? 10 : 2;
}

static uint64_t payload_length(const unsigned char *header, size_t length) {
    uint64_t value = 0;
    if (length == 2) {
        return header[1] & 0x7f;
    }
    for (size_t i = 2; i < length; i++) {
        value = value << 8 | header[i];
    }
    return value;
}

/* Take `length` bytes that arrived. Returns how many frames of messages they end. */
static size_t count_frames(connection_t *connection, const unsigned char *bytes, size_t length) {
    size_t ended = 0;
    while (length > 0) {
        if (connection->payload_left > 0) {
            size_t part = length < connection->payload_left ? length : (size_t)connection->payload_left;
            connection->payload_left -= part;
            bytes += part;
            length -= part;
        } else {
            connection->header[connection->header_length++] = *bytes++;
            length--;
            size_t have = connection->header_length;
            if (have < 2 || have < header_length(connection->header)) {
                continue;
            }
            connection->payload_left = payload_length(connection->header, have);
            connection->header_length = 0;
        }
        bool control = (connection->header[0] & 0x08) != 0;
        if (connection->payload_left == 0 && !control) {
            ended++;
        }
    }
    return ended;
}

/* Read what is there. Returns how many messages it ends, or -1 when the connection has ended. */
static ssize_t read_messages(connection_t *connection) {
    static unsigned char scratch[SCRATCH_SIZE];
    size_t ended = 0;
    for (;;) {
        ssize_t size = recv(connection->fd, scratch, sizeof(scratch), 0);
        if (size < 0 && errno == EAGAIN) {
            return (ssize_t)ended;
        }
        if (size <= 0) {
            return -1;
        }
        ended += count_frames(connection, scratch, (size_t)size);
        if ((size_t)size < sizeof(scratch)) {
            return (ssize_t)ended;
        }
    }
}

ssize_t broadcast_round(connection_t *connections, size_t count, int epoll, const exchange_t *exchange) {
    struct epoll_event events[MAX_EVENTS];
    size_t left = count;
    if (connection_send(&connections[0], exchange) < 0) {
        perror("pingpong: send");
        return -1;
    }
    while (left > 0) {
        int ready = epoll_wait(epoll, events, MAX_EVENTS, PATIENCE);
        if (ready == 0) {
            fprintf(stderr, "pingpong: %zu of %zu peers got no message\n", left, count);
            return -1;
        }
        for (int i = 0; i < ready; i++) {
            ssize_t ended = read_messages(events[i].data.ptr);
            if (ended < 0 || (size_t)ended > left) {
                fprintf(stderr, "pingpong: %s\n", ended < 0 ? "a peer was disconnected" : "too many messages");
                return -1;
            }
            left -= (size_t)ended;
        }
    }
    return (ssize_t)count;
}
