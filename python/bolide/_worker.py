"""A worker process: serves on sockets that its supervisor has bound. Started as `python -m bolide._worker`."""

import os
import pickle
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bolide.config import Config

__all__ = ["ALIVE", "BEAT", "LIMIT", "READY", "main", "pack"]

# What a worker tells its supervisor, a byte each.
ALIVE = b"A"  # still running, every BEAT seconds
READY = b"R"  # accepts connections
LIMIT = b"L"  # has reached its limit of requests, and stops

BEAT = 0.5

# Seconds that a worker whose supervisor is gone takes to stop, if the graceful shutdown has no bound.
_ORPHAN_PATIENCE = 30.0


def pack(config: "Config", sockets: list[int]) -> bytes:
    """What a worker process needs to know.

    Args:
        config: the configuration.
        sockets: the descriptors of the sockets to serve on.

    Raises:
        ValueError: the configuration holds something that cannot be handed to another process.
    """
    try:
        # The path comes first and on its own: what is in the rest may have to be imported from there.
        return pickle.dumps((sys.path, pickle.dumps((config, sockets))))
    except (pickle.PicklingError, TypeError, AttributeError) as exc:
        raise ValueError(f"the configuration cannot be handed to worker processes: {exc}") from exc


def _serve(config: "Config", sockets: list[socket.socket], channel: socket.socket) -> None:
    from bolide.server import Server, run_as_process

    class WorkerServer(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            channel.send(READY)

        def _on_max_requests(self) -> None:
            channel.send(LIMIT)
            super()._on_max_requests()

    server = WorkerServer(config)

    def beat() -> None:
        while True:
            try:
                channel.send(ALIVE)
                # Nothing is ever sent this way: what arrives is the end, when the supervisor is gone.
                if channel.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        server.should_exit = True
        bound = config.timeout_graceful_shutdown
        time.sleep(_ORPHAN_PATIENCE if bound is None else bound + 1)
        os._exit(1)

    channel.settimeout(BEAT)
    threading.Thread(target=beat, name="bolide heartbeat", daemon=True).start()
    run_as_process(server, sockets)


def main() -> None:
    """Read what pack() made from the first descriptor of the arguments, talk over the second, and serve."""
    # A terminal sends these to the whole group; the supervisor says what is to be done about them.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    payload_fd, channel_fd = map(int, sys.argv[1:])
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(False)
    with os.fdopen(payload_fd, "rb") as file:
        path, rest = pickle.load(file)
    sys.path[:] = path
    config, descriptors = pickle.loads(rest)
    sockets = []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
    config.configure_logging()
    _serve(config, sockets, channel)


if __name__ == "__main__":
    main()
