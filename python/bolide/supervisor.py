"""Runs several worker processes on one address and keeps them running (`--workers`)."""

import contextlib
import enum
import itertools
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from bolide import _core, _worker
from bolide.config import LOAD_FAILURE, Config, exit_with_error
from bolide.logging import styled
from bolide.logqueue import queued_logs
from bolide.sockets import BindError, Bound, ListeningGroup
from bolide.systemd import Notifier

__all__ = ["Supervisor", "Worker"]

# Seconds before the second, third, ... start of a worker that dies before it is ready, and the most of them.
_BACK_OFF = 0.5
_LONGEST_BACK_OFF = 30.0
# A worker that gives no sign of life but uses the processor gets this many times the time of the health check.
_BUSY_FACTOR = 6
# Seconds that a worker may take to stop beyond the time of the graceful shutdown, if that has a bound.
_STOP_SLACK = 10.0
# Seconds between two looks at the workers when nothing happens.
_TICK = 1.0

_SIGNALS = ("INT", "TERM", "HUP", "TTIN", "TTOU", "USR1", "CHLD")

logger = logging.getLogger("bolide.error")


class State(enum.Enum):
    """Where in its life a worker is."""

    STARTING = enum.auto()
    READY = enum.auto()
    STOPPING = enum.auto()


class Worker:
    """A worker process.

    Attributes:
        process: the process.
        state: where it is in its life.
        was_ready: whether it has ever accepted connections.
        at_limit: whether it has reached its limit of requests, and is to be replaced.
        leaving: whether it accepts no more connections, because it stops.
        greeted: whether the supervisor has seen that it is ready.
        stop_since: time (monotonic) since when it is to stop.
    """

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        descriptors = [sock.fileno() for sock in sockets]
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as payload:
            payload.write(_worker.pack(config, descriptors))
            payload.seek(0)
            command = [sys.executable, *_interpreter_flags(), "-m", "bolide._worker"]
            self.process = subprocess.Popen(
                [*command, str(payload.fileno()), str(theirs.fileno())],
                pass_fds=[payload.fileno(), theirs.fileno(), *descriptors],
            )
        ours.setblocking(False)
        self.channel = ours
        self.state = State.STARTING
        self.was_ready = False
        self.at_limit = False
        self.leaving = False
        self.greeted = False
        self.stop_since = 0.0
        self._last_sign = time.monotonic()
        self._cpu = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid

    def read(self) -> None:
        """Take what the worker has said since."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            said = self.channel.recv(4096)
            if said:
                self._last_sign = time.monotonic()
            if _worker.READY in said:
                self.was_ready = True
                if self.state is State.STARTING:
                    self.state = State.READY
            if _worker.LIMIT in said:
                self.at_limit = True
            if _worker.LEAVING in said:
                self.leaving = True

    def is_stuck(self, timeout: float) -> bool:
        """Whether it has given no sign of life for `timeout` seconds: stopped, or dead in a lock.

        One that is merely busy, so that its heartbeat does not get its turn, uses the processor and is given longer.
        """
        silent = time.monotonic() - self._last_sign
        if silent <= timeout:
            self._cpu = cpu_seconds(self.pid)
            return False
        busy = cpu_seconds(self.pid) > self._cpu
        return not busy or silent > timeout * _BUSY_FACTOR

    def stop(self) -> None:
        """Ask it to stop gracefully."""
        if self.state is not State.STOPPING:
            logger.info("Stopping worker process [%d]", self.pid)
            self.stop_since = time.monotonic()
        self.state = State.STOPPING
        self.send(signal.SIGTERM)

    @property
    def accepts(self) -> bool:
        """Whether it accepts connections, as far as is known."""
        return self.state is State.READY and not self.leaving and self.process.poll() is None

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)


@dataclass
class Slot:
    """A worker's place.

    Attributes:
        number: which tells it from others.
        bound: what it serves on. The sockets stay open while workers come and go, so that connections wait and do not
            fail.
        own: those of its sockets that no other slot has.
        worker: the one that serves, or starts.
        next: the one that starts to replace it.
        substitute: the worker of another slot that serves on `own` while there is none here.
        has_served: whether `own` are listening.
        failures: how many in a row have died before they were ready.
        not_before: time (monotonic) before which none is started.
    """

    number: int
    bound: Bound
    own: list[socket.socket]
    worker: Worker | None = None
    next: Worker | None = None
    substitute: Worker | None = None
    has_served: bool = False
    failures: int = 0
    not_before: float = field(default=0.0)

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets of all addresses."""
        return [sock for _, sockets in self.bound for sock in sockets]

    def workers(self) -> Iterator[Worker]:
        for worker in (self.worker, self.next):
            if worker is not None:
                yield worker


