/* The ASGI server: what its files share. server.c is the Python type, server_new.c its constructor; request.c the life
 * of a request, request_type.c its Python types, scope.c its scope, task.c its task; receive.c and send.c the two
 * callables of the application, file.c the files that it sends, awaitable.c what the callables return, wakeup.c what
 * those call; websocket.c and websocket_send.c the same for a WebSocket; log.c what is logged, access_log.c the lines
 * of the access log, state.c the server's part of the module state. */
#ifndef BOLIDE_ASGI_ASGI_H
#define BOLIDE_ASGI_ASGI_H

#include "http/connection.h"
#include "http/listener.h"
#include "http/response.h"
#include "ws/connection.h"
#include "ws/handshake.h"

/* X(id, text): interned strings. */
#define BOLIDE_ASGI_STRINGS(X)                                                                                         \
    X(asgi, "asgi")                                                                                                    \
    X(body, "body")                                                                                                    \
    X(cancel, "cancel")                                                                                                \
    X(client, "client")                                                                                                \
    X(context, "context")                                                                                              \
    X(count, "count")                                                                                                  \
    X(create_task, "create_task")                                                                                      \
    X(eager_start, "eager_start")                                                                                      \
    X(error, "error")                                                                                                  \
    X(exc_info, "exc_info")                                                                                            \
    X(file, "file")                                                                                                    \
    X(headers, "headers")                                                                                              \
    X(https, "https")                                                                                                  \
    X(http, "http")                                                                                                    \
    X(http_1_0, "1.0")                                                                                                 \
    X(http_1_1, "1.1")                                                                                                 \
    X(http_disconnect, "http.disconnect")                                                                              \
    X(http_request, "http.request")                                                                                    \
    X(http_version, "http_version")                                                                                    \
    X(links, "links")                                                                                                  \
    X(method, "method")                                                                                                \
    X(more_body, "more_body")                                                                                          \
    X(more_trailers, "more_trailers")                                                                                  \
    X(offset, "offset")                                                                                                \
    X(path, "path")                                                                                                    \
    X(pathsend, "http.response.pathsend")                                                                              \
    X(query_string, "query_string")                                                                                    \
    X(raw_path, "raw_path")                                                                                            \
    X(response_trailers, "http.response.trailers")                                                                     \
    X(root_path, "root_path")                                                                                          \
    X(scheme, "scheme")                                                                                                \
    X(server, "server")                                                                                                \
    X(spec_version, "spec_version")                                                                                    \
    X(state, "state")                                                                                                  \
    X(status, "status")                                                                                                \
    X(tls, "tls")                                                                                                      \
    X(wss, "wss")                                                                                                      \
    X(bytes, "bytes")                                                                                                  \
    X(code, "code")                                                                                                    \
    X(early_hint, "http.response.early_hint")                                                                          \
    X(extensions, "extensions")                                                                                        \
    X(info, "info")                                                                                                    \
    X(reason, "reason")                                                                                                \
    X(subprotocol, "subprotocol")                                                                                      \
    X(subprotocols, "subprotocols")                                                                                    \
    X(text, "text")                                                                                                    \
    X(websocket, "websocket")                                                                                          \
    X(websocket_connect, "websocket.connect")                                                                          \
    X(websocket_disconnect, "websocket.disconnect")                                                                    \
    X(websocket_http_response, "websocket.http.response")                                                              \
    X(websocket_receive, "websocket.receive")                                                                          \
    X(trailers, "trailers")                                                                                            \
    X(version, "version")                                                                                              \
    X(warning, "warning")                                                                                              \
    X(zerocopysend, "http.response.zerocopysend")

#define BOLIDE_METHODS (HTTP_QUERY + 1)

#define BOLIDE_RECENT 128 /* at most 256 */

typedef struct bolide_request bolide_request;
typedef struct bolide_awaitable bolide_awaitable;
typedef struct bolide_websocket bolide_websocket;

