/*
 * pingpong: the load generator for whatever is not plain HTTP.
 *
 * It opens CONNECTIONS connections and prints "ready". For each line on its standard input it then for SECONDS seconds
 * sends on each of them a message of SIZE bytes, waits for its echo, and sends it again, takes the replies that are
 * still on their way, and prints one line of JSON. It is one thread and no Python, so that one core of it outruns any
 * Python server on another.
 *
 * Usage: pingpong tcp|unix|udp|tls|http|websocket HOST PORT CONNECTIONS SIZE SECONDS
 *        pingpong broadcast|broadcast-compressed HOST PORT CONNECTIONS SIZE SECONDS
 *        for http, SIZE is not looked at: it is requests of / without a body
 *        for unix, HOST is the path of the socket and PORT is not looked at
 *        for a broadcast, one connection sends and all must get a message of whatever content; each counts, and the
 *        latency is that of the last one
 */
#include "broadcast.h"
#include "connection.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum {
    LATENCY_BUCKETS = 200000, /* of one microsecond each; the last takes all that is longer */
    MAX_EVENTS = 256,
    TICK = 50,                      /* milliseconds after which lost datagrams are looked for */
    DRAIN_PATIENCE = 1000000000u,   /* nanoseconds that the last replies may take */
    DATAGRAM_PATIENCE = 200000000u, /* nanoseconds after which one counts as lost and is sent again */
};

typedef struct {
    exchange_t exchange;
    connection_t *connections;
    size_t count; /* of connections */
    int epoll;
    uint64_t deadline; /* monotonic nanoseconds */
    uint64_t messages; /* whole replies */
    uint64_t samples;  /* latencies counted */
    size_t waiting;    /* connections whose reply has not come */
    uint64_t failed;   /* connections that ended early */
    uint64_t lost;     /* datagrams sent again */
    uint32_t latencies[LATENCY_BUCKETS];
} run_t;

static int echo_bytes(exchange_t *exchange, size_t size) {
    exchange->message = malloc(size);
    if (exchange->message == NULL) {
        return -1;
    }
    for (size_t i = 0; i < size; i++) {
        exchange->message[i] = (char)('a' + i % 26);
    }
    exchange->message_length = size;
    exchange->reply = exchange->message;
    exchange->reply_length = size;
    return 0;
}

static int open_all(run_t *run) {
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    run->connections = calloc(run->count, sizeof(*run->connections));
    if (run->epoll < 0 || run->connections == NULL) {
        perror("pingpong");
        return -1;
    }
    for (size_t i = 0; i < run->count; i++) {
        connection_t *connection = &run->connections[i];
        if (connection_open(connection, &run->exchange) < 0) {
            return -1;
        }
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
        if (epoll_ctl(run->epoll, EPOLL_CTL_ADD, connection->fd, &event) < 0) {
            perror("pingpong: epoll_ctl");
            return -1;
        }
    }
    return 0;
}

static void count_latency(run_t *run, uint64_t started) {
    uint64_t microseconds = (clock_now() - started) / 1000;
    run->latencies[microseconds < LATENCY_BUCKETS ? microseconds : LATENCY_BUCKETS - 1]++;
}

static void fail(run_t *run, connection_t *connection) {
    run->failed++;
    run->waiting -= connection->waits;
    connection->waits = false;
    connection_close(connection);
}

static void send_message(run_t *run, connection_t *connection) {
    connection->waits = true;
    run->waiting++;
    if (connection_send(connection, &run->exchange) < 0) {
        fail(run, connection);
    }
}

static void on_event(run_t *run, connection_t *connection, bool last) {
    if (connection->fd < 0) {
        return;
    }
    progress_t progress = connection_advance(connection, &run->exchange);
    if (progress == PROGRESS_WAITING) {
        return;
    }
    if (progress == PROGRESS_FAILED) {
        fail(run, connection);
        return;
    }
    count_latency(run, connection->started);
    run->messages++;
    run->samples++;
    run->waiting--;
    connection->waits = false;
    /* The answer to what is sent now makes a new edge, so there is nothing to read before it. */
    if (!last) {
        send_message(run, connection);
    }
}

static void resend_lost(run_t *run) {
    uint64_t now = clock_now();
    for (size_t i = 0; i < run->count; i++) {
        connection_t *connection = &run->connections[i];
        if (connection->waits && now - connection->started > DATAGRAM_PATIENCE) {
            run->lost++;
            if (connection_send(connection, &run->exchange) < 0) {
                fail(run, connection);
            }
        }
    }
}

