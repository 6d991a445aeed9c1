/*
 * limit: the floor that any server built from libuv and llhttp stands on.
 *
 * It parses every request with llhttp, in the loop's one read buffer, and answers each with the same 13 bytes and the
 * headers that bolide sends. The answers to all requests of one read leave in one write, after the last read of the
 * loop's turn, so that a client with many connections is woken once for many answers. There is no Python here: what
 * bolide costs above this program is the price of the application, of ASGI, and of bolide itself.
 *
 * With BYTES it answers with so many zero bytes instead, by reference: what the socket does not take at once waits in
 * libuv. As with bolide, the kernel's send buffer is bounded for a large body.
 *
 * Usage: limit HOST PORT [BYTES]
 */
#include <llhttp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

enum {
    READ_BUFFER_SIZE = 65536, /* bytes; one buffer for all connections */
    BATCH = 64,               /* answers that stand ready, one behind the other, for a pipelining client */
    MAX_HEADERS = 64,         /* header pairs kept of one request */
    BACKLOG = 2048,
    SEND_BUFFER = 262144, /* bytes; bolide's for a peer on the same machine */
};

/* A piece of the read buffer; valid while the parser runs over it. */
typedef struct {
    const char *at;
    size_t length;
} span_t;

typedef struct connection {
    uv_tcp_t tcp;
    llhttp_t parser;
    unsigned answers;        /* requests that ended in this turn and are not answered yet */
    bool close;              /* the last of them asked for the connection to be closed */
    bool pending;            /* stands in the server's list of those to answer */
    struct connection *next; /* in that list */
} connection_t;

/* What belongs to the loop and not to one connection. */
typedef struct {
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_signal_t sigint;
    uv_signal_t sigterm;
    uv_timer_t clock;           /* renders the answers anew each second, for the Date header */
    llhttp_settings_t settings; /* the parser's callbacks, the same for all connections */
    char *batch;                /* BATCH answers in a row */
    size_t answer_length;       /* bytes of one answer, or of its head if there is a body */
    char *body;                 /* zero bytes that follow the head, or NULL: it is in the answer */
    size_t body_length;         /* their number */
    char read_buffer[READ_BUFFER_SIZE];
    span_t url;                 /* of the request being parsed */
    span_t names[MAX_HEADERS];  /* likewise */
    span_t values[MAX_HEADERS]; /* likewise */
    unsigned header_count;      /* pairs of names and values in use */
    uv_check_t turn_end;        /* runs when all reads of a turn are done */
    connection_t *pending;      /* connections to answer then */
} server_t;

/* A write that the socket did not take at once. */
typedef struct {
    uv_write_t request;
    bool close;   /* close the connection when it is done */
    char bytes[]; /* what is left to send, less the body */
} late_write_t;

static void check(int rc, const char *what) {
    if (rc < 0) {
        fprintf(stderr, "limit: %s: %s\n", what, uv_strerror(rc));
        exit(1);
    }
}

static void render(server_t *server) {
    char date[40];
    char answer[256];
    struct tm utc;
    time_t now = time(NULL);
    gmtime_r(&now, &utc);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &utc);
    int length =
        snprintf(answer, sizeof(answer),
                 "HTTP/1.1 200 OK\r\n"
                 "date: %s\r\n"
                 "server: bolide\r\n"
                 "content-length: %zu\r\n"
                 "content-type: text/plain; charset=utf-8\r\n"
                 "\r\n"
                 "%s",
                 date, server->body != NULL ? server->body_length : 13, server->body != NULL ? "" : "Hello, world!");
    server->answer_length = (size_t)length;
    for (size_t i = 0; i < BATCH; i++) {
        memcpy(server->batch + i * server->answer_length, answer, server->answer_length);
    }
}

static void on_clock(uv_timer_t *timer) {
    render(timer->data);
}

/* ---- parser ---- */

static server_t *server_of(llhttp_t *parser) {
    connection_t *connection = parser->data;
    return connection->tcp.loop->data;
}

static int on_message_begin(llhttp_t *parser) {
    server_t *server = server_of(parser);
    server->url = (span_t){NULL, 0};
    server->header_count = 0;
    return 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t length) {
    server_of(parser)->url = (span_t){at, length};
    return 0;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t length) {
    server_t *server = server_of(parser);
    if (server->header_count < MAX_HEADERS) {
        server->names[server->header_count] = (span_t){at, length};
    }
    return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t length) {
    server_t *server = server_of(parser);
    if (server->header_count < MAX_HEADERS) {
        server->values[server->header_count++] = (span_t){at, length};
    }
    return 0;
}

