"""The Autobahn test suite's fuzzing client against bolide: `make autobahn`.

Its 517 cases cover the whole of RFC 6455 and RFC 7692. It needs Python 2.7, from which an environment is made in
.venv-autobahn once; AUTOBAHN_PYTHON names the interpreter, AUTOBAHN_WSTEST a wstest that is there already. Where
there is no Python 2.7 it says so and ends with success.
"""

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "autobahn"
ENVIRONMENT = ROOT / ".venv-autobahn"
# The last virtualenv that makes environments for Python 2.7.
VIRTUALENV = "virtualenv<20.22"
SUITE = "autobahntestsuite==25.10.1"
FINE = {"OK", "INFORMATIONAL"}
GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "close",
    "9": "limits and performance",
    "10": "auto-fragmentation",
    "12": "compression",
    "13": "compression, parameters",
}
APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
"""

sys.path.insert(0, str(ROOT / "tests"))

from support.server import ServerProcess  # noqa: E402


def find_python2() -> str | None:
    """An interpreter of Python 2.7, or None."""
    candidates = [os.environ.get("AUTOBAHN_PYTHON"), shutil.which("python2.7"), shutil.which("python2")]
    candidates += map(str, sorted(Path("~/.pyenv/versions").expanduser().glob("2.7.*/bin/python")))
    for candidate in filter(None, candidates):
        version = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        if "Python 2.7." in version.stdout + version.stderr:
            return candidate
    return None


def find_wstest() -> str | None:
    """The suite's command, installed if need be; None where there is no Python 2.7."""
    if command := os.environ.get("AUTOBAHN_WSTEST"):
        return command
    command = ENVIRONMENT / "bin" / "wstest"
    if command.exists():
        return str(command)
    interpreter = find_python2()
    if interpreter is None:
        return None
    print(f"making {ENVIRONMENT.name} with {SUITE}", flush=True)
    tools = OUT / "virtualenv"
    # virtualenv itself runs on this Python; it only has to know how to make an environment for 2.7.
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(tools), VIRTUALENV], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    make = [sys.executable, "-m", "virtualenv", "-q", "-p", interpreter, str(ENVIRONMENT)]
    subprocess.run(make, check=True, env=environment)
    subprocess.run([str(ENVIRONMENT / "bin" / "pip"), "install", "-q", SUITE], check=True)
    return str(command)


def run_suite(wstest: str, cases: list[str]) -> dict[str, dict]:
    """Run the cases against a server of their own; what the suite found, by case."""
    shutil.rmtree(OUT / "reports", ignore_errors=True)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "autobahn_app.py").write_text(APPLICATION)
    with ServerProcess("autobahn_app:app", "--log-level", "info", "--lifespan", "off", app_dir=OUT) as server:
        specification = {
            "options": {"failByDrop": False},
            "outdir": str(OUT / "reports"),
            "servers": [{"agent": "bolide", "url": server.url.replace("http", "ws"), "options": {"version": 18}}],
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (OUT / "specification.json").write_text(json.dumps(specification))
        with open(OUT / "wstest.log", "w") as log:
            command = [wstest, "-m", "fuzzingclient", "-s", str(OUT / "specification.json")]
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd=OUT)
    return json.loads((OUT / "reports" / "index.json").read_text())["bolide"]


def case_key(case: str) -> list[int]:
    """For sorting 10.1.1 behind 2.1."""
    return [int(part) for part in case.split(".")]


def print_table(results: dict[str, dict]) -> None:
    """The behaviours by group, and every case that is not as it should be."""
    kinds = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED"]
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for case, result in results.items():
        counts[case.split(".")[0]][result["behavior"]] += 1
    kinds += sorted({kind for counter in counts.values() for kind in counter} - set(kinds))
    print(f"{'group':<28}" + "".join(f"{kind:>15}" for kind in kinds))
    for group in sorted(counts, key=int):
        name = f"{group} {GROUPS.get(group, '')}"
        print(f"{name:<28}" + "".join(f"{counts[group][kind] or '':>15}" for kind in kinds))
    total = sum(counts.values(), collections.Counter())
    print(f"{'all ' + str(len(results)):<28}" + "".join(f"{total[kind] or '':>15}" for kind in kinds))
    for case in sorted(results, key=case_key):
        result = results[case]
        if result["behavior"] not in FINE or result["behaviorClose"] not in FINE:
            print(f"{case}: {result['behavior']}, close {result['behaviorClose']} {result['remoteCloseCode']}")


def main() -> int:
    """Run, print the table; 0 when no case has failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="*", help="patterns of cases, separated by commas (default: all)")
    options = parser.parse_args()
    wstest = find_wstest()
    if wstest is None:
        print("skipped: the Autobahn test suite needs Python 2.7, and there is none (AUTOBAHN_PYTHON names one)")
        return 0
    results = run_suite(wstest, options.cases.split(","))
    print_table(results)
    print(f"reports: {OUT / 'reports' / 'index.html'}")
    fine = FINE | {"NON-STRICT"}
    return 0 if all(r["behavior"] in fine and r["behaviorClose"] in fine for r in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
