"""What the runners of others' pytest suites share: a run under a plugin, and its outcomes against what was expected."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent


def name_of(test: str) -> str:
    """The name of the test with this id, with its parameters."""
    function, bracket, parameters = test.partition("[")
    return function.rpartition("::")[2] + bracket + parameters


def is_explained(test: str, reasons: Mapping[str, str]) -> bool:
    """Whether `reasons` has this test, with its parameters or without, or its file."""
    name = name_of(test)
    return any(key in reasons for key in (name, name.partition("[")[0], test.partition("::")[0]))


def judge(outcomes: Mapping[str, str], reasons: Mapping[str, str]) -> dict[str, str]:
    """What is not as `reasons` has it: each failure is to have one."""
    faults = {}
    for test, outcome in sorted(outcomes.items()):
        if outcome in ("failed", "not imported") and not is_explained(test, reasons):
            faults[test] = outcome
        elif outcome == "passed" and name_of(test) in reasons and "[" not in name_of(test):
            faults[test] = "passed, although a reason for its failure is written down"
    return faults


def run(plugin: str, tests: Sequence[str], suite: Path, patience: int) -> dict[str, str]:
    """The outcome of each test, as the plugin reports it.

    Raises:
        RuntimeError: there is no report.
    """
    with tempfile.TemporaryDirectory(prefix="bolide-conformance-") as folder:
        report = Path(folder) / "report.json"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(suite)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BOLIDE_SUITE_REPORT": str(report),
            "BOLIDE_SUITE_PATIENCE": str(patience),
        }
        command = [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", "-q", "--tb=no"]
        command += [f"--timeout={40 * patience}", "-o", "addopts=", "-o", "filterwarnings=ignore"]
        command += ["--continue-on-collection-errors", *tests]
        done = subprocess.run(
            command, cwd=suite, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if not report.is_file():
            raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
        return json.loads(report.read_text())


def run_twice(plugin: str, tests: Sequence[str], suite: Path, reasons: Mapping[str, str]) -> dict[str, str]:
    """As run(); what is not as expected is run again by itself, with more patience: the machine may be busy."""
    outcomes = run(plugin, tests, suite, patience=1)
    if faults := judge(outcomes, reasons):
        outcomes |= run(plugin, list(faults), suite, patience=8)
    return outcomes


def report(title: str, outcomes: Mapping[str, str], reasons: Mapping[str, str]) -> bool:
    """Print the counts and what is not as expected; returns whether all is."""
    counts = {kind: list(outcomes.values()).count(kind) for kind in ("passed", "skipped", "apart")}
    failed = sum(outcome in ("failed", "not imported") for outcome in outcomes.values())
    faults = judge(outcomes, reasons)
    print(
        f"{title}: {counts['passed']} passed, {failed} failed for reasons that are written down, less "
        f"{len(faults)} that are not; {counts['skipped']} skipped, {counts['apart']} not about a server"
    )
    for test, fault in faults.items():
        print(f"  {fault}: {test}")
    return bool(outcomes) and not faults


def install(packages: Sequence[str]) -> None:
    """Install what a suite imports."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True, stdin=subprocess.DEVNULL)
