#!/bin/sh
# Install bolide built with ASan and UBSan into its own environment and run the tests there.
#   sanitize.sh <environment> [pytest arguments]
set -eu
venv=$1
shift
reports=$PWD/build/sanitizer-reports
# build/lib.* would hand modules that are gone by now to the installation.
rm -rf "$reports" build/lib.*
mkdir -p "$reports"

echo "building with ASan and UBSan, installing into $venv"
BOLIDE_SANITIZE=1 "$venv/bin/python" setup.py --quiet build_ext
if [ ! -f "$venv/.has-test" ] || [ pyproject.toml -nt "$venv/.has-test" ]; then
    BOLIDE_SANITIZE=1 "$venv/bin/python" -m pip install --quiet --no-build-isolation '.[test]'
    touch "$venv/.has-test"
fi
BOLIDE_SANITIZE=1 "$venv/bin/python" -m pip install --quiet --no-build-isolation --no-deps --force-reinstall .

# The interpreter is not instrumented, so the run-time has to be there before it. Reports go to files: those of a server
# that a test has started count too. CPython keeps memory until exit on purpose, so leaks are the tests' own business.
runtime=$(${CC:-gcc} -print-file-name=libasan.so)
options="detect_leaks=0:handle_segv=2:handle_abort=2:handle_sigill=2:detect_stack_use_after_return=1"
export ASAN_OPTIONS="allocator_may_return_null=1:$options:log_path=$reports/asan"
# Every object its own malloc block, so that a use after free is seen.
export PYTHONMALLOC=malloc
status=0
LD_PRELOAD=$runtime "$venv/bin/python" -m pytest -m "not rss" --timeout=240 "$@" || status=$?

# A size that malloc refuses is a MemoryError to Python, which some tests ask for; the note of it is no report.
for report in "$reports"/*; do
    if [ -f "$report" ] && ! grep -qv 'WARNING: AddressSanitizer failed to allocate' "$report"; then
        rm "$report"
    fi
done
if [ -n "$(ls "$reports")" ]; then
    cat "$reports"/*
    echo "error: the sanitizers reported the above" >&2
    exit 1
fi
exit "$status"