typedef struct bolide_asgi_state {
    PyTypeObject *ServerType;
    PyTypeObject *RequestType;
    PyTypeObject *WebSocketType; /* of the requests for one */
    PyTypeObject *ReceiveType;
    PyTypeObject *AwaitableType;
    PyTypeObject *AccessLogType;
    PyObject *ClientDisconnected; /* exception class */

    PyObject *done;                    /* the awaitable that is finished */
    PyObject *request_message;         /* {"type": "http.request", "body": b"", "more_body": False}, to be copied */
    PyObject *loop_names;              /* ... of ensure_future(): loop */
    PyObject *context_names;           /* ... of add_done_callback(): context */
    PyObject *exc_info_names;          /* ... of logger.error(message, exc_info=) */
    PyObject *task_done;               /* asyncio.Task.done */
    PyObject *task_result;             /* asyncio.Task.result */
    PyMethodDef *wakeup;               /* what an asyncio.Task adds to a future that it awaits; NULL: not seen yet */
    PyObject *ensure_future;           /* asyncio.ensure_future */
    PyObject *get_logger;              /* logging.getLogger */
    PyObject *methods[BOLIDE_METHODS]; /* str, by llhttp's number */

#define BOLIDE_ASGI_STR(id, text) PyObject *str_##id;
    BOLIDE_ASGI_STRINGS(BOLIDE_ASGI_STR)
#undef BOLIDE_ASGI_STR

    bolide_freelist free_requests, free_receives, free_awaitables;

    bolide_awaitable *recent[BOLIDE_RECENT]; /* ring of those that began to wait last; borrowed, or NULL */
    uint8_t next_recent;                     /* where the next one goes */
} bolide_asgi_state;

/* What an access log with details tells of a request, gathered while it runs. */
typedef struct {
    PyObject *headers;          /* scope["headers"] */
    PyObject *response_headers; /* as the application gave them, or NULL */
    uint64_t began;             /* uv_hrtime() when the head was complete */
    uint64_t sent;              /* bytes of the response's body */
    int status;                 /* 0: no response was started */
} bolide_access;

typedef struct bolide_server {
    PyObject_HEAD bolide_loop *loop;        /* strong */
    bolide_state *st;                       /* kept by the loop */
    PyObject *app;                          /* the application */
    PyObject *scope;                        /* dict that every scope starts as a copy of */
    PyObject *asgi;                         /* dict: scope["asgi"] is a copy of it */
    PyObject *extensions;                   /* dict: scope["extensions"] is a copy of it, for HTTP */
    PyObject *state;                        /* dict: scope["state"] is a copy of it; or NULL */
    PyObject *access_log;                   /* callable, or NULL */
    PyObject *health_path;                  /* bytes: the path that is answered without the application, or NULL */
    PyObject *health_headers;               /* tuple: of that answer */
    PyObject *health_body;                  /* bytes: of that answer */
    PyObject *logger;                       /* logging.Logger */
    PyObject *on_max;                       /* called when max_requests is reached, or NULL */
    PyObject *tls_extension;                /* makes scope["extensions"]["tls"] of an SSLObject, or NULL */
    PyObject *forwarded;                    /* called with a scope that has x-forwarded-* fields, or NULL */
    PyObject *context;                      /* contextvars.Context: tasks start in a copy of it */
    PyObject *task_keywords;                /* dict of those that a Task is made with; the context is set for each */
    PyObject *waiters;                      /* list of the futures that wait_closed() gave out */
    PyObject *client_host;                  /* str: that of the last client, or NULL */
    PyObject *server_name;                  /* the last scope["server"] ... */
    struct sockaddr_storage server_address; /* ... and what it was made of */

    PyObject *ws_scope;        /* dict that every scope of a WebSocket starts as a copy of */
    PyObject *ws_extensions;   /* dict: scope["extensions"] starts as a copy of it, for a WebSocket */
    PyObject *ws_asgi;         /* dict: scope["asgi"] of WebSockets */
    PyObject *ws_denial;       /* dict, empty: their scope["extensions"]["websocket.http.response"] */
    PyObject *ws_subprotocols; /* list, empty: scope["subprotocols"] of those whose clients offer none; or NULL */
    Py_ssize_t ws_added_keys;  /* what an application has added to ws_scope at most; -1: no one has accepted yet */
    bolide_ws_config ws;       /* what WebSocket connections share */
    size_t ws_max_queue;       /* messages that wait for an application before reading stops */
    bool websockets;           /* requests for a WebSocket are served as such */
    bool pathsend;             /* http.response.pathsend is offered */
    bool ws_deflate;           /* permessage-deflate is accepted */

    bolide_http http;
    bolide_listener *listeners;
    bolide_request *running; /* list of the requests whose task is suspended; holds a reference to each */
    size_t running_count;    /* requests whose application has not returned */
    uint64_t max_requests;   /* 0: no limit */
    size_t max_concurrency;  /* 0: no limit */
    bool access_details;     /* access_log gets what a bolide_access has, when the response is complete */
    bool closing;            /* shutdown() was called */
} bolide_server;

