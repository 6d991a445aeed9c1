/* The Python face of the stream transport. */
#include "transport/transport.h"

#include <string.h>
#include <structmember.h>

#include "common/arguments.h"
#include "common/error.h"
#include "transport/watermarks.h"

/* --- methods: reading ------------------------------------------------------------------------- */

static PyObject *pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_transport *t = (bolide_transport *)self;
    if (!(t->flags & (BOLIDE_TRANSPORT_CLOSING | BOLIDE_TRANSPORT_PAUSED))) {
        t->flags |= BOLIDE_TRANSPORT_PAUSED;
        bolide_stream_read_stop(&t->stream);
        if (!bolide_transport_has_tls(t)) {
            bolide_transport_debug(t, "%r pauses reading");
        }
    }
    Py_RETURN_NONE;
}

static PyObject *resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_transport *t = (bolide_transport *)self;
    if (!(t->flags & BOLIDE_TRANSPORT_CLOSING) && (t->flags & BOLIDE_TRANSPORT_PAUSED)) {
        t->flags &= ~(unsigned)BOLIDE_TRANSPORT_PAUSED;
        /* After an EOF it comes again, as in asyncio: there may be another protocol since. */
        if (t->flags & BOLIDE_TRANSPORT_STARTED) {
            int status = bolide_stream_read_start(&t->stream);
            if (status < 0) {
                return bolide_error_set(status);
            }
        }
        if (!bolide_transport_has_tls(t)) {
            bolide_transport_debug(t, "%r resumes reading");
        }
    }
    Py_RETURN_NONE;
}

static PyObject *is_reading(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(!(((bolide_transport *)self)->flags & (BOLIDE_TRANSPORT_CLOSING | BOLIDE_TRANSPORT_PAUSED)));
}

/* --- methods: writing ------------------------------------------------------------------------- */

static PyObject *can_write_eof(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(!bolide_transport_has_tls((bolide_transport *)self));
}

static PyObject *get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_transport *t = (bolide_transport *)self;
    Py_INCREF(t);
    bolide_stream_flush(&t->stream); /* what was only gathered does not count: the socket may take it */
    size_t pending = bolide_stream_pending(&t->stream);
    Py_DECREF(t);
    return PyLong_FromSize_t(pending);
}

static PyObject *get_write_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_transport *t = (bolide_transport *)self;
    return Py_BuildValue("(nn)", (Py_ssize_t)t->water.low, (Py_ssize_t)t->water.high);
}

static PyObject *set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs) {
    bolide_transport *t = (bolide_transport *)self;
    size_t fallback = bolide_transport_has_tls(t) ? BOLIDE_TLS_HIGH_WATER : BOLIDE_HIGH_WATER;
    if (bolide_parse_watermarks(args, kwargs, "|OO:set_write_buffer_limits", fallback, &t->water.high, &t->water.low) <
        0) {
        return NULL;
    }
    if (bolide_stream_is_open(&t->stream) && t->stream.pending > t->water.high) {
        t->stream.flags |= BOLIDE_STREAM_FULL;
        bolide_transport_flow(t);
    }
    Py_RETURN_NONE;
}

/* --- methods of TLS transports: reading --------------------------------------------------------- */

static bolide_tls *tls_of(const bolide_transport *t) {
    return t->stream.tls != NULL ? t->stream.tls : t->tls;
}

static PyObject *get_read_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const bolide_tls *tls = tls_of((bolide_transport *)self);
    return PyLong_FromSize_t(tls != NULL ? bolide_tls_waiting(tls) : 0);
}

static PyObject *get_read_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const bolide_tls *tls = tls_of((bolide_transport *)self);
    size_t low = tls != NULL ? tls->read_low : BOLIDE_TLS_READ_HIGH_WATER / 4;
    size_t high = tls != NULL ? tls->read_high : BOLIDE_TLS_READ_HIGH_WATER;
    return Py_BuildValue("(nn)", (Py_ssize_t)low, (Py_ssize_t)high);
}

static PyObject *set_read_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs) {
    size_t high, low;
    if (bolide_parse_watermarks(args, kwargs, "|OO:set_read_buffer_limits", BOLIDE_TLS_READ_HIGH_WATER, &high, &low) <
        0) {
        return NULL;
    }
    bolide_tls *tls = tls_of((bolide_transport *)self);
    if (tls != NULL) {
        tls->read_high = high;
        tls->read_low = low;
    }
    Py_RETURN_NONE;
}

/* --- methods: closing and info ---------------------------------------------------------------- */

static PyObject *transport_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_transport *t = (bolide_transport *)self;
    Py_INCREF(t);
    bolide_transport_close_gently(t);
    Py_DECREF(t);
    Py_RETURN_NONE;
}

