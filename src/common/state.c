#include "common/state.h"

typedef struct {
    const char *module;
    const char *name;
    size_t slot; /* offset of the PyObject * in bolide_state */
} import_spec;

#define SLOT(field) offsetof(bolide_state, field)
static const import_spec IMPORTS[] = {
    {"asyncio", "Future", SLOT(asyncio_Future)},
    {"asyncio", "Task", SLOT(asyncio_Task)},
    {"asyncio.tasks", "__dict__", SLOT(asyncio_tasks)},
    {"asyncio", "CancelledError", SLOT(asyncio_CancelledError)},
    {"asyncio", "Handle", SLOT(asyncio_Handle)},
    {"asyncio", "TimerHandle", SLOT(asyncio_TimerHandle)},
    {"asyncio", "BufferedProtocol", SLOT(asyncio_BufferedProtocol)},
    {"asyncio", "Transport", SLOT(asyncio_Transport)},
    {"asyncio", "DatagramTransport", SLOT(asyncio_DatagramTransport)},
    {"asyncio.trsock", "TransportSocket", SLOT(asyncio_TransportSocket)},
    {"asyncio", "BaseEventLoop", SLOT(asyncio_BaseEventLoop)},
    {"asyncio.selector_events", "BaseSelectorEventLoop", SLOT(asyncio_SelectorEventLoop)},
    {"asyncio.format_helpers", "_format_callback_source", SLOT(asyncio_format_callback)},
    {"asyncio.base_events", "_format_handle", SLOT(asyncio_format_handle)},
    {"asyncio.format_helpers", "extract_stack", SLOT(asyncio_extract_stack)},
    {"asyncio.constants", "_SendfileMode", SLOT(asyncio_SendfileMode)},
    {"asyncio", "StreamReader", SLOT(asyncio_StreamReader)},
    {"asyncio", "StreamReaderProtocol", SLOT(asyncio_StreamReaderProtocol)},
    {"asyncio.log", "logger", SLOT(asyncio_logger)},
    {"socket", "socket", SLOT(socket_socket)},
};
#undef SLOT

static int import_attribute(bolide_state *st, const import_spec *spec) {
    PyObject *module = PyImport_ImportModule(spec->module);
    if (module == NULL) {
        return -1;
    }
    PyObject *value = PyObject_GetAttrString(module, spec->name);
    Py_DECREF(module);
    *(PyObject **)((char *)st + spec->slot) = value;
    return value == NULL ? -1 : 0;
}

static int fill(bolide_state *st) {
#define BOLIDE_STR(name)                                                                                               \
    st->str_##name = PyUnicode_InternFromString(#name);                                                                \
    if (st->str_##name == NULL) {                                                                                      \
        return -1;                                                                                                     \
    }
    BOLIDE_STRINGS(BOLIDE_STR)
#undef BOLIDE_STR
    st->empty_bytes = PyBytes_FromStringAndSize(NULL, 0);
    st->zero = PyLong_FromLong(0);
    if (st->empty_bytes == NULL || st->zero == NULL) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(IMPORTS) / sizeof(IMPORTS[0]); i++) {
        if (import_attribute(st, &IMPORTS[i]) < 0) {
            return -1;
        }
    }
    static const import_spec ssl_socket = {"ssl", "SSLSocket", offsetof(bolide_state, ssl_SSLSocket)};
    if (import_attribute(st, &ssl_socket) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_ImportError)) {
            return -1;
        }
        PyErr_Clear();
        st->ssl_SSLSocket = PyTuple_New(0);
    }
    st->asyncio_create_task = PyObject_GetAttrString(st->asyncio_BaseEventLoop, "create_task");
    st->asyncio_TRY_NATIVE = PyObject_GetAttrString(st->asyncio_SendfileMode, "TRY_NATIVE");
    st->asyncio_feed_data = PyObject_GetAttrString(st->asyncio_StreamReader, "feed_data");
    st->asyncio_data_received = PyObject_GetAttrString(st->asyncio_StreamReaderProtocol, "data_received");
    st->loop_names = PyTuple_Pack(1, st->str_loop);
    return st->asyncio_create_task == NULL || st->asyncio_TRY_NATIVE == NULL || st->asyncio_feed_data == NULL ||
                   st->asyncio_data_received == NULL || st->loop_names == NULL
               ? -1
               : 0;
}

