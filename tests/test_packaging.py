"""The build and what it makes: the pinned sources, the source distribution, the wheel, the extension's symbols."""

import hashlib
import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import bolide
import bolide._core

ROOT = Path(__file__).resolve().parent.parent
TREE = ["src", "python", "build_support", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"]

if not (ROOT / "setup.py").is_file():
    pytest.skip("needs bolide's source tree", allow_module_level=True)


def run(*command, cwd, **environment):
    """Run a build command, out of the sanitizer's and the caller's influence; returns the finished process."""
    drop = ("LD_PRELOAD", "CFLAGS", "LDFLAGS", "PYTHONPATH")
    clean = {key: value for key, value in os.environ.items() if key not in drop and not key.startswith("BOLIDE_")}
    clean |= {"BOLIDE_LTO": "0", "BOLIDE_SYSTEM_LIBS": "0", "CFLAGS": "-O0"}
    clean |= {key: str(value) for key, value in environment.items()}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, timeout=240)


def build(tree, **environment):
    return run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", cwd=tree, **environment)


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources, with nothing built or fetched."""
    target = tmp_path / "bolide"
    target.mkdir()
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__"))
        else:
            shutil.copy2(source, target / name)
    return target


@pytest.fixture
def fetched(tree):
    """The same with the third-party sources of this tree, which a build with the system's libraries does not have."""
    if not (ROOT / "third_party").is_dir():
        pytest.skip("the pinned third-party sources have not been fetched here")
    shutil.copytree(ROOT / "third_party", tree / "third_party")
    return tree


def archive_of(folder, files):
    """A .tar.gz with `files` (name to content) in it; returns the path."""
    folder.mkdir(exist_ok=True)
    path = folder / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def only_line(text):
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_version_is_the_distributions():
    assert importlib.metadata.version("bolide") == bolide.__version__


@pytest.mark.skipif(shutil.which("nm") is None or sys.platform != "linux", reason="needs nm")
def test_extension_exports_its_init_function_only():
    output = subprocess.run(
        ["nm", "-D", "--defined-only", bolide._core.__file__], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[-1] for line in output.splitlines()] == ["PyInit__core"]


def test_wrong_archive_ends_the_build_with_one_line(tree, tmp_path):
    archive = archive_of(tmp_path / "archives", {"uvloop-0.23.0/vendor/libuv/LICENSE": b"not libuv"})
    archive.rename(archive.with_name("uvloop-0.23.0.tar.gz"))
    result = build(tree, BOLIDE_ARCHIVES=archive.parent)
    assert result.returncode == 1
    line = only_line(result.stderr)
    assert line.startswith("error: uvloop-0.23.0.tar.gz: the SHA-256 of ")
    assert not list(tree.glob("third_party/*")) and not list(tree.rglob("*.so"))


def test_changed_pin_does_not_take_sources_unpacked_before(fetched, tmp_path):
    manifest = fetched / "build_support" / "third_party.toml"
    text = manifest.read_text()
    digest = text.split('sha256 = "')[1][:64]
    manifest.write_text(text.replace(digest, hashlib.sha256(b"another").hexdigest()))
    (tmp_path / "empty").mkdir()
    result = build(fetched, BOLIDE_ARCHIVES=tmp_path / "empty")
    assert result.returncode == 1
    assert only_line(result.stderr).endswith("has no uvloop-0.23.0.tar.gz")


def test_archive_cannot_write_outside_its_folder(tree, tmp_path):
    names = ["pkg/lib/../../../escaped", "/escaped", "pkg/lib/LICENSE"]
    archive = archive_of(tmp_path / "archives", dict.fromkeys(names, b"text"))
    fields = {
        "version": "1",
        "pkg_config": "none",
        "system_minimum": "1",
        "distribution": "none",
        "release": "1",
        "archive": archive.name,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "folder": "pkg/lib",
    }
    lists = {"keep": ["LICENSE", "..", "../.."], "licenses": ["LICENSE"]}
    lists |= {key: [] for key in ["drop", "include", "private_include", "sources", "defines", "public_defines"]}
    text = "".join(f'{key} = "{value}"\n' for key, value in fields.items())
    text += "".join(f"{key} = {value}\n" for key, value in lists.items())
    (tree / "build_support" / "third_party.toml").write_text(f"[lib]\n{text}")
    code = "from build_support import third_party as t; t.ensure_sources(t.load_manifest())"
    result = run(sys.executable, "-c", code, cwd=tree, BOLIDE_ARCHIVES=archive.parent)
    assert result.returncode == 0, result.stderr
    files = {path.name for path in (tree / "third_party").rglob("*") if path.is_file()}
    assert files == {"LICENSE", ".archive-sha256"}
    assert not list(tmp_path.rglob("escaped"))


