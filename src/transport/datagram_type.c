#include "transport/datagram.h"

#include <string.h>
#include <structmember.h>

#include "common/arguments.h"
#include "common/sockaddr.h"
#include "transport/watermarks.h"
#include "transport/words.h"

#define LOST_WRITES_LOGGED 5

static PyObject *connection_lost(PyObject *self, PyObject *exception) {
    bolide_datagram *t = (bolide_datagram *)self;
    if (t->protocol == NULL) {
        Py_RETURN_NONE;
    }
    bolide_datagram_notify(t, t->loop->st->str_connection_lost, exception, NULL);
    bolide_datagram_close_descriptor(t);
    PyObject *result = PyObject_CallMethodNoArgs(t->sock, t->loop->st->str_close);
    Py_CLEAR(t->protocol);
    return result;
}

/* --- making one ------------------------------------------------------------------------------- */

/* connection_made(), then reading, then the waiter: the order that asyncio keeps. */
static PyObject *start(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_datagram *t = (bolide_datagram *)self;
    if (t->protocol == NULL) {
        Py_RETURN_NONE;
    }
    bolide_datagram_notify(t, t->loop->st->str_connection_made, self, NULL);
    if (!(t->flags & BOLIDE_DATAGRAM_LOST) && bolide_datagram_watch(t) < 0) {
        return NULL;
    }
    PyObject *waiter = t->waiter;
    t->waiter = NULL;
    if (waiter != NULL) {
        PyObject *done = PyObject_CallMethodNoArgs(waiter, t->loop->st->str_done);
        PyObject *result = done == Py_False ? PyObject_CallMethodOneArg(waiter, t->loop->st->str_set_result, Py_None)
                                            : Py_XNewRef(done);
        Py_XDECREF(done);
        Py_DECREF(waiter);
        return result;
    }
    Py_RETURN_NONE;
}

static int fill_extra(bolide_datagram *t, PyObject *extra) {
    bolide_state *st = t->loop->st;
    t->extra = PyDict_New();
    if (t->extra == NULL || (extra != Py_None && PyDict_Update(t->extra, extra) < 0)) {
        return -1;
    }
    PyObject *wrapped = PyObject_CallOneArg(st->asyncio_TransportSocket, t->sock);
    int failed = wrapped == NULL || PyDict_SetItem(t->extra, st->str_socket, wrapped) < 0;
    Py_XDECREF(wrapped);
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    if (!failed && getsockname(t->fd, (struct sockaddr *)&address, &len) == 0) {
        PyObject *name = bolide_sockaddr_object((struct sockaddr *)&address, len);
        failed = name == NULL || PyDict_SetItem(t->extra, st->str_sockname, name) < 0;
        Py_XDECREF(name);
    }
    len = sizeof(address);
    PyObject *peername = Py_NewRef(Py_None);
    if (!failed && getpeername(t->fd, (struct sockaddr *)&address, &len) == 0) {
        t->flags |= BOLIDE_DATAGRAM_CONNECTED;
        Py_SETREF(peername, bolide_sockaddr_object((struct sockaddr *)&address, len));
    }
    failed = failed || peername == NULL || PyDict_SetDefault(t->extra, st->str_peername, peername) == NULL;
    Py_XDECREF(peername);
    return failed ? -1 : 0;
}

static PyObject *make_datagram_transport(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"sock", "protocol", "address", "waiter", "extra", NULL};
    bolide_loop *loop = (bolide_loop *)self;
    PyObject *sock, *protocol, *address = Py_None, *waiter = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO:_make_datagram_transport", names, &sock, &protocol, &address,
                                     &waiter, &extra) ||
        bolide_loop_check_closed(loop) < 0) {
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(sock);
    PyObject *made = fd >= 0 ? PyObject_GetAttr(protocol, loop->st->str_connection_made) : NULL;
    Py_XDECREF(made); /* no protocol: known now, as in asyncio, and not when it is to be called */
    bolide_datagram *t = made != NULL ? PyObject_GC_New(bolide_datagram, loop->st->DatagramTransportType) : NULL;
    if (t == NULL) {
        return NULL;
    }
    memset((char *)t + sizeof(PyObject), 0, sizeof(*t) - sizeof(PyObject));
    t->loop = (bolide_loop *)Py_NewRef(loop);
    t->sock = Py_NewRef(sock);
    t->protocol = Py_NewRef(protocol);
    t->address = Py_NewRef(address);
    t->waiter = waiter != Py_None ? Py_NewRef(waiter) : NULL;
    t->fd = fd;
    t->poll_fd = -1;
    t->high_water = BOLIDE_DATAGRAM_HIGH_WATER;
    t->low_water = BOLIDE_DATAGRAM_HIGH_WATER / 4;
    t->context = PyContext_CopyCurrent();
    t->queue = PyList_New(0);
    if (t->context == NULL || t->queue == NULL || fill_extra(t, extra) < 0 || bolide_datagram_open(t) < 0) {
        t->flags |= BOLIDE_DATAGRAM_CLOSING;
        Py_DECREF(t);
        return NULL;
    }
    PyObject_GC_Track((PyObject *)t); /* now that those who find it may use it */
    PyObject *method = PyObject_GetAttrString((PyObject *)t, "_start");
    if (method == NULL || bolide_watchers_set_transport(loop, fd, (PyObject *)t) < 0 ||
        bolide_loop_schedule(loop, method, NULL, 0, NULL) < 0) {
        t->resource.close(&t->resource);
        Py_CLEAR(t);
    }
    Py_XDECREF(method);
    return (PyObject *)t;
}