bolide_state *bolide_state_new(PyObject *module, void (*clear)(bolide_state *st)) {
    bolide_state *st = PyMem_RawCalloc(1, sizeof(bolide_state));
    if (st == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    st->refs = 1;
    st->clear = clear;
    *(bolide_state **)PyModule_GetState(module) = st; /* owned by the module from here on, also when filling fails */
    return fill(st) < 0 ? NULL : st;
}

void bolide_state_retain(bolide_state *st) {
    st->refs++;
}

void bolide_state_release(bolide_state *st) {
    if (--st->refs == 0) {
        st->clear(st);
        PyMem_RawFree(st->asgi);
        PyMem_RawFree(st);
    }
}

int bolide_state_traverse(bolide_state *st, visitproc visit, void *arg) {
    Py_VISIT(st->LoopType);
    Py_VISIT(st->HandleType);
    Py_VISIT(st->TimerHandleType);
    Py_VISIT(st->StreamTransportType);
    Py_VISIT(st->SSLTransportType);
    Py_VISIT(st->TLSType);
    Py_VISIT(st->WindowType);
    Py_VISIT(st->TLSGuardType);
    Py_VISIT(st->ssl_MemoryBIO);
    Py_VISIT(st->ssl_SSLContext);
    Py_VISIT(st->ssl_SSLObject);
    Py_VISIT(st->ssl_implementation);
    Py_VISIT(st->ssl_SSLWantReadError);
    Py_VISIT(st->ssl_SSLSyscallError);
    Py_VISIT(st->ssl_SSLZeroReturnError);
    Py_VISIT(st->SockOperationType);
    Py_VISIT(st->DatagramTransportType);
    for (size_t i = 0; i < sizeof(IMPORTS) / sizeof(IMPORTS[0]); i++) {
        Py_VISIT(*(PyObject **)((char *)st + IMPORTS[i].slot));
    }
    Py_VISIT(st->asyncio_create_task);
    Py_VISIT(st->asyncio_feed_data);
    Py_VISIT(st->asyncio_data_received);
    Py_VISIT(st->ssl_SSLSocket);
    Py_VISIT(st->asyncio_TRY_NATIVE);
    return 0;
}

void bolide_state_clear(bolide_state *st) {
    Py_CLEAR(st->LoopType);
    Py_CLEAR(st->HandleType);
    Py_CLEAR(st->TimerHandleType);
    Py_CLEAR(st->StreamTransportType);
    Py_CLEAR(st->SSLTransportType);
    Py_CLEAR(st->TLSType);
    Py_CLEAR(st->WindowType);
    Py_CLEAR(st->TLSGuardType);
    Py_CLEAR(st->ssl_MemoryBIO);
    Py_CLEAR(st->ssl_SSLContext);
    Py_CLEAR(st->ssl_SSLObject);
    Py_CLEAR(st->ssl_implementation);
    Py_CLEAR(st->ssl_SSLWantReadError);
    Py_CLEAR(st->ssl_SSLSyscallError);
    Py_CLEAR(st->ssl_SSLZeroReturnError);
    Py_CLEAR(st->SockOperationType);
    Py_CLEAR(st->DatagramTransportType);
    for (size_t i = 0; i < sizeof(IMPORTS) / sizeof(IMPORTS[0]); i++) {
        Py_CLEAR(*(PyObject **)((char *)st + IMPORTS[i].slot));
    }
    Py_CLEAR(st->asyncio_create_task);
    Py_CLEAR(st->asyncio_feed_data);
    Py_CLEAR(st->asyncio_data_received);
    Py_CLEAR(st->loop_names);
    Py_CLEAR(st->ssl_SSLSocket);
    Py_CLEAR(st->asyncio_TRY_NATIVE);
    Py_CLEAR(st->empty_bytes);
    Py_CLEAR(st->zero);
#define BOLIDE_STR(name) Py_CLEAR(st->str_##name);
    BOLIDE_STRINGS(BOLIDE_STR)
#undef BOLIDE_STR
}

bolide_state *bolide_state_of_type(PyTypeObject *type) {
    PyObject *module = PyType_GetModuleByDef(type, &bolide_module_def);
    return module == NULL ? NULL : bolide_state_of(module);
}

int bolide_add_type(PyObject *module, PyType_Spec *spec, PyObject *bases, PyTypeObject **slot, bool publish) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, bases);
    if (type == NULL) {
        return -1;
    }
    *slot = (PyTypeObject *)type;
    return publish ? PyModule_AddType(module, *slot) : 0;
}
