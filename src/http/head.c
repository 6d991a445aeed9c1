#include "http/head.h"

#include <string.h>

#include "http/connection.h"
#include "http/hash.h"
#include "http/host.h"

const char *bolide_head_method(const bolide_head *h, size_t *len) {
    const char *method = h->base;
    while (method[0] == '\r' && method[1] == '\n') {
        method += 2;
    }
    *len = (size_t)(h->base + h->target - method) - 1;
    return method;
}

static void see_host(bolide_http *http, PyObject *pair, const char *value, size_t len, bolide_head_facts *facts) {
    facts->hosts++;
    if (pair == http->good_host) {
        return;
    }
    if (bolide_is_host(value, len)) {
        Py_XSETREF(http->good_host, Py_NewRef(pair));
    } else {
        facts->bad_host = true;
    }
}

static void see_field(bolide_http *http, bolide_field_id id, PyObject *pair, const char *value, size_t len,
                      bolide_head_facts *facts) {
    switch (id) {
    case BOLIDE_FIELD_HOST:
        see_host(http, pair, value, len, facts);
        break;
    case BOLIDE_FIELD_FORWARDED:
        facts->forwarded = true;
        break;
    case BOLIDE_FIELD_TRANSFER_ENCODING:
        facts->codings++;
        facts->unknown_coding |= len != 7 || !bolide_equal_folded(value, "chunked", 7);
        break;
    case BOLIDE_FIELD_EXPECT:
        facts->expects_continue |= len == 12 && bolide_equal_folded(value, "100-continue", 12);
        break;
    case BOLIDE_FIELD_UPGRADE:
        facts->upgrade_websocket |= bolide_has_token(value, len, "websocket", 9);
        break;
    default:
        break;
    }
}

PyObject *bolide_head_fields(bolide_http *http, const bolide_head *head, bolide_head_facts *facts) {
    const char *authority;
    size_t authority_len = bolide_target_authority(head->base + head->target, head->target_len, &authority);
    memset(facts, 0, sizeof(*facts));
    PyObject *list = PyList_New(head->count);
    if (list == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < head->count; i++) {
        const bolide_field *f = &head->fields[i];
        const char *value = head->base + f->value;
        size_t len = f->value_len;
        while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t')) {
            len--;
        }
        if (authority_len > 0 && f->name_len == 4 && bolide_equal_folded(head->base + f->name, "host", 4) &&
            bolide_is_host(value, len)) {
            value = authority; /* an absolute target stands for the Host field: RFC 9112, section 3.2.2 */
            len = authority_len;
        }
        bolide_field_id id;
        PyObject *pair = bolide_headers_pair(&http->headers, head->base + f->name, f->name_len, value, len, &id);
        if (pair == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, i, pair);
        if (id != BOLIDE_FIELD_OTHER) {
            see_field(http, id, pair, value, len, facts);
        }
    }
    return list;
}

int bolide_head_check(const bolide_conn *c, const bolide_head *head, const bolide_head_facts *facts) {
    const char *authority;
    size_t len = bolide_target_authority(head->base + head->target, head->target_len, &authority);
    if (len > 0 && !bolide_is_host(authority, len)) {
        return 400;
    }
    bool http10 = (c->flags & BOLIDE_CONN_HTTP10) != 0;
    if (facts->bad_host || facts->hosts > 1 || (facts->hosts == 0 && !http10)) {
        return 400;
    }
    if (facts->codings > 0 && (http10 || facts->codings > 1)) {
        return 400;
    }
    return facts->unknown_coding ? 501 : 0;
}
