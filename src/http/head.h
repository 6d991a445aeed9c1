/* The head of a request, once it was parsed: its method, its fields as ASGI wants them, and whether they go together.
 */
#ifndef BOLIDE_HTTP_HEAD_H
#define BOLIDE_HTTP_HEAD_H

#include "common/state.h"

typedef struct bolide_conn bolide_conn;
typedef struct bolide_http bolide_http;

/* A header field: offsets from the base of the head. */
typedef struct {
    uint32_t name, name_len;
    uint32_t value, value_len;
} bolide_field;

/* The head of a request as it was parsed. */
typedef struct {
    const char *base; /* where offsets start: the read buffer, or `raw` of a split head */
    uint32_t target, target_len;
    uint32_t count;       /* of fields */
    uint32_t cap;         /* of `fields` */
    bool in_name;         /* the last field has no value yet */
    bolide_field *fields; /* `cap` of them, owned */
} bolide_head;

/* What the fields of a head say to the server. */
typedef struct {
    unsigned hosts;         /* fields of that name */
    unsigned codings;       /* transfer-encoding fields */
    bool bad_host;          /* one is empty or has characters that no host has */
    bool unknown_coding;    /* one is not "chunked" */
    bool expects_continue;  /* expect: 100-continue */
    bool upgrade_websocket; /* upgrade: websocket */
    bool forwarded;         /* x-forwarded-for or x-forwarded-proto are there */
} bolide_head_facts;

/* The method of `head`, of `*len` bytes. */
const char *bolide_head_method(const bolide_head *head, size_t *len);

/* The fields of `head` as a new list of (name, value) tuples, and what they say. NULL with an exception set. */
PyObject *bolide_head_fields(bolide_http *http, const bolide_head *head, bolide_head_facts *facts);

/* The status to refuse `head` with, which says `facts`, or 0. RFC 9112, sections 3.2 and 6.1. */
int bolide_head_check(const bolide_conn *c, const bolide_head *head, const bolide_head_facts *facts);

#endif
