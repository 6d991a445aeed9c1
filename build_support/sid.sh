#!/bin/sh
# Run the tests, and CPython's own of asyncio, on the newest CPythons, in a Debian sid root made with debootstrap and kept
# in the user's cache. Of the environment: ARGS goes to pytest, SID_ROOT names another place for the root, SID_REFRESH=1
# makes it anew and SID_PYTHONS names the interpreters.
set -eu
pythons=${SID_PYTHONS:-3.14 3.15}
root=${SID_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/bolide/sid}
packages=gcc,libc6-dev,make,zlib1g-dev,pkg-config,ca-certificates,iproute2,libuv1-dev,libllhttp-dev
for version in $pythons; do
    packages=$packages,python$version,python$version-dev,python$version-venv,libpython$version-testsuite
done

fail() {
    echo "error: $1" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "make test-sid has to run as root (debootstrap, chroot)"
command -v debootstrap >/dev/null || fail "debootstrap is missing; install it: apt-get install debootstrap"
unshare --mount true 2>/dev/null || fail "make test-sid needs the right to mount (unshare --mount)"

if [ "${SID_REFRESH:-}" = 1 ] || [ "$(cat "$root/.bolide-packages" 2>/dev/null)" != "$packages" ]; then
    echo "making a Debian sid root in $root"
    rm -rf "$root"
    mkdir -p "$root"
    if ! debootstrap --variant=minbase --include="$packages" sid "$root" >"$root.log" 2>&1; then
        tail -5 "$root.log" >&2
        fail "debootstrap failed; $root.log has the whole of it"
    fi
    echo "$packages" >"$root/.bolide-packages"
fi

# The network as this machine has it: name service, certificates, pip's configuration (the environment passes as it is).
cp /etc/resolv.conf "$root/etc/resolv.conf"
[ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"
for config in .config/pip .pip; do
    [ ! -d "$HOME/$config" ] || { mkdir -p "$root/root/$config" && cp "$HOME/$config"/* "$root/root/$config/"; }
done

# A copy of the tree; what was built there before stays, and so do the environments.
tree=$root/srv/bolide
mkdir -p "$tree"
find "$tree" -mindepth 1 -maxdepth 1 ! -name 'build' ! -name 'third_party' ! -name '.venv*' ! -name '.pytest_cache' -exec rm -rf {} +
tar -cf - --exclude=./build --exclude=./dist --exclude='./.venv*' --exclude=./.git --exclude='*.so' \
    --exclude=./.claude --exclude=__pycache__ . | tar -xf - -C "$tree"

# PATH and HOME as a login there would have them. The first version takes the pinned libraries, the
# others the system's.
export ROOT="$root" HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8
unset CC CFLAGS LDFLAGS PYTHONPATH VIRTUAL_ENV LD_PRELOAD PIP_FIND_LINKS || true
system=0
status=0
for version in $pythons; do
    echo "CPython $version in Debian sid, $([ $system = 0 ] && echo pinned || echo "the system's") libuv and llhttp"
    export VERSION="$version" BOLIDE_SYSTEM_LIBS="$system"
    unshare --mount sh -euc '
        mount --bind /proc "$ROOT/proc"
        mount --rbind /dev "$ROOT/dev"
        mount -t tmpfs tmpfs "$ROOT/tmp"
        exec chroot "$ROOT" sh -euc "cd /srv/bolide && export PYTHON=python$VERSION && make test &&
            make conformance-cpython ARGS=\"--loop bolide\""
    ' || status=1
    system=1
done
exit "$status"