def test_missing_compiler_ends_with_one_line(tree):
    result = build(tree, CC="bolide-has-no-such-compiler")
    assert result.returncode == 1
    assert only_line(result.stderr).startswith(
        "error: a C compiler (bolide-has-no-such-compiler) missing; to install: "
    )


@pytest.mark.parametrize("header", ["zlib.h", "Python.h"])
def test_missing_header_ends_with_one_line(tree, tmp_path, header):
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *" -E "*) ! grep -q {header};; *) exit 0;; esac\n')
    compiler.chmod(0o755)
    result = build(tree, CC=compiler)
    assert result.returncode == 1
    assert only_line(result.stderr).startswith(f"error: the C header {header} missing; to install: ")


@pytest.mark.parametrize("name", ["BOLIDE_LTO", "BOLIDE_SANITIZE", "BOLIDE_WERROR"])
def test_switch_of_the_environment_is_0_or_1(fetched, name):
    result = build(fetched, **{name: "yes"})
    assert result.returncode == 1
    assert only_line(result.stderr) == f"error: {name} is 0 or 1, not 'yes'"


def test_make_refuses_an_old_interpreter_with_one_line(tmp_path):
    if shutil.which("make") is None or not (ROOT / "Makefile").is_file():
        pytest.skip("needs make")
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = run("make", f"PYTHON={old}", f"VENV={tmp_path}/venv", "build", cwd=ROOT)
    assert result.returncode != 0
    assert result.stderr.splitlines()[0].startswith("error: bolide needs CPython 3.11 or newer")
    assert not (tmp_path / "venv").exists()


def compiled(tree, **environment):
    """Build, and return the C files that were compiled for it."""
    result = build(tree, **environment)
    assert result.returncode == 0, result.stderr
    return [line.split()[1] for line in result.stdout.splitlines() if line.split()[:1] == ["cc"]]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rebuild_compiles_what_changed(fetched):
    for path in (fetched / "src").rglob("*.[ch]"):
        if path.name != "epoll.h":  # which libuv's sources include
            path.unlink()
    (fetched / "src" / "value.h").write_text("#define VALUE 1\n")
    (fetched / "src" / "one.c").write_text('#include "value.h"\nint one(void);\nint one(void) { return VALUE; }\n')
    (fetched / "src" / "two.c").write_text("int two(void);\nint two(void) { return 2; }\n")
    first = compiled(fetched)
    assert {"src/one.c", "src/two.c"} < set(first) and any("libuv" in name for name in first)
    assert compiled(fetched) == []
    (fetched / "src" / "value.h").write_text("#define VALUE 3\n")
    assert compiled(fetched) == ["src/one.c"]
    (fetched / "src" / "three.c").write_text("int three(void);\nint three(void) { return 3; }\n")
    assert compiled(fetched) == ["src/three.c"]
    assert set(compiled(fetched, BOLIDE_WERROR=1)) == {"src/one.c", "src/three.c", "src/two.c"}
    (fetched / "src" / "two.c").write_text("int two(void) { return 2 }\n")
    broken = build(fetched)
    assert broken.returncode == 1 and "error: 1 of " in broken.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_source_distribution_installs_without_a_network(fetched, tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    made = run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", tmp_path / "dist", cwd=fetched)
    assert made.returncode == 0, made.stderr
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for name in ("libuv-1.52.1/include/uv.h", "libuv-1.52.1/LICENSE", "llhttp-9.4.3/src/llhttp.c"):
        assert f"third_party/{name}" in names
    assert not [name for name in names if name.endswith((".so", ".o"))]

    offline = {"PIP_NO_INDEX": 1, "PIP_FIND_LINKS": "", "https_proxy": "http://127.0.0.1:9"}
    options = ["--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path / "dist"]
    made = run(sys.executable, "-m", "pip", "wheel", *options, archive, cwd=tmp_path, **offline)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        licenses = {name.partition("/licenses/")[2] for name in content.namelist() if "/licenses/" in name}
    assert licenses == {
        "LICENSE",
        "third_party/libuv-1.52.1/LICENSE",
        "third_party/libuv-1.52.1/LICENSE-extra",
        "third_party/llhttp-9.4.3/LICENSE",
        "third_party/llhttp-9.4.3/LICENSE-MIT",
    }

    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    target = run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))", cwd=tmp_path).stdout.strip()
    with zipfile.ZipFile(wheel) as content:
        content.extractall(target)
    imported = run(python, "-c", "import bolide._core; print(bolide._core.__file__)", cwd=tmp_path)
    assert imported.stdout.startswith(str(tmp_path)), imported.stderr
