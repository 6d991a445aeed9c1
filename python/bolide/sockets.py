"""Binds the sockets that a server listens on."""

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bolide import _core

__all__ = ["Address", "BindError", "Bound", "ListeningGroup", "TCPOptions", "bind_unix", "parse_address"]

DEFAULT_UDS_PERMISSIONS = 0o666


class BindError(Exception):
    """An address cannot be listened on; the text is one line that says which and why."""


@dataclass(frozen=True)
class TCPOptions:
    """Options of TCP sockets that a listening one hands on to its connections, and of its own.

    Attributes:
        keepalive: seconds after which an idle peer is asked whether it is there; 0: never.
        defer_accept: seconds within which a connection is only accepted once it has sent something; 0: at once.
        fast_open: length of the queue for TCP Fast Open; 0: off.
    """

    keepalive: int = 0
    defer_accept: int = 0
    fast_open: int = 0

    def __post_init__(self) -> None:
        for name in ("keepalive", "defer_accept", "fast_open"):
            if not 0 <= getattr(self, name) <= 32767:
                raise ValueError(f"tcp_{name} is 0 to 32767, not {getattr(self, name)}")

    def apply(self, sock: socket.socket) -> None:
        """Set them on `sock`, as far as the system has them.

        Raises:
            OSError: the system refuses a value.
        """
        if self.keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
                _set_tcp_option(sock, name, self.keepalive)
        if self.defer_accept:
            _set_tcp_option(sock, "TCP_DEFER_ACCEPT", self.defer_accept)
        if self.fast_open:
            _set_tcp_option(sock, "TCP_FASTOPEN", self.fast_open)


def _set_tcp_option(sock: socket.socket, name: str, value: int) -> None:
    number = getattr(socket, name, None)
    if number is not None:
        sock.setsockopt(socket.IPPROTO_TCP, number, value)