PyMethodDef bolide_datagram_methods[] = {
    {"_make_datagram_transport", BOLIDE_KEYWORDS(make_datagram_transport), NULL},
    {NULL, NULL, 0, NULL},
};

/* --- methods ---------------------------------------------------------------------------------- */

/* The address to send to: the fixed one, if there is one. Borrowed; NULL with ValueError set. */
static PyObject *check_address(bolide_datagram *t, PyObject *address) {
    if (t->address == Py_None) {
        return address;
    }
    int same = address == Py_None ? 1 : PyObject_RichCompareBool(address, t->address, Py_EQ);
    if (same == 0) {
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S", t->address);
    }
    return same > 0 ? t->address : NULL;
}

/* The arguments of sendto(data, addr=None), borrowed. 0, or -1 with TypeError set. */
static int parse_sendto(PyObject *const *args, Py_ssize_t nargs, PyObject *names, PyObject **values) {
    static const char *const known[] = {"data", "addr"};
    if (nargs > 2) {
        PyErr_Format(PyExc_TypeError, "sendto() takes at most 2 arguments (%zd given)", nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        values[i] = args[i];
    }
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int place = PyUnicode_CompareWithASCIIString(name, known[0]) == 0   ? 0
                    : PyUnicode_CompareWithASCIIString(name, known[1]) == 0 ? 1
                                                                            : -1;
        if (place < nargs) {
            PyErr_Format(PyExc_TypeError,
                         place < 0 ? "sendto() got an unexpected keyword argument %R"
                                   : "sendto() got multiple values for argument %R",
                         name);
            return -1;
        }
        values[place] = args[nargs + i];
    }
    if (values[0] == NULL) {
        PyErr_SetString(PyExc_TypeError, "sendto() missing required argument 'data'");
        return -1;
    }
    return 0;
}

static PyObject *transport_sendto(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    bolide_datagram *t = (bolide_datagram *)self;
    PyObject *values[2] = {NULL, Py_None};
    if (parse_sendto(args, nargs, names, values) < 0) {
        return NULL;
    }
    PyObject *data = values[0], *address = values[1];
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        return bolide_refuse_data("_SelectorDatagramTransport", "sendto", data);
    }
    address = check_address(t, address);
    if (address == NULL) {
        return NULL;
    }
    /* As in asyncio, one without a remote address still tries until connection_lost() has closed its socket. */
    bool is_open = t->protocol != NULL && t->poll_fd >= 0;
    if ((t->flags & BOLIDE_DATAGRAM_LOST) && (!is_open || (t->flags & BOLIDE_DATAGRAM_CONNECTED))) {
        if (++t->lost_writes >= LOST_WRITES_LOGGED) { /* asyncio counts the loss itself too */
            return PyObject_CallMethod(t->loop->st->asyncio_logger, "warning", "s", "socket.send() raised exception.");
        }
        Py_RETURN_NONE;
    }
    Py_INCREF(t);
    int status = bolide_datagram_send(t, data, address);
    Py_DECREF(t);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *transport_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_datagram *t = (bolide_datagram *)self;
    if (!(t->flags & BOLIDE_DATAGRAM_CLOSING)) {
        t->flags |= BOLIDE_DATAGRAM_CLOSING;
        if (PyList_GET_SIZE(t->queue) == 0) {
            bolide_datagram_lose(t, NULL);
        } else if (bolide_datagram_watch(t) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *transport_abort(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_datagram_lose((bolide_datagram *)self, NULL);
    Py_RETURN_NONE;
}

static PyObject *log_reading(bolide_datagram *t, const char *format) {
    if (t->loop->debug) {
        return PyObject_CallMethod(t->loop->st->asyncio_logger, "debug", "sO", format, t);
    }
    Py_RETURN_NONE;
}

static PyObject *pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_datagram *t = (bolide_datagram *)self;
    if (t->flags & (BOLIDE_DATAGRAM_CLOSING | BOLIDE_DATAGRAM_PAUSED)) {
        Py_RETURN_NONE;
    }
    t->flags |= BOLIDE_DATAGRAM_PAUSED;
    return bolide_datagram_watch(t) < 0 ? NULL : log_reading(t, "%r pauses reading");
}

static PyObject *resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_datagram *t = (bolide_datagram *)self;
    if ((t->flags & BOLIDE_DATAGRAM_CLOSING) || !(t->flags & BOLIDE_DATAGRAM_PAUSED)) {
        Py_RETURN_NONE;
    }
    t->flags &= ~(unsigned)BOLIDE_DATAGRAM_PAUSED;
    return bolide_datagram_watch(t) < 0 ? NULL : log_reading(t, "%r resumes reading");
}

