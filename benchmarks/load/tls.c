#include "connection.h"

#include <errno.h>
#include <stdio.h>

#ifdef WITH_OPENSSL

#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *client_context(void) {
    static SSL_CTX *context; /* one for the program's life */
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
        if (context != NULL) {
            SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        }
    }
    return context;
}

int tls_open(connection_t *connection) {
    SSL_CTX *context = client_context();
    SSL *tls = context == NULL ? NULL : SSL_new(context);
    connection->tls = tls;
    if (tls == NULL || SSL_set_fd(tls, connection->fd) != 1 || SSL_connect(tls) != 1) {
        ERR_print_errors_fp(stderr);
        return -1;
    }
    return 0;
}

void tls_close(connection_t *connection) {
    SSL_shutdown(connection->tls);
    SSL_free(connection->tls);
    connection->tls = NULL;
}

/* Turn OpenSSL's result into that of read(2). */
static ssize_t result_of(connection_t *connection, int rc) {
    if (rc > 0) {
        return rc;
    }
    switch (SSL_get_error(connection->tls, rc)) {
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    default:
        errno = EIO;
        return -1;
    }
}

ssize_t tls_read(connection_t *connection, void *bytes, size_t length) {
    return result_of(connection, SSL_read(connection->tls, bytes, (int)length));
}

ssize_t tls_write(connection_t *connection, const void *bytes, size_t length) {
    return result_of(connection, SSL_write(connection->tls, bytes, (int)length));
}

#else

int tls_open(connection_t *connection) {
    (void)connection;
    fprintf(stderr, "pingpong: built without OpenSSL's headers (Debian: libssl-dev)\n");
    return -1;
}

void tls_close(connection_t *connection) {
    (void)connection;
}

ssize_t tls_read(connection_t *connection, void *bytes, size_t length) {
    (void)connection;
    (void)bytes;
    (void)length;
    errno = ENOTSUP;
    return -1;
}

ssize_t tls_write(connection_t *connection, const void *bytes, size_t length) {
    (void)connection;
    (void)bytes;
    (void)length;
    errno = ENOTSUP;
    return -1;
}

#endif
