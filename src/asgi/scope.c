#include "asgi/asgi.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "common/sockaddr.h"
#include "common/template.h"
#include "transport/tls.h"

/* Keys that an application may add to the scope of a WebSocket before it gets a table of its own, which is 1.3 KiB
 * more; Starlette sets six, FastAPI nine. There is room for so many until it is seen how many this application adds,
 * and never for more than the latter. */
#define SPARE_KEYS     10
#define SPARE_KEYS_MAX 14

/* What the scopes of WebSockets start as copies of: they may live for hours. 0, or -1 with an exception set. */
static int make_websocket_templates(bolide_server *server, PyObject *root_path, const char *scheme) {
    bolide_state *st = server->st;
    bolide_asgi_state *as = st->asgi;
    server->ws_asgi = PyDict_Copy(server->asgi);
    server->ws_denial = PyDict_New();
    if (server->ws_asgi == NULL || server->ws_denial == NULL) {
        return -1;
    }
    PyObject *extensions = Py_BuildValue("{O:O}", as->str_websocket_http_response, server->ws_denial);
    PyObject *scope = Py_BuildValue(
        "{O:O,O:O,O:O,O:O,O:O,O:s,O:O,O:O,O:O,O:O,O:O,O:O,O:O}", st->str_type, as->str_websocket, as->str_asgi, Py_None,
        as->str_http_version, as->str_http_1_1, as->str_server, Py_None, as->str_client, Py_None, as->str_scheme,
        scheme, as->str_root_path, root_path, as->str_path, Py_None, as->str_raw_path, Py_None, as->str_query_string,
        Py_None, as->str_headers, Py_None, as->str_subprotocols, Py_None, as->str_extensions, Py_None);
    int result = extensions == NULL || scope == NULL ? -1 : 0;
    if (result == 0 && server->state != NULL) {
        result = PyDict_SetItem(scope, as->str_state, Py_None);
    }
    if (result == 0) {
        server->ws_added_keys = -1;
        server->ws_scope = bolide_template_new(scope, SPARE_KEYS);
        server->ws_extensions = bolide_template_new(extensions, 1);
        result = server->ws_scope == NULL || server->ws_extensions == NULL ? -1 : 0;
    }
    Py_XDECREF(extensions);
    Py_XDECREF(scope);
    return result;
}

/* server->extensions anew: its dicts are shared by scopes until one of them is written into. 0, or -1 with an exception
 * set. */
static int make_extensions(bolide_server *server) {
    bolide_asgi_state *as = server->st->asgi;
    PyObject *extensions = Py_BuildValue("{O:{},O:{},O:{},O:{}}", as->str_early_hint, as->str_pathsend,
                                         as->str_response_trailers, as->str_zerocopysend);
    if (extensions == NULL || (!server->pathsend && PyDict_DelItem(extensions, as->str_pathsend) < 0)) {
        Py_XDECREF(extensions);
        return -1;
    }
    Py_XSETREF(server->extensions, extensions);
    return 0;
}

void bolide_scope_learn(bolide_server *server, PyObject *scope) {
    if (server->ws_scope == NULL) {
        return;
    }
    Py_ssize_t added = PyDict_GET_SIZE(scope) - PyDict_GET_SIZE(server->ws_scope);
    added = added < 0 ? 0 : added;
    if (added > SPARE_KEYS_MAX || (server->ws_added_keys >= 0 && added <= server->ws_added_keys)) {
        return;
    }
    PyObject *before = Py_NewRef(server->ws_scope), *template = bolide_template_new(before, added);
    Py_DECREF(before);
    if (template == NULL) {
        PyErr_Clear();
        return;
    }
    server->ws_added_keys = added;
    Py_SETREF(server->ws_scope, template);
}

int bolide_scope_init(bolide_server *server, PyObject *root_path, const char *scheme, const char *version) {
    bolide_state *st = server->st;
    bolide_asgi_state *as = st->asgi;
    PyObject *asgi = Py_BuildValue("{O:s,O:s}", as->str_version, version, as->str_spec_version, "2.5");
    if (asgi == NULL) {
        return -1;
    }
    server->asgi = bolide_template_new(asgi, 1);
    Py_DECREF(asgi);
    if (server->asgi == NULL || make_extensions(server) < 0) {
        return -1;
    }
    /* Every key is there from the start, in the order of the specification: setting one later changes no more than a
     * value. */
    server->scope =
        Py_BuildValue("{O:O,O:O,O:O,O:O,O:O,O:s,O:O,O:O,O:O,O:O,O:O,O:O,O:O}", st->str_type, as->str_http, as->str_asgi,
                      Py_None, as->str_http_version, as->str_http_1_1, as->str_server, Py_None, as->str_client, Py_None,
                      as->str_scheme, scheme, as->str_method, as->methods[HTTP_GET], as->str_root_path, root_path,
                      as->str_path, Py_None, as->str_raw_path, Py_None, as->str_query_string, Py_None, as->str_headers,
                      Py_None, as->str_extensions, Py_None);
    if (server->scope == NULL) {
        return -1;
    }
    const char *ws_scheme = strcmp(scheme, "https") == 0 ? "wss" : strcmp(scheme, "http") == 0 ? "ws" : scheme;
    if (make_websocket_templates(server, root_path, ws_scheme) < 0) {
        return -1;
    }
    return server->state != NULL ? PyDict_SetItem(server->scope, as->str_state, Py_None) : 0;
}