static int on_message_complete(llhttp_t *parser) {
    connection_t *connection = parser->data;
    connection->answers++;
    if (!llhttp_should_keep_alive(parser)) {
        connection->close = true;
        return HPE_PAUSED;
    }
    return 0;
}

/* ---- connection ---- */

static void on_connection_closed(uv_handle_t *handle) {
    free(handle->data);
}

static void close_connection(connection_t *connection) {
    if (!uv_is_closing((uv_handle_t *)&connection->tcp)) {
        uv_close((uv_handle_t *)&connection->tcp, on_connection_closed);
    }
}

static void on_late_write(uv_write_t *request, int status) {
    late_write_t *late = (late_write_t *)request;
    connection_t *connection = request->handle->data;
    if (status < 0 || late->close) {
        close_connection(connection);
    }
    free(late);
}

/* Queue `length` bytes at `bytes`, which the socket would not take at once. Returns 0 or a negative uv code. */
static int write_late(connection_t *connection, const char *bytes, size_t length, bool close) {
    late_write_t *late = malloc(sizeof(*late) + length);
    if (late == NULL) {
        return UV_ENOMEM;
    }
    late->close = close;
    memcpy(late->bytes, bytes, length);
    uv_buf_t buffer = uv_buf_init(late->bytes, (unsigned)length);
    int rc = uv_write(&late->request, (uv_stream_t *)&connection->tcp, &buffer, 1, on_late_write);
    if (rc < 0) {
        free(late);
    }
    return rc;
}

/* Answer `count` requests, at most BATCH, in one write. Returns 0 or a negative uv code. */
static int answer_batch(connection_t *connection, unsigned count, bool close) {
    server_t *server = connection->tcp.loop->data;
    size_t length = count * server->answer_length;
    uv_buf_t buffer = uv_buf_init(server->batch, (unsigned)length);
    int written = uv_try_write((uv_stream_t *)&connection->tcp, &buffer, 1);
    if (written == UV_EAGAIN) {
        written = 0;
    }
    if (written < 0) {
        return written;
    }
    if ((size_t)written < length) {
        return write_late(connection, server->batch + written, length - (size_t)written, close);
    }
    if (close) {
        close_connection(connection);
    }
    return 0;
}

/* Queue what the socket would not take of the head and the body, which follow each other in `rest`. Returns 0 or a
 * negative uv code. */
static int write_rest(connection_t *connection, uv_buf_t rest[2], bool close) {
    late_write_t *late = malloc(sizeof(*late) + rest[0].len);
    if (late == NULL) {
        return UV_ENOMEM;
    }
    late->close = close;
    memcpy(late->bytes, rest[0].base, rest[0].len);
    rest[0].base = late->bytes;
    unsigned skipped = rest[0].len > 0 ? 0 : 1;
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    int rc = uv_write(&late->request, stream, rest + skipped, 2 - skipped, on_late_write);
    if (rc < 0) {
        free(late);
    }
    return rc;
}

/* Answer one request with the head and the body. Returns 0 or a negative uv code. */
static int answer_with_body(connection_t *connection, bool close) {
    server_t *server = connection->tcp.loop->data;
    uv_buf_t parts[2] = {uv_buf_init(server->batch, (unsigned)server->answer_length),
                         uv_buf_init(server->body, (unsigned)server->body_length)};
    int written = uv_try_write((uv_stream_t *)&connection->tcp, parts, 2);
    if (written < 0 && written != UV_EAGAIN) {
        return written;
    }
    size_t left = written < 0 ? 0 : (size_t)written;
    for (int i = 0; i < 2; i++) {
        size_t sent = left < parts[i].len ? left : parts[i].len;
        parts[i] = uv_buf_init(parts[i].base + sent, (unsigned)(parts[i].len - sent));
        left -= sent;
    }
    if (parts[1].len > 0) {
        return write_rest(connection, parts, close);
    }
    if (close) {
        close_connection(connection);
    }
    return 0;
}

static void answer(connection_t *connection) {
    const server_t *server = connection->tcp.loop->data;
    while (server->body != NULL && connection->answers > 0) {
        connection->answers--;
        if (answer_with_body(connection, connection->close && connection->answers == 0) < 0) {
            close_connection(connection);
            return;
        }
    }
    while (connection->answers > 0) {
        unsigned count = connection->answers < BATCH ? connection->answers : BATCH;
        connection->answers -= count;
        if (answer_batch(connection, count, connection->close && connection->answers == 0) < 0) {
            close_connection(connection);
            return;
        }
    }
}

