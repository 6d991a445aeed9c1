#include "connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    OPCODE_BINARY = 0x82, /* with FIN */
    MASK_BIT = 0x80,
    MAX_FRAME_HEADER = 14,
};

/* Write a frame's header (RFC 6455, section 5.2). Returns its length without the masking key. */
static size_t write_header(unsigned char *out, size_t size, unsigned char mask_bit) {
    out[0] = OPCODE_BINARY;
    if (size < 126) {
        out[1] = (unsigned char)(mask_bit | size);
        return 2;
    }
    if (size < 65536) {
        out[1] = mask_bit | 126;
        out[2] = (unsigned char)(size >> 8);
        out[3] = (unsigned char)size;
        return 4;
    }
    out[1] = mask_bit | 127;
    for (unsigned i = 0; i < 8; i++) {
        out[2 + i] = (unsigned char)((uint64_t)size >> (8 * (7 - i)));
    }
    return 10;
}

int websocket_frames(exchange_t *exchange, size_t size) {
    static const unsigned char key[4] = {0x37, 0xfa, 0x21, 0x3d};
    unsigned char *message = malloc(size + MAX_FRAME_HEADER);
    unsigned char *reply = malloc(size + MAX_FRAME_HEADER);
    if (message == NULL || reply == NULL) {
        free(message);
        free(reply);
        return -1;
    }
    size_t reply_header = write_header(reply, size, 0);
    size_t message_header = write_header(message, size, MASK_BIT);
    memcpy(message + message_header, key, sizeof(key));
    message_header += sizeof(key);
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)('a' + i % 26);
        reply[reply_header + i] = byte;
        message[message_header + i] = byte ^ key[i % 4];
    }
    exchange->message = (char *)message;
    exchange->message_length = message_header + size;
    exchange->reply = (char *)reply;
    exchange->reply_length = reply_header + size;
    return 0;
}

int websocket_open(connection_t *connection, const exchange_t *exchange) {
    char text[2048];
    int length = snprintf(text, sizeof(text),
                          "GET %s HTTP/1.1\r\n"
                          "Host: %s:%d\r\n"
                          "Upgrade: websocket\r\n"
                          "Connection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                          "Sec-WebSocket-Version: 13\r\n"
                          "%s\r\n",
                          exchange->path, exchange->host, exchange->port,
                          exchange->kind == KIND_BROADCAST_COMPRESSED
                              ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
                              : "");
    if (send(connection->fd, text, (size_t)length, MSG_NOSIGNAL) != length) {
        perror("pingpong: send");
        return -1;
    }
    size_t have = 0;
    while (have + 1 < sizeof(text)) {
        /* One byte at a time, so that none behind the answer is taken. */
        ssize_t size = recv(connection->fd, text + have, 1, 0);
        if (size <= 0) {
            fprintf(stderr, "pingpong: no answer to the WebSocket handshake\n");
            return -1;
        }
        have++;
        text[have] = '\0';
        if (have >= 4 && memcmp(text + have - 4, "\r\n\r\n", 4) == 0) {
            break;
        }
    }
    if (strncmp(text, "HTTP/1.1 101", 12) != 0) {
        fprintf(stderr, "pingpong: the server refused the WebSocket: %.*s\n", (int)strcspn(text, "\r\n"), text);
        return -1;
    }
    return 0;
}
