/* Input for asyncio's streams without a detour: what a plain StreamReaderProtocol would hand to feed_data() of a plain
 * StreamReader is put into the reader's buffer right away, large input by the read itself. As long as both methods are
 * asyncio's own, the effect is theirs. */
#ifndef BOLIDE_TRANSPORT_READER_H
#define BOLIDE_TRANSPORT_READER_H

#include "transport/transport.h"

/* Let the next read of up to `len` bytes go to the end of the reader's buffer: *buf tells where. False, without an
 * exception and with *buf as it was, when the protocol has no reader that this is good for. */
bool bolide_reader_alloc(bolide_transport *t, size_t len, uv_buf_t *buf);

/* The read that bolide_reader_alloc() prepared has found nothing. Harmless without one. */
void bolide_reader_undo(bolide_destination *into);

/* Feed the `len` bytes at `data`, which may be what bolide_reader_alloc() prepared, to the reader. 1: done; 0: the
 * protocol has no reader that this is good for; -1: an exception is set. */
int bolide_reader_feed(bolide_transport *t, const char *data, size_t len);

#endif
