#include "ws/deflate.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* A window of 4 KiB and 16 KiB of hash tables a direction: 32 KiB to compress in place of 256 KiB. */
#define SERVER_BITS 12
#define CLIENT_BITS 12
#define MEM_LEVEL   5
#define MAX_BITS    15
#define MIN_BITS    9 /* zlib's raw DEFLATE has no window of 256 bytes */
#define STEP        (1u << 30)

struct bolide_deflate {
    bolide_deflate_params params;
    bool out_used;      /* `out` has messages in its window */
    z_stream *in, *out; /* NULL: not needed so far */
};

/* --- negotiation --- */

typedef struct {
    const char *pos, *end;
} scanner;

typedef struct {
    const char *start;
    size_t len;
} slice;

static void skip_space(scanner *s) {
    while (s->pos < s->end && (*s->pos == ' ' || *s->pos == '\t')) {
        s->pos++;
    }
}

/* Take `c` with the white space around it. */
static bool take(scanner *s, char c) {
    skip_space(s);
    if (s->pos == s->end || *s->pos != c) {
        return false;
    }
    s->pos++;
    skip_space(s);
    return true;
}

static bool is_token_char(char c) {
    return c > 0x20 && c < 0x7f && strchr("()<>@,;:\\\"/[]?={}", c) == NULL;
}

static bool take_token(scanner *s, slice *token) {
    token->start = s->pos;
    while (s->pos < s->end && is_token_char(*s->pos)) {
        s->pos++;
    }
    token->len = (size_t)(s->pos - token->start);
    return token->len > 0;
}

/* A token, or a token in quotes (RFC 6455, section 9.1). */
static bool take_value(scanner *s, slice *value) {
    if (s->pos == s->end || *s->pos != '"') {
        return take_token(s, value);
    }
    s->pos++;
    if (!take_token(s, value) || s->pos == s->end || *s->pos != '"') {
        return false;
    }
    s->pos++;
    return true;
}

static bool is(const slice *token, const char *text) {
    return token->len == strlen(text) && memcmp(token->start, text, token->len) == 0;
}

/* The number of bits that a parameter names: 8 to 15, or 0 when it is none. */
static unsigned bits_of(const slice *value) {
    if (value->len == 1 && (value->start[0] == '8' || value->start[0] == '9')) {
        return (unsigned)(value->start[0] - '0');
    }
    if (value->len == 2 && value->start[0] == '1' && value->start[1] >= '0' && value->start[1] <= '5') {
        return 10u + (unsigned)(value->start[1] - '0');
    }
    return 0;
}

enum { SEEN_SERVER_BITS = 1, SEEN_CLIENT_BITS = 2, SEEN_SERVER_RESET = 4, SEEN_CLIENT_RESET = 8 };

/* Apply one parameter of an offer. False when the offer must be declined (RFC 7692, section 7.1). */
static bool apply_parameter(bolide_deflate_params *p, const slice *name, const slice *value, unsigned *seen) {
    unsigned bits = value->start != NULL ? bits_of(value) : 0, flag;
    if (is(name, "server_no_context_takeover") && value->start == NULL) {
        flag = SEEN_SERVER_RESET;
        p->server_no_context_takeover = true;
    } else if (is(name, "client_no_context_takeover") && value->start == NULL) {
        flag = SEEN_CLIENT_RESET;
        p->client_no_context_takeover = true;
    } else if (is(name, "server_max_window_bits") && bits >= MIN_BITS) {
        flag = SEEN_SERVER_BITS;
        p->server_bits = bits < p->server_bits ? (uint8_t)bits : p->server_bits;
    } else if (is(name, "client_max_window_bits") && (value->start == NULL || bits != 0)) {
        flag = SEEN_CLIENT_BITS;
        p->told_client = true;
        p->client_bits = bits == 0 || bits > CLIENT_BITS ? CLIENT_BITS : (uint8_t)bits;
    } else {
        return false;
    }
    bool again = (*seen & flag) != 0;
    *seen |= flag;
    return !again;
}

