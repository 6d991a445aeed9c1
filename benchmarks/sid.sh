#!/bin/sh
# Run the benchmarks on a newer CPython, in the Debian sid root that `make test-sid` made: sid.sh server|loops [options].
# Of the environment: SID_ROOT names another place for the root, SID_PYTHON the version (3.14 unless told). Results come
# back to benchmarks/out/sid-<version>.
set -eu
root=${SID_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/bolide/sid}
version=${SID_PYTHON:-3.14}
out=benchmarks/out/sid-$version

fail() {
    echo "error: $1" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "a chroot needs root"
[ -x "$root/usr/bin/python$version" ] || fail "there is no CPython $version in $root; make test-sid makes the root"

# A tree of its own, so that a test run beside this one does not change what is measured. Its files are new each time
# (-m), else what another checkout has built there could pass for up to date.
tree=$root/srv/bolide-benchmarks
mkdir -p "$tree"
find "$tree" -mindepth 1 -maxdepth 1 ! -name build ! -name third_party -exec rm -rf {} +
tar -cf - --exclude=./build --exclude=./dist --exclude=./third_party --exclude='./.venv*' --exclude=./.git \
    --exclude='*.so' --exclude=__pycache__ --exclude=./benchmarks/out . | tar -xmf - -C "$tree"
cp /etc/resolv.conf "$root/etc/resolv.conf"
for file in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf.d/*registry*; do
    [ ! -f "$file" ] || cp "$file" "$root/etc/apt/apt.conf.d/"
done

export ROOT="$root" VERSION="$version" HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8 BOLIDE_SYSTEM_LIBS=0 DEBIAN_FRONTEND=noninteractive
unset CC CFLAGS LDFLAGS PYTHONPATH VIRTUAL_ENV LD_PRELOAD || true
status=0
unshare --mount sh -euc '
    mount --bind /proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    mount -t tmpfs tmpfs "$ROOT/tmp"
    exec chroot "$ROOT" sh -euc "
        if ! command -v wrk >/dev/null || [ ! -f /usr/include/openssl/ssl.h ]; then
            apt-get update -qq && apt-get install -y -qq --no-install-recommends wrk libssl-dev
        fi >&2
        cd /srv/bolide-benchmarks
        module=benchmarks.\$1
        shift
        exec python\$VERSION -m \$module \"\$@\"
    " sh "$@"
' sh "$@" || status=$?
mkdir -p "$out"
cp -r "$tree/benchmarks/out/." "$out/" && echo "copied to $out" >&2
exit "$status"