/* Until the deadline, and then until the last reply is there. Returns 0, or -1 with a word on stderr. */
static int exchange_messages(run_t *run) {
    struct epoll_event events[MAX_EVENTS];
    for (size_t i = 0; i < run->count; i++) {
        if (run->connections[i].fd >= 0) {
            send_message(run, &run->connections[i]);
        }
    }
    while (run->waiting > 0) {
        uint64_t now = clock_now();
        if (now > run->deadline + DRAIN_PATIENCE) {
            fprintf(stderr, "pingpong: %zu replies do not come\n", run->waiting);
            return -1;
        }
        int ready = epoll_wait(run->epoll, events, MAX_EVENTS, TICK);
        if (ready < 0 && errno != EINTR) {
            perror("pingpong: epoll_wait");
            return -1;
        }
        for (int i = 0; i < ready; i++) {
            on_event(run, events[i].data.ptr, now >= run->deadline);
        }
        if (run->exchange.kind == KIND_UDP && ready == 0) {
            resend_lost(run);
        }
    }
    return 0;
}

static int exchange_broadcasts(run_t *run) {
    do {
        ssize_t count = broadcast_round(run->connections, run->count, run->epoll, &run->exchange);
        if (count < 0) {
            return -1;
        }
        count_latency(run, run->connections[0].started);
        run->messages += (uint64_t)count;
        run->samples++;
    } while (clock_now() < run->deadline);
    return 0;
}

/* The latency in microseconds under which `share` of all messages stayed. */
static size_t percentile(const run_t *run, double share) {
    uint64_t wanted = (uint64_t)((double)run->samples * share);
    uint64_t seen = 0;
    size_t i = 0;
    while (i < LATENCY_BUCKETS - 1 && (seen += run->latencies[i]) <= wanted) {
        i++;
    }
    return i;
}

/* One stretch of `seconds`, and its line of JSON. Returns 0, or -1 with a word on stderr. */
static int measure(run_t *run, double seconds) {
    run->messages = run->samples = run->lost = 0;
    memset(run->latencies, 0, sizeof(run->latencies));
    uint64_t start = clock_now();
    run->deadline = start + (uint64_t)(seconds * 1e9);
    if ((run->exchange.kind >= KIND_BROADCAST ? exchange_broadcasts(run) : exchange_messages(run)) < 0) {
        return -1;
    }
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"p50_us\": %zu, \"p99_us\": %zu, \"failed\": %llu, "
           "\"lost\": %llu}\n",
           (unsigned long long)run->messages, (double)(clock_now() - start) / 1e9, percentile(run, 0.5),
           percentile(run, 0.99), (unsigned long long)run->failed, (unsigned long long)run->lost);
    fflush(stdout);
    return 0;
}

static int kind_named(const char *name) {
    static const char *const names[] = {"tcp",  "unix",      "udp",       "tls",
                                        "http", "websocket", "broadcast", "broadcast-compressed"};
    for (int i = 0; i < 8; i++) {
        if (strcmp(name, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

int main(int argc, char **argv) {
    char line[16];
    run_t *run = calloc(1, sizeof(*run));
    int kind = argc == 7 ? kind_named(argv[1]) : -1;
    if (kind < 0 || run == NULL) {
        fprintf(stderr, "usage: pingpong tcp|unix|udp|tls|http|websocket|broadcast|broadcast-compressed HOST PORT "
                        "CONNECTIONS SIZE SECONDS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    run->exchange = (exchange_t){.kind = (connection_kind_t)kind, .host = argv[2], .port = atoi(argv[3]), .path = "/"};
    run->count = strtoul(argv[4], NULL, 10);
    size_t size = strtoul(argv[5], NULL, 10);
    double seconds = strtod(argv[6], NULL);
    int rc = kind >= KIND_WEBSOCKET ? websocket_frames(&run->exchange, size)
             : kind == KIND_HTTP    ? http_request(&run->exchange)
                                    : echo_bytes(&run->exchange, size);
    if (run->count == 0 || size == 0 || rc < 0 || open_all(run) < 0) {
        return 1;
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (measure(run, seconds) < 0) {
            return 1;
        }
    }
    return 0;
}
