"""Builds bolide._core: src/**/*.c with libuv and llhttp. See build_support/; everything else is in pyproject.toml.

Switches, all in the environment: BOLIDE_LTO=0 (quick builds), BOLIDE_WERROR=1, BOLIDE_SANITIZE=1 (ASan and UBSan),
BOLIDE_SYSTEM_LIBS=0|1, BOLIDE_ARCHIVES=<folder>, BOLIDE_JOBS=<n>, BOLIDE_VERBOSE=1.
"""

import os
import shlex
import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_support import commands, toolchain
from build_support.errors import BuildError

try:
    # Before setuptools says anything, so that this is all that pip shows.
    if {"bdist_wheel", "build", "build_ext", "editable_wheel", "install"} & set(sys.argv):
        toolchain.check(toolchain.missing_for_build())
        # For setuptools to take the same compiler.
        os.environ.setdefault("CC", shlex.join(toolchain.compiler_command()))
    setup(
        ext_modules=[Extension("bolide._core", sources=commands.source_files(), depends=commands.header_files())],
        cmdclass={"build_ext": commands.build_ext, "egg_info": commands.egg_info, "sdist": commands.sdist},
    )
except BuildError as error:
    sys.exit(f"error: {error}")
