"""Is everything there that a build needs? Also a program: `python build_support/toolchain.py` says what is missing."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

if __package__:
    from .errors import BuildError
else:
    from errors import BuildError

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# What to install, by what is missing and by the package manager that is there.
PACKAGES = {
    "compiler": {"apt-get": "gcc libc6-dev", "dnf": "gcc", "apk": "gcc musl-dev", "pacman": "gcc", "zypper": "gcc"},
    "libc": {
        "apt-get": "libc6-dev",
        "dnf": "glibc-devel",
        "apk": "musl-dev",
        "pacman": "glibc",
        "zypper": "glibc-devel",
    },
    "python": {
        "apt-get": f"python{VERSION}-dev",
        "dnf": f"python{VERSION}-devel",
        "apk": "python3-dev",
        "pacman": "python",
        "zypper": f"python{VERSION.replace('.', '')}-devel",
    },
    "zlib": {"apt-get": "zlib1g-dev", "dnf": "zlib-devel", "apk": "zlib-dev", "pacman": "zlib", "zypper": "zlib-devel"},
    "venv": {"apt-get": f"python{VERSION}-venv", "apk": "py3-pip"},
}
COMMANDS = {
    "apt-get": "apt-get install",
    "dnf": "dnf install",
    "apk": "apk add",
    "pacman": "pacman -S",
    "zypper": "zypper install",
}


def advice(parts: list[str]) -> str:
    """The command that installs what is missing: keys of PACKAGES."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    for manager, command in COMMANDS.items():
        packages = [PACKAGES[part][manager] for part in parts if manager in PACKAGES[part]]
        if packages and shutil.which(manager):
            return f"{command} {' '.join(packages)}"
    return f"on Debian apt-get install {' '.join(PACKAGES[part]['apt-get'] for part in parts)}"


def compiler_command() -> list[str]:
    """The C compiler: CC, or the one that this Python was built with, or, where that is not installed, another."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    preferred = shlex.split(sysconfig.get_config_var("CC") or "cc")
    if shutil.which(preferred[0]) is None:
        for name in ("cc", "gcc", "clang"):
            if shutil.which(name):
                return [name]
    return preferred


def missing_for_build() -> dict[str, str]:
    """What keeps a C extension with zlib from being compiled: keys of PACKAGES, each with its name for the user."""
    compiler = compiler_command()
    folders = [sysconfig.get_path("include"), sysconfig.get_path("platinclude")]
    headers = {"libc": "stdlib.h", "python": "Python.h", "zlib": "zlib.h"}
    missing = {}
    if shutil.which(compiler[0]) is None:
        missing["compiler"] = f"a C compiler ({compiler[0]})"
        # Without one to ask, look where headers usually are.
        del headers["libc"]
        folders += ["/usr/include", "/usr/local/include"]
        absent = {part for part, header in headers.items() if not any(Path(at, header).is_file() for at in folders)}
    else:
        flags = [f"-I{folder}" for folder in folders]
        flags += shlex.split(os.environ.get("CPPFLAGS", "")) + shlex.split(os.environ.get("CFLAGS", ""))
        command = [*compiler, *flags, "-E", "-x", "c", "-", "-o", os.devnull]

        def is_absent(header: str) -> bool:
            text = f"#include <{header}>\n"
            return subprocess.run(command, input=text, capture_output=True, text=True).returncode != 0

        # Without the C library's headers nothing can be said about the others.
        absent = {"libc"} if is_absent(headers["libc"]) else {part for part in headers if is_absent(headers[part])}
    return missing | {part: f"the C header {header}" for part, header in headers.items() if part in absent}


def missing_for_venv() -> dict[str, str]:
    """What keeps this interpreter from making virtual environments with pip in them."""
    found = all(importlib.util.find_spec(name) for name in ("ensurepip", "venv"))
    return {} if found else {"venv": "Python's venv and ensurepip"}


def check(missing: dict[str, str]) -> None:
    """Raise BuildError, with the command that installs all of it, if anything is missing."""
    if missing:
        raise BuildError(f"{' and '.join(missing.values())} missing; to install: {advice(list(missing))}")


if __name__ == "__main__":
    try:
        check(missing_for_venv() | missing_for_build())
    except BuildError as error:
        sys.exit(f"error: {error}")
    print(f"toolchain: {sys.executable} {VERSION}, {' '.join(compiler_command())}")
