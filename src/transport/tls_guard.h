/* What the user of a TLS transport's SSLObject finds behind it. Anybody can get that object, from get_extra_info() or a
 * callback of the context, and call it at any time and from any thread; but it works on BIOs that all TLS streams of
 * the loop share, in which the bytes of another stream may be. So `_sslobj` of the SSLObject is a guard. What tells of
 * the connection it passes on; what reads or writes goes through the stream, when no other is at work, or not at all.
 */
#ifndef BOLIDE_TRANSPORT_TLS_GUARD_H
#define BOLIDE_TRANSPORT_TLS_GUARD_H

#include "transport/tls.h"

/* Put one between tls->object and tls->raw. 0, or -1 with an exception set. */
int bolide_tls_guard_put(bolide_tls *tls);

/* The stream is closed. `guard` may be NULL. */
void bolide_tls_guard_forget(PyObject *guard);

int bolide_tls_guard_init(PyObject *module, bolide_state *st);

#endif
