"""What systemd hands to a service, sockets (sd_listen_fds(3)), and wants to hear of it (sd_notify(3))."""

import contextlib
import os
import socket
import time

__all__ = ["Notifier", "take_descriptors"]

_FIRST_FD = 3


def take_descriptors() -> list[int]:
    """The descriptors of the sockets that were handed to this process, which are not inherited by its children then.

    The variables that tell of them are taken out of the environment; where they are meant for another process, they
    are left alone and there are no descriptors.
    """
    try:
        pid, count = int(os.environ.get("LISTEN_PID", "")), int(os.environ.get("LISTEN_FDS", ""))
    except ValueError:
        return []
    if pid != os.getpid() or count < 1:
        return []
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    descriptors = list(range(_FIRST_FD, _FIRST_FD + count))
    for fd in descriptors:
        os.set_inheritable(fd, False)
    return descriptors


class Notifier:
    """Tells the service manager of the state of this process. Where there is none, it does nothing.

    Attributes:
        watchdog: seconds between two signs of life that suffice; None: nobody waits for them.

    Args:
        path: $NOTIFY_SOCKET, or None.
        watchdog_usec: $WATCHDOG_USEC, or 0.
    """

    def __init__(self, path: str | None = None, watchdog_usec: int = 0) -> None:
        self.watchdog = watchdog_usec / 2e6 if path and watchdog_usec > 0 else None
        self._path = "\0" + path[1:] if path and path.startswith("@") else path

    @classmethod
    def from_environment(cls) -> "Notifier":
        """That of the environment, whose variables are taken out: children are not to speak for this process."""
        path = os.environ.pop("NOTIFY_SOCKET", None)
        usec, pid = os.environ.pop("WATCHDOG_USEC", "0"), os.environ.pop("WATCHDOG_PID", "")
        mine = pid in ("", str(os.getpid()))
        return cls(path, int(usec) if mine and usec.isdecimal() else 0)

    def ready(self) -> None:
        """Connections are accepted; also after reloading()."""
        self._send("READY=1\nSTATUS=Serving")

    def reloading(self) -> None:
        """The configuration is loaded again, until ready()."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The process is about to end."""
        self._send("STOPPING=1\nSTATUS=Stopping")

    def alive(self) -> None:
        """A sign of life, if the watchdog wants any."""
        if self.watchdog is not None:
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if self._path is None:
            return
        # The manager may be gone, or its queue be full: nothing to wait for.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(self._path)
            sock.send(text.encode())
