#!/bin/sh
# Build the fuzz targets of tests/fuzz with libFuzzer, ASan and UBSan, and run them.
#   fuzz.sh [libFuzzer options; default: -max_total_time=60]
set -eu
CLANG=${CLANG:-clang}
if ! command -v "$CLANG" >/dev/null; then
    echo "skipped: fuzzing needs clang, and there is none (CLANG names one)"
    exit 0
fi
[ $# -gt 0 ] || set -- -max_total_time=60
out=build/fuzz
mkdir -p "$out/websocket.corpus"
echo "building $out/websocket"
"$CLANG" -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Wall -Wextra -Isrc \
    tests/fuzz/websocket.c src/ws/frame.c src/ws/utf8.c src/ws/deflate.c -lz -o "$out/websocket"
cd "$out"
exec ./websocket -max_len=8192 -print_final_stats=1 "$@" websocket.corpus