class Supervisor:
    """Runs config.workers processes until told to stop.

    SIGTERM and SIGINT stop all gracefully, a second SIGINT at once, a third kills; SIGHUP replaces one worker after
    another, each only when its successor accepts connections; SIGTTIN and SIGTTOU change their number; SIGUSR1 makes
    all reopen their log files. A worker that dies is replaced; one that dies before it was ready, after a pause.

    Args:
        config: the configuration; its application is an import string.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.slots: list[Slot] = []
        self.retired: list[Worker] = []
        self.exit_code: int | None = None
        self._stopping = False
        self._interrupts = 0
        self._announced = False
        self._rolling: list[Slot] = []
        self._signals: list[int] = []
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._group: ListeningGroup | None = None
        self._notifier = Notifier()
        self._reloading = False

    def run(self) -> int:
        """Supervise until all workers have stopped.

        Returns:
            the exit code: 0, or that of a worker that could not start when none ever had.

        Raises:
            SystemExit: code 1: the address cannot be bound.
            ValueError: the configuration cannot be handed to workers.
        """
        self._notifier = Notifier.from_environment()
        self._log_process("Started parent process")
        self._bind_first()
        with queued_logs(), self._handle_signals():
            try:
                for _ in range(self.config.workers):
                    self._add_slot()
                while not (self._stopping and not any(self._all_workers())):
                    self._turn()
            finally:
                self._end()
            self._log_process("Stopping parent process")
        return self.exit_code or 0

    # --- sockets ----------------------------------------------------------------------------------------------------

    def _bind_first(self) -> None:
        """Find out whether the addresses can be bound at all; the sockets are made with each slot."""
        config = self.config
        try:
            self._group = ListeningGroup(config.addresses(), config.uds_permissions, config.tcp_options)
        except BindError as exc:
            exit_with_error(exc, LOAD_FAILURE)

    def _add_slot(self) -> None:
        assert self._group is not None
        bound = self._group.more()
        slot = Slot(next(self._numbers), bound, self._group.own(bound))
        self.slots.append(slot)
        slot.worker = self._start(slot)

    def _give_up(self, slot: Slot) -> None:
        """Stop the workers of a slot, and leave its sockets to these. Those who connect are left to the other slots."""
        for sock in slot.own:
            _core.Server.drop_syn(sock)
        self._release(slot)
        for worker in slot.workers():
            self._retire(worker)
        for sock in slot.own:
            sock.close()

    def _find_substitute(self, slot: Slot) -> None:
        """See to it that somebody serves on the slot's own sockets while its worker is gone and another one starts.

        Otherwise the kernel would go on to give a part of all connections to sockets where nobody accepts them.
        """
        if any(worker.accepts for worker in slot.workers()):
            self._release(slot)
            return
        if slot.substitute is not None and slot.substitute.accepts:
            return
        slot.substitute = None
        if not slot.has_served or not slot.own:
            return
        busy = [other.substitute for other in self.slots]
        accepting = [other.worker for other in self.slots if other.worker is not None and other.worker.accepts]
        for worker in sorted(accepting, key=busy.count):
            with contextlib.suppress(OSError):
                _worker.order_adopt(worker.channel, slot.number, [sock.fileno() for sock in slot.own])
                slot.substitute = worker
                return

    def _release(self, slot: Slot) -> None:
        if slot.substitute is not None:
            with contextlib.suppress(OSError):
                _worker.order_release(slot.substitute.channel, slot.number)
            slot.substitute = None

    # --- workers ----------------------------------------------------------------------------------------------------

    def _all_workers(self) -> Iterator[Worker]:
        for slot in self.slots:
            yield from slot.workers()
        yield from self.retired

    def _start(self, slot: Slot) -> Worker:
        worker = Worker(self.config, slot.sockets)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        return worker

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._next_look()):
            if isinstance(key.data, Worker):
                key.data.read()
            else:
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.recv(4096)  # type: ignore[union-attr]
        while self._signals:
            self._on_signal(self._signals.pop(0))
        self._bury_the_dead()
        self._kill_the_stuck()
        for slot in list(self.slots):
            self._look_after(slot)
        self._go_on_rolling()
        self._tell_manager()

    def _next_look(self) -> float:
        waits = [slot.not_before - time.monotonic() for slot in self.slots if slot.worker is None]
        return max(0.0, min([_TICK, self._notifier.watchdog or _TICK, *waits]))

    def _bury_the_dead(self) -> None:
        for worker in list(self._all_workers()):
            if worker.process.poll() is not None:
                worker.read()
                self._selector.unregister(worker.channel)
                worker.channel.close()
                self._on_death(worker)

    def _on_death(self, worker: Worker) -> None:
        if worker in self.retired:
            self.retired.remove(worker)
            return
        slot = next(slot for slot in self.slots if worker in slot.workers())
        if worker is slot.next:
            slot.next = None
            if not self._stopping:
                self._rolling.clear()
                self._put_off(slot, worker)
            return
        slot.worker, slot.next = slot.next, None
        if self._stopping or worker.state is State.STOPPING:
            return
        if worker.was_ready:
            slot.failures = 0
            if not worker.at_limit:
                logger.warning("Worker process [%d] %s", worker.pid, _how_it_ended(worker.process.returncode))
            return
        if self._announced:
            self._put_off(slot, worker)
        else:
            # It would fail in the same way again, and nobody is served by the others yet.
            logger.error("Worker process [%d] failed to start. Stopping parent process.", worker.pid)
            self.exit_code = max(worker.process.returncode, 0) or LOAD_FAILURE
            self._stop()

    def _put_off(self, slot: Slot, worker: Worker) -> None:
        """Wait before the next start in `slot`: `worker` has died before it was ready."""
        slot.failures += 1
        pause = min(_BACK_OFF * 2 ** (slot.failures - 1), _LONGEST_BACK_OFF)
        slot.not_before = time.monotonic() + pause
        how = _how_it_ended(worker.process.returncode)
        logger.error("Worker process [%d] %s before it was ready", worker.pid, how)

    def _kill_the_stuck(self) -> None:
        bound = self.config.timeout_graceful_shutdown
        for worker in self._all_workers():
            stops = worker.state is State.STOPPING
            if worker.is_stuck(self.config.timeout_worker_healthcheck):
                logger.error("Worker process [%d] gives no sign of life: killing it", worker.pid)
            elif stops and bound is not None and time.monotonic() - worker.stop_since > bound + _STOP_SLACK:
                logger.error("Worker process [%d] does not stop: killing it", worker.pid)
            else:
                continue
            worker.send(signal.SIGKILL)

    def _look_after(self, slot: Slot) -> None:
        if self._stopping:
            return
        self._find_substitute(slot)
        may_start = time.monotonic() >= slot.not_before
        if slot.worker is None:
            if may_start:
                slot.worker = self._start(slot)
            return
        if slot.worker.was_ready and not slot.worker.greeted:
            slot.worker.greeted = slot.has_served = True
            slot.failures = 0
            self._announce()
        if slot.next is None:
            if may_start and (slot.worker.at_limit or slot.worker.leaving or self._is_too_large(slot.worker)):
                slot.next = self._start(slot)
        elif slot.next.state is State.READY:
            self._retire(slot.worker)
            slot.worker, slot.next = slot.next, None

    def _tell_manager(self) -> None:
        """The sign of life for the service manager, and the end of a reload."""
        self._notifier.alive()
        if self._reloading and not self._rolling and all(slot.next is None for slot in self.slots):
            self._reloading = False
            self._notifier.ready()

    def _is_too_large(self, worker: Worker) -> bool:
        limit = self.config.max_rss
        if limit is None or worker.state is not State.READY:
            return False
        size = resident_bytes(worker.pid)
        if size <= limit:
            return False
        logger.info("Worker process [%d] has %d MiB: replacing it", worker.pid, size >> 20)
        return True

    def _retire(self, worker: Worker) -> None:
        self.retired.append(worker)
        worker.stop()

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            self.config.log_listening(self.slots[0].bound)
            self._notifier.ready()

    def _go_on_rolling(self) -> None:
        """Start the successor of the next worker that SIGHUP is to replace, if no other is on its way."""
        if self._stopping:
            self._rolling.clear()
        if any(slot.next is not None for slot in self.slots):
            return
        while self._rolling:
            slot = self._rolling.pop(0)
            if slot in self.slots and slot.worker is not None:
                slot.next = self._start(slot)
                return

    # --- signals ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _handle_signals(self) -> Iterator[None]:
        """Signals are noted by their handlers, which wake the selector, and acted upon in _turn()."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._selector.register(reader, selectors.EVENT_READ, None)

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        numbers = [getattr(signal, f"SIG{name}") for name in _SIGNALS]
        before: dict[int, Any] = {number: signal.signal(number, note) for number in numbers}
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            reader.close()
            writer.close()

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            self._on_stop_signal(number)
        elif number == signal.SIGUSR1:
            for worker in self._all_workers():
                worker.send(signal.SIGUSR1)
        elif self._stopping:
            return
        elif number == signal.SIGHUP:
            logger.info("Received SIGHUP: replacing the workers one after another")
            self._rolling = list(self.slots)
            self._reloading = True
            self._notifier.reloading()
        elif number == signal.SIGTTIN:
            logger.info("Received SIGTTIN: one worker more")
            self._add_slot()
        elif number == signal.SIGTTOU and len(self.slots) > 1:
            logger.info("Received SIGTTOU: one worker less")
            self._give_up(self.slots.pop())

    def _on_stop_signal(self, number: int) -> None:
        if not self._stopping:
            logger.info("Received %s: stopping the workers", signal.Signals(number).name)
            self._stop()
        elif number == signal.SIGINT:
            self._interrupts += 1
            for worker in self._all_workers():
                worker.send(signal.SIGINT if self._interrupts == 1 else signal.SIGKILL)

    def _stop(self) -> None:
        self._stopping = True
        self._rolling.clear()
        self._notifier.stopping()
        if self._group is not None:
            self._group.withdraw()
        while self.slots:
            self._give_up(self.slots.pop())
        if self._group is not None:
            self._group.close()

    def _end(self) -> None:
        for worker in self._all_workers():
            worker.send(signal.SIGKILL)
            worker.process.wait()
        for slot in self.slots:
            for sock in slot.own:
                sock.close()
        if self._group is not None:
            self._group.close()

    def _log_process(self, message: str) -> None:
        color_message = f"{message} [{styled('%d', 'cyan', 'bold')}]"
        logger.info(f"{message} [%d]", os.getpid(), extra={"color_message": color_message})


def _interpreter_flags() -> list[str]:
    """The options of this interpreter, for another one."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used; 0.0 where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            # The name, in parentheses, may contain anything.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where that cannot be told."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
