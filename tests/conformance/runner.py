"""What the runners of others' test suites share: a process for each module, its outcome, the table of all."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOOPS = {"asyncio": "asyncio:new_event_loop", "uvloop": "uvloop:new_event_loop", "bolide": "bolide:new_event_loop"}


@dataclass
class Outcome:
    """What came of one module on one loop."""

    passed: int = 0
    skipped: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0

    def cell(self) -> str:
        return f"{self.passed} / {len(self.failures)}"


def is_there(name: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def parse_arguments(description: str) -> argparse.Namespace:
    """The options that every runner takes, and `module`, the modules asked for."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--loop", action="append", choices=LOOPS, help="a loop to run on (default: all that are installed)")
    add("--limit", type=float, default=120, help="seconds that a module may take (default: %(default)s)")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="modules at a time (default: %(default)s)")
    add("-v", "--verbose", action="store_true", help="print the traceback of each failure")
    add("module", nargs="*", help="test modules (default: all that are about a loop)")
    options = parser.parse_args()
    if not options.loop:
        options.loop = [loop for loop in LOOPS if is_there(loop)]
        if "uvloop" not in options.loop:
            print("uvloop is not installed: left out of the comparison")
    return options


def run_child(script: str, arguments: Sequence[str], limit: float, path: Sequence[str] = ()) -> Outcome:
    """Run a script of this folder in a process, a session and a temporary folder of its own; `path`: PYTHONPATH."""
    began = time.monotonic()
    parts = [*path, str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}
    with tempfile.TemporaryDirectory(prefix="bolide-conformance-", ignore_cleanup_errors=True) as folder:
        child = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = child.communicate(timeout=limit)
            why = f"the process ended with {child.returncode}"
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            why = f"hung: over {limit:.0f} s"
    outcome = _read_outcome(out.decode(errors="replace"), why, err.decode(errors="replace"))
    outcome.seconds = time.monotonic() - began
    return outcome


def _read_outcome(out: str, why: str, err: str) -> Outcome:
    outcome = Outcome()
    started: list[str] = []
    finished = False
    for line in out.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue  # a test printed something
        if not isinstance(told, dict):
            continue
        if "start" in told:
            started.append(told["start"])
        elif "skipped" in told:
            outcome.left_out[told["skipped"]] = told["reason"]
        elif "result" in told:
            result = told["result"]
            finished = True
            outcome.failures = [(name, trace) for name, trace in result["bad"]]
            outcome.skipped = result["skipped"]
            outcome.passed = result["run"] - len(result["bad"]) - result["skipped"]
    if not finished:
        outcome.passed = max(len(started) - 1, 0)
        outcome.failures = [(started[-1] if started else "import", f"{err[-3000:]}\n{why}")]
    return outcome


def run_all(
    modules: Sequence[str], loops: Sequence[str], jobs: int, run: Callable[[str, str], Outcome]
) -> dict[str, dict[str, Outcome]]:
    """The outcome of run(loop, module) for each, `jobs` at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        running = {module: {loop: pool.submit(run, loop, module) for loop in loops} for module in modules}
        return {module: {loop: job.result() for loop, job in by_loop.items()} for module, by_loop in running.items()}


def _last_line(trace: str) -> str:
    lines = [line for line in trace.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:150] if lines else ""


def _print_table(loops: Sequence[str], outcomes: dict[str, dict[str, Outcome]]) -> None:
    print(f"{'passed / failed':24}" + "".join(f"{loop:>16}" for loop in loops))
    for module, by_loop in outcomes.items():
        print(f"{module:24}" + "".join(f"{by_loop[loop].cell():>16}" for loop in loops))
    totals = {
        loop: Outcome(
            passed=sum(by_loop[loop].passed for by_loop in outcomes.values()),
            failures=[failure for by_loop in outcomes.values() for failure in by_loop[loop].failures],
        )
        for loop in loops
    }
    print(f"{'all':24}" + "".join(f"{totals[loop].cell():>16}" for loop in loops))


def report(title: str, loops: Sequence[str], outcomes: dict[str, dict[str, Outcome]], verbose: bool) -> int:
    """Print failures, what was left out, and the table. 0 when bolide (or else the last loop) passed all, or 1."""
    left_out: dict[str, str] = {}
    for by_loop in outcomes.values():
        for outcome in by_loop.values():
            left_out |= outcome.left_out
    for loop in loops:
        failures = [failure for by_loop in outcomes.values() for failure in by_loop[loop].failures]
        if failures:
            print(f"\nfailed on {loop}:")
        for name, trace in failures:
            print(f"  {name}: {_last_line(trace)}")
            if verbose:
                print("    " + trace.strip().replace("\n", "\n    "))
    if left_out:
        print("\nleft out for every loop:")
        for name, why in left_out.items():
            print(f"  {name}: {why}")
    print(f"\n{title}")
    _print_table(loops, outcomes)
    judged = "bolide" if "bolide" in loops else loops[-1]
    passed = sum(by_loop[judged].passed for by_loop in outcomes.values())
    skipped = sum(by_loop[judged].skipped for by_loop in outcomes.values()) + len(left_out)
    failed = sum(len(by_loop[judged].failures) for by_loop in outcomes.values())
    print(f"\n{judged}: {passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)
