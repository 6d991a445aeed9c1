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
_NEWLINE = ord("\n")

logger = logging.getLogger("bolide.error")


class _Writer:
    """Writes lines to a descriptor: the first few at once, the others by a thread. put() and flush() are called with
    the handler's lock.

    Attributes:
        dropped: number of lines that found no room, or could not be written.
    """

    def __init__(self, stream: io.TextIOBase, fd: int) -> None:
        self.dropped = 0
        self._reported = 0
        self._reason = ""
        self._fd = fd
        self._encoding = stream.encoding or "utf-8"
        self._errors = stream.errors if stream.errors not in (None, "strict") else "backslashreplace"
        self._failed = False
        self._is_torn = False
        self._direct = _DIRECT_LINES
        # Its put() may be interrupted by a signal handler that puts as well.
        self._queue: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._put = 0
        self._taken = 0
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Have `line` written, or count it as dropped when too much waits already."""
        if self._thread is None:
            if self._may_write(line):
                self._write(line)
                return
            self._thread = threading.Thread(target=self._run, name="bolide log", daemon=True)
            self._thread.start()
        if self._put - self._taken > _CAPACITY:
            self._drop(line.count("\n"), "nobody reads it fast enough")
            return
        self._put += len(line)
        self._queue.put(line)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was put is written; whether it was in time."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._queue.put(done)
        self._hurry.set()
        return done.wait(timeout)

    def _may_write(self, line: str) -> bool:
        """Whether `line` may be written here and now."""
        self._direct -= 1
        if self._direct < 0 or self._failed or len(line) > _DIRECT_LENGTH:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _run(self) -> None:
        while True:
            items = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    items.append(self._queue.get_nowait())
            text = "".join(item for item in items if isinstance(item, str))
            if text:
                self._write(text)
                self._taken += len(text)
            self._hurry.clear()
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()
            self._report()
            self._hurry.wait(_PAUSE)

    def _write(self, text: str) -> None:
        torn = b"\n" * self._is_torn
        data = memoryview(torn + self._encode(text))
        size = len(data)
        try:
            while data:
                try:
                    written = os.write(self._fd, data)
                except BlockingIOError:
                    # Another process has made the pipe non-blocking: it is one for all that have it.
                    select.select([], [self._fd], [])
                else:
                    self._is_torn = data[written - 1] != _NEWLINE
                    data = data[written:]
        except OSError as exc:
            self._failed = True
            missing = bytes(data).count(b"\n") - (len(torn) if len(data) == size else 0)
            self._drop(missing, exc.strerror or str(exc))
        else:
            self._failed = False

    def _encode(self, text: str) -> bytes:
        try:
            return text.encode(self._encoding, self._errors)
        except UnicodeEncodeError:
            return text.encode(self._encoding, "backslashreplace")

    def _drop(self, count: int, reason: str) -> None:
        self.dropped += count
        self._reason = reason

    def _report(self) -> None:
        """Say how many lines are missing, once others have been written again."""
        if self.dropped != self._reported and not self._failed:
            count, self._reported = self.dropped - self._reported, self.dropped
            logger.warning("%d line(s) of the log were dropped: %s", count, self._reason)


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
        self._all.add(self)
        if QueuedHandler._users:
            self._start()

    @property
    def dropped(self) -> int:
        """Number of lines dropped since the queue was started."""
        return self._writer.dropped if self._writer is not None else 0

    def write(self, line: str) -> None:
        """Write `line`, or several, each with a newline at its end, or queue it."""
        self.acquire()
        try:
            if self._writer is None and self._fd is not None:
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


os.register_at_fork(after_in_child=_forget_threads)
