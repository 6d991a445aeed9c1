"""What the benchmarks run in: a virtual environment with the peers, bolide built for it, the C programs, the cores."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from build_support import third_party

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
OUT = HERE / "out"
BUILD = ROOT / "build" / "benchmarks"

# Peers that every comparison needs; one that cannot be installed is reported and left out.
REQUIREMENTS = [
    "uvicorn[standard]==0.54.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
    "granian==2.8.7",
    "fastapi",
    "trustme",
    # What builds bolide.
    "setuptools>=77",
]
# Peers that are installed when one of them is asked for.
OPTIONAL = {
    "fastpysgi": "fastpysgi==0.6",
    "freastal": "freastal==0.0.3",
    "socketify": "socketify==0.0.31",
    "rloop": "rloop==0.5.0",
    "zuvloop": "zuvloop==0.0.17",
    "zttp": "zttp==0.0.35",
}


class BenchmarkError(Exception):
    """Something without which there is nothing to measure; the message is one line."""


@dataclass
class Environment:
    """The interpreter of the virtual environment, and what is known of it."""

    python: Path
    version: tuple[int, int]
    # Packages that could not be installed, each with the reason.
    missing: dict[str, str] = field(default_factory=dict)
    # Why bolide is not there, if it is not.
    bolide_error: str | None = None

    def command(self, name: str) -> str:
        """The path of a console script in the environment."""
        return str(self.python.parent / name)


def say(text: str) -> None:
    """Tell the progress, apart from the results on standard output."""
    print(text, file=sys.stderr, flush=True)


def cores() -> tuple[int, int]:
    """The core for the servers and the one for the load; the same twice on a machine with one core only."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) == 1:
        say("only one core: server and load share it, so take the figures with a pinch of salt")
    return usable[0], usable[-1]


def find(python: str) -> Environment:
    """The environment that belongs to an interpreter, made if it is not there."""
    answer = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info[0], sys.version_info[1], sys.implementation.cache_tag)"],
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        raise BenchmarkError(f"{python} is no Python interpreter: {answer.stderr.strip()}")
    major, minor, tag = answer.stdout.split()
    folder = BUILD / f"venv-{tag}"
    environment = Environment(folder / "bin" / "python", (int(major), int(minor)))
    if not environment.python.exists():
        say(f"making {folder}")
        run_or_fail([python, "-m", "venv", str(folder)])
    return environment


def prepare(environment: Environment, optional: list[str], bolide: bool = True) -> None:
    """Install the peers, the `optional` ones too, and build bolide from this tree; what fails is written down."""
    _install(environment, [*REQUIREMENTS, *(OPTIONAL[name] for name in optional)])
    if bolide:
        environment.bolide_error = _build_bolide(environment)


def run_or_fail(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr + result.stdout).strip().splitlines()
        raise BenchmarkError(f"{shlex.join(command)}: {lines[-1] if lines else result.returncode}")


def _install(environment: Environment, requirements: list[str]) -> None:
    """Install what is not there yet; a record of what was done makes the second time quick."""
    record = environment.python.parent.parent / "installed.json"
    done = json.loads(record.read_text()) if record.is_file() else []
    for requirement in requirements:
        if requirement in done:
            continue
        say(f"installing {requirement}")
        try:
            run_or_fail(
                [str(environment.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
            )
        except BenchmarkError as error:
            name = requirement.split("=")[0].split("[")[0]
            environment.missing[name] = str(error)
            say(f"{requirement} cannot be installed: {error}")
            continue
        done.append(requirement)
        record.write_text(json.dumps(done))


def _build_bolide(environment: Environment) -> str | None:
    """Compile the extension in place, incrementally. Returns why that failed, if it did."""
    say("building bolide")
    result = subprocess.run(
        [str(environment.python), "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        return f"the build failed: {lines[-1] if lines else 'without a word'}"
    probe = subprocess.run(
        [str(environment.python), "-c", "import bolide._core"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
    )
    return f"it cannot be imported: {probe.stderr.strip().splitlines()[-1]}" if probe.returncode else None


def make_certificate(environment: Environment) -> tuple[str, str]:
    """A self-signed certificate and its key, made once."""
    files = BUILD / "certificate.pem", BUILD / "key.pem"
    if not all(path.is_file() for path in files):
        program = (
            "import sys, trustme; made = trustme.CA().issue_cert('localhost');"
            "made.cert_chain_pems[0].write_to_path(sys.argv[1]); made.private_key_pem.write_to_path(sys.argv[2])"
        )
        run_or_fail([str(environment.python), "-c", program, *map(str, files)])
    return str(files[0]), str(files[1])


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def build_limit(environment: Environment) -> Path:
    """Compile benchmarks/limit with the libuv and llhttp, and the optimisation, that the extension is built with."""
    os.chdir(ROOT)
    fetch = "from build_support import third_party as t; [t.resolve(library) for library in t.load_manifest()]"
    run_or_fail([str(environment.python), "-c", fetch])
    flags = ["-O3", "-flto=auto", "-std=gnu11", "-D_GNU_SOURCE"]
    libraries, sources = [], []
    for library in third_party.load_manifest():
        linkage = third_party.resolve(library)
        flags += linkage.compile_flags
        libraries += linkage.link_flags
        if not linkage.system:
            flags += [f"-D{name}" for name in library.defines if not name.startswith("_GNU_SOURCE")]
            flags += [f"-I{library.path / path}" for path in library.private_include]
            sources += [str(library.path / name) for name in library.sources]
    own = [str(path) for path in sorted((HERE / "limit").glob("*.c"))]
    libraries += ["-lpthread", "-ldl", "-lrt"]
    return _compile("limit", [*compiler(), *flags, "-w", *own, *sources], libraries, [])


def build_pingpong() -> Path:
    """Compile benchmarks/load, with TLS where OpenSSL's headers are."""
    sources = [str(path) for path in sorted((HERE / "load").glob("*.c"))]
    headers = [str(path) for path in sorted((HERE / "load").glob("*.h"))]
    command = [*compiler(), "-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE"]
    if has_openssl():
        return _compile("pingpong", [*command, "-DWITH_OPENSSL", *sources], ["-lssl", "-lcrypto"], headers)
    return _compile("pingpong", [*command, *sources], [], headers)


def has_openssl() -> bool:
    program = "#include <openssl/ssl.h>\nint main(void) { return SSL_library_init() < 0; }\n"
    command = [*compiler(), "-x", "c", "-", "-lssl", "-lcrypto", "-o", os.devnull]
    return subprocess.run(command, input=program, capture_output=True, text=True).returncode == 0


def _compile(name: str, command: list[str], libraries: list[str], headers: list[str]) -> Path:
    """Compile unless the same command made the same sources into what is there."""
    target = BUILD / name
    stamp = BUILD / f"{name}.stamp"
    digest = hashlib.sha256(repr((command, libraries)).encode())
    for path in [word for word in command if word.endswith(".c")] + headers:
        digest.update(Path(path).read_bytes())
    if target.is_file() and stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return target
    if shutil.which(command[0]) is None:
        raise BenchmarkError(f"there is no C compiler ({command[0]})")
    say(f"compiling {name}")
    BUILD.mkdir(parents=True, exist_ok=True)
    run_or_fail([*command, "-o", str(target), *libraries])
    stamp.write_text(digest.hexdigest())
    return target
