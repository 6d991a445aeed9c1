"""A worker process: serves on sockets that its supervisor has bound. Started as `python -m bolide._worker`."""

import contextlib
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bolide.config import Config

__all__ = ["ALIVE", "BEAT", "LEAVING", "LIMIT", "READY", "main", "order_adopt", "order_release", "pack"]

# What a worker tells its supervisor, a byte each.
ALIVE = b"A"  # still running, every BEAT seconds
READY = b"R"  # accepts connections
LIMIT = b"L"  # has reached its limit of requests, and goes on until a successor is ready
LEAVING = b"S"  # accepts no more connections, because it stops

# What the supervisor tells a worker: one of these, the slot's number, and with ADOPT the descriptors of its sockets.
ADOPT = b"+"  # serve on the sockets of a slot whose worker is gone, too
RELEASE = b"-"  # do no longer
_ORDER = struct.Struct("=cI")
_MOST_DESCRIPTORS = 250
_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

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


def order_adopt(channel: socket.socket, slot: int, descriptors: list[int]) -> None:
    """Tell the worker at the other end of `channel` to serve on the sockets of `slot` too.

    Raises:
        OSError: it does not read what it is told, or is gone.
    """
    socket.send_fds(channel, [_ORDER.pack(ADOPT, slot)], descriptors[:_MOST_DESCRIPTORS])


def order_release(channel: socket.socket, slot: int) -> None:
    """Take order_adopt() back.

    Raises:
        OSError: see order_adopt().
    """
    channel.send(_ORDER.pack(RELEASE, slot))


def _serve(config: "Config", sockets: list[socket.socket], channel: socket.socket) -> None:
    from bolide.server import Server, run_as_process

    class WorkerServer(Server):
        _adopted: dict[int, list[int]]

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            self._adopted = {}
            await super().startup(sockets)
            tell(READY)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            tell(LEAVING)
            await super().shutdown(sockets)

        def _on_max_requests(self) -> None:
            tell(LIMIT)
            super()._log_max_requests()

        def obey(self, order: bytes, sockets: list[socket.socket]) -> None:
            """Carry out an order of the supervisor. Called in the loop's thread, maybe when the server has stopped."""
            kind, slot = _ORDER.unpack(order)
            try:
                if self._core is None or self.should_exit:
                    return
                if kind == ADOPT and slot not in self._adopted:
                    listen = self._core.listen
                    self._adopted[slot] = [listen(sock, config.backlog, config.ssl) for sock in sockets]
                elif kind == RELEASE:
                    for number in self._adopted.pop(slot, ()):
                        self._core.close_listeners(number)
            finally:
                for sock in sockets:
                    sock.close()

    server = WorkerServer(config)

    def tell(what: bytes) -> None:
        with contextlib.suppress(OSError):
            channel.send(what)

    def pass_on(order: bytes, sockets: list[socket.socket]) -> None:
        try:
            if server._loop is not None:
                server._loop.call_soon_threadsafe(server.obey, order, sockets)
                return
        except RuntimeError:
            pass  # the loop was closed meanwhile
        for sock in sockets:
            sock.close()

    def beat() -> None:
        while True:
            try:
                channel.send(ALIVE)
                order, descriptors, _, _ = socket.recv_fds(channel, _ORDER.size, _MOST_DESCRIPTORS, _RECEIVE_FLAGS)
            except TimeoutError:
                continue
            except OSError:
                break
            if len(order) < _ORDER.size:
                break  # the supervisor is gone
            pass_on(order, [socket.socket(fileno=descriptor) for descriptor in descriptors])
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