int bolide_deflate_negotiate(const char *value, size_t len, bolide_deflate_params *params) {
    scanner s = {value, value + len};
    bool found = false;
    do {
        slice name;
        skip_space(&s);
        if (s.pos == s.end || *s.pos == ',') {
            continue; /* an empty element of the list */
        }
        if (!take_token(&s, &name)) {
            return -1;
        }
        bool acceptable = is(&name, "permessage-deflate");
        bolide_deflate_params offer = {.enabled = true, .server_bits = SERVER_BITS, .client_bits = MAX_BITS};
        unsigned seen = 0;
        while (take(&s, ';')) {
            slice parameter, argument = {NULL, 0};
            if (!take_token(&s, &parameter) || (take(&s, '=') && !take_value(&s, &argument))) {
                return -1;
            }
            acceptable = acceptable && apply_parameter(&offer, &parameter, &argument, &seen);
        }
        if (acceptable && !found) {
            *params = offer;
            found = true;
        }
    } while (take(&s, ','));
    return s.pos == s.end ? found : -1;
}

static char *put(char *out, const char *text) {
    size_t len = strlen(text);
    memcpy(out, text, len);
    return out + len;
}

static char *put_bits(char *out, unsigned bits) {
    if (bits >= 10) {
        *out++ = '1';
    }
    *out++ = (char)('0' + bits % 10);
    return out;
}

size_t bolide_deflate_response(const bolide_deflate_params *params, char *out) {
    char *pos = put(out, "permessage-deflate");
    if (params->server_no_context_takeover) {
        pos = put(pos, "; server_no_context_takeover");
    }
    if (params->client_no_context_takeover) {
        pos = put(pos, "; client_no_context_takeover");
    }
    if (params->server_bits < MAX_BITS) {
        pos = put_bits(put(pos, "; server_max_window_bits="), params->server_bits);
    }
    if (params->told_client) {
        pos = put_bits(put(pos, "; client_max_window_bits="), params->client_bits);
    }
    return (size_t)(pos - out);
}

/* --- the streams --- */

bolide_deflate *bolide_deflate_new(const bolide_deflate_params *params) {
    bolide_deflate *d = calloc(1, sizeof(*d));
    if (d != NULL) {
        d->params = *params;
    }
    return d;
}

static void release_in(bolide_deflate *d) {
    if (d->in != NULL) {
        inflateEnd(d->in);
        free(d->in);
        d->in = NULL;
    }
}

static void release_out(bolide_deflate *d) {
    if (d->out != NULL) {
        deflateEnd(d->out);
        free(d->out);
        d->out = NULL;
    }
    d->out_used = false;
}

/* d->in, or NULL when there is no memory for it. */
static z_stream *need_in(bolide_deflate *d) {
    if (d->in == NULL && (d->in = calloc(1, sizeof(*d->in))) != NULL) {
        int bits = d->params.client_bits < MIN_BITS ? MIN_BITS : d->params.client_bits;
        if (inflateInit2(d->in, -bits) != Z_OK) {
            free(d->in);
            d->in = NULL;
        }
    }
    return d->in;
}

