/* bolide._core: module initialisation, module state and type registration, nothing else. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <uv.h>
#include <llhttp.h>

static PyModuleDef_Slot module_slots[] = {{0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bolide._core",
    .m_doc = "The C core of bolide.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&module_def);
}
