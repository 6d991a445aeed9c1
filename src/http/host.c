#include "http/host.h"

#include <string.h>
#include <uv.h>

#include "http/hash.h"

/* Longer than any IPv6 address as text. */
#define ADDRESS_MAX 46

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* RFC 3986, section 2.3: unreserved, and sub-delims less the comma, which would be a list of hosts. */
static bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~!$&'()*+;=", c) != NULL);
}

/* A registered name or an IPv4 address. */
static bool is_name(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '%') {
            if (len - i < 3 || !is_hex(text[i + 1]) || !is_hex(text[i + 2])) {
                return false;
            }
            i += 2;
        } else if (!is_plain(text[i])) {
            return false;
        }
    }
    return len > 0;
}

/* "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ) */
static bool is_future_address(const char *text, size_t len) {
    size_t i = 1;
    while (i < len && is_hex(text[i])) {
        i++;
    }
    if (i == 1 || i + 1 >= len || text[i] != '.') {
        return false;
    }
    for (i++; i < len; i++) {
        if (text[i] != ':' && !is_plain(text[i])) {
            return false;
        }
    }
    return true;
}

/* What stands between brackets. */
static bool is_address(const char *text, size_t len) {
    char buf[ADDRESS_MAX], address[16];
    if (len > 0 && (text[0] | 0x20) == 'v') {
        return is_future_address(text, len);
    }
    /* uv_inet_pton() takes zones, "%eth0", which have no place here. */
    if (len == 0 || len >= sizeof(buf) || memchr(text, '%', len) != NULL || memchr(text, '\0', len) != NULL) {
        return false;
    }
    memcpy(buf, text, len);
    buf[len] = '\0';
    return uv_inet_pton(AF_INET6, buf, address) == 0;
}

/* Nothing, or a colon and digits. */
static bool is_port(const char *text, size_t len) {
    unsigned port = 0;
    if (len > 0 && text[0] != ':') {
        return false;
    }
    for (size_t i = 1; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        port = port * 10 + (unsigned)(text[i] - '0');
        if (port > 65535) {
            return false;
        }
    }
    return true;
}

bool bolide_is_host(const char *text, size_t len) {
    if (len > 0 && text[0] == '[') {
        const char *end = memchr(text, ']', len);
        return end != NULL && is_address(text + 1, (size_t)(end - text) - 1) &&
               is_port(end + 1, (size_t)(text + len - end) - 1);
    }
    const char *colon = memchr(text, ':', len);
    size_t name_len = colon != NULL ? (size_t)(colon - text) : len;
    return is_name(text, name_len) && is_port(text + name_len, len - name_len);
}

size_t bolide_target_authority(const char *target, size_t len, const char **authority) {
    size_t start = 0;
    if (target[0] == '/') {
        return 0;
    }
    if (len > 7 && bolide_equal_folded(target, "http://", 7)) {
        start = 7;
    } else if (len > 8 && bolide_equal_folded(target, "https://", 8)) {
        start = 8;
    } else {
        return 0;
    }
    size_t end = start;
    while (end < len && target[end] != '/' && target[end] != '?' && target[end] != '#') {
        end++;
    }
    *authority = target + start;
    return end - start;
}