typedef enum {
    BOLIDE_WEBSOCKET_CONNECTING, /* the handshake is not answered */
    BOLIDE_WEBSOCKET_DENYING,    /* ... the application has sent websocket.http.response.start */
    BOLIDE_WEBSOCKET_OPEN,       /* it was accepted */
    BOLIDE_WEBSOCKET_CLOSED,     /* the application has closed or refused it */
} bolide_websocket_state;

/* What the logs tell of a request. */
typedef struct {
    PyObject *method; /* str */
    PyObject *target; /* str; NULL when nothing is logged */
    PyObject *client; /* likewise */
} bolide_request_line;

/* What a request for a WebSocket has until it is accepted. */
typedef struct {
    bolide_ws_handshake handshake; /* what the client asked for */
    bolide_request_line line;
    bolide_response response; /* the one that denies it */
    PyObject *headers;        /* list: of a websocket.http.response.start that waits, or NULL */
} bolide_websocket_opening;

/* Messages received and not yet taken: a ring. */
typedef struct {
    uint32_t first, cap; /* `cap` is a power of 2 */
    size_t bytes;        /* in the messages */
    PyObject *items[];
} bolide_message_queue;

/* What a request for a WebSocket has besides. The protocol itself is the connection's (ws/connection.h). */
struct bolide_websocket {
    bolide_message_queue *queue;       /* or NULL: nothing */
    uint32_t count;                    /* of messages in `queue` */
    uint16_t code;                     /* of the end; 0: not yet */
    bool connect_taken : 1;            /* the application got websocket.connect */
    bool gone : 1;                     /* the peer has closed, or vanished */
    uint8_t state;                     /* bolide_websocket_state */
    PyObject *reason;                  /* str: of the end, or NULL */
    bolide_websocket_opening *opening; /* NULL once it was accepted */
};

/* A request and its response. As a Python object it is the `send` of the application. */
struct bolide_request {
    PyObject_HEAD bolide_server *server; /* strong */
    bolide_conn *conn;                   /* NULL once the connection is gone or serves another request */
    vectorcallfunc send;                 /* calling the object sends a message */
    PyObject *scope;                     /* until the application is called, or has accepted a WebSocket */
    PyObject *task;                      /* while it is suspended */
    union {                              /* the awaitables that are suspended, strong: */
        bolide_awaitable *waiter;        /* ... the only one, or NULL */
        bolide_awaitable **waiters;      /* ... several, in their order; owned */
    };
    uint32_t waiter_count;       /* their number */
    unsigned flags;              /* BOLIDE_REQUEST_* */
    bolide_request *prev, *next; /* server->running */
    bolide_websocket *ws;        /* of a request for a WebSocket: `websocket`; else NULL */
    union {
        bolide_websocket websocket; /* the end of an object of WebSocketType, which may live for hours */
        struct {                    /* of one of RequestType: */
            bolide_request_line line;
            bolide_access *access; /* for an access log with details, owned; else NULL */
            PyObject *body; /* bytes received and not yet taken by the application, or NULL; no one else has it */
            bolide_response response;
            uint64_t file_offset; /* the piece of a file that is being sent: where it goes on */
            uint64_t file_size;   /* ... bytes of it in all */
            uint64_t file_left;   /* ... and those that have not left and are not queued */
            int file;             /* ... a descriptor of our own plus 1, or 0: there is none */
        };
    };
};

