/* bolide._core.AccessLog: the usual lines of the access log, formatted here and handed over in portions. */
#include "asgi/asgi.h"

#include <structmember.h>

/* Seconds that a line waits for others, and bytes that are handed over at once. */
#define PORTION_DELAY 0.01
#define PORTION_SIZE  65536u
/* A buffer that has become larger than this, by lines of extraordinary length, is given back. */
#define KEPT_SIZE (4 * PORTION_SIZE)

typedef struct {
    PyObject_HEAD vectorcallfunc call;
    PyObject *loop;    /* whose call_later() is used */
    PyObject *write;   /* gets the lines, bytes */
    PyObject *endings; /* dict: status to what ends its line, bytes */
    char *data;        /* the lines gathered */
    size_t len, cap;   /* of it */
    bool scheduled;    /* flush() will be called by the loop */
} access_log;

/* A piece of a line. */
typedef struct {
    const char *text;
    Py_ssize_t len;
} piece;

static piece piece_of(PyObject *text) {
    piece p = {NULL, 0};
    if (PyUnicode_Check(text)) {
        p.text = PyUnicode_AsUTF8AndSize(text, &p.len);
    } else {
        PyErr_Format(PyExc_TypeError, "str is required, not %.100s", Py_TYPE(text)->tp_name);
    }
    return p;
}

/* Host and port of `client`, (str, int) or None, the latter as a number of 0 to 65535. 0, or -1 with an exception set.
 */
static int split_client(PyObject *client, piece *host, long *port) {
    *host = (piece){"", 0};
    *port = -1;
    if (client == Py_None) {
        return 0;
    }
    if (!PyTuple_Check(client) || PyTuple_GET_SIZE(client) != 2 || !PyLong_Check(PyTuple_GET_ITEM(client, 1))) {
        PyErr_SetString(PyExc_TypeError, "the client must be a pair of str and int, or None");
        return -1;
    }
    *host = piece_of(PyTuple_GET_ITEM(client, 0));
    *port = PyLong_AsLong(PyTuple_GET_ITEM(client, 1));
    if (host->text == NULL || (*port == -1 && PyErr_Occurred())) {
        return -1;
    }
    if (*port < 0 || *port > 65535) {
        PyErr_SetString(PyExc_ValueError, "a port is 0 to 65535");
        return -1;
    }
    return 0;
}