static PyObject *transport_force_close(PyObject *self, PyObject *exception) {
    bolide_transport *t = (bolide_transport *)self;
    Py_INCREF(t);
    bolide_transport_force_close(t, exception);
    Py_DECREF(t);
    Py_RETURN_NONE;
}

static PyObject *transport_abort(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return transport_force_close(self, Py_None);
}

/* For sendfile(): a future that is done when all output has left. Until _reset_empty_waiter() write() is refused. */
static PyObject *make_empty_waiter(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_transport *t = (bolide_transport *)self;
    if (t->flags & BOLIDE_TRANSPORT_SENDFILE) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    PyObject *future = bolide_loop_create_future(t->loop);
    if (future == NULL) {
        return NULL;
    }
    t->flags |= BOLIDE_TRANSPORT_SENDFILE;
    Py_XSETREF(t->flushed, Py_NewRef(future));
    if (bolide_stream_is_open(&t->stream) && !(t->flags & BOLIDE_TRANSPORT_ENDING)) {
        bolide_stream_flush(&t->stream); /* resolves it when that was all */
    } else {
        bolide_transport_resolve(t, &t->flushed, t->exception);
    }
    return future;
}

static PyObject *reset_empty_waiter(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    bolide_transport *t = (bolide_transport *)self;
    t->flags &= ~(unsigned)BOLIDE_TRANSPORT_SENDFILE;
    Py_CLEAR(t->flushed);
    Py_RETURN_NONE;
}

static PyObject *is_closing(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(((bolide_transport *)self)->flags & BOLIDE_TRANSPORT_CLOSING);
}