enum {
    BOLIDE_REQUEST_LAST = 1,         /* the end of the body has come */
    BOLIDE_REQUEST_TAKEN = 2,        /* the application knows it */
    BOLIDE_REQUEST_STARTED = 4,      /* http.response.start was sent, validly or not */
    BOLIDE_REQUEST_HEAD_SENT = 8,    /* ... and was valid */
    BOLIDE_REQUEST_COMPLETE = 16,    /* the response is complete */
    BOLIDE_REQUEST_TOLD = 32,        /* the application got http.disconnect */
    BOLIDE_REQUEST_LISTED = 64,      /* on server->running */
    BOLIDE_REQUEST_ABORTED = 128,    /* its task was cancelled by the server */
    BOLIDE_REQUEST_FORWARDED = 256,  /* server->forwarded is to see its scope */
    BOLIDE_REQUEST_TRAILERS = 512,   /* the response announced trailers */
    BOLIDE_REQUEST_BODY_SENT = 1024, /* ... and its body is complete */
    BOLIDE_REQUEST_HEALTH = 2048,    /* the server answers it by itself */
    BOLIDE_REQUEST_FILE_MORE = 4096, /* more of the body follows the file that is being sent */
};

typedef enum {
    BOLIDE_AWAIT_DONE,    /* nothing to wait for */
    BOLIDE_AWAIT_RECEIVE, /* the next message */
    BOLIDE_AWAIT_DRAIN,   /* until the peer has read */
    BOLIDE_AWAIT_FILE,    /* until all of the file has been queued, as the peer reads */
    BOLIDE_AWAIT_SEND,    /* nothing yet: a message of another thread, sent by whoever awaits it in the loop's */
} bolide_await_kind;

/* What receive() and send() return: a coroutine as far as asyncio can tell. */
struct bolide_awaitable {
    PyObject_HEAD bolide_request *request; /* strong; NULL for the one that is always done */
    PyObject *callback;                    /* what the task that awaits it wants called when it may go on, or NULL */
    PyObject *context; /* ... to call it in; or the message of a cancellation, or to send; or NULL */
    bool bare;         /* callback is the task, whose wake-up is to be called */
    bool recent;       /* it stands in recent[slot] of the module's state */
    uint8_t slot;      /* ... */
    uint8_t kind;      /* bolide_await_kind */
    uint8_t state;     /* AWAIT_* */
    bool blocking;     /* _asyncio_future_blocking */
};

static inline bolide_asgi_state *bolide_asgi_of(const bolide_request *r) {
    return r->server->st->asgi;
}

/* --- request.c -------------------------------------------------------------------------------- */

extern const bolide_http_ops bolide_request_ops;

/* Is there nobody to answer to? */
static inline bool bolide_request_is_gone(const bolide_request *r) {
    return r->conn == NULL || (r->flags & BOLIDE_REQUEST_TOLD) != 0;
}

/* What the logs tell of it; NULL: nothing any more. */
static inline bolide_request_line *bolide_request_get_line(bolide_request *r) {
    if (r->ws == NULL) {
        return &r->line;
    }
    return r->ws->opening != NULL ? &r->ws->opening->line : NULL;
}

/* Is this another thread than the loop's, which runs? */
bool bolide_request_is_elsewhere(const bolide_request *r);

/* The callback of the request's task. 0, or -1 with an exception set: TypeError when it is not done. */
int bolide_request_end_task(bolide_request *r, PyObject *task);

/* Cancel the tasks of all running requests of the server. 0, or -1 with an exception set. */
int bolide_request_cancel_all(bolide_server *server);

/* --- request_type.c --------------------------------------------------------------------------- */

/* A request on `conn`, for a WebSocket or not. The caller has the garbage collector track it, which lets others find
 * it, once it can be used. New reference, or NULL with MemoryError set. */
bolide_request *bolide_request_new(bolide_server *server, bolide_conn *conn, bool websocket);

void bolide_request_clear_line(bolide_request_line *line);

/* --- task.c ----------------------------------------------------------------------------------- */

/* Once for each server, whose loop is set. 0, or -1 with an exception set. */
int bolide_task_init(bolide_server *server);

/* A task that runs `coro`, or what else the application has returned. *context becomes a new reference to the one it
 * runs in, if that is known. New reference, or NULL with an exception set. */
PyObject *bolide_task_new(bolide_server *server, PyObject *coro, PyObject **context);