/* An address as ASGI has it: (host, port), or (path, None) of a Unix socket. New reference, or NULL with an exception
 * set. */
static PyObject *address_pair(const struct sockaddr *address, socklen_t len) {
    PyObject *object = bolide_sockaddr_object(address, len);
    if (object != NULL && PyTuple_Check(object) && PyTuple_GET_SIZE(object) > 2) {
        Py_SETREF(object, PyTuple_GetSlice(object, 0, 2));
    } else if (object != NULL && PyUnicode_Check(object)) {
        Py_SETREF(object, PyTuple_Pack(2, object, Py_None));
    } else if (object != NULL && !PyTuple_Check(object)) {
        Py_SETREF(object, Py_NewRef(Py_None));
    }
    return object;
}

static bool is_loopback(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET) {
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    }
    return address->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* c->client. Behind a proxy all clients have one host: they share its str. 0, or -1 with an exception set. */
static int find_client(bolide_server *server, bolide_conn *c) {
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    if ((c->flags & BOLIDE_CONN_UNIX) != 0 ||
        getpeername(bolide_stream_fileno(&c->stream), (struct sockaddr *)&address, &len) != 0) {
        c->client = Py_NewRef(Py_None);
    } else {
        c->flags |= is_loopback(&address) ? BOLIDE_CONN_LOCAL : 0u;
        c->client = address_pair((struct sockaddr *)&address, len);
    }
    if (c->client == NULL) {
        return -1;
    }
    if (PyTuple_Check(c->client)) {
        PyObject *host = PyTuple_GET_ITEM(c->client, 0);
        if (server->client_host != NULL && PyUnicode_Compare(host, server->client_host) == 0) {
            PyTuple_SET_ITEM(c->client, 0, Py_NewRef(server->client_host));
            Py_DECREF(host);
        } else {
            Py_XSETREF(server->client_host, Py_NewRef(host));
        }
    }
    return 0;
}

/* c->server: mostly the same as for the connection before. 0, or -1 with an exception set. */
static int find_server(bolide_server *server, bolide_conn *c) {
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    if (getsockname(bolide_stream_fileno(&c->stream), (struct sockaddr *)&address, &len) != 0) {
        c->server = Py_NewRef(Py_None);
        return 0;
    }
    if (server->server_name == NULL || memcmp(&address, &server->server_address, sizeof(address)) != 0) {
        PyObject *name = address_pair((struct sockaddr *)&address, len);
        if (name == NULL) {
            return -1;
        }
        server->server_address = address;
        Py_XSETREF(server->server_name, name);
    }
    c->server = Py_NewRef(server->server_name);
    return 0;
}

/* A copy of a dict of the server's that may be replaced meanwhile, when memory is collected. */
static PyObject *copy_shared(PyObject *dict) {
    Py_INCREF(dict);
    PyObject *copy = PyDict_Copy(dict);
    Py_DECREF(dict);
    return copy;
}

/* scope[key] = a copy of `dict`. */
static int set_copy(PyObject *scope, PyObject *key, PyObject *dict) {
    PyObject *copy = copy_shared(dict);
    if (copy == NULL) {
        return -1;
    }
    int result = PyDict_SetItem(scope, key, copy);
    Py_DECREF(copy);
    return result;
}

/* Has `copy` what `dict` has? -1 with an exception set. */
static int is_unchanged(PyObject *copy, PyObject *dict) {
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    bool same = PyDict_GET_SIZE(copy) == PyDict_GET_SIZE(dict);
    while (same && PyDict_Next(dict, &pos, &key, &value)) {
        same = PyDict_GetItemWithError(copy, key) == value;
    }
    return PyErr_Occurred() ? -1 : same;
}

/* scope[key] = *shared, which scopes that may live for hours have in common. It tells of the server, and nobody writes
 * into it; should somebody do so, further ones get a new copy of `dict` (NULL: empty). 0, or -1 with an exception set.
 */
