/* What the connections of one server share: their list, the sweep that finds those which take too long, the queue of
 * those that may go on, and the end of a turn's reads. */
#include "http/connection.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "http/batch.h"

#define LINGER_MS 2000u

/* Once the server is closing, a request that is on its way has so long to arrive: on a connection that has had one
 * before, and on a fresh one or in the middle of a head. */
#define LAST_REQUEST_MS  100u
#define FIRST_REQUEST_MS 1000u

/* From one sweep to the next; the least while the server is closing. */
#define MIN_SWEEP_MS 20u
#define MAX_SWEEP_MS 1000u

/* The uv handles, apart from bolide_http because a uv handle lives until its close callback. */
struct bolide_http_handles {
    bolide_http *http; /* NULL once it was cleared */
    uv_timer_t sweep;  /* runs while there are connections */
    uv_idle_t resume;  /* runs while http->resume is not empty */
    uv_check_t gather; /* runs after a poll in which http->batch was filled */
    bolide_resource resource;
    unsigned sweep_ms; /* period of the sweep */
    int open;          /* handles that are not closed yet */
};

static void on_handle_close(uv_handle_t *handle) {
    struct bolide_http_handles *h = handle->data;
    if (--h->open == 0) {
        free(h);
    }
}

static void handles_close(struct bolide_http_handles *h) {
    if (h->http != NULL) {
        h->http->handles = NULL;
        h->http = NULL;
    }
    bolide_resource_remove(&h->resource);
    bolide_loop_claim(bolide_loop_of(&h->sweep));
    uv_close((uv_handle_t *)&h->sweep, on_handle_close);
    uv_close((uv_handle_t *)&h->resume, on_handle_close);
    uv_close((uv_handle_t *)&h->gather, on_handle_close);
}

static struct bolide_http_handles *handles_of(bolide_resource *res) {
    return (struct bolide_http_handles *)((char *)res - offsetof(struct bolide_http_handles, resource));
}

static void resource_close(bolide_resource *res) {
    struct bolide_http_handles *h = handles_of(res);
    for (bolide_conn *c = h->http != NULL ? h->http->conns : NULL; c != NULL; c = c->next) {
        bolide_conn_shut(c); /* it leaves the list later */
    }
    handles_close(h);
}

static int resource_traverse(bolide_resource *res, visitproc visit, void *arg) {
    const struct bolide_http_handles *h = handles_of(res);
    for (bolide_conn *c = h->http != NULL ? h->http->conns : NULL; c != NULL; c = c->next) {
        int stopped = bolide_conn_traverse(c, visit, arg);
        if (stopped) {
            return stopped;
        }
    }
    return 0;
}

static unsigned at_most(unsigned limit, unsigned bound) {
    return limit == 0 || limit > bound ? bound : limit;
}

/* As time_limit(), between the head of a request and its response. */
static unsigned body_time_limit(const bolide_conn *c) {
    /* The peer is waited for only while there is more of a body, the owner wants it, and the peer knows. */
    const unsigned others =
        BOLIDE_CONN_MESSAGE | BOLIDE_CONN_EOF | BOLIDE_CONN_BODY_PAUSED | BOLIDE_CONN_EXPECT | BOLIDE_CONN_UPGRADED;
    return (c->flags & others) == 0 ? c->http->body_timeout_ms : 0;
}

/* How long the connection may stay in its present state, in ms; 0: for ever. */
static unsigned time_limit(const bolide_conn *c) {
    if ((c->flags & BOLIDE_CONN_CLOSING) != 0) {
        return 0;
    }
    if ((c->flags & BOLIDE_CONN_LINGERING) != 0) {
        return LINGER_MS;
    }
    if ((c->flags & BOLIDE_CONN_HEAD) != 0) {
        /* Between the response and the end of a body that nobody wants. */
        return (c->flags & BOLIDE_CONN_RESPONSE) != 0 ? c->http->head_timeout_ms : body_time_limit(c);
    }
    bool waiting = !bolide_conn_has_split(c) && (c->flags & BOLIDE_CONN_SERVED) != 0;
    if (waiting && bolide_stream_pending(&c->stream) > 0) {
        return 0; /* the peer is at the response still */
    }
    if (c->http->closing) {
        return waiting ? at_most(c->http->keep_alive_ms, LAST_REQUEST_MS)
                       : at_most(c->http->head_timeout_ms, FIRST_REQUEST_MS);
    }
    unsigned limit = waiting ? c->http->keep_alive_ms : c->http->head_timeout_ms;
    return limit > 0 ? limit : 1; /* a timeout of 0 closes as soon as may be */
}

