"""The setuptools commands of bolide: build_ext compiles src/ and the third-party libraries; sdist carries those."""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.command.egg_info import egg_info as _egg_info
from setuptools.command.sdist import sdist as _sdist

from . import cbuild, third_party
from .errors import BuildError

ROOT = third_party.ROOT
OPTIMISE = ["-O3"]
# Undefined behaviour traps, so that AddressSanitizer reports it too: into its log, from every process of a test run.
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv", "-fsanitize=address,undefined"]
SANITIZE += ["-fno-sanitize-recover=address", "-fsanitize-undefined-trap-on-error"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow"]
LIBRARIES = ["-lz", "-lpthread"] + (["-ldl", "-lrt", "-lm"] if sys.platform == "linux" else [])


def source_files() -> list[str]:
    """Every C file of src/, relative to the project, sorted."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.c"))


def header_files() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.h"))


def switched_on(name: str, default: bool = False) -> bool:
    """A switch of the environment: 1 or 0."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise BuildError(f"{name} is 0 or 1, not {value!r}")
    return default if value == "" else value == "1"


class egg_info(_egg_info):
    """egg_info that records the licences of the third-party libraries that are compiled in."""

    def run(self):
        carried = "sdist" in self.distribution.commands
        metadata = self.distribution.metadata
        for library in third_party.load_manifest():
            if carried or not third_party.resolve(library).system:
                folder = library.path.relative_to(ROOT)
                names = [(folder / name).as_posix() for name in library.licenses]
                metadata.license_files = list(dict.fromkeys([*(metadata.license_files or []), *names]))
        super().run()


class sdist(_sdist):
    """sdist that carries the pinned third-party sources, so that installing from it needs no network."""

    def run(self):
        third_party.ensure_sources(third_party.load_manifest())
        super().run()


class build_ext(_build_ext):
    """build_ext that compiles in parallel, incrementally, and links the third-party libraries in."""

    def build_extension(self, ext):
        linkages = [third_party.resolve(library) for library in third_party.load_manifest()]
        sanitize = switched_on("BOLIDE_SANITIZE")
        compiler, linker = list(self.compiler.compiler_so), list(self.compiler.linker_so)
        folder = Path("build") / self._folder_name(compiler)

        mode = list(SANITIZE if sanitize else OPTIMISE)
        if not sanitize and switched_on("BOLIDE_LTO", default=True):
            mode += self._lto_flags(compiler, folder)
        user = shlex.split(os.environ.get("CFLAGS", ""))
        objects = cbuild.compile_units(self._units(compiler, linkages, mode, user), folder)

        exports = self._export_flags(ext, folder)
        libraries = [flag for linkage in linkages for flag in linkage.link_flags]
        libraries += [f"-L{path}" for path in self.library_dirs or []] + LIBRARIES
        command = [*linker, *mode, *user, *map(str, objects), *exports, *libraries]
        built = folder / "linked" / cbuild.digest(command) / f"{ext.name.rpartition('.')[2]}.so"
        cbuild.link(command, built)
        self._install(built, Path(self.get_ext_fullpath(ext.name)))

    def _folder_name(self, compiler):
        identity = cbuild.digest(cbuild.compiler_identity(compiler[:1]), sys.version, sysconfig.get_path("include"))
        return f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}-{identity}"

    def _lto_flags(self, compiler, folder):
        for flag in ("-flto=auto", "-flto"):
            if cbuild.accepts(compiler[:1], ["-O3", flag], folder):
                return [flag]
        print("this compiler has no link-time optimisation; building without", flush=True)
        return []

    def _units(self, compiler, linkages, mode, user):
        hidden = ["-std=gnu11", "-fvisibility=hidden"]
        units = []
        for linkage in linkages:
            if not linkage.system:
                units += self._library_units(linkage.library, [*compiler, *mode, *user, *hidden])
        own = [*WARNINGS, "-Isrc", "-D_GNU_SOURCE"]
        if switched_on("BOLIDE_WERROR"):
            own.append("-Werror")
        if switched_on("BOLIDE_SANITIZE"):
            own.append("-UNDEBUG")
        # Headers of others are searched as the system's, so that our warnings are about our code.
        for linkage in linkages:
            own += linkage.compile_flags
        # But for a debug build's: Debian keeps them as links to the other build's, whose pyconfig.h gcc takes then.
        search = "-I" if sysconfig.get_config_var("Py_DEBUG") else "-isystem"
        for path in self.include_dirs or []:
            own += [search, path]
        for source in source_files():
            name = f"bolide/{source.removeprefix('src/').removesuffix('.c')}"
            units.append(cbuild.Unit(Path(source), name, (*compiler, *mode, *hidden, *own, *user)))
        return units

    def _library_units(self, library, command):
        base = library.path.relative_to(ROOT)
        flags = ["-w", *(f"-D{name}" for name in library.defines)]
        flags += [f"-I{base / path}" for path in library.include + library.private_include]
        flags += [flag for path in library.include_first for flag in ("-include", path)]
        return [
            cbuild.Unit(base / source, f"{library.name}-{library.version}/{source[:-2]}", (*command, *flags))
            for source in library.sources
        ]

    def _export_flags(self, ext, folder):
        """Only the module's init function leaves the extension: libuv's own names must not meet another libuv's."""
        init = "PyInit_" + ext.name.rpartition(".")[2]
        if sys.platform == "darwin":
            return [f"-Wl,-exported_symbol,_{init}"]
        script = folder / "exports.map"
        text = f"{{ global: {init}; local: *; }};\n"
        if not script.is_file() or script.read_text() != text:
            script.write_text(text)
        return [f"-Wl,--version-script={script}", "-Wl,-z,now", "-Wl,--as-needed"]

    def _install(self, built, target):
        same = target.is_file() and target.stat().st_size == built.stat().st_size
        if same and target.read_bytes() == built.read_bytes():
            return
        # A process may be running the old one: it is replaced, never written over.
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        shutil.copyfile(built, partial)
        partial.chmod(0o755)
        partial.replace(target)
