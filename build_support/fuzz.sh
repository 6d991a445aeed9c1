#!/bin/sh
# Build the fuzz targets of tests/fuzz with libFuzzer, ASan and UBSan, and run one after the other.
#   fuzz.sh <python> [libFuzzer options; default: -max_total_time=30]
# A finding ends it; what was found is in build/fuzz. TARGETS=server picks a target.
set -eu
python=$1
shift
CLANG=${CLANG:-clang}
export CLANG
if ! command -v "$CLANG" >/dev/null; then
    echo "skipped: fuzzing needs clang, and there is none (CLANG names one)"
    exit 0
fi
[ $# -gt 0 ] || set -- -max_total_time=30
out=build/fuzz
options="-print_final_stats=1 -artifact_prefix=$out/"

for target in ${TARGETS:-websocket server}; do
    mkdir -p "$out/$target.corpus"
    echo "building $out/$target"
    case $target in
    websocket)
        "$CLANG" -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Wall -Wextra -Isrc \
            tests/fuzz/websocket.c src/ws/frame.c src/ws/utf8.c src/ws/deflate.c -lz -o "$out/websocket"
        # shellcheck disable=SC2086
        "$out/websocket" $options -max_len=8192 "$@" "$out/websocket.corpus"
        ;;
    server)
        "$python" -B tests/fuzz/build.py "$out/server" >/dev/null
        "$python" -B tests/fuzz/seeds.py "$out/server.corpus"
        # The interpreter keeps memory until exit on purpose, so leaks are for the tests to find.
        # The quarantine is a quarter of the usual one, which is more than a run frees, and nearer to the cache.
        asan=detect_leaks=0:detect_stack_use_after_return=0:quarantine_size_mb=64
        # shellcheck disable=SC2086
        PYTHONHOME=$("$python" -c 'import sys; print(sys.base_prefix)') PYTHONDONTWRITEBYTECODE=1 \
            PYTHONPATH=$PWD/python:$PWD/tests/fuzz ASAN_OPTIONS=$asan \
            "$out/server" $options -max_len=4096 -timeout=20 -rss_limit_mb=4096 -dict=tests/fuzz/server.dict "$@" \
            "$out/server.corpus"
        ;;
    esac
done