static PyObject *is_reading(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(!(((bolide_datagram *)self)->flags & (BOLIDE_DATAGRAM_CLOSING | BOLIDE_DATAGRAM_PAUSED)));
}

static PyObject *is_closing(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((bolide_datagram *)self)->flags & BOLIDE_DATAGRAM_CLOSING);
}

static PyObject *set_protocol(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const wanted[] = {"protocol"};
    PyObject *protocol;
    if (bolide_arguments("set_protocol", wanted, 1, args, nargs, names, &protocol) < 0) {
        return NULL;
    }
    bolide_datagram *t = (bolide_datagram *)self;
    Py_XSETREF(t->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

static PyObject *get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *protocol = ((bolide_datagram *)self)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

static PyObject *get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromSize_t(((bolide_datagram *)self)->queued);
}

static PyObject *get_write_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_datagram *t = (bolide_datagram *)self;
    return Py_BuildValue("(nn)", (Py_ssize_t)t->low_water, (Py_ssize_t)t->high_water);
}

static PyObject *set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs) {
    bolide_datagram *t = (bolide_datagram *)self;
    if (bolide_parse_watermarks(args, kwargs, "|OO:set_write_buffer_limits", BOLIDE_DATAGRAM_HIGH_WATER, &t->high_water,
                                &t->low_water) < 0) {
        return NULL;
    }
    bolide_datagram_flow(t);
    Py_RETURN_NONE;
}

static PyObject *get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"name", "default", NULL};
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &fallback)) {
        return NULL;
    }
    /* `del transport._extra` makes it NULL, also while the name is compared. */
    PyObject *extra = Py_XNewRef(((bolide_datagram *)self)->extra);
    PyObject *value = extra != NULL ? Py_XNewRef(PyDict_GetItemWithError(extra, name)) : NULL;
    Py_XDECREF(extra);
    return value != NULL || PyErr_Occurred() ? value : Py_NewRef(fallback);
}

static PyObject *transport_repr(PyObject *self) {
    bolide_datagram *t = (bolide_datagram *)self;
    if (t->protocol == NULL || t->poll_fd < 0) {
        return PyUnicode_FromFormat("<bolide.DatagramTransport closed fd=%d>", t->fd);
    }
    return PyUnicode_FromFormat("<bolide.DatagramTransport%s fd=%d read=%s write=<%s, bufsize=%zu>>",
                                t->flags & BOLIDE_DATAGRAM_CLOSING ? " closing" : "", t->fd,
                                t->polled & UV_READABLE ? "polling" : "idle",
                                t->polled & UV_WRITABLE ? "polling" : "idle", t->queued);
}

/* --- the type --------------------------------------------------------------------------------- */

static int transport_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_datagram *t = (bolide_datagram *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(t->extra);
    Py_VISIT(t->loop);
    Py_VISIT(t->sock);
    Py_VISIT(t->protocol);
    Py_VISIT(t->context);
    Py_VISIT(t->address);
    Py_VISIT(t->queue);
    Py_VISIT(t->waiter);
    Py_VISIT(t->dict);
    return 0;
}

static int transport_clear(PyObject *self) {
    bolide_datagram *t = (bolide_datagram *)self;
    Py_CLEAR(t->extra);
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->waiter);
    Py_CLEAR(t->dict);
    return 0;
}