/* Is the task done? -1 with an exception set. */
int bolide_task_is_done(bolide_server *server, PyObject *task);

/* task.result(): new reference, or NULL with the task's exception set. */
PyObject *bolide_task_result(bolide_server *server, PyObject *task);

/* --- scope.c ---------------------------------------------------------------------------------- */

/* The dict that every scope of the server is a copy of; `pathsend` is set. 0, or -1 with an exception set. */
int bolide_scope_init(bolide_server *server, PyObject *root_path, const char *scheme, const char *version);

/* An application has accepted a WebSocket: have as many keys in its `scope` as in those that follow take no memory
 * that is not needed. */
void bolide_scope_learn(bolide_server *server, PyObject *scope);

/* Fill the scope of a request, and what the logs need, from its head. *request becomes another one if it is for a
 * WebSocket. 0; the status to refuse it with; or -1 with an exception set. */
int bolide_scope_build(bolide_request **request, const bolide_head *head, bolide_head_facts *facts);

/* --- send.c, receive.c, awaitable.c ----------------------------------------------------------- */

/* The vectorcall of a request. */
PyObject *bolide_send(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names);

/* The response is complete. */
void bolide_request_complete(bolide_request *r);

/* The body is complete, and trailers follow, which the response has announced. 0, or -1 with an exception set. */
int bolide_request_await_trailers(bolide_request *r);

/* Set the exception that a send() raises when there is nobody to send to. -1. */
int bolide_request_disconnected(const bolide_request *r);

/* The `receive` of a request. Called with the request's task it is that task's callback. New reference, or NULL. */
PyObject *bolide_receive_new(bolide_request *r);

/* The next message, if there is one: 1 and a new reference; 0 when the application has to wait; -1 with an exception
 * set. `woken`: the caller has waited for it. If another one has taken the end of the body meanwhile, it gets it too.
 */
int bolide_receive_poll(bolide_request *r, bool woken, PyObject **message);

/* New reference, or NULL. */
PyObject *bolide_awaitable_new(bolide_request *r, bolide_await_kind kind);

/* What send(message) returns in another thread than the loop's: it does nothing until it is awaited in that. New
 * reference, or NULL. */
PyObject *bolide_awaitable_of_message(bolide_request *r, PyObject *message);

/* Visit the suspended awaitables for the garbage collector; have them wait no more, for its sake. */
int bolide_awaitable_traverse(bolide_request *r, visitproc visit, void *arg);
void bolide_awaitable_drop(bolide_request *r);

/* Let the suspended awaitables of that kind look again, or of each kind: those for a message first. */
void bolide_awaitable_wake(bolide_request *r, bolide_await_kind kind);
void bolide_awaitable_wake_all(bolide_request *r);

/* message[key]: 1 and a new reference; 0 when it is not there; -1 with an exception set. */
int bolide_message_get(PyObject *message, PyObject *key, PyObject **value);

/* As bolide_message_get(), with KeyError for what is not there: 0 or -1. */
int bolide_message_require(PyObject *message, PyObject *key, PyObject **value);

/* message[key] as a number, whatever its value. 0, or -1 with an exception set. */
int bolide_message_status(PyObject *message, PyObject *key, long *status);

/* Make of *body, a bytes-like object, an exact bytes object: what comes after that runs no code of the application.
 * NULL stays NULL. 0, or -1 with an exception set. */
int bolide_body_as_bytes(PyObject **body);

/* Is the type of a message this one? */
bool bolide_message_is(PyObject *type, const char *wanted);

/* --- wakeup.c --------------------------------------------------------------------------------- */

/* a->callback, of which there was none, and a->context. */
void bolide_wakeup_set(bolide_awaitable *a, PyObject *callback, PyObject *context);

/* What is to be called: a->callback, or what is equal to the one that was set. New reference, NULL with MemoryError
 * set. Where this runs the garbage collector, a finalizer may end the wait. */
PyObject *bolide_wakeup_get(const bolide_awaitable *a);

/* Leave a->callback as it is from now on. */
void bolide_wakeup_keep(bolide_awaitable *a);

/* --- websocket.c, websocket_send.c -------------------------------------------------------------------------------- */

