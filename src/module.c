/* bolide._core: module initialisation, module state and type registration, nothing else. */
#include "asgi/asgi.h"
#include "common/state.h"
#include "loop/loop.h"
#include "loop/sock_op.h"
#include "transport/datagram.h"
#include "transport/tls.h"
#include "transport/transport.h"

static void clear_state(bolide_state *st) {
    bolide_asgi_clear(st);
    bolide_state_clear(st);
    bolide_handle_free_kept(st);
}

static int module_exec(PyObject *module) {
    bolide_state *st = bolide_state_new(module, clear_state);
    if (st == NULL || bolide_handle_init(module, st) < 0 || bolide_loop_init(module, st) < 0 ||
        bolide_sock_op_init(module, st) < 0 || bolide_tls_init(module, st) < 0 ||
        bolide_transport_init(module, st) < 0 || bolide_datagram_init(module, st) < 0 ||
        bolide_asgi_init(module, st) < 0) {
        return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    bolide_state *st = bolide_state_of(module);
    if (st == NULL) {
        return 0;
    }
    int result = bolide_asgi_traverse(st, visit, arg);
    return result != 0 ? result : bolide_state_traverse(st, visit, arg);
}

/* Not while there are loops: what is torn down after the module would find nothing. The last of them sees to it. */
static int module_clear(PyObject *module) {
    bolide_state *st = bolide_state_of(module);
    if (st != NULL && st->refs == 1) {
        clear_state(st);
    }
    return 0;
}

static void module_free(void *module) {
    bolide_state *st = bolide_state_of(module);
    if (st != NULL) {
        bolide_state_release(st);
    }
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef bolide_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bolide._core",
    .m_doc = "The C core of bolide: the event loop and the ASGI server.",
    .m_size = sizeof(bolide_state *),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&bolide_module_def);
}