static void on_turn_end(uv_check_t *check_handle) {
    server_t *server = check_handle->data;
    while (server->pending != NULL) {
        connection_t *connection = server->pending;
        server->pending = connection->next;
        connection->pending = false;
        if (!uv_is_closing((uv_handle_t *)&connection->tcp)) {
            answer(connection);
        }
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)suggested;
    server_t *server = handle->loop->data;
    *buffer = uv_buf_init(server->read_buffer, READ_BUFFER_SIZE);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer) {
    connection_t *connection = stream->data;
    if (size < 0) {
        close_connection(connection);
        return;
    }
    llhttp_errno_t error = llhttp_execute(&connection->parser, buffer->base, (size_t)size);
    if (connection->close) {
        uv_read_stop(stream);
    } else if (error != HPE_OK) {
        close_connection(connection);
        return;
    }
    server_t *server = stream->loop->data;
    if (connection->answers > 0 && !connection->pending) {
        connection->pending = true;
        connection->next = server->pending;
        server->pending = connection;
    }
}

static void on_connection(uv_stream_t *listener, int status) {
    server_t *server = listener->loop->data;
    if (status < 0) {
        return;
    }
    connection_t *connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        return;
    }
    check(uv_tcp_init(listener->loop, &connection->tcp), "uv_tcp_init");
    connection->tcp.data = connection;
    llhttp_init(&connection->parser, HTTP_REQUEST, &server->settings);
    connection->parser.data = connection;
    if (uv_accept(listener, (uv_stream_t *)&connection->tcp) < 0 || uv_tcp_nodelay(&connection->tcp, 1) < 0 ||
        uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read) < 0) {
        close_connection(connection);
        return;
    }
    int size = SEND_BUFFER;
    if (server->body_length > SEND_BUFFER) {
        uv_send_buffer_size((uv_handle_t *)&connection->tcp, &size);
    }
}

/* ---- program ---- */

static void on_signal(uv_signal_t *handle, int number) {
    (void)number;
    uv_stop(handle->loop);
}

static void set_up(server_t *server, const char *host, int port) {
    struct sockaddr_in address;
    check(uv_loop_init(&server->loop), "uv_loop_init");
    server->loop.data = server;
    llhttp_settings_init(&server->settings);
    server->settings.on_message_begin = on_message_begin;
    server->settings.on_url = on_url;
    server->settings.on_header_field = on_header_field;
    server->settings.on_header_value = on_header_value;
    server->settings.on_message_complete = on_message_complete;
    render(server);
    check(uv_timer_init(&server->loop, &server->clock), "uv_timer_init");
    server->clock.data = server;
    check(uv_timer_start(&server->clock, on_clock, 1000, 1000), "uv_timer_start");
    check(uv_check_init(&server->loop, &server->turn_end), "uv_check_init");
    server->turn_end.data = server;
    check(uv_check_start(&server->turn_end, on_turn_end), "uv_check_start");
    check(uv_signal_init(&server->loop, &server->sigint), "uv_signal_init");
    check(uv_signal_init(&server->loop, &server->sigterm), "uv_signal_init");
    check(uv_signal_start(&server->sigint, on_signal, SIGINT), "uv_signal_start");
    check(uv_signal_start(&server->sigterm, on_signal, SIGTERM), "uv_signal_start");
    check(uv_ip4_addr(host, port, &address), host);
    check(uv_tcp_init(&server->loop, &server->listener), "uv_tcp_init");
    check(uv_tcp_bind(&server->listener, (const struct sockaddr *)&address, 0), "bind");
    check(uv_listen((uv_stream_t *)&server->listener, BACKLOG, on_connection), "listen");
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: limit HOST PORT [BYTES]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    server_t *server = calloc(1, sizeof(*server));
    char *batch = malloc(BATCH * 256);
    if (server == NULL || batch == NULL) {
        fprintf(stderr, "limit: out of memory\n");
        return 1;
    }
    server->batch = batch;
    server->body_length = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    server->body = server->body_length > 0 ? calloc(1, server->body_length) : NULL;
    set_up(server, argv[1], atoi(argv[2]));
    uv_run(&server->loop, UV_RUN_DEFAULT);
    free(server->body);
    free(batch);
    free(server);
    return 0;
}