extern const bolide_ws_ops bolide_websocket_ops;

/* Is it a request for a WebSocket, and are they served? */
bool bolide_websocket_is_wanted(const bolide_server *server, const bolide_conn *c, const bolide_head_facts *facts);

/* Replace *request, which nobody knows yet, by one for a WebSocket, from its fields. 0; the status to refuse it
 * with; or -1 with an exception set. *subprotocols becomes a new list. */
int bolide_websocket_new(bolide_request **request, PyObject *headers, PyObject **subprotocols);

/* Free ws->opening. */
void bolide_websocket_end_opening(bolide_websocket *ws);

/* Free what `ws` refers to. */
void bolide_websocket_clear(bolide_websocket *ws);

/* The `send` of a WebSocket: as bolide_send(). */
PyObject *bolide_websocket_send(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names);

/* Queue the head of a denial response; r->ws->opening->headers is used up. 0, or -1 with an exception set. */
int bolide_websocket_start_denial(bolide_request *r);

/* As bolide_receive_poll(). */
int bolide_websocket_poll(bolide_request *r, PyObject **message);

/* The peer is gone, if it was not before. Wakes nobody. */
void bolide_websocket_gone(bolide_request *r);

/* The application has ended; `failed`: by an exception, or with a result that is not None. */
void bolide_websocket_finish(bolide_request *r, bool failed);

/* The server stops: close, whatever the state. */
void bolide_websocket_shutdown(bolide_request *r);

/* --- file.c ------------------------------------------------------------------------------------------------------- */

/* Begin with http.response.pathsend or http.response.zerocopysend. 0, or -1 with an exception set. */
int bolide_file_begin_path(bolide_request *r, PyObject *message);
int bolide_file_begin_descriptor(bolide_request *r, PyObject *message);

/* Send more of the file as far as the stream takes it: 1 when all of it has left or is queued, 0 when that has to go
 * on, -1 with an exception set. */
int bolide_file_go_on(bolide_request *r);

/* Close the file. */
void bolide_file_end(bolide_request *r);

/* --- log.c ------------------------------------------------------------------------------------ */

/* logger.error(message, exc_info=exc) or, with `exc` NULL, logger.LEVEL(message, *args); `arg` may be NULL. What fails
 * here goes to the loop's exception handler. */
void bolide_log_exception(bolide_server *server, const char *message, PyObject *exc);
void bolide_log_error(bolide_server *server, const char *message, PyObject *arg);
void bolide_log_warning(bolide_server *server, const char *message);

/* '%s - "WebSocket %s" WHAT' at level INFO, as other servers have it. */
void bolide_log_websocket(bolide_request *r, PyObject *what);

/* The access log's entry for a response that has started; with details, its status is noted for later. */
void bolide_log_access(bolide_request *r, int status);

/* With details: begin to gather them, once the scope is built; add `len` bytes, or `body`, to what was sent; make the
 * entry, unless it was made, because the response is complete or nothing more will come of it; forget it.
 * bolide_access_begin() returns 0, or -1 with an exception set. */
int bolide_access_begin(bolide_request *r);
void bolide_access_add(bolide_request *r, uint64_t len);
void bolide_access_sent(bolide_request *r, PyObject *body);
void bolide_access_end(bolide_request *r);
void bolide_access_free(bolide_request *r);

/* --- server_new.c ----------------------------------------------------------------------------- */

extern const char bolide_server_doc[];

/* tp_new of the Server. */
PyObject *bolide_server_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);

/* --- server.c --------------------------------------------------------------------------------- */

/* Complete wait_closed() if the server is closed. */
void bolide_server_check_closed(bolide_server *server);

/* A request was answered: have on_max_requests called from the loop, if it is that one. */
void bolide_server_answered(bolide_server *server);

/* --- state.c ---------------------------------------------------------------------------------- */

extern PyType_Spec bolide_server_spec, bolide_request_spec, bolide_websocket_spec, bolide_receive_spec,
    bolide_awaitable_spec, bolide_access_log_spec;

int bolide_asgi_init(PyObject *module, bolide_state *st);
int bolide_asgi_traverse(bolide_state *st, visitproc visit, void *arg);
void bolide_asgi_clear(bolide_state *st);

#endif
