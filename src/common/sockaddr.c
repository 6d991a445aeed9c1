#include "common/sockaddr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

static PyObject *inet6_object(const struct sockaddr_in6 *address) {
    char host[NI_MAXHOST];
    /* getnameinfo() and not inet_ntop(): it appends the zone of a link-local address, as the socket module has it. */
    if (getnameinfo((const struct sockaddr *)address, sizeof(*address), host, sizeof(host), NULL, 0, NI_NUMERICHOST)) {
        host[0] = '\0';
    }
    return Py_BuildValue("(siII)", host, ntohs(address->sin6_port), ntohl(address->sin6_flowinfo),
                         (unsigned)address->sin6_scope_id);
}

static PyObject *unix_object(const struct sockaddr_un *address, socklen_t len) {
    size_t room = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;
    if (room > sizeof(address->sun_path)) {
        room = sizeof(address->sun_path);
    }
    if (room > 0 && address->sun_path[0] == '\0') {
        return PyBytes_FromStringAndSize(address->sun_path, (Py_ssize_t)room);
    }
    return PyUnicode_DecodeFSDefaultAndSize(address->sun_path, (Py_ssize_t)strnlen(address->sun_path, room));
}

PyObject *bolide_sockaddr_object(const struct sockaddr *address, socklen_t len) {
    if (len < sizeof(address->sa_family)) {
        Py_RETURN_NONE;
    }
    if (address->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        char host[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        return Py_BuildValue("(si)", host, ntohs(in->sin_port));
    }
    if (address->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
        return inet6_object((const struct sockaddr_in6 *)address);
    }
    if (address->sa_family == AF_UNIX) {
        return unix_object((const struct sockaddr_un *)address, len);
    }
    Py_RETURN_NONE;
}
