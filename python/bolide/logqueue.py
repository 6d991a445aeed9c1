"""A log handler that never keeps its caller waiting: a thread writes, and a bounded queue stands in between."""

import contextlib
import io
import logging
import os
import queue
import select
import threading
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

__all__ = ["QueuedHandler", "queued_logs"]

# Lines that are written at once, as long as the pipe has room for them, before there is a thread: in a process that has
# never had one, the C library does without locks.
_DIRECT_LINES = 64
# Characters that a line written at once may have: a pipe that is ready takes 4096 bytes.
_DIRECT_LENGTH = 1024
# Characters that may wait for a reader who is too slow, per handler.
_CAPACITY = 1 << 20
# Seconds between two writes, so that a busy server wakes its writer rarely.
_PAUSE = 0.01
# Seconds that the end of queued_logs(), and of the process, waits for a reader.
_FLUSH_PATIENCE = 1.0

logger = logging.getLogger("bolide.error")


class _Writer:
    """A thread that writes lines to a descriptor. put() is to be called with the handler's lock.

    Attributes:
        dropped: number of lines that found no room, or could not be written.
    """

    def __init__(self, stream: io.TextIOBase, fd: int) -> None:
        self.dropped = 0
        self._reported = 0
        self._fd = fd
        self._encoding = stream.encoding or "utf-8"
        self._errors = stream.errors or "backslashreplace"
        # Its put() may be interrupted by a signal handler that puts as well.
        self._queue: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._put = 0
        self._taken = 0
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bolide log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Have `line` written, or count it as dropped when too much waits already."""
        if self._put - self._taken > _CAPACITY:
            self.dropped += 1
            return
        self._put += len(line)
        self._queue.put(line)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was put is written; whether it was in time."""
        done = threading.Event()
        self._queue.put(done)
        self._hurry.set()
        return done.wait(timeout)

    def _run(self) -> None:
        while True:
            items = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    items.append(self._queue.get_nowait())
            lines = [item for item in items if isinstance(item, str)]
            if lines:
                self._write(lines)
            self._hurry.clear()
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()
            if self.dropped != self._reported:
                count, self._reported = self.dropped - self._reported, self.dropped
                logger.warning("%d line(s) of the log were dropped: nobody reads it fast enough", count)
            self._hurry.wait(_PAUSE)

    def _write(self, lines: list[str]) -> None:
        text = "".join(lines)
        data = memoryview(text.encode(self._encoding, self._errors))
        try:
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    # Another process has made the pipe non-blocking: it is one for all that have it.
                    select.select([], [self._fd], [])
        except OSError:
            self.dropped += len(lines)
            # A reader that is gone: the warning would have nowhere to go either.
            self._reported = self.dropped
        self._taken += len(text)


class QueuedHandler(logging.StreamHandler[Any]):
    """A logging.StreamHandler whose stream may be a full pipe without anyone waiting for it.

    While a server or a supervisor runs (see queued_logs()), a thread does the writing. Up to a million characters wait;
    what comes then is dropped and counted, and the count logged when there is room again. At other times, and for
    streams without a file descriptor, it writes at once.
    """

    _all: ClassVar["weakref.WeakSet[QueuedHandler]"] = weakref.WeakSet()
    _users = 0

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        self._writer: _Writer | None = None
        self._fd: int | None = None
        self._direct = _DIRECT_LINES
        self._all.add(self)
        if QueuedHandler._users:
            self._start()

    @property
    def dropped(self) -> int:
        """Number of lines dropped since the queue was started."""
        return self._writer.dropped if self._writer is not None else 0

    def write(self, line: str) -> None:
        """Write `line`, which ends with a newline, or queue it."""
        self.acquire()
        try:
            if self._writer is None and self._fd is not None and not self._may_write(line, self._fd):
                self._writer = _Writer(self.stream, self._fd)
            if self._writer is not None:
                self._writer.put(line)
            else:
                self.stream.write(line)
                super().flush()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or queue it."""
        try:
            self.write(self.format(record) + self.terminator)
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait, for a second at most, until all is written."""
        if self._writer is not None:
            self._writer.flush(_FLUSH_PATIENCE)
        else:
            super().flush()

    def _may_write(self, line: str, fd: int) -> bool:
        """Whether `line` may be written here and now."""
        self._direct -= 1
        if self._direct < 0 or len(line) > _DIRECT_LENGTH:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return bool(poll.poll(0))

    def setStream(self, stream: Any) -> Any:
        """As logging.StreamHandler.setStream()."""
        queued = self._fd is not None
        self._stop()
        before = super().setStream(stream)
        if queued:
            self._start()
        return before

    def _start(self) -> None:
        # Where there is no file descriptor (a console that is none, a test's buffer), nobody reads slowly.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self.stream.flush()
            if isinstance(self.stream, io.TextIOBase):
                self._fd = self.stream.fileno()

    def _stop(self) -> None:
        # With a reader that is stuck the queue stays: a write would wait for ever.
        if self._writer is None or self._writer.flush(_FLUSH_PATIENCE):
            self._writer = self._fd = None


@contextlib.contextmanager
def queued_logs() -> Iterator[None]:
    """Context in which the handlers of this module queue what they are given. May be nested, in several threads."""
    QueuedHandler._users += 1
    for handler in list(QueuedHandler._all):
        handler._start()
    try:
        yield
    finally:
        QueuedHandler._users -= 1
        if not QueuedHandler._users:
            for handler in list(QueuedHandler._all):
                handler._stop()


def _forget_threads() -> None:
    """In a process that was forked: the threads have stayed behind."""
    for handler in list(QueuedHandler._all):
        handler._writer = None
        handler._direct = _DIRECT_LINES


os.register_at_fork(after_in_child=_forget_threads)
