"""Source distributions of other projects, whose tests are run here: fetched by pip, kept in the user's cache."""

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bolide" / "sources"


def _archive(name: str, version: str) -> Path:
    wanted = f"{name}-{version}.tar.gz"
    given = [Path(folder) for folder in os.environ.get("BOLIDE_ARCHIVES", "").split(os.pathsep) if folder]
    for folder in [*given, CACHE]:
        if (folder / wanted).is_file():
            return folder / wanted
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name]
    subprocess.run([*command, "--dest", str(CACHE), f"{name}=={version}"], check=True, stdin=subprocess.DEVNULL)
    return CACHE / wanted


def unpack(name: str, version: str, folder: Path, sha256: str | None = None) -> Path:
    """Unpack the source distribution `name`-`version` into `folder`; returns its top folder.

    Raises:
        subprocess.CalledProcessError: pip could not fetch it.
        ValueError: its hash is not `sha256`.
    """
    archive = _archive(name, version)
    if sha256 is not None and hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{archive} is not the {name} {version} that is expected: its SHA-256 differs")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / f"{name}-{version}"
