/* llhttp's callbacks: from bytes to a head, and on to the pieces of a body. */
#include "http/connection.h"

#include <stdlib.h>
#include <string.h>

#include "http/response.h"

/* How much of a body that nobody wants is read for the sake of keeping the connection. */
#define DISCARD_MAX (1024 * 1024)
/* Bytes of a method that llhttp does not know. */
#define METHOD_MAX 64
/* What llhttp is told instead of it: no byte of a request but CONNECT is read otherwise because of its method. */
#define METHOD_STAND_IN "POST"
/* Bytes of chunk extensions that each byte of data makes up for. */
#define EXTENSION_RATIO 2
/* Exchanges that are kept for connections to come. */
#define POOL_MAX 64

static inline bolide_conn *conn_of(const llhttp_t *parser) {
    return parser->data;
}

static inline bolide_head *head_of(bolide_conn *c) {
    return c->exchange->split != NULL ? &c->exchange->split->head : &c->http->scratch;
}

/* Stop parsing with `verdict`, which bolide_parser_feed() is to return. */
static int stop(bolide_conn *c, int verdict) {
    c->http->verdict = verdict;
    return HPE_USER;
}

static int on_url(llhttp_t *parser, const char *at, size_t len) {
    bolide_head *h = head_of(conn_of(parser));
    if (h->target_len == 0) {
        h->target = (uint32_t)(at - h->base);
    }
    h->target_len += (uint32_t)len;
    return 0;
}