static int set_shared(PyObject *scope, PyObject *key, PyObject **shared, PyObject *dict) {
    int unchanged = dict != NULL ? is_unchanged(*shared, dict) : PyDict_GET_SIZE(*shared) == 0;
    if (unchanged == 0) {
        PyObject *copy = dict != NULL ? PyDict_Copy(dict) : PyDict_New();
        if (copy == NULL) {
            return -1;
        }
        Py_SETREF(*shared, copy);
    }
    return unchanged >= 0 ? PyDict_SetItem(scope, key, *shared) : -1;
}

/* scope["extensions"] of a request that is no WebSocket's: a dict of its own. What stands in there is shared until some
 * application has written into it. 0, or -1 with an exception set. */
static int set_extensions(bolide_server *server, PyObject *scope) {
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (PyDict_Next(server->extensions, &pos, &key, &value)) {
        if (PyDict_GET_SIZE(value) == 0) {
            continue;
        }
        if (make_extensions(server) < 0) {
            return -1;
        }
        break;
    }
    return set_copy(scope, server->st->asgi->str_extensions, server->extensions);
}

/* The list for scope["subprotocols"]: one for all WebSockets whose clients offer none, until somebody writes into it.
 * Borrowed. */
static PyObject *share_subprotocols(bolide_server *server, PyObject *subprotocols) {
    if (PyList_GET_SIZE(subprotocols) > 0) {
        return subprotocols;
    }
    if (server->ws_subprotocols == NULL || PyList_GET_SIZE(server->ws_subprotocols) > 0) {
        Py_XSETREF(server->ws_subprotocols, Py_NewRef(subprotocols));
    }
    return server->ws_subprotocols;
}

/* The items that the scope of a WebSocket has besides. */
static int set_websocket_items(bolide_request *r, PyObject *scope, PyObject *subprotocols) {
    bolide_server *server = r->server;
    bolide_asgi_state *as = bolide_asgi_of(r);
    PyObject *extensions = PyDict_Copy(server->ws_extensions);
    int result = -1;
    if (extensions != NULL && set_shared(extensions, as->str_websocket_http_response, &server->ws_denial, NULL) == 0 &&
        set_shared(scope, as->str_asgi, &server->ws_asgi, server->asgi) == 0 &&
        PyDict_SetItem(scope, as->str_extensions, extensions) == 0) {
        result = PyDict_SetItem(scope, as->str_subprotocols, share_subprotocols(server, subprotocols));
    }
    Py_XDECREF(extensions);
    return result;
}

/* A copy of `template` with the target in it. New reference, or NULL with an exception set. */
static PyObject *scope_of_target(bolide_server *server, PyObject *template, const bolide_target *target) {
    bolide_asgi_state *as = server->st->asgi;
    PyObject *scope = copy_shared(template);
    if (scope != NULL && (PyDict_SetItem(scope, as->str_path, target->path) < 0 ||
                          PyDict_SetItem(scope, as->str_raw_path, target->raw_path) < 0 ||
                          PyDict_SetItem(scope, as->str_query_string, target->query) < 0)) {
        Py_CLEAR(scope);
    }
    return scope;
}

/* The same for the request; `cached`, when not NULL, is where a scope stands for a target that comes again. */
static PyObject *new_scope(bolide_request *r, const bolide_target *target, PyObject **cached) {
    bolide_server *server = r->server;
    if (r->ws != NULL) {
        return scope_of_target(server, server->ws_scope, target);
    }
    if (cached == NULL) {
        return scope_of_target(server, server->scope, target);
    }
    if (*cached == NULL && (*cached = scope_of_target(server, server->scope, target)) == NULL) {
        return NULL;
    }
    return PyDict_Copy(*cached);
}

/* What is not in the template, or differs from it. 0, or -1 with an exception set. */
static int set_items(bolide_request *r, PyObject *scope, PyObject *headers) {
    bolide_server *server = r->server;
    bolide_asgi_state *as = server->st->asgi;
    if (PyDict_SetItem(scope, as->str_server, r->conn->server) < 0 ||
        PyDict_SetItem(scope, as->str_client, r->conn->client) < 0 ||
        PyDict_SetItem(scope, as->str_headers, headers) < 0) {
        return -1;
    }
    if (r->ws == NULL && (set_copy(scope, as->str_asgi, server->asgi) < 0 || set_extensions(server, scope) < 0)) {
        return -1;
    }
    if (r->ws == NULL && r->line.method != as->methods[HTTP_GET] &&
        PyDict_SetItem(scope, as->str_method, r->line.method) < 0) {
        return -1;
    }
    if (r->ws == NULL && r->response.http10 && PyDict_SetItem(scope, as->str_http_version, as->str_http_1_0) < 0) {
        return -1;
    }
    return server->state != NULL ? set_copy(scope, as->str_state, server->state) : 0;
}

