/* Module state: everything that would otherwise be a global.
 *
 * One bolide_state lives in each imported instance of bolide._core (one per interpreter). Every object of ours reaches
 * it through its loop. Layers above common/ keep their own part behind an opaque pointer. */
#ifndef BOLIDE_COMMON_STATE_H
#define BOLIDE_COMMON_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/freelist.h"
#include "common/strings.h"

typedef struct bolide_state {
    /* The module holds one count, each loop another: an object torn down after its module (at interpreter exit) still
     * finds the state. */
    Py_ssize_t refs;

    /* Types, each made by its layer's bolide_*_init(). */
    PyTypeObject *LoopType;
    PyTypeObject *HandleType;
    PyTypeObject *TimerHandleType;
    PyTypeObject *StreamTransportType;
    PyTypeObject *SSLTransportType;
    PyTypeObject *TLSType;
    PyTypeObject *WindowType;
    PyTypeObject *TLSGuardType;
    PyTypeObject *SockOperationType;
    PyTypeObject *DatagramTransportType;

    /* Borrowed from asyncio and the standard library at import. */
    PyObject *asyncio_Future;               /* asyncio.Future */
    PyObject *asyncio_Task;                 /* asyncio.Task */
    PyObject *asyncio_tasks;                /* the namespace of asyncio.tasks */
    PyObject *asyncio_CancelledError;       /* asyncio.CancelledError */
    PyObject *asyncio_Handle;               /* asyncio.Handle */
    PyObject *asyncio_TimerHandle;          /* asyncio.TimerHandle */
    PyObject *asyncio_BufferedProtocol;     /* asyncio.BufferedProtocol */
    PyObject *asyncio_Transport;            /* asyncio.Transport */
    PyObject *asyncio_DatagramTransport;    /* asyncio.DatagramTransport */
    PyObject *asyncio_TransportSocket;      /* asyncio.trsock.TransportSocket */
    PyObject *asyncio_BaseEventLoop;        /* asyncio.BaseEventLoop */
    PyObject *asyncio_SelectorEventLoop;    /* asyncio.selector_events.BaseSelectorEventLoop */
    PyObject *asyncio_create_task;          /* asyncio.BaseEventLoop.create_task */
    PyObject *asyncio_format_callback;      /* asyncio.format_helpers._format_callback_source */
    PyObject *asyncio_format_handle;        /* asyncio.base_events._format_handle */
    PyObject *asyncio_extract_stack;        /* asyncio.format_helpers.extract_stack */
    PyObject *asyncio_SendfileMode;         /* asyncio.constants._SendfileMode */
    PyObject *asyncio_TRY_NATIVE;           /* asyncio.constants._SendfileMode.TRY_NATIVE */
    PyObject *asyncio_logger;               /* asyncio.log.logger */
    PyObject *asyncio_StreamReader;         /* asyncio.StreamReader */
    PyObject *asyncio_StreamReaderProtocol; /* asyncio.StreamReaderProtocol */
    PyObject *asyncio_feed_data;            /* asyncio.StreamReader.feed_data */
    PyObject *asyncio_data_received;        /* asyncio.StreamReaderProtocol.data_received */
    PyObject *ssl_SSLSocket;                /* ssl.SSLSocket, or an empty tuple in a Python without ssl */
    PyObject *socket_socket;                /* socket.socket */
    PyObject *empty_bytes;                  /* b"" */
    PyObject *zero;                         /* 0 */
    PyObject *loop_names;                   /* ("loop",): keyword names of a call */

    /* Of the ssl module, imported with the first TLS connection; NULL before. */
    PyObject *ssl_MemoryBIO;
    PyObject *ssl_SSLContext;
    PyObject *ssl_SSLObject;
    PyObject *ssl_implementation; /* _ssl._SSLSocket: what drives OpenSSL for an SSLObject */
    PyObject *ssl_SSLWantReadError;
    PyObject *ssl_SSLSyscallError;
    PyObject *ssl_SSLZeroReturnError;

#define BOLIDE_STR(name) PyObject *str_##name;
    BOLIDE_STRINGS(BOLIDE_STR)
#undef BOLIDE_STR

    struct bolide_asgi_state *asgi; /* the server's part; NULL until its init has run */

    struct bolide_handle *free_handles[2]; /* memory for Handle and for TimerHandle, linked through `loop` */
    int free_handle_count;                 /* of both */
    int handle_nesting;                    /* handles whose deallocation is under way, one within the other */
    struct bolide_handle *doomed_handles;  /* dead ones whose deallocation waits for that to end */

    void (*clear)(struct bolide_state *st);
} bolide_state;

/* The state of `module` (an instance of bolide._core); NULL before bolide_state_new(). */
static inline bolide_state *bolide_state_of(PyObject *module) {
    return *(bolide_state **)PyModule_GetState(module);
}

/* The state reached from a heap type of ours or a subclass of one; NULL with TypeError set when `type` is neither. */
bolide_state *bolide_state_of_type(PyTypeObject *type);

extern struct PyModuleDef bolide_module_def;

/* Allocate the state of `module` and fill the strings and the borrowed objects; `clear` is called for the last count.
 * NULL with an exception set on failure. */
bolide_state *bolide_state_new(PyObject *module, void (*clear)(bolide_state *st));
void bolide_state_retain(bolide_state *st);
void bolide_state_release(bolide_state *st);
int bolide_state_traverse(bolide_state *st, visitproc visit, void *arg);
void bolide_state_clear(bolide_state *st);

/* Make a heap type from `spec` with `bases` (a type, a tuple of types, or NULL), bind it to `module` and store it in
 * *slot; `publish` also makes it an attribute of the module. 0, or -1 with an exception set. */
int bolide_add_type(PyObject *module, PyType_Spec *spec, PyObject *bases, PyTypeObject **slot, bool publish);

#endif
