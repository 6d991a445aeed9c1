"""Compile C files in parallel and only when needed, and link them."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError


@dataclass(frozen=True)
class Unit:
    """One C file to compile."""

    source: Path
    # Its name under the object folder, without suffix.
    name: str
    # The whole command up to the source: compiler and flags.
    command: tuple[str, ...]


def job_count() -> int:
    """How many compilers run at once: BOLIDE_JOBS, or one for each CPU this process may use."""
    jobs = os.environ.get("BOLIDE_JOBS", "")
    if jobs.isdigit() and int(jobs) > 0:
        return int(jobs)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def digest(*parts: object) -> str:
    """A short name for a combination of flags."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def compiler_identity(compiler: Iterable[str]) -> str:
    """What tells one compiler from another: its --version."""
    result = subprocess.run([*compiler, "--version"], capture_output=True, text=True)
    return result.stdout + result.stderr


def compile_units(units: list[Unit], folder: Path) -> list[Path]:
    """Compile what is out of date into `folder` and return the objects, in the order of `units`.

    An object is named after its source and a digest of its command, so that a change of flags never meets an old
    object. It is out of date when a file that the compiler read for it (its depfile) is newer or gone.
    """
    objects = [folder / f"{unit.name}-{digest(unit.command)}.o" for unit in units]
    stale = [(unit, target) for unit, target in zip(units, objects, strict=True) if not _is_fresh(target)]
    with ThreadPoolExecutor(job_count()) as pool:
        failed = [result for result in pool.map(lambda pair: _compile(*pair), stale) if result is not None]
    if failed:
        raise BuildError(f"{len(failed)} of {len(units)} C files did not compile: {', '.join(map(str, failed))}")
    return objects


def link(command: list[str], target: Path) -> bool:
    """Run the link `command` (without -o) unless `target` is newer than every input that is a file and came of the
    same command. Returns whether it was linked anew."""
    stamp = target.with_suffix(target.suffix + ".command")
    inputs = [Path(word) for word in command if word.endswith((".o", ".a", ".map"))]
    recorded = stamp.read_text() if stamp.is_file() else None
    if recorded == repr(command) and target.is_file():
        made = target.stat().st_mtime_ns
        if all(path.stat().st_mtime_ns <= made for path in inputs if path.is_file()):
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    _report(f"link  {target.name}", command)
    if subprocess.run([*command, "-o", str(partial)]).returncode:
        raise BuildError(f"{target.name} did not link")
    partial.replace(target)
    stamp.write_text(repr(command))
    return True


def accepts(compiler: list[str], flags: list[str], folder: Path) -> bool:
    """Can `compiler` build a shared object with `flags`?"""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"probe-{os.getpid()}.so"
    command = [*compiler, *flags, "-fPIC", "-shared", "-x", "c", "-", "-o", str(target)]
    program = "int bolide_probe(void) { return 0; }\n"
    try:
        return subprocess.run(command, input=program, capture_output=True, text=True).returncode == 0
    finally:
        target.unlink(missing_ok=True)


def _is_fresh(target: Path) -> bool:
    depfile = target.with_suffix(".d")
    if not target.is_file() or not depfile.is_file():
        return False
    made = target.stat().st_mtime_ns
    rule = depfile.read_text().replace("\\\n", " ").partition(": ")[2].splitlines()
    names = rule[0].replace("\\ ", "\0").split() if rule else []
    try:
        return all(os.stat(name.replace("\0", " ")).st_mtime_ns <= made for name in names)
    except FileNotFoundError:
        return False


def _compile(unit: Unit, target: Path) -> Path | None:
    """Compile one unit; returns its source if that failed. The compiler's own output goes to stderr in one piece."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    depfile = target.with_suffix(".d")
    command = [*unit.command, "-MD", "-MF", str(depfile), "-c", str(unit.source), "-o", str(partial)]
    # The object's time is that of the start, so that a file edited while the compiler ran is seen as newer.
    started = _now(target.parent)
    _report(f"cc    {unit.source}", command)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.stdout:
        sys.stderr.write(result.stdout)
        sys.stderr.flush()
    if result.returncode:
        partial.unlink(missing_ok=True)
        return unit.source
    os.utime(partial, ns=(started, started))
    partial.replace(target)
    return None


def _now(folder: Path) -> int:
    """The file system's own idea of now, which may be coarser than the clock's."""
    probe = folder / f".now-{os.getpid()}-{threading.get_ident()}"
    probe.touch()
    try:
        return probe.stat().st_mtime_ns
    finally:
        probe.unlink()


def _report(short: str, command: list[str]) -> None:
    # One write, so that the lines of parallel compilers do not mix.
    sys.stdout.write((" ".join(command) if os.environ.get("BOLIDE_VERBOSE") == "1" else f"  {short}") + "\n")
    sys.stdout.flush()