static z_stream *need_out(bolide_deflate *d) {
    if (d->out == NULL && (d->out = calloc(1, sizeof(*d->out))) != NULL &&
        deflateInit2(d->out, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -(int)d->params.server_bits, MEM_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        free(d->out);
        d->out = NULL;
    }
    return d->out;
}

void bolide_deflate_free(bolide_deflate *d) {
    if (d != NULL) {
        release_in(d);
        release_out(d);
        free(d);
    }
}

/* Run inflate() over [data, data + len) until it is used up and no output is left inside. */
static bolide_deflate_status inflate_all(bolide_deflate *d, const char *data, size_t len,
                                         const bolide_deflate_sink *sink) {
    z_stream *z = d->in;
    bool more = len > 0;
    while (more) {
        size_t part = len < STEP ? len : STEP, room;
        char *out = sink->room(sink->arg, 1, &room);
        if (out == NULL) {
            return BOLIDE_DEFLATE_REFUSED;
        }
        room = room < STEP ? room : STEP;
        z->next_in = (Bytef *)(uintptr_t)data;
        z->avail_in = (uInt)part;
        z->next_out = (Bytef *)out;
        z->avail_out = (uInt)room;
        int status = inflate(z, Z_SYNC_FLUSH);
        size_t used = part - z->avail_in, made = room - z->avail_out;
        if (made > 0 && !sink->wrote(sink->arg, made)) {
            return BOLIDE_DEFLATE_REFUSED;
        }
        data += used;
        len -= used;
        if (status == Z_STREAM_END) {
            /* A block with BFINAL: what follows begins a new stream with an empty window (RFC 7692, 7.2.3.5). */
            if (inflateReset(z) != Z_OK) {
                return BOLIDE_DEFLATE_CORRUPT;
            }
        } else if (status == Z_MEM_ERROR) {
            return BOLIDE_DEFLATE_MEMORY;
        } else if (status != Z_OK && status != Z_BUF_ERROR) {
            return BOLIDE_DEFLATE_CORRUPT;
        }
        /* No progress without more input: all is out. */
        more = len > 0 || z->avail_out == 0;
        if (used == 0 && made == 0 && status != Z_STREAM_END) {
            return len > 0 ? BOLIDE_DEFLATE_CORRUPT : BOLIDE_DEFLATE_OK;
        }
    }
    return BOLIDE_DEFLATE_OK;
}

bolide_deflate_status bolide_inflate_piece(bolide_deflate *d, const char *data, size_t len, bool last,
                                           const bolide_deflate_sink *sink) {
    static const char tail[] = {0x00, 0x00, (char)0xff, (char)0xff};
    if (need_in(d) == NULL) {
        return BOLIDE_DEFLATE_MEMORY;
    }
    bolide_deflate_status status = inflate_all(d, data, len, sink);
    if (status == BOLIDE_DEFLATE_OK && last) {
        status = inflate_all(d, tail, sizeof(tail), sink);
        if (d->params.client_no_context_takeover) {
            release_in(d);
        }
    }
    return status;
}

bolide_deflate_status bolide_deflate_message(bolide_deflate *d, const char *data, size_t len,
                                             const bolide_deflate_sink *sink) {
    z_stream *z = need_out(d);
    if (z == NULL) {
        return BOLIDE_DEFLATE_MEMORY;
    }
    bool more = true;
    d->out_used = true;
    while (more) {
        size_t part = len < STEP ? len : STEP, room;
        char *out = sink->room(sink->arg, 16, &room);
        if (out == NULL) {
            return BOLIDE_DEFLATE_REFUSED;
        }
        room = room < STEP ? room : STEP;
        z->next_in = (Bytef *)(uintptr_t)data;
        z->avail_in = (uInt)part;
        z->next_out = (Bytef *)out;
        z->avail_out = (uInt)room;
        int status = deflate(z, part < len ? Z_NO_FLUSH : Z_SYNC_FLUSH);
        if (status != Z_OK && status != Z_BUF_ERROR) {
            return BOLIDE_DEFLATE_MEMORY;
        }
        size_t used = part - z->avail_in;
        if (!sink->wrote(sink->arg, room - z->avail_out)) {
            return BOLIDE_DEFLATE_REFUSED;
        }
        data += used;
        len -= used;
        more = len > 0 || z->avail_out == 0;
    }
    if (d->params.server_no_context_takeover) {
        release_out(d);
    }
    return BOLIDE_DEFLATE_OK;
}

void bolide_deflate_forget(bolide_deflate *d) {
    if (d->out_used) {
        d->out_used = false;
        if (deflateReset(d->out) != Z_OK) {
            release_out(d);
        }
    }
}

const bolide_deflate_params *bolide_deflate_get_params(const bolide_deflate *d) {
    return &d->params;
}
