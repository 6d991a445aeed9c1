"""The third-party C libraries: the system's when new enough, else the pinned sources of third_party.toml."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .errors import BuildError

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "build_support" / "third_party.toml"
SOURCES = ROOT / "third_party"
# Written into an unpacked library: the SHA-256 of the archive it came from.
STAMP = ".archive-sha256"


@dataclass(frozen=True)
class Library:
    """One library of the manifest, with the entries of the running platform merged in."""

    name: str
    version: str
    pkg_config: str
    system_minimum: str
    distribution: str
    release: str
    archive: str
    sha256: str
    folder: str
    keep: list[str]
    drop: list[str]
    licenses: list[str]
    include: list[str]
    private_include: list[str]
    sources: list[str]
    defines: list[str]
    public_defines: list[str]
    include_first: list[str] = field(default_factory=list)  # headers of ours

    @property
    def path(self) -> Path:
        """Where the pinned sources are unpacked to."""
        return SOURCES / f"{self.name}-{self.version}"

    def is_unpacked(self) -> bool:
        stamp = self.path / STAMP
        return stamp.is_file() and stamp.read_text().strip() == self.sha256


@dataclass
class Linkage:
    """How the extension gets one library: from the system (flags only) or compiled in (sources)."""

    library: Library
    system: bool
    compile_flags: list[str] = field(default_factory=list)
    link_flags: list[str] = field(default_factory=list)


def load_manifest(path: Path = MANIFEST, platform: str = sys.platform) -> list[Library]:
    """Read the manifest; `platform` as in sys.platform ("linux", "darwin") picks the platform's own sources."""
    libraries = []
    for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
        platforms = {key: entry.pop(key) for key in ("linux", "darwin") if key in entry}
        for key, values in platforms.get(platform, {}).items():
            entry[key] = entry[key] + values
        libraries.append(Library(name=name, **entry))
    return libraries


def resolve(library: Library) -> Linkage:
    """Choose between the system's library and the pinned sources, which are fetched if they are not there yet.

    BOLIDE_SYSTEM_LIBS=0 never takes the system's, =1 insists on it; unset takes it when it is new enough.
    """
    wish = os.environ.get("BOLIDE_SYSTEM_LIBS", "")
    if wish != "0":
        linkage = _from_system(library)
        if linkage is not None:
            return linkage
        if wish == "1":
            raise BuildError(
                f"BOLIDE_SYSTEM_LIBS=1, but pkg-config finds no {library.pkg_config} >= {library.system_minimum}"
            )
    if sys.platform not in ("linux", "darwin"):
        raise BuildError(
            f"on {sys.platform} bolide needs the system's {library.name} >= {library.system_minimum}, with pkg-config"
        )
    ensure_sources([library])
    includes = [flag for folder in library.include for flag in ("-isystem", str(library.path / folder))]
    return Linkage(library, system=False, compile_flags=includes + [f"-D{name}" for name in library.public_defines])


def ensure_sources(libraries: list[Library]) -> None:
    """Unpack the pinned sources of `libraries` into third_party/, fetching the archives that are not at hand."""
    for library in libraries:
        if library.is_unpacked():
            continue
        with tempfile.TemporaryDirectory(prefix="bolide-") as folder:
            archive = _find_archive(library) or _download(library, Path(folder))
            _verify(library, archive)
            _unpack(library, archive)


def _from_system(library: Library) -> Linkage | None:
    pkg_config = os.environ.get("PKG_CONFIG", "pkg-config")
    if shutil.which(pkg_config) is None:
        return None

    def ask(*args: str) -> list[str] | None:
        result = subprocess.run([pkg_config, *args, library.pkg_config], capture_output=True, text=True)
        return result.stdout.split() if result.returncode == 0 else None

    if ask(f"--atleast-version={library.system_minimum}") is None:
        return None
    compile_flags, link_flags = ask("--cflags"), ask("--libs")
    if compile_flags is None or link_flags is None:
        return None
    compile_flags.append(f"-DBOLIDE_SYSTEM_{library.name.upper()}")
    return Linkage(library, system=True, compile_flags=compile_flags, link_flags=link_flags)


def _find_archive(library: Library) -> Path | None:
    """An archive that the user has put into the folder named by BOLIDE_ARCHIVES, for builds without a network."""
    folder = os.environ.get("BOLIDE_ARCHIVES")
    if not folder:
        return None
    archive = Path(folder) / library.archive
    if not archive.is_file():
        raise BuildError(f"BOLIDE_ARCHIVES={folder} has no {library.archive}")
    return archive


def _download(library: Library, folder: Path) -> Path:
    """Have pip fetch the archive. pip compares the hash before it looks inside; `_verify` does so once more."""
    requirements = folder / "requirements.txt"
    requirement = f"{library.distribution}=={library.release}"
    requirements.write_text(f"{requirement} --hash=sha256:{library.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--no-binary", library.distribution, "--no-build-isolation", "--require-hashes"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    # The version is pinned here; somebody's constraints are not about it.
    environment = {key: value for key, value in os.environ.items() if key not in ("PIP_CONSTRAINT", "PIP_REQUIREMENT")}
    print(f"fetching {library.name} {library.version} (in {library.archive})", flush=True)
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    archive = folder / library.archive
    if result.returncode == 0 and archive.is_file():
        return archive
    output = result.stderr + result.stdout
    if "No module named pip" in output:
        raise BuildError(f"{library.archive} is to be fetched with pip, and {sys.executable} has no pip")
    if "DO NOT MATCH THE HASHES" in output:
        raise BuildError(_mismatch(library, "what pip was given"))
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else "no output")
    raise BuildError(
        f"pip could not fetch {requirement}: {reason.removeprefix('ERROR:').strip()}"
        f" (without a network: put {library.archive} into a folder and name it in BOLIDE_ARCHIVES)"
    )


def _verify(library: Library, archive: Path) -> None:
    if hashlib.sha256(archive.read_bytes()).hexdigest() != library.sha256:
        raise BuildError(_mismatch(library, str(archive)))


def _mismatch(library: Library, origin: str) -> str:
    return f"{library.archive}: the SHA-256 of {origin} is not the pinned {library.sha256}; nothing was built"


def _unpack(library: Library, archive: Path) -> None:
    SOURCES.mkdir(exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{library.name}-", dir=SOURCES))
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if not member.isfile() or ".." in name.parts or not name.is_relative_to(library.folder):
                    continue
                name = name.relative_to(library.folder)
                kept = any(name.is_relative_to(prefix) for prefix in library.keep)
                if not kept or any(name.is_relative_to(prefix) for prefix in library.drop):
                    continue
                target = staging / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())
        missing = [name for name in library.sources + library.licenses if not (staging / name).is_file()]
        if missing:
            raise BuildError(f"{library.archive} has no {library.folder}/{missing[0]}")
        (staging / STAMP).write_text(library.sha256 + "\n", encoding="utf-8")
        staging.chmod(0o755)
        shutil.rmtree(library.path, ignore_errors=True)
        staging.rename(library.path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
