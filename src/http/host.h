/* Hosts as the Host field and absolute targets have them: RFC 3986, section 3.2, RFC 9110, section 7.2. */
#ifndef BOLIDE_HTTP_HOST_H
#define BOLIDE_HTTP_HOST_H

#include <stdbool.h>
#include <stddef.h>

/* Is it a host that is not empty, with an optional port up to 65535? */
bool bolide_is_host(const char *text, size_t len);

/* The authority of the target if that is in absolute form with the scheme http or https: its length, with the start in
 * *authority; 0 for every other target. */
size_t bolide_target_authority(const char *target, size_t len, const char **authority);

#endif