/* Room for `size` more bytes. 0, or -1 with MemoryError set. */
static int reserve(access_log *log, size_t size) {
    if (log->cap - log->len >= size) {
        return 0;
    }
    size_t cap = log->cap != 0 ? log->cap : 4096;
    while (cap - log->len < size) {
        cap *= 2;
    }
    char *data = PyMem_Realloc(log->data, cap);
    if (data == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    log->data = data;
    log->cap = cap;
    return 0;
}

static void put(access_log *log, const char *text, Py_ssize_t len) {
    memcpy(log->data + log->len, text, (size_t)len);
    log->len += (size_t)len;
}

#define PUT(log, text) put(log, text, sizeof(text) - 1)

/* A number of 0 to 99999. */
static void put_number(access_log *log, long number) {
    char digits[5];
    int i = sizeof(digits);
    do {
        digits[--i] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put(log, digits + i, (Py_ssize_t)sizeof(digits) - i);
}

/* 'INFO:     HOST:PORT - "METHOD TARGET HTTP/VERSION" ENDING' of the arguments of a call. 0, or -1 with an exception.
 */
static int append(access_log *log, PyObject *const *args) {
    piece host, method = piece_of(args[1]), target, version;
    long port, status = PyLong_AsLong(args[4]);
    if (method.text == NULL || PyErr_Occurred() || split_client(args[0], &host, &port) < 0 ||
        (target = piece_of(args[2])).text == NULL || (version = piece_of(args[3])).text == NULL) {
        return -1;
    }
    if (status < 0 || status > 999) {
        PyErr_SetString(PyExc_ValueError, "a status is 0 to 999");
        return -1;
    }
    PyObject *ending = PyDict_GetItemWithError(log->endings, args[4]);
    if (ending == NULL && PyErr_Occurred()) {
        return -1;
    }
    Py_ssize_t ending_len = ending != NULL ? PyBytes_GET_SIZE(ending) : 0;
    if (reserve(log, (size_t)(host.len + method.len + target.len + version.len + ending_len) + 64) < 0) {
        return -1;
    }
    PUT(log, "INFO:     ");
    put(log, host.text, host.len);
    if (port >= 0) {
        PUT(log, ":");
        put_number(log, port);
    }
    PUT(log, " - \"");
    put(log, method.text, method.len);
    PUT(log, " ");
    put(log, target.text, target.len);
    PUT(log, " HTTP/");
    put(log, version.text, version.len);
    PUT(log, "\" ");
    if (ending != NULL) {
        put(log, PyBytes_AS_STRING(ending), ending_len);
    } else {
        put_number(log, status);
        PUT(log, " \n");
    }
    return 0;
}

PyDoc_STRVAR(flush_doc, "flush()\n--\n\nHand over the lines that are gathered now. Raises what `write` raises.");

static PyObject *access_log_flush(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    access_log *log = (access_log *)self;
    log->scheduled = false;
    if (log->len == 0 || log->write == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *lines = PyBytes_FromStringAndSize(log->data, (Py_ssize_t)log->len);
    if (lines == NULL) {
        return NULL;
    }
    log->len = 0;
    if (log->cap > KEPT_SIZE) {
        PyMem_Free(log->data);
        log->data = NULL;
        log->cap = 0;
    }
    PyObject *write = Py_NewRef(log->write);
    PyObject *result = PyObject_CallOneArg(write, lines);
    Py_DECREF(write);
    Py_DECREF(lines);
    if (result == NULL) {
        return NULL;
    }
    Py_DECREF(result);
    Py_RETURN_NONE;
}

/* Have flush() called soon; at once when the loop cannot do it. NULL with an exception set, or None. */
static PyObject *schedule(access_log *log) {
    log->scheduled = true;
    PyObject *flush = PyObject_GetAttrString((PyObject *)log, "flush");
    PyObject *handle = flush != NULL && log->loop != NULL
                           ? PyObject_CallMethod(log->loop, "call_later", "dO", PORTION_DELAY, flush)
                           : NULL;
    Py_XDECREF(flush);
    if (handle == NULL) {
        PyErr_Clear();
        return access_log_flush((PyObject *)log, NULL);
    }
    Py_DECREF(handle);
    Py_RETURN_NONE;
}

static PyObject *access_log_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    access_log *log = (access_log *)self;
    if (PyVectorcall_NARGS(nargsf) != 5 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0)) {
        PyErr_SetString(PyExc_TypeError, "client, method, target, http_version and status are required");
        return NULL;
    }
    if (log->endings == NULL) {
        Py_RETURN_NONE; /* cleared by the garbage collector */
    }
    if (append(log, args) < 0) {
        return NULL;
    }
    if (log->len >= PORTION_SIZE) {
        return access_log_flush(self, NULL);
    }
    if (!log->scheduled) {
        return schedule(log);
    }
    Py_RETURN_NONE;
}

/* Are the keys of `endings` int and its values bytes? */
static bool check_endings(PyObject *endings) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(endings, &at, &key, &value)) {
        if (!PyLong_CheckExact(key) || !PyBytes_Check(value)) {
            PyErr_SetString(PyExc_TypeError, "endings must have keys of the type int and values of the type bytes");
            return false;
        }
    }
    return true;
}

PyDoc_STRVAR(access_log_doc,
             "AccessLog(loop, write, endings)\n--\n\n"
             "The usual lines of an access log, formatted in C; for the argument access_log of Server.\n\n"
             "Called with (client, method, target, http_version, status), it gathers lines, and hands them over to "
             "`write` as bytes, at most ten milliseconds later or when they are many. `endings` has what stands at the "
             "end of the line for each status: {200: b'200 OK\\n'}.");

static PyObject *access_log_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"loop", "write", "endings", NULL};
    PyObject *loop, *write, *endings;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!:AccessLog", names, &loop, &write, &PyDict_Type, &endings) ||
        !check_endings(endings)) {
        return NULL;
    }
    /* A copy, whose values stay what they are. */
    PyObject *copy = PyDict_Copy(endings);
    access_log *log = copy != NULL ? (access_log *)type->tp_alloc(type, 0) : NULL;
    if (log == NULL) {
        Py_XDECREF(copy);
        return NULL;
    }
    log->call = access_log_call;
    log->loop = Py_NewRef(loop);
    log->write = Py_NewRef(write);
    log->endings = copy;
    return (PyObject *)log;
}

static int access_log_traverse(PyObject *self, visitproc visit, void *arg) {
    access_log *log = (access_log *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(log->loop);
    Py_VISIT(log->write);
    Py_VISIT(log->endings);
    return 0;
}

static int access_log_clear(PyObject *self) {
    access_log *log = (access_log *)self;
    Py_CLEAR(log->loop);
    Py_CLEAR(log->write);
    Py_CLEAR(log->endings);
    return 0;
}

static void access_log_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)access_log_clear(self);
    PyMem_Free(((access_log *)self)->data);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"flush", access_log_flush, METH_NOARGS, flush_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(access_log, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)access_log_doc},
    {Py_tp_new, access_log_new},
    {Py_tp_dealloc, access_log_dealloc},
    {Py_tp_traverse, access_log_traverse},
    {Py_tp_clear, access_log_clear},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_call, PyVectorcall_Call},
    {0, NULL},
};

PyType_Spec bolide_access_log_spec = {
    .name = "bolide._core.AccessLog",
    .basicsize = sizeof(access_log),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
