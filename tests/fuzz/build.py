"""Build the fuzz target server.c with clang: python tests/fuzz/build.py PROGRAM. Compiles what has changed only."""

import os
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from build_support import cbuild, commands, third_party  # noqa: E402

CLANG = os.environ.get("CLANG", "clang")
SANITIZE = ["-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COMPILE = [CLANG, *SANITIZE, "-fsanitize=fuzzer-no-link", "-std=gnu11", "-fPIC"]


def units() -> list[cbuild.Unit]:
    """Every C file: of the libraries, of the extension, and the target itself."""
    found, own = [], [*COMPILE, "-Wall", "-Wextra", "-Isrc", "-D_GNU_SOURCE", "-UNDEBUG"]
    own += ["-isystem", sysconfig.get_path("include")]
    for library in third_party.load_manifest():
        third_party.ensure_sources([library])
        base = library.path.relative_to(third_party.ROOT)
        flags = ["-w", *(f"-D{name}" for name in library.defines)]
        flags += [f"-I{base / path}" for path in library.include + library.private_include]
        own += [f"-I{base / path}" for path in library.include] + [f"-D{name}" for name in library.public_defines]
        for source in library.sources:
            # libuv reads addresses at offsets that are not aligned for them; that is not what is looked for here.
            command = (*COMPILE, "-fno-sanitize=undefined", *flags)
            found.append(cbuild.Unit(base / source, f"{library.name}/{source[:-2]}", command))
    for source in [*commands.source_files(), "tests/fuzz/server.c"]:
        found.append(cbuild.Unit(Path(source), f"bolide/{source[:-2]}", tuple(own)))
    return found


def main() -> None:
    """See the module."""
    os.chdir(ROOT)
    objects = cbuild.compile_units(units(), Path("build/fuzz/objects"))
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY")
    python = [f"-L{folder}", f"-Wl,-rpath,{folder}", f"-l{name.removeprefix('lib').rpartition('.')[0]}"]
    system = (sysconfig.get_config_var("LIBS") or "").split() + (sysconfig.get_config_var("SYSLIBS") or "").split()
    command = [CLANG, *SANITIZE, "-fsanitize=fuzzer", *map(str, objects), *python, *system, *commands.LIBRARIES]
    cbuild.link([*command, "-rdynamic"], Path(sys.argv[1]))


if __name__ == "__main__":
    main()
