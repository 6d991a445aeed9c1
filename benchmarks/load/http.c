#include "connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

int http_request(exchange_t *exchange) {
    static const char format[] = "GET %s HTTP/1.1\r\nHost: %s:%d\r\n\r\n";
    size_t room = sizeof(format) + strlen(exchange->path) + strlen(exchange->host) + 16;
    exchange->message = malloc(room);
    if (exchange->message == NULL) {
        return -1;
    }
    exchange->message_length =
        (size_t)snprintf(exchange->message, room, format, exchange->path, exchange->host, exchange->port);
    exchange->reply = NULL; /* it has a date: http_open() finds out how long it is */
    exchange->reply_length = 0;
    return 0;
}

/* The length of the whole response at the start of `text`, or 0 when it is not all there yet. */
static size_t response_length(const char *text, size_t have) {
    const char *end = strstr(text, "\r\n\r\n");
    const char *line = text;
    if (end == NULL) {
        return 0;
    }
    while (line < end) {
        if (strncasecmp(line, "content-length:", 15) == 0) {
            size_t whole = (size_t)(end + 4 - text) + strtoul(line + 15, NULL, 10);
            return whole <= have ? whole : 0;
        }
        line = strstr(line, "\r\n") + 2;
    }
    return 0;
}

int http_open(connection_t *connection, exchange_t *exchange) {
    char text[4096];
    size_t have = 0, length = 0;
    if (send(connection->fd, exchange->message, exchange->message_length, MSG_NOSIGNAL) !=
        (ssize_t)exchange->message_length) {
        perror("pingpong: send");
        return -1;
    }
    while (length == 0 && have + 1 < sizeof(text)) {
        ssize_t size = recv(connection->fd, text + have, sizeof(text) - 1 - have, 0);
        if (size <= 0) {
            fprintf(stderr, "pingpong: no answer to the first request\n");
            return -1;
        }
        have += (size_t)size;
        text[have] = '\0';
        length = response_length(text, have);
    }
    if (length == 0 || length != have || strncmp(text, "HTTP/1.1 200 ", 13) != 0) {
        fprintf(stderr, "pingpong: an unexpected response: %.*s\n", (int)strcspn(text, "\r\n"), text);
        return -1;
    }
    if (exchange->reply_length != 0 && exchange->reply_length != length) {
        fprintf(stderr, "pingpong: responses of different length\n");
        return -1;
    }
    exchange->reply_length = length;
    connection->verified = true;
    return 0;
}