@dataclass(frozen=True)
class Address:
    """Where to listen: a Unix socket, an inherited descriptor, or a port of TCP.

    Attributes:
        path: of the Unix socket's file, or None.
        fd: number of the descriptor, or None.
        host: name or address; "" for all interfaces, by IPv4 and IPv6.
        port: 0 for a free one.
    """

    path: str | None = None
    fd: int | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix socket {self.path}"
        if self.fd is not None:
            return f"file descriptor {self.fd}"
        host = self.host or "0.0.0.0"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Context in which an OSError becomes a BindError."""
        try:
            yield
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise BindError(f"Cannot listen on {self}: {reason[:1].lower()}{reason[1:]}") from exc

    def infos(self) -> list[Any]:
        """What getaddrinfo() has for host and port. A numeric address needs no name service."""
        return _unique(socket.getaddrinfo(self.host or None, self.port, type=socket.SOCK_STREAM, flags=_PASSIVE))

    def numeric_infos(self) -> list[Any] | None:
        """As infos(), without asking a name service: None when `host` is a name."""
        flags = _PASSIVE | socket.AI_NUMERICHOST
        with contextlib.suppress(socket.gaierror):
            return _unique(socket.getaddrinfo(self.host or None, self.port, type=socket.SOCK_STREAM, flags=flags))
        return None

    def bind_first(self, uds_permissions: int | None, options: TCPOptions) -> socket.socket:
        """One bound socket.

        Raises:
            BindError: there is none.
        """
        with self.explaining():
            if self.path is not None:
                return bind_unix(self.path, uds_permissions)
            if self.fd is not None:
                return socket_of_fd(self.fd)
            family, _, proto, _, address = self.infos()[0]
            return bind_tcp(family, proto, address, options)

    def bind_all(self, uds_permissions: int | None, options: TCPOptions, infos: Sequence[Any]) -> list[socket.socket]:
        """Bound sockets for all that the address stands for, all on one port; `infos` are its infos(), for TCP.

        Raises:
            BindError: one cannot be bound.
        """
        if self.path is not None or self.fd is not None:
            return [self.bind_first(uds_permissions, options)]
        bound: list[socket.socket] = []
        with self.explaining(), contextlib.ExitStack() as undo:
            for family, _, proto, _, address in infos:
                if self.port == 0 and bound:
                    address = (address[0], bound[0].getsockname()[1], *address[2:])
                try:
                    sock = bind_tcp(family, proto, address, options)
                except OSError:
                    # A host without IPv6 still resolves names to IPv6 addresses.
                    if family != socket.AF_INET6 or len(infos) == 1:
                        raise
                else:
                    bound.append(undo.enter_context(sock))
            if not bound:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            undo.pop_all()
        return bound


Bound: TypeAlias = "list[tuple[Address, list[socket.socket]]]"

_PASSIVE = socket.AI_PASSIVE


def _unique(infos: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(infos))


def parse_address(text: str) -> Address:
    """The address of "HOST:PORT", ":PORT", "[IPV6]:PORT", "unix:PATH" or "fd://NUMBER".

    Raises:
        ValueError: it is none of these.
    """
    if text.startswith("unix:") and len(text) > 5:
        return Address(path=text.removeprefix("unix:"))
    if match := re.fullmatch(r"fd://([0-9]+)", text):
        return Address(fd=int(match[1]))
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is no address: HOST:PORT, :PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER")
    return Address(host=match[1] or match[2] or "", port=int(match[3]))


def bind_tcp(
    family: int, proto: int, address: Any, options: TCPOptions | None = None, reuse_port: bool = False
) -> socket.socket:
    """A socket bound to `address`, a result of getaddrinfo.

    Raises:
        OSError: it cannot be bound.
    """
    sock = socket.socket(family, socket.SOCK_STREAM, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Each address has its own socket: the wildcard of IPv6 must not take that of IPv4 as well.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if options is not None:
            options.apply(sock)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(path: str, permissions: int | None) -> socket.socket:
    """A Unix socket bound to `path`. A socket file that nobody listens on any more is replaced.

    Args:
        path: of the socket's file.
        permissions: the file's mode; None: that of the file replaced, or 0o666.

    Raises:
        OSError: it cannot be bound; EADDRINUSE: a server listens there, or `path` is another kind of file.
    """
    mode = DEFAULT_UDS_PERMISSIONS if permissions is None else permissions
    try:
        old = os.stat(path)
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISSOCK(old.st_mode) or _is_listening(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        if permissions is None:
            mode = stat.S_IMODE(old.st_mode)
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, mode)
    except OSError:
        sock.close()
        raise
    return sock


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full backlog answers EAGAIN at once instead of blocking here.
        probe.setblocking(False)
        return probe.connect_ex(path) != errno.ECONNREFUSED


def socket_of_fd(fd: int) -> socket.socket:
    """A socket object on a duplicate of `fd`, of the family that it has.

    Raises:
        OSError: it is not an open socket.
    """
    duplicate = os.dup(fd)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise


def unlink_unix(path: str, inode: int) -> None:
    """Remove the socket file `path` if it still is the one numbered `inode`, and not that of another server since."""
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass


class ListeningGroup:
    """Sockets on the same addresses for several processes: on TCP by SO_REUSEPORT, so that each process has a queue of
    its own; Unix sockets and descriptors are shared.

    Args:
        addresses: where to listen.
        uds_permissions: see bind_unix().
        options: for TCP sockets.

    Raises:
        BindError: an address cannot be bound, because a server listens there for one.
    """

    def __init__(self, addresses: Sequence[Address], uds_permissions: int | None, options: TCPOptions) -> None:
        self._options = options
        self._paths: list[tuple[str, int]] = []
        self._shared: dict[int, list[socket.socket]] = {}
        self._infos: dict[int, list[tuple[int, int, Any]]] = {}
        self._addresses = list(addresses)
        try:
            for index, address in enumerate(addresses):
                self._prepare(index, address, uds_permissions)
        except BindError:
            self.close()
            raise

    def _prepare(self, index: int, address: Address, uds_permissions: int | None) -> None:
        is_tcp = address.path is None and address.fd is None
        with address.explaining():
            infos = address.infos() if is_tcp else []
        sockets = address.bind_all(uds_permissions, self._options, infos)
        if address.path is not None:
            self._paths.append((address.path, os.stat(address.path).st_ino))
        if not is_tcp or not hasattr(socket, "SO_REUSEPORT"):
            self._shared[index] = sockets
            return
        # SO_REUSEPORT would join another server of this user: the bind above, without it, has failed as it should.
        self._infos[index] = [(sock.family, sock.proto, sock.getsockname()) for sock in sockets]
        for sock in sockets:
            sock.close()

    def more(self) -> Bound:
        """Each address with its sockets, bound and not listening.

        Raises:
            BindError: an address cannot be bound.
        """
        bound: Bound = []
        try:
            for index, address in enumerate(self._addresses):
                if index in self._shared:
                    bound.append((address, self._shared[index]))
                    continue
                sockets: list[socket.socket] = []
                bound.append((address, sockets))
                with address.explaining():
                    for family, proto, name in self._infos[index]:
                        sockets.append(bind_tcp(family, proto, name, self._options, reuse_port=True))
        except BindError:
            self.close_own(bound)
            raise
        return bound

    def own(self, bound: Bound) -> list[socket.socket]:
        """Those of the sockets of more() that are not shared."""
        shared = [sock for sockets in self._shared.values() for sock in sockets]
        return [sock for _, sockets in bound for sock in sockets if sock not in shared]

    def withdraw(self) -> None:
        """Let nobody find the shared sockets any more, except those that were given as descriptors."""
        for index, sockets in self._shared.items():
            if self._addresses[index].fd is None:
                for sock in sockets:
                    _core.Server.drop_syn(sock)
        for path, inode in self._paths:
            unlink_unix(path, inode)
        self._paths.clear()

    def close_own(self, bound: Bound) -> None:
        """Close the sockets of more() that are not shared."""
        for sock in self.own(bound):
            sock.close()

    def close(self) -> None:
        """Close the shared sockets and remove the files of Unix ones."""
        for path, inode in self._paths:
            unlink_unix(path, inode)
        self._paths.clear()
        for sockets in self._shared.values():
            for sock in sockets:
                sock.close()
