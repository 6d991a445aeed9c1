/* Fuzz target (libFuzzer): the whole server in one process, from the bytes of a connection to the application and back.
 * CPython is embedded; server.py, beside this file, does what is better said in Python. The extension is compiled in,
 * so that it is instrumented. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>

extern PyObject *PyInit__core(void);

/* What a run of the fuzzer needs: one interpreter, for ever. libFuzzer passes no state between its calls. */
static PyObject *run_one;

static void fail(void) {
    PyErr_Print();
    abort();
}

/* The extension, under its own name, without a search for a file. */
static PyObject *load_core(PyObject *Py_UNUSED(self), PyObject *spec) {
    PyObject *module = PyInit__core();
    if (module == NULL || !PyObject_TypeCheck(module, &PyModuleDef_Type)) {
        return module;
    }
    return PyModule_FromDefAndSpec((PyModuleDef *)module, spec);
}

static PyObject *exec_core(PyObject *Py_UNUSED(self), PyObject *module) {
    if (PyModule_ExecDef(module, PyModule_GetDef(module)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"load_core", load_core, METH_O, NULL},
    {"exec_core", exec_core, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_fuzz", .m_size = -1, .m_methods = methods};

static PyObject *init_fuzz(void) {
    return PyModule_Create(&definition);
}

int LLVMFuzzerInitialize(int *Py_UNUSED(argc), char ***Py_UNUSED(argv)) {
    signal(SIGPIPE, SIG_IGN); /* as Python does, whose own handlers would take libFuzzer's place */
    PyPreConfig before;
    PyPreConfig_InitPythonConfig(&before);
    before.allocator = PYMEM_ALLOCATOR_MALLOC; /* a block each, so that a use after free is seen */
    if (PyStatus_Exception(Py_PreInitialize(&before)) || PyImport_AppendInittab("_fuzz", init_fuzz) < 0) {
        abort();
    }
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    if (PyStatus_Exception(Py_InitializeFromConfig(&config))) {
        abort();
    }
    PyConfig_Clear(&config);
    PyObject *module = PyImport_ImportModule("server"); /* on PYTHONPATH */
    run_one = module != NULL ? PyObject_GetAttrString(module, "run_one") : NULL;
    if (run_one == NULL) {
        fail();
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    PyObject *result = PyObject_CallFunction(run_one, "y#", (const char *)data, (Py_ssize_t)size);
    if (result == NULL) {
        fail();
    }
    Py_DECREF(result);
    return 0;
}