/* Has the peer taken nothing of the output for too long? `ms` have passed since the last call. */
static bool is_stalled(bolide_conn *c, unsigned ms) {
    size_t unsent = bolide_stream_is_open(&c->stream) ? uv_stream_get_write_queue_size(&c->stream.uv.stream) : 0;
    if (unsent == 0 || (uint32_t)unsent != c->unsent) {
        c->unsent = (uint32_t)unsent;
        c->stalled_ms = 0;
        return false;
    }
    c->stalled_ms += ms;
    return c->http->write_timeout_ms != 0 && c->stalled_ms >= c->http->write_timeout_ms;
}

/* The connection has been in its state for as long as it may. */
static void on_late(bolide_conn *c) {
    const unsigned state = BOLIDE_CONN_HEAD | BOLIDE_CONN_RESPONSE | BOLIDE_CONN_LINGERING | BOLIDE_CONN_CLOSING;
    bool in_body = (c->flags & state) == BOLIDE_CONN_HEAD;
    uint32_t window = in_body ? c->exchange->window : 0;
    if (window > 0 && window >= (uint64_t)c->http->body_rate * c->http->body_timeout_ms / 1000) {
        c->since_ms = c->exchange->window = 0;
    } else {
        bolide_conn_expire(c);
    }
}

/* `ms` have passed since the last call for this connection. */
static void sweep(bolide_conn *c, unsigned ms) {
    if (is_stalled(c, ms)) {
        /* With a reset: a close in good order would leave what the kernel holds to a peer that may never take it. */
        const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(bolide_stream_fileno(&c->stream), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        bolide_conn_abort(c);
        return;
    }
    if ((c->flags & BOLIDE_CONN_UPGRADED) != 0) {
        c->http->ops->on_tick(c, ms);
        return;
    }
    unsigned limit = time_limit(c);
    if (limit == 0) {
        c->since_ms = 0;
        if (c->exchange != NULL) {
            c->exchange->window = 0;
        }
    } else if ((c->since_ms += ms) >= limit + ms) {
        on_late(c);
    }
}

static void on_sweep(uv_timer_t *timer) {
    struct bolide_http_handles *h = timer->data;
    bolide_loop_enter(bolide_loop_of(timer));
    bolide_http *http = h->http;
    Py_INCREF(http->owner);
    for (bolide_conn *c = http->conns, *next; c != NULL; c = next) {
        next = c->next; /* a connection leaves the list only when its handle is closed, which is later */
        sweep(c, h->sweep_ms);
    }
    Py_DECREF(http->owner);
}

static void on_resume(uv_idle_t *idle) {
    struct bolide_http_handles *h = idle->data;
    bolide_loop_enter(bolide_loop_of(idle));
    bolide_http *http = h->http;
    Py_INCREF(http->owner);
    uv_idle_stop(idle);
    /* Those that come back while this runs wait for the next turn: their applications have one until then. */
    bolide_conn *c = http->resume;
    http->resume = NULL;
    while (c != NULL) {
        bolide_conn *next = c->held->resume_next;
        c->flags &= ~(unsigned)BOLIDE_CONN_RESUMING;
        bolide_conn_resume(c);
        c = next;
    }
    Py_DECREF(http->owner);
}

static void on_gather(uv_check_t *gather) {
    struct bolide_http_handles *h = gather->data;
    bolide_loop_enter(bolide_loop_of(gather));
    uv_check_stop(gather);
    bolide_batch_run(h->http);
}

bool bolide_http_gather(bolide_http *http) {
    return http->handles != NULL && uv_check_start(&http->handles->gather, on_gather) == 0;
}

void bolide_http_resume_soon(bolide_conn *c) {
    bolide_http *http = c->http;
    if ((c->flags & BOLIDE_CONN_RESUMING) == 0 && c->held != NULL && http->handles != NULL) {
        c->flags |= BOLIDE_CONN_RESUMING;
        c->held->resume_next = http->resume;
        http->resume = c;
        uv_idle_start(&http->handles->resume, on_resume);
    }
}

/* Run the sweep, so often that it is late by a tenth of the shortest limit. */
static void start_sweep(bolide_http *http) {
    struct bolide_http_handles *h = http->handles;
    unsigned shortest = at_most(http->keep_alive_ms, http->head_timeout_ms);
    shortest = at_most(http->tick_ms, shortest);
    shortest = at_most(http->body_timeout_ms, shortest);
    shortest = at_most(http->write_timeout_ms, shortest);
    bool often = http->closing || shortest / 10 < MIN_SWEEP_MS;
    h->sweep_ms = often ? MIN_SWEEP_MS : at_most(shortest / 10, MAX_SWEEP_MS);
    uv_timer_start(&h->sweep, on_sweep, h->sweep_ms, h->sweep_ms);
}

void bolide_http_add(bolide_conn *c) {
    bolide_http *http = c->http;
    c->next = http->conns;
    if (http->conns != NULL) {
        http->conns->prev = c;
    }
    http->conns = c;
    if (http->conn_count++ == 0 && http->handles != NULL) {
        start_sweep(http);
    }
}

void bolide_http_begin_closing(bolide_http *http) {
    if (http->closing) {
        return;
    }
    http->closing = true;
    for (bolide_conn *c = http->conns; c != NULL; c = c->next) {
        if (bolide_conn_is_idle(c) && (c->flags & BOLIDE_CONN_LINGERING) == 0) {
            c->since_ms = 0; /* the time that is left begins now, however long it has been idle */
        }
    }
    if (http->conn_count > 0 && http->handles != NULL) {
        start_sweep(http);
    }
}

void bolide_http_remove(bolide_conn *c) {
    bolide_http *http = c->http;
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        http->conns = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    if ((c->flags & BOLIDE_CONN_RESUMING) != 0) {
        bolide_conn **link = &http->resume;
        while (*link != c) {
            link = &(*link)->held->resume_next;
        }
        *link = c->held->resume_next;
    }
    if (--http->conn_count == 0 && http->handles != NULL) {
        uv_timer_stop(&http->handles->sweep);
    }
}

int bolide_http_init(bolide_http *http, bolide_loop *loop, const bolide_http_ops *ops, PyObject *owner,
                     uint32_t max_fields) {
    bolide_loop_claim(loop);
    if (bolide_loop_check_closed(loop) < 0) {
        return -1;
    }
    struct bolide_http_handles *h = calloc(1, sizeof(*h));
    http->scratch.fields = malloc(max_fields * sizeof(bolide_field));
    http->batch = bolide_batch_new();
    if (h == NULL || http->scratch.fields == NULL || http->batch == NULL) {
        free(h);
        free(http->scratch.fields);
        bolide_batch_free(http->batch);
        http->scratch.fields = NULL;
        http->batch = NULL;
        PyErr_NoMemory();
        return -1;
    }
    http->loop = loop;
    http->ops = ops;
    http->owner = owner;
    http->max_fields = http->scratch.cap = max_fields;
    http->handles = h;
    h->http = http;
    h->open = 3;
    uv_timer_init(&loop->uv, &h->sweep); /* none can fail */
    uv_idle_init(&loop->uv, &h->resume);
    uv_check_init(&loop->uv, &h->gather);
    h->sweep.data = h->resume.data = h->gather.data = h;
    h->resource.traverse = resource_traverse;
    h->resource.close = resource_close;
    bolide_resource_add(loop, &h->resource);
    return 0;
}

void bolide_http_clear(bolide_http *http) {
    if (http->handles != NULL) {
        handles_close(http->handles);
    }
    bolide_exchange_clear(http);
    free(http->scratch.fields);
    http->scratch.fields = NULL;
    bolide_batch_free(http->batch);
    http->batch = NULL;
    Py_CLEAR(http->good_host);
}
