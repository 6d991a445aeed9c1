"""Is everything there that a build needs? Also a program: `python build_support/toolchain.py` says what is missing."""

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


def advice(missing: str) -> str:
    """The command that installs what is missing: a key of PACKAGES."""
    if sys.platform == "darwin":
        return "install it: xcode-select --install"
    for manager, command in COMMANDS.items():
        package = PACKAGES[missing].get(manager)
        if package and shutil.which(manager):
            return f"install it: {command} {package}"
    return f"install it (Debian: {PACKAGES[missing]['apt-get']})"


def compiler_command() -> list[str]:
    """The C compiler that setuptools would use."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def check_build() -> None:
    """Raise BuildError, naming the package to install, unless a C extension with zlib can be compiled."""
    compiler = compiler_command()
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"there is no C compiler ({compiler[0]}); {advice('compiler')}")
    include = sysconfig.get_path("include")
    flags = [f"-I{include}", f"-I{sysconfig.get_path('platinclude')}"]
    flags += shlex.split(os.environ.get("CPPFLAGS", "")) + shlex.split(os.environ.get("CFLAGS", ""))
    for header, missing in (("stdlib.h", "libc"), ("Python.h", "python"), ("zlib.h", "zlib")):
        command = [*compiler, *flags, "-E", "-x", "c", "-", "-o", os.devnull]
        if subprocess.run(command, input=f"#include <{header}>\n", capture_output=True, text=True).returncode:
            raise BuildError(f"the C header {header} is missing; {advice(missing)}")


def check_venv() -> None:
    """Raise BuildError unless this interpreter can make virtual environments with pip in them."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise BuildError(f"{sys.executable} cannot make a virtual environment with pip; {advice('venv')}") from None


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    try:
        check_venv()
        check_build()
    except BuildError as error:
        sys.exit(f"error: {error}")
    print(f"toolchain: {Path(sys.executable)} {VERSION}, {' '.join(compiler_command())}")