/* What c->tls is to be. New reference, or NULL with an exception set. */
static PyObject *describe_tls(const bolide_server *server, const bolide_conn *c) {
    PyObject *object = Py_NewRef(c->stream.tls->object); /* the call may close the connection */
    PyObject *extension = PyObject_CallOneArg(server->tls_extension, object);
    Py_DECREF(object);
    if (extension != NULL && !PyDict_Check(extension)) {
        PyErr_SetString(PyExc_TypeError, "tls_extension must return a dict");
        Py_CLEAR(extension);
    }
    return extension;
}

/* scope["scheme"], and scope["extensions"]["tls"], which is made once a connection and copied for each request. */
static int set_tls(bolide_request *r, PyObject *scope) {
    bolide_asgi_state *as = bolide_asgi_of(r);
    bolide_conn *c = r->conn;
    if (PyDict_SetItem(scope, as->str_scheme, r->ws != NULL ? as->str_wss : as->str_https) < 0) {
        return -1;
    }
    if (r->server->tls_extension == NULL) {
        return 0;
    }
    if (c->tls == NULL && (c->tls = describe_tls(r->server, c)) == NULL) {
        return -1;
    }
    PyObject *extensions = PyObject_GetItem(scope, as->str_extensions); /* this scope's own */
    int result = extensions != NULL ? set_copy(extensions, as->str_tls, c->tls) : -1;
    Py_XDECREF(extensions);
    return result;
}

/* r->scope of its parts; `cached` as for new_scope(); `subprotocols` is for a WebSocket. 0, or -1 with an exception
 * set. */
static int make_scope(bolide_request *r, PyObject *headers, const bolide_target *target, PyObject **cached,
                      PyObject *subprotocols) {
    bolide_conn *c = r->conn;
    if ((c->client == NULL && find_client(r->server, c) < 0) || (c->server == NULL && find_server(r->server, c) < 0)) {
        return -1;
    }
    PyObject *scope = new_scope(r, target, cached);
    if (scope == NULL || set_items(r, scope, headers) < 0 ||
        (r->ws != NULL && set_websocket_items(r, scope, subprotocols) < 0) ||
        (c->stream.tls != NULL && set_tls(r, scope) < 0)) {
        Py_XDECREF(scope);
        return -1;
    }
    r->scope = scope;
    if (target->logged != NULL) {
        bolide_request_line *line = bolide_request_get_line(r);
        line->target = Py_NewRef(target->logged);
        line->client = Py_NewRef(c->client);
    }
    return 0;
}

/* scope["method"]. New reference, or NULL with an exception set. */
static PyObject *method_of(const bolide_server *server, const bolide_conn *c, const bolide_head *head) {
    if ((c->flags & BOLIDE_CONN_OTHER_METHOD) == 0) {
        return Py_NewRef(server->st->asgi->methods[c->exchange->parser.method]);
    }
    size_t len;
    const char *method = bolide_head_method(head, &len);
    return PyUnicode_DecodeASCII(method, (Py_ssize_t)len, NULL);
}

int bolide_scope_build(bolide_request **request, const bolide_head *head, bolide_head_facts *facts) {
    bolide_request *r = *request;
    bolide_http *http = &r->server->http;
    bolide_conn *c = r->conn;
    if ((r->line.method = method_of(r->server, c, head)) == NULL) {
        return -1;
    }
    r->response.http10 = (c->flags & BOLIDE_CONN_HTTP10) != 0;
    r->response.head = c->exchange->parser.method == HTTP_HEAD;
    PyObject *headers = bolide_head_fields(http, head, facts);
    if (headers == NULL) {
        return -1;
    }
    PyObject *subprotocols = NULL;
    int status = bolide_head_check(c, head, facts);
    if (status == 0 && bolide_websocket_is_wanted(r->server, c, facts)) {
        status = bolide_websocket_new(request, headers, &subprotocols);
        r = *request;
    }
    if (status == 0) {
        bolide_target target;
        PyObject **cached;
        status = bolide_targets_parse(&http->targets, head->base + head->target, head->target_len,
                                      r->server->access_log != NULL || r->ws != NULL, &target, &cached);
        if (status == 0) {
            status = make_scope(r, headers, &target, cached, subprotocols);
            bolide_target_release(&target);
        }
    }
    Py_XDECREF(subprotocols);
    Py_DECREF(headers);
    return status;
}