/* Room for one more field. 0, or the verdict. */
static int grow_fields(bolide_conn *c, bolide_head *h) {
    if (h->count >= c->http->max_fields) {
        return -431;
    }
    uint32_t cap = h->cap * 2 < c->http->max_fields ? h->cap * 2 : c->http->max_fields;
    bolide_field *fields = realloc(h->fields, cap * sizeof(*fields));
    if (fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    h->fields = fields;
    h->cap = cap;
    return 0;
}

/* `len` bytes of trailers or of chunk extensions, which are dropped. There may be as many as a head may have, and in
 * the long run more only as data make up for them: RFC 9112, section 7.1.1, asks for a limit of the total. */
static int drop(bolide_conn *c, size_t len) {
    if (len > c->http->max_head - c->exchange->dropped) {
        return stop(c, -431);
    }
    c->exchange->dropped += (uint32_t)len;
    return 0;
}

/* `len` bytes of data make up for what was dropped. */
static void make_up(bolide_exchange *x, size_t len) {
    x->dropped -= len < x->dropped / EXTENSION_RATIO ? (uint32_t)len * EXTENSION_RATIO : x->dropped;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t len) {
    bolide_conn *c = conn_of(parser);
    if ((c->flags & BOLIDE_CONN_HEAD) != 0) {
        return drop(c, len);
    }
    bolide_head *h = head_of(c);
    if (h->in_name) {
        h->fields[h->count - 1].name_len += (uint32_t)len;
        return 0;
    }
    if (h->count == h->cap) {
        int verdict = grow_fields(c, h);
        if (verdict != 0) {
            return stop(c, verdict);
        }
    }
    bolide_field *f = &h->fields[h->count++];
    f->name = (uint32_t)(at - h->base);
    f->name_len = (uint32_t)len;
    f->value = f->value_len = 0;
    h->in_name = true;
    return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t len) {
    bolide_conn *c = conn_of(parser);
    if ((c->flags & BOLIDE_CONN_HEAD) != 0) {
        return drop(c, len);
    }
    bolide_head *h = head_of(c);
    if (h->count == 0) {
        return stop(c, -400);
    }
    bolide_field *f = &h->fields[h->count - 1];
    if (h->in_name) {
        f->value = (uint32_t)(at - h->base);
        h->in_name = false;
    }
    f->value_len = (uint32_t)(at - h->base) + (uint32_t)len - f->value;
    return 0;
}

/* Does the request line stand in the form of RFC 9112, section 3, where llhttp takes more: empty lines before it that
 * are not CRLF, several spaces, other protocols than HTTP? Its version is known to be 1.x. */
static bool is_strict_line(const bolide_conn *c, const bolide_head *h) {
    const char *target = h->base + h->target;
    size_t len;
    const char *method = bolide_head_method(h, &len);
    if (h->target_len == 0 || target[-1] != ' ' || memcmp(target + h->target_len, " HTTP/1.", 8) != 0) {
        return false;
    }
    if ((c->flags & BOLIDE_CONN_OTHER_METHOD) != 0) {
        return memchr(method, ' ', len) == NULL; /* execute_other() has seen the rest */
    }
    const char *name = llhttp_method_name(c->exchange->parser.method);
    return strlen(name) == len && memcmp(method, name, len) == 0;
}

/* Refuse what the request line and the size alone tell. The verdict, or 0. */
static int check_line(const bolide_conn *c, const bolide_head *h) {
    const llhttp_t *parser = &c->exchange->parser;
    if (parser->http_major != 1 || parser->http_minor > 1) {
        return -505;
    }
    if (!is_strict_line(c, h)) {
        return -400;
    }
    if (parser->method == HTTP_CONNECT || parser->method == HTTP_PRI) {
        return -501;
    }
    if (h->base[h->target] == '*' && (h->target_len != 1 || parser->method != HTTP_OPTIONS)) {
        return -400; /* RFC 9112, section 3.2.4 */
    }
    if (h->target_len > c->http->max_head) {
        return -414;
    }
    if (h->count > 0) {
        const bolide_field *last = &h->fields[h->count - 1];
        if (last->name + last->name_len + last->value_len > c->http->max_head) {
            return -431;
        }
    }
    return 0;
}

static int on_headers_complete(llhttp_t *parser) {
    bolide_conn *c = conn_of(parser);
    bolide_head *h = head_of(c);
    int verdict = check_line(c, h);
    if (verdict != 0) {
        return stop(c, verdict);
    }
    c->flags |= BOLIDE_CONN_HEAD;
    if (parser->http_minor == 0) {
        c->flags |= BOLIDE_CONN_HTTP10;
    }
    /* In HTTP/1.0 llhttp lets keep-alive win over close. */
    if (llhttp_should_keep_alive(parser) && (parser->flags & F_CONNECTION_CLOSE) == 0) {
        c->flags |= BOLIDE_CONN_KEEP_ALIVE;
    }
    if ((parser->flags & F_CONTENT_LENGTH) != 0 && parser->content_length > c->http->max_body) {
        return stop(c, -413);
    }
    c->since_ms = c->exchange->window = c->exchange->dropped = 0;
    c->exchange->received = 0;
    int status = c->http->ops->on_head(c, h);
    /* What follows is parsed as HTTP, whatever the upgrade asks for; behind a request for a WebSocket it waits. */
    parser->upgrade = 0;
    return status == 0 ? 0 : stop(c, status < 0 ? -1 : -status);
}

/* Count what has come of a body. 0, or the verdict. */
static int count_body(bolide_conn *c, size_t len) {
    bolide_exchange *x = c->exchange;
    if (len > c->http->max_body - x->received) {
        return -413;
    }
    x->received += len;
    if (c->http->body_rate == 0) {
        c->since_ms = 0;
    } else {
        x->window = len < UINT32_MAX - x->window ? x->window + (uint32_t)len : UINT32_MAX;
    }
    return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t len) {
    bolide_conn *c = conn_of(parser);
    make_up(c->exchange, len);
    if ((c->flags & (BOLIDE_CONN_RESPONSE | BOLIDE_CONN_CLOSING)) != 0 || c->request == NULL) {
        c->discarded += (uint32_t)len;
        return c->discarded > DISCARD_MAX ? stop(c, -400) : 0;
    }
    int verdict = count_body(c, len);
    if (verdict == 0 && len > 0) {
        verdict = c->http->ops->on_body(c, at, len);
    }
    return verdict == 0 ? 0 : stop(c, verdict);
}

/* Parts of chunk extensions, of which llhttp would take empty ones: ";=b", ";a=". */
static int on_extension(llhttp_t *parser, const char *at, size_t len) {
    (void)at;
    bolide_conn *c = conn_of(parser);
    c->flags |= len > 0 ? BOLIDE_CONN_EXTENSION : 0u;
    return drop(c, len);
}

static int on_extension_complete(llhttp_t *parser) {
    bolide_conn *c = conn_of(parser);
    if ((c->flags & BOLIDE_CONN_EXTENSION) == 0) {
        return stop(c, -400);
    }
    c->flags &= ~(unsigned)BOLIDE_CONN_EXTENSION;
    return 0;
}

static int on_message_complete(llhttp_t *parser) {
    bolide_conn *c = conn_of(parser);
    c->flags |= BOLIDE_CONN_MESSAGE;
    if ((c->flags & (BOLIDE_CONN_KEEP_ALIVE | BOLIDE_CONN_HTTP10)) == BOLIDE_CONN_KEEP_ALIVE) {
        parser->flags &= (uint16_t)~F_CONNECTION_CLOSE; /* that of a trailer */
    }
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_chunk_extension_name_complete = on_extension_complete,
    .on_chunk_extension_value_complete = on_extension_complete,
    .on_message_complete = on_message_complete,
};

static void init_parser(bolide_conn *c) {
    llhttp_init(&c->exchange->parser, HTTP_REQUEST, &settings);
    c->exchange->parser.data = c;
}

static void free_split(bolide_exchange *x) {
    if (x->split != NULL) {
        free(x->split->head.fields);
        free(x->split->raw);
        free(x->split);
        x->split = NULL;
    }
}

/* Have c->exchange, at the start of a request. 0, or -1 with MemoryError set. */
static int begin_exchange(bolide_conn *c) {
    bolide_http *http = c->http;
    bolide_exchange *x = http->free_exchanges;
    if (x != NULL) {
        http->free_exchanges = x->next;
        http->free_exchange_count--;
    } else if ((x = calloc(1, sizeof(*x))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    c->exchange = x;
    init_parser(c);
    return 0;
}

void bolide_exchange_release(bolide_conn *c) {
    bolide_http *http = c->http;
    bolide_exchange *x = c->exchange;
    if (x == NULL) {
        return;
    }
    c->exchange = NULL;
    free_split(x);
    if (http->free_exchange_count < POOL_MAX) {
        x->next = http->free_exchanges;
        http->free_exchanges = x;
        http->free_exchange_count++;
    } else {
        free(x);
    }
}

void bolide_exchange_clear(bolide_http *http) {
    while (http->free_exchanges != NULL) {
        bolide_exchange *x = http->free_exchanges;
        http->free_exchanges = x->next;
        free(x);
    }
    http->free_exchange_count = 0;
}

/* Why a head is refused that is too large: its target alone, or all of it. */
static int too_large(const bolide_conn *c, const bolide_head *h) {
    return h->count == 0 && h->target_len > c->http->max_head / 2 ? -414 : -431;
}

/* Append to the raw bytes of the split head; its base may move. 0, or -1 with MemoryError set. */
static int append_raw(bolide_split_head *split, const char *data, size_t len) {
    if (split->cap - split->len < len) {
        size_t cap = (split->len + len) * 2;
        char *raw = realloc(split->raw, cap);
        if (raw == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        split->raw = raw;
        split->cap = cap;
    }
    memcpy(split->raw + split->len, data, len);
    split->len += len;
    split->head.base = split->raw;
    return 0;
}

/* The read ended within a head: keep its bytes and what was parsed of it. 0, or the verdict. */
static int save_head(bolide_conn *c, const char *data, size_t len) {
    const bolide_head *h = &c->http->scratch;
    if (len > c->http->max_head) {
        return too_large(c, h);
    }
    bolide_split_head *split = calloc(1, sizeof(*split));
    if (split == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    c->exchange->split = split;
    c->since_ms = 0;
    split->head = *h;
    uint32_t cap = h->count > 8 ? h->count * 2 : 16;
    split->head.cap = cap < c->http->max_fields ? cap : c->http->max_fields;
    split->head.fields = malloc(split->head.cap * sizeof(bolide_field));
    if (split->head.fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(split->head.fields, h->fields, h->count * sizeof(bolide_field));
    return append_raw(split, data, len);
}

/* Run the parser over [data, data + len). Returns as bolide_parser_feed(). */
static ptrdiff_t execute(bolide_conn *c, const char *data, size_t len) {
    c->http->verdict = -400;
    llhttp_errno_t err = llhttp_execute(&c->exchange->parser, data, len);
    if (err == HPE_OK) {
        return (ptrdiff_t)len;
    }
    if (err == HPE_PAUSED) {
        const char *pos = llhttp_get_error_pos(&c->exchange->parser);
        llhttp_resume(&c->exchange->parser);
        return pos - data;
    }
    return c->http->verdict;
}

/* Has the parser stopped at a method, perhaps a valid one, that it does not know, or not of HTTP? */
static bool is_other_method(const llhttp_t *parser) {
    llhttp_errno_t err = llhttp_get_errno(parser);
    bool of_rtsp = parser->method >= HTTP_DESCRIBE && parser->method <= HTTP_FLUSH;
    return err == HPE_INVALID_METHOD || (err == HPE_INVALID_CONSTANT && of_rtsp);
}

/* Find the method at the start of the head's `len` bytes. Returns where it ends, 0 if the bytes end first; or the
 * status to refuse it with, negated. */
static ptrdiff_t find_method(const char *raw, size_t len) {
    char folded;
    size_t start = 0, end;
    bool small = false;
    while (len - start >= 2 && raw[start] == '\r' && raw[start + 1] == '\n') {
        start += 2;
    }
    for (end = start; end < len && raw[end] != ' '; end++) {
        if (!bolide_copy_name(&folded, raw + end, 1)) {
            return -400;
        }
        if (end - start >= METHOD_MAX) {
            return -501;
        }
        small |= raw[end] >= 'a' && raw[end] <= 'z';
    }
    if (end == len) {
        return 0;
    }
    if (small) {
        return -501; /* another method than that in capitals, and ASGI knows capitals only */
    }
    return end > start ? (ptrdiff_t)end : -400;
}

/* Parse the head, of which `len` bytes are there, from its start: it has a method that llhttp does not know, which is
 * the application's to judge (RFC 9110, section 9.1). Returns as bolide_parser_feed(). */
static ptrdiff_t execute_other(bolide_conn *c, const char *raw, size_t len) {
    bolide_head *h = head_of(c);
    ptrdiff_t end = find_method(raw, len);
    if (end == 0) {
        c->flags |= BOLIDE_CONN_METHOD_OPEN;
        return (ptrdiff_t)len;
    }
    if (end < 0) {
        return end;
    }
    c->flags = (c->flags & ~(unsigned)BOLIDE_CONN_METHOD_OPEN) | BOLIDE_CONN_OTHER_METHOD;
    h->target_len = h->count = 0;
    h->in_name = false;
    init_parser(c);
    (void)llhttp_execute(&c->exchange->parser, METHOD_STAND_IN, sizeof(METHOD_STAND_IN) - 1);
    ptrdiff_t used = execute(c, raw + end, len - (size_t)end);
    return used < 0 ? used : end + used;
}

/* Run the parser over `len` more bytes of a head that begins at `raw`, of which it has seen `before`. Returns as
 * bolide_parser_feed(). */
static ptrdiff_t execute_head(bolide_conn *c, const char *raw, size_t before, size_t len) {
    if ((c->flags & BOLIDE_CONN_METHOD_OPEN) == 0) {
        ptrdiff_t used = execute(c, raw + before, len);
        bool may_be_other = used == -400 && (c->flags & (BOLIDE_CONN_HEAD | BOLIDE_CONN_OTHER_METHOD)) == 0;
        if (!may_be_other || !is_other_method(&c->exchange->parser)) {
            return used;
        }
    }
    ptrdiff_t used = execute_other(c, raw, before + len);
    return used < 0 ? used : used - (ptrdiff_t)before;
}

/* Feed a head that came in several reads: from its own buffer, so that it ends up in one piece. */
static ptrdiff_t feed_split(bolide_conn *c, const char *data, size_t len) {
    bolide_split_head *split = c->exchange->split;
    size_t before = split->len, room = (size_t)c->http->max_head + 1 - before;
    if (len > room) {
        len = room;
    }
    if (append_raw(split, data, len) != 0) {
        return -1;
    }
    ptrdiff_t used = execute_head(c, split->raw, before, len);
    if ((c->flags & BOLIDE_CONN_HEAD) != 0) {
        free_split(c->exchange);
    } else if (used >= 0 && split->len > c->http->max_head) {
        return too_large(c, &split->head);
    }
    return used;
}

ptrdiff_t bolide_parser_feed(bolide_conn *c, const char *data, size_t len) {
    if ((c->flags & BOLIDE_CONN_HEAD) != 0) {
        return execute(c, data, len);
    }
    if (c->exchange == NULL && begin_exchange(c) < 0) {
        return -1;
    }
    if (c->exchange->split != NULL) {
        return feed_split(c, data, len);
    }
    bolide_head *h = &c->http->scratch;
    h->base = data;
    h->target_len = h->count = 0;
    h->in_name = false;
    ptrdiff_t used = execute_head(c, data, 0, len);
    if (used >= 0 && (c->flags & BOLIDE_CONN_HEAD) == 0) {
        int verdict = save_head(c, data, len);
        return verdict != 0 ? verdict : used;
    }
    return used;
}
