#include "http/batch.h"

#include <string.h>

#include "http/connection.h"

/* Each piece begins in a cache line of its own. */
#define LINE 64u

bolide_batch *bolide_batch_new(void) {
    bolide_batch *batch = PyMem_RawMalloc(sizeof(*batch));
    if (batch == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    batch->read_count = batch->start_count = 0;
    batch->used = 0;
    batch->parsing = batch->running = false;
    return batch;
}

void bolide_batch_free(bolide_batch *batch) {
    PyMem_RawFree(batch);
}

bool bolide_batch_add(bolide_conn *c, const char *data, size_t len) {
    bolide_batch *batch = c->http->batch;
    if (len > BOLIDE_BATCH_PIECE || batch->running || !bolide_http_gather(c->http)) {
        return false;
    }
    /* There is room: what is full has been worked off. */
    memcpy(batch->data + batch->used, data, len);
    batch->reads[batch->read_count++] = (bolide_batch_read){c, batch->used, (uint32_t)len};
    batch->used += ((uint32_t)len + LINE - 1) & ~(LINE - 1);
    c->flags |= BOLIDE_CONN_QUEUED;
    if (batch->read_count == BOLIDE_BATCH_MAX || BOLIDE_BATCH_BYTES - batch->used < BOLIDE_BATCH_PIECE) {
        bolide_batch_run(c->http);
    }
    return true;
}

bool bolide_batch_start_later(bolide_conn *c) {
    bolide_batch *batch = c->http->batch;
    if (batch == NULL || !batch->parsing) {
        return false;
    }
    batch->starts[batch->start_count++] = c; /* at most one for each read */
    return true;
}

void bolide_batch_run(bolide_http *http) {
    bolide_batch *batch = http->batch;
    if (batch->running) {
        return;
    }
    PyObject *owner = Py_NewRef(http->owner);
    batch->running = batch->parsing = true;
    for (unsigned i = 0; i < batch->read_count; i++) {
        const bolide_batch_read *read = &batch->reads[i];
        read->conn->flags &= ~(unsigned)BOLIDE_CONN_QUEUED;
        bolide_conn_input(read->conn, batch->data + read->at, read->len);
    }
    batch->parsing = false;
    for (unsigned i = 0; i < batch->start_count; i++) {
        bolide_conn_start(batch->starts[i]);
    }
    batch->read_count = batch->start_count = 0;
    batch->used = 0;
    batch->running = false;
    Py_DECREF(owner);
}
