"""A measured process: started on one core, watched from outside for CPU time and memory, stopped for certain."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def own_session(core: int) -> Callable[[], None]:
    """What to run in a child that begins a session of its own: it stays on `core`, as nice as it has been.

    Where Linux shares out the CPU by sessions (sched(7), autogroups), how nice a process is counts within its own only.
    """

    def settle() -> None:
        os.sched_setaffinity(0, {core})
        try:
            with open("/proc/self/autogroup", "w") as file:
                file.write(str(os.nice(0)))
        except OSError:
            pass

    return settle


class ProcessError(Exception):
    """The process did not start, or ended, or does not answer; the message is one line."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def process_tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def cpu_nanoseconds(pid: int) -> int:
    """CPU time, user and system, that all threads of one process have used, those that ended too."""
    # The kernel's identifier of another process's CPU clock: what clock_getcpuclockid(3) computes.
    return time.clock_gettime_ns((~pid << 3) | 2)


class Process:
    """A program on one core, in a session of its own, with its output in a log file.

    One that is to be asked has its standard streams for that, and only its errors in the log file.
    """

    def __init__(
        self,
        command: list[str],
        core: int,
        log: Path,
        env: dict[str, str] | None = None,
        asked: bool = False,
        **options,
    ):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.command = command
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if asked else subprocess.DEVNULL,
                stdout=subprocess.PIPE if asked else output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=own_session(core),
                **options,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def check(self) -> None:
        """Raise ProcessError if it has ended."""
        code = self.popen.poll()
        if code is not None:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise ProcessError(f"ended with {how}: {self.last_line() or 'no output'}")

    def last_line(self) -> str:
        """What its log file ends with."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def wait_until(self, ready, seconds: float = 20) -> None:
        """Wait until `ready()` is true."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            if ready():
                return
            if time.monotonic() > deadline:
                raise ProcessError(f"not ready after {seconds} s")
            time.sleep(0.02)

    def wait_for_end(self, seconds: float) -> None:
        """Wait until it has ended well. Raises ProcessError if it did otherwise."""
        try:
            if self.popen.wait(seconds) != 0:
                self.check()
        except subprocess.TimeoutExpired:
            raise ProcessError(f"did not end within {seconds} s") from None

    def answer(self, seconds: float = 20) -> str:
        """The next line of one that is asked. Raises ProcessError if none comes."""
        watchdog = threading.Timer(seconds, self.popen.kill)
        watchdog.start()
        line = self.popen.stdout.readline().decode()
        watchdog.cancel()
        if not line:
            self.popen.wait(5)
            self.check()
        return line

    def ask(self, question: str, seconds: float = 20) -> str:
        """Write a line and read the one that answers it. Raises ProcessError if none comes."""
        try:
            self.popen.stdin.write(f"{question}\n".encode())
            self.popen.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; why is told below
        return self.answer(seconds)

    def cpu_seconds(self) -> float:
        """CPU time of the whole process tree so far."""
        total = 0
        for pid in process_tree(self.pid):
            try:
                total += cpu_nanoseconds(pid)
            except OSError:
                continue
        return total / 1e9

    def resident_bytes(self) -> int:
        """Resident memory of the whole process tree."""
        total = 0
        for pid in process_tree(self.pid):
            try:
                total += int(Path("/proc", str(pid), "statm").read_text().split()[1]) * PAGE
            except OSError:
                continue
        return total

    def _signal_all(self, number: int) -> None:
        for pid in process_tree(self.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def suspend(self) -> None:
        """Keep it from running, so that it takes nothing from the one that is measured."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def stop(self) -> None:
        """End it: asked first, then made to."""
        if self.popen.poll() is None:
            self.resume()
            self.popen.terminate()
            try:
                self.popen.wait(3)
            except subprocess.TimeoutExpired:
                self._signal_all(signal.SIGKILL)
                self.popen.wait()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