static void transport_finalize(PyObject *self) {
    bolide_datagram *t = (bolide_datagram *)self;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (!(t->flags & BOLIDE_DATAGRAM_CLOSING) && PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    PyErr_Restore(type, value, traceback);
}

static void transport_dealloc(PyObject *self) {
    bolide_datagram *t = (bolide_datagram *)self;
    PyTypeObject *type = Py_TYPE(self);
    /* Untracked: it could not be made, and nobody has seen it. */
    if (PyObject_GC_IsTracked(self) && PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (t->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    transport_clear(self);
    Py_CLEAR(t->sock);
    Py_CLEAR(t->context);
    Py_CLEAR(t->address);
    Py_CLEAR(t->queue);
    for (unsigned i = 0; i < t->peer_slots; i++) {
        Py_XDECREF(t->peers[i].object);
    }
    PyMem_Free(t->peers);
    bolide_datagram_close_descriptor(t);
    Py_CLEAR(t->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_max_size(PyObject *self, void *closure) {
    (void)closure;
    unsigned size = ((bolide_datagram *)self)->max_size;
    return PyLong_FromUnsignedLong(size > 0 ? size : BOLIDE_MAX_SIZE);
}

static int set_max_size(PyObject *self, PyObject *value, void *closure) {
    (void)closure;
    return bolide_parse_max_size(value, &((bolide_datagram *)self)->max_size);
}

static PyGetSetDef transport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"max_size", get_max_size, set_max_size,
     PyDoc_STR("The number of bytes of a datagram that are received at most; a program may set it."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(bolide_datagram, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bolide_datagram, weakrefs), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(bolide_datagram, loop), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef transport_methods[] = {
    {"sendto", BOLIDE_FASTCALL_KEYWORDS(transport_sendto),
     PyDoc_STR(
         "sendto($self, data, addr=None)\n--\n\nSend a datagram to addr, or to the remote address of the endpoint.\n\n"
         "Sent at once if the socket takes it, else queued. Raises TypeError, ValueError.")},
    {"close", transport_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nClose once the queue is empty.")},
    {"abort", transport_abort, METH_NOARGS, PyDoc_STR("abort($self, /)\n--\n\nClose at once; the queue is lost.")},
    {"pause_reading", pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self, /)\n--\n\nStop receiving; idempotent.")},
    {"resume_reading", resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nReceive again; idempotent.")},
    {"is_reading", is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self, /)\n--\n\nWhether datagrams are being received.")},
    {"is_closing", is_closing, METH_NOARGS, PyDoc_STR("is_closing($self, /)\n--\n\nWhether it is closing or closed.")},
    {"set_protocol", BOLIDE_FASTCALL_KEYWORDS(set_protocol),
     PyDoc_STR("set_protocol($self, protocol)\n--\n\nChange the protocol.")},
    {"get_protocol", get_protocol, METH_NOARGS, PyDoc_STR("get_protocol($self, /)\n--\n\nThe current protocol.")},
    {"get_extra_info", BOLIDE_KEYWORDS(get_extra_info),
     PyDoc_STR("get_extra_info($self, name, default=None)\n--\n\n\"socket\", \"sockname\", \"peername\".")},
    {"get_write_buffer_size", get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\nBytes queued.")},
    {"get_write_buffer_limits", get_write_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\n(low, high) in bytes.")},
    {"set_write_buffer_limits", BOLIDE_KEYWORDS(set_write_buffer_limits),
     PyDoc_STR("set_write_buffer_limits($self, high=None, low=None)\n--\n\nThe marks for pause_writing() and "
               "resume_writing().")},
    {"_start", start, METH_NOARGS, NULL},
    {"_call_connection_lost", connection_lost, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The transport of a datagram socket. Source: asyncio.DatagramTransport.")},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_repr, transport_repr},
    {Py_tp_members, transport_members},
    {Py_tp_getset, transport_getset},
    {Py_tp_methods, transport_methods},
    {0, NULL},
};

static PyType_Spec transport_spec = {
    .name = "bolide.DatagramTransport",
    .basicsize = sizeof(bolide_datagram),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};

int bolide_datagram_init(PyObject *module, bolide_state *st) {
    PyTypeObject *base = (PyTypeObject *)st->asyncio_DatagramTransport;
    if (base->tp_basicsize > (Py_ssize_t)offsetof(bolide_datagram, resource)) {
        PyErr_SetString(PyExc_ImportError,
                        "bolide does not know the layout of this Python's asyncio.DatagramTransport");
        return -1;
    }
    /* asyncio's own datagram transport is an asyncio.Transport too. */
    PyObject *bases = PyTuple_Pack(2, st->asyncio_DatagramTransport, st->asyncio_Transport);
    if (bases == NULL) {
        return -1;
    }
    int status = bolide_add_type(module, &transport_spec, bases, &st->DatagramTransportType, true);
    Py_DECREF(bases);
    return status;
}