static PyObject *set_protocol(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const wanted[] = {"protocol"};
    PyObject *protocol;
    if (bolide_arguments("set_protocol", wanted, 1, args, nargs, names, &protocol) < 0) {
        return NULL;
    }
    if (bolide_transport_set_protocol((bolide_transport *)self, protocol) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *protocol = ((bolide_transport *)self)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

/* As that of asyncio's own: "polling" is what the kernel is asked for. */
static PyObject *transport_repr(PyObject *self) {
    bolide_transport *t = (bolide_transport *)self;
    const char *name = Py_TYPE(self)->tp_name;
    if (t->protocol == NULL) {
        return PyUnicode_FromFormat("<%s closed fd=%d>", name, t->fd);
    }
    const char *reading = t->stream.flags & BOLIDE_STREAM_READING ? "polling" : "idle";
    const char *writing = t->stream.pending > 0 ? "polling" : "idle";
    return PyUnicode_FromFormat("<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", name,
                                t->flags & BOLIDE_TRANSPORT_CLOSING ? " closing" : "", t->fd, reading, writing,
                                t->stream.pending);
}

/* --- the type --------------------------------------------------------------------------------- */

static int transport_traverse(PyObject *self, visitproc visit, void *arg) {
    bolide_transport *t = (bolide_transport *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(t->loop);
    Py_VISIT(t->protocol);
    Py_VISIT(t->context);
    Py_VISIT(t->server);
    Py_VISIT(t->sock);
    Py_VISIT(t->flushed);
    for (int i = 0; i < BOLIDE_TRANSPORT_BASE_SLOTS; i++) {
        Py_VISIT(t->base_slots[i]);
    }
    Py_VISIT(t->exception);
    Py_VISIT(t->waiter);
    if (t->into != NULL) {
        Py_VISIT(t->into->buffer);
    }
    Py_VISIT(t->tls);
    Py_VISIT(t->dict);
    return bolide_stream_traverse(&t->stream, visit, arg);
}

static int transport_clear(PyObject *self) {
    bolide_transport *t = (bolide_transport *)self;
    /* Not the context: a protocol may be set, and called, after this. It breaks the cycles through itself. */
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->server);
    Py_CLEAR(t->flushed);
    if (t->flags & BOLIDE_TRANSPORT_DROPPED) {
        Py_CLEAR(t->sock);
    }
    for (int i = 0; i < BOLIDE_TRANSPORT_BASE_SLOTS; i++) {
        Py_CLEAR(t->base_slots[i]);
    }
    Py_CLEAR(t->exception);
    Py_CLEAR(t->waiter);
    Py_CLEAR(t->tls);
    Py_CLEAR(t->dict);
    return 0;
}

static void transport_finalize(PyObject *self) {
    bolide_transport *t = (bolide_transport *)self;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (t->fd >= 0 && !(t->flags & BOLIDE_TRANSPORT_CLOSING) &&
        PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    PyErr_Restore(type, value, traceback);
}

static void transport_dealloc(PyObject *self) {
    bolide_transport *t = (bolide_transport *)self;
    PyTypeObject *type = Py_TYPE(self);
    /* Untracked: it could not be made, and nobody has seen it. */
    if (PyObject_GC_IsTracked(self) && PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (t->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    bolide_transport_end_read(t);
    bolide_transport_drop_socket(t);
    transport_clear(self);
    Py_CLEAR(t->sock);
    Py_CLEAR(t->context);
    Py_CLEAR(t->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_loop(PyObject *self, void *closure) {
    (void)closure;
    return Py_NewRef(((bolide_transport *)self)->loop);
}

static PyObject *get_protocol_paused(PyObject *self, void *closure) {
    (void)closure;
    return PyBool_FromLong(((bolide_transport *)self)->flags & BOLIDE_TRANSPORT_WRITING_PAUSED);
}

static PyObject *get_paused(PyObject *self, void *closure) {
    (void)closure;
    return PyBool_FromLong(((bolide_transport *)self)->flags & BOLIDE_TRANSPORT_PAUSED);
}

static PyObject *get_closing(PyObject *self, void *closure) {
    (void)closure;
    return is_closing(self, NULL);
}

static PyObject *get_true(PyObject *self, void *closure) {
    (void)self;
    (void)closure;
    Py_RETURN_TRUE;
}

static PyObject *get_sendfile_mode(PyObject *self, void *closure) {
    (void)closure;
    bolide_transport *t = (bolide_transport *)self;
    bolide_state *st = t->loop->st;
    return bolide_transport_has_tls(t) ? PyObject_GetAttrString(st->asyncio_SendfileMode, "FALLBACK")
                                       : Py_NewRef(st->asyncio_TRY_NATIVE);
}

static PyObject *get_ssl_protocol(PyObject *self, void *closure) {
    (void)closure;
    bolide_transport *t = (bolide_transport *)self;
    if (t->stream.tls == NULL) {
        PyErr_SetString(PyExc_AttributeError, "this transport has no TLS");
        return NULL;
    }
    return Py_NewRef(t->stream.tls);
}

static PyObject *get_max_size(PyObject *self, void *closure) {
    (void)closure;
    unsigned size = ((bolide_transport *)self)->max_size;
    return PyLong_FromUnsignedLong(size > 0 ? size : BOLIDE_MAX_SIZE);
}

static int set_max_size(PyObject *self, PyObject *value, void *closure) {
    (void)closure;
    return bolide_parse_max_size(value, &((bolide_transport *)self)->max_size);
}

static PyGetSetDef transport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_loop", get_loop, NULL, NULL, NULL},
    {"_paused", get_paused, NULL, NULL, NULL},
    {"_closing", get_closing, NULL, NULL, NULL},
    {"_protocol_paused", get_protocol_paused, NULL, NULL, NULL},
    {"_start_tls_compatible", get_true, NULL, NULL, NULL},
    {"_sendfile_compatible", get_sendfile_mode, NULL, NULL, NULL},
    {"_ssl_protocol", get_ssl_protocol, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef transport_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(bolide_transport, weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(bolide_transport, dict), READONLY, NULL},
    {"_protocol", T_OBJECT, offsetof(bolide_transport, protocol), READONLY, NULL},
    {"_server", T_OBJECT, offsetof(bolide_transport, server), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef transport_methods[] = {
    {"get_extra_info", BOLIDE_KEYWORDS(bolide_transport_get_extra_info),
     PyDoc_STR("get_extra_info($self, name, default=None)\n--\n\n\"socket\", \"sockname\", \"peername\", or what the "
               "maker added.")},
    {"is_closing", is_closing, METH_NOARGS, PyDoc_STR("is_closing($self, /)\n--\n\nWhether it is closing or closed.")},
    {"close", transport_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nClose once the output has left; connection_lost(None) is scheduled then.")},
    {"abort", transport_abort, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\nClose at once; output that the socket does not take now is lost.")},
    {"_make_empty_waiter", make_empty_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", reset_empty_waiter, METH_NOARGS, NULL},
    {"_force_close", transport_force_close, METH_O, NULL},
    {"_call_connection_lost", bolide_transport_call_connection_lost, METH_O, NULL},
    {"_test__append_write_backlog", bolide_transport_append_backlog, METH_O, NULL},
    {"set_protocol", BOLIDE_FASTCALL_KEYWORDS(set_protocol),
     PyDoc_STR("set_protocol($self, protocol)\n--\n\nChange the protocol.")},
    {"get_protocol", get_protocol, METH_NOARGS, PyDoc_STR("get_protocol($self, /)\n--\n\nThe current protocol.")},
    {"pause_reading", pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self, /)\n--\n\nStop reading; idempotent.")},
    {"resume_reading", resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nRead again; idempotent.")},
    {"is_reading", is_reading, METH_NOARGS, PyDoc_STR("is_reading($self, /)\n--\n\nWhether data is being received.")},
    {"write", BOLIDE_FASTCALL_KEYWORDS(bolide_transport_write),
     PyDoc_STR(
         "write($self, data)\n--\n\nQueue bytes; they leave by the end of the loop's turn, gathered with others.")},
    {"writelines", BOLIDE_FASTCALL_KEYWORDS(bolide_transport_writelines),
     PyDoc_STR("writelines($self, list_of_data)\n--\n\nwrite() for each.")},
    {"write_eof", bolide_transport_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\nSend FIN after the output; reading goes on.")},
    {"can_write_eof", can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nTrue, but with TLS False.")},
    {"get_write_buffer_size", get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\nBytes that the socket has not taken yet.")},
    {"get_write_buffer_limits", get_write_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\n(low, high) in bytes.")},
    {"set_write_buffer_limits", BOLIDE_KEYWORDS(set_write_buffer_limits),
     PyDoc_STR(
         "set_write_buffer_limits($self, high=None, low=None)\n--\n\nThe marks, in bytes, at which the protocol's "
         "pause_writing() and resume_writing() are called. Raises ValueError unless high >= low >= 0.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The transport of a TCP or Unix stream connection. Source: asyncio.Transport.")},
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
    .name = "bolide.StreamTransport",
    .basicsize = sizeof(bolide_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};

/* What one type has and the other has not, as in asyncio. */
static PyGetSetDef max_size_getset = {
    "max_size", get_max_size, set_max_size,
    PyDoc_STR("The number of bytes that are read at once at most; a program may set it."), NULL};

static PyMethodDef ssl_methods[] = {
    {"get_read_buffer_size", get_read_buffer_size, METH_NOARGS,
     PyDoc_STR("get_read_buffer_size($self, /)\n--\n\nBytes of TLS records that have come and wait to be decrypted.")},
    {"get_read_buffer_limits", get_read_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_read_buffer_limits($self, /)\n--\n\n(low, high) in bytes.")},
    {"set_read_buffer_limits", BOLIDE_KEYWORDS(set_read_buffer_limits),
     PyDoc_STR(
         "set_read_buffer_limits($self, high=None, low=None)\n--\n\nThe marks for bytes that wait while reading is "
         "paused, of which there is never more than one read. Raises ValueError unless high >= low >= 0.")},
    {NULL, NULL, 0, NULL},
};

/* Add what `descriptor` (steals it, may be NULL) is to the class. 0, or -1 with an exception set. */
static int add_attribute(PyTypeObject *type, const char *name, PyObject *descriptor) {
    int status = descriptor != NULL ? PyObject_SetAttrString((PyObject *)type, name, descriptor) : -1;
    Py_XDECREF(descriptor);
    return status;
}

static int add_differences(bolide_state *st) {
    PyTypeObject *plain = st->StreamTransportType, *ssl = st->SSLTransportType;
    if (add_attribute(plain, "max_size", PyDescr_NewGetSet(plain, &max_size_getset)) < 0) {
        return -1;
    }
    for (PyMethodDef *method = ssl_methods; method->ml_name != NULL; method++) {
        if (add_attribute(ssl, method->ml_name, PyDescr_NewMethod(ssl, method)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A name of its own, by which some programs tell a transport with TLS. start_tls() turns one type into the other. */
static PyType_Spec ssl_transport_spec = {
    .name = "bolide.SSLTransport",
    .basicsize = sizeof(bolide_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};

int bolide_transport_init(PyObject *module, bolide_state *st) {
    /* asyncio's own code asks isinstance() of the class that is internal to it but the base of all its transports. */
    PyObject *internal = PyImport_ImportModule("asyncio.transports");
    PyObject *base = internal != NULL ? PyObject_GetAttrString(internal, "_FlowControlMixin") : NULL;
    Py_XDECREF(internal);
    if (base == NULL) {
        PyErr_Clear();
        base = Py_NewRef(st->asyncio_Transport);
    }
    if (!PyType_Check(base) ||
        ((PyTypeObject *)base)->tp_basicsize > (Py_ssize_t)offsetof(bolide_transport, resource)) {
        PyErr_SetString(PyExc_ImportError, "bolide does not know the layout of this Python's asyncio.Transport");
        Py_DECREF(base);
        return -1;
    }
    int status = bolide_add_type(module, &transport_spec, base, &st->StreamTransportType, true);
    if (status == 0) {
        status = bolide_add_type(module, &ssl_transport_spec, base, &st->SSLTransportType, true);
    }
    Py_DECREF(base);
    return status == 0 ? add_differences(st) : -1;
}
