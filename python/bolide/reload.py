"""Restarts the server when files change (`--reload`)."""

import contextlib
import fnmatch
import importlib.util
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from bolide import _core
from bolide.config import LOAD_FAILURE, Config, exit_with_error
from bolide.logging import styled
from bolide.logqueue import queued_logs
from bolide.sockets import BindError, ListeningGroup
from bolide.supervisor import State, Worker
from bolide.systemd import Notifier

__all__ = ["FileFilter", "Polling", "Reloader"]

_INCLUDES = ("*.py",)
_EXCLUDES = (".*", ".py[cod]", ".sw.*", "~*")
# Folders that polling does not enter: they hold nothing that a developer edits, and much of it.
_SKIPPED_FOLDERS = ("__pycache__", "node_modules")

_WILDCARDS = frozenset("*?[")

# Seconds that the old server gets to stop when no bound is configured: an endless stream must not hold up a reload.
_STOP_PATIENCE = 3.0
# Seconds between two looks at signals and the server's process.
_TICK = 0.25

logger = logging.getLogger("bolide.error")


def _as_list(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


class FileFilter:
    """Which files matter.

    Attributes:
        folders: what is watched, resolved; none stands inside another.
        includes, excludes: patterns of names; a file matters when it matches one of the first and none of the others,
            or is one of the first.
        excluded_folders: folders whose files do not matter.

    Args:
        config: its reload_dirs, reload_includes and reload_excludes; patterns that name folders watch or exclude these.
    """

    def __init__(self, config: Config) -> None:
        includes, included_folders = _split_patterns(_as_list(config.reload_includes))
        excludes, self.excluded_folders = _split_patterns(_as_list(config.reload_excludes))
        self.includes = [name for name in _INCLUDES if name not in excludes] + includes
        self.excludes = [name for name in _EXCLUDES if name not in includes] + excludes
        chosen = {Path(name).resolve() for name in _as_list(config.reload_dirs)} | set(included_folders)
        folders = chosen - set(self.excluded_folders) or {Path.cwd().resolve()}
        self.folders = sorted(folder for folder in folders if not folders & set(folder.parents))

    def __call__(self, path: Path) -> bool:
        matched = [pattern for pattern in self.includes if path.match(pattern)]
        if not matched or any(folder in path.parents for folder in self.excluded_folders):
            return False
        # What is included by its full name matters, whatever else excludes it: ".env" in spite of ".*".
        by_name = any(not _WILDCARDS & set(pattern) for pattern in matched)
        return by_name or not any(path.match(pattern) for pattern in self.excludes)


def _split_patterns(patterns: Iterable[str]) -> tuple[list[str], list[Path]]:
    """Those of `patterns` that are for names, and the folders that the others stand for."""
    names, folders = [], []
    for pattern in patterns:
        matches = [Path(pattern)] if Path(pattern).is_dir() else []
        # ".*" is for the names of files: as a glob it would match every hidden folder.
        if not matches and pattern != ".*" and not Path(pattern).is_absolute():
            matches = [path for path in Path.cwd().glob(pattern) if path.is_dir()]
        folders += [path.resolve() for path in matches]
        if not Path(pattern).is_dir():
            names.append(pattern)
    return names, folders


class Watcher(Protocol):
    """Tells what has changed.

    Attributes:
        name: what the log calls it.
    """

    name: str

    def changes(self) -> set[Path]:
        """The files that have changed since the call before; waits for a moment if none has."""


class Polling:
    """Watcher that compares the times and sizes of all files every `delay` seconds."""

    name = "polling"

    def __init__(self, matters: FileFilter, delay: float, stop: threading.Event) -> None:
        self._matters = matters
        self._delay = delay
        self._stop = stop
        self._known = self._scan()

    def _scan(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in self._files():
            with contextlib.suppress(OSError):
                status = path.stat()
                found[path] = status.st_mtime_ns, status.st_size
        return found

    def _files(self) -> Iterator[Path]:
        for folder in self._matters.folders:
            for parent, folders, files in os.walk(folder):
                folders[:] = [name for name in folders if not self._is_skipped(name)]
                yield from (path for name in files if self._matters(path := Path(parent, name)))

    def _is_skipped(self, folder: str) -> bool:
        return folder in _SKIPPED_FOLDERS or (".*" in self._matters.excludes and fnmatch.fnmatch(folder, ".*"))

    def changes(self) -> set[Path]:
        self._stop.wait(self._delay)
        before, self._known = self._known, self._scan()
        return {path for path, _ in before.items() ^ self._known.items()}


class WatchFiles:
    """Watcher that the operating system tells, by the package watchfiles."""

    name = "watchfiles"

    def __init__(self, matters: FileFilter, delay: float, stop: threading.Event) -> None:
        import watchfiles

        self._matters = matters
        self._batches = watchfiles.watch(
            *matters.folders,
            watch_filter=None,
            # Changes within `delay` of each other are one.
            debounce=max(int(delay * 1000), 1),
            step=min(50, max(int(delay * 1000), 1)),
            rust_timeout=int(_TICK * 1000),
            yield_on_timeout=True,
            stop_event=stop,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )

    def changes(self) -> set[Path]:
        return {path for _, name in next(self._batches, ()) if self._matters(path := Path(name))}


def make_watcher(matters: FileFilter, delay: float, stop: threading.Event) -> Watcher:
    """The best watcher that there is: by watchfiles if it is installed, else by polling."""
    if importlib.util.find_spec("watchfiles") is not None:
        return WatchFiles(matters, delay, stop)
    return Polling(matters, delay, stop)


class Reloader:
    """Runs one server process and restarts it when files change.

    The sockets stay open and listening in between: a request waits until the new server answers it. When the new code
    cannot be started, its error is shown, and the next change tried.

    Args:
        config: the configuration; its application is an import string.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._stop = threading.Event()
        self._signals: list[int] = []
        self._group: ListeningGroup | None = None
        self._own: list[socket.socket] = []

    def run(self) -> int:
        """Serve until told to stop.

        Returns:
            the exit code, 0.

        Raises:
            SystemExit: code 1: the address cannot be bound.
            ValueError: the configuration cannot be handed to another process.
        """
        matters = FileFilter(self.config)
        notifier = Notifier.from_environment()
        sockets = self._bind()
        notifier.ready()
        worker: Worker | None = None
        before: dict[int, Any] = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            watcher = make_watcher(matters, self.config.reload_delay, self._stop)
            self._log_process(f"using {watcher.name}", "Started reloader process")
            folders = ", ".join(map(str, matters.folders))
            logger.info("Watching for changes in %s", folders)
            worker = Worker(self.config, sockets)
            with queued_logs():
                self._watch(watcher, worker, sockets)
        finally:
            notifier.stopping()
            for number, handler in before.items():
                signal.signal(number, handler)
            for sock in sockets:
                sock.close()
            if self._group is not None:
                self._group.close()
        self._log_process("", "Stopping reloader process")
        return 0

    def _watch(self, watcher: Watcher, worker: Worker, sockets: list[socket.socket]) -> None:
        told = False
        try:
            while not self._stop.is_set():
                changed = watcher.changes()
                worker.read()
                if self._stop.is_set():
                    break
                if changed:
                    shown = ", ".join(sorted(map(_shown, changed)))
                    logger.warning("%s detected changes in %s. Reloading...", watcher.name.capitalize(), shown)
                    self._end(worker, patience=self._patience())
                    worker, told = Worker(self.config, sockets), False
                elif not told and worker.process.poll() is not None:
                    told = True
                    logger.warning("The server has ended: waiting for changes")
        finally:
            self._give_up(sockets)
            self._end(worker, patience=None)

    def _give_up(self, sockets: list[socket.socket]) -> None:
        """Leave the sockets to the server that is about to stop, and let nobody find them any more."""
        assert self._group is not None
        self._group.withdraw()
        for sock in sockets:
            if sock in self._own:
                _core.Server.drop_syn(sock)
            sock.close()

    def _patience(self) -> float:
        bound = self.config.timeout_graceful_shutdown
        return _STOP_PATIENCE if bound is None else bound + 1

    def _end(self, worker: Worker, patience: float | None) -> None:
        """Stop a worker: gracefully within `patience` seconds (None: or until a second SIGINT), else by force."""
        if worker.state is not State.STOPPING and worker.process.poll() is None:
            worker.stop()
        deadline = None if patience is None else time.monotonic() + patience
        interrupts = 0
        while worker.process.poll() is None:
            with contextlib.suppress(Exception):
                worker.process.wait(0.02)
            worker.read()
            if deadline is not None and time.monotonic() > deadline:
                worker.send(signal.SIGKILL)
            if deadline is None and self._signals.count(signal.SIGINT) > 1 + interrupts:
                interrupts += 1
                worker.send(signal.SIGINT if interrupts == 1 else signal.SIGKILL)
        worker.channel.close()

    def _bind(self) -> list[socket.socket]:
        config = self.config
        try:
            self._group = ListeningGroup(config.addresses(), config.uds_permissions, config.tcp_options)
            bound = self._group.more()
            self._own = self._group.own(bound)
            for address, sockets in bound:
                with address.explaining():
                    for sock in sockets:
                        sock.listen(config.backlog)
        except BindError as exc:
            exit_with_error(exc, LOAD_FAILURE)
        config.log_listening(bound)
        return [sock for _, sockets in bound for sock in sockets]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
        self._stop.set()

    def _log_process(self, rest: str, message: str) -> None:
        color_message = f"{message} [{styled('%d', 'cyan', 'bold')}] {rest}".rstrip()
        logger.info(f"{message} [%d] {rest}".rstrip(), os.getpid(), extra={"color_message": color_message})


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return f"'{path}'"
