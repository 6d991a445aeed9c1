"""Binds the sockets that a server listens on."""

import errno
import os
import socket
import stat
from typing import Any

__all__ = ["ListeningGroup", "bind_tcp", "bind_unix", "listening_group", "socket_of_fd", "unlink_unix"]

DEFAULT_UDS_PERMISSIONS = 0o666


def bind_tcp(family: int, proto: int, address: Any, reuse_port: bool = False) -> socket.socket:
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
    """Sockets on one address for several processes, by SO_REUSEPORT: each process has a queue of its own.

    Attributes:
        can_grow: whether more() may be called again; without SO_REUSEPORT there is one set of sockets for all.
    """

    def __init__(self, infos: list[tuple[int, int, Any]]) -> None:
        self._infos = infos
        self.can_grow = hasattr(socket, "SO_REUSEPORT")

    def more(self) -> list[socket.socket]:
        """A socket for each address, bound and not listening.

        Raises:
            OSError: an address cannot be bound.
        """
        bound: list[socket.socket] = []
        try:
            for index, (family, proto, address) in enumerate(self._infos):
                sock = bind_tcp(family, proto, address, reuse_port=self.can_grow)
                bound.append(sock)
                # Port 0 is settled with the first bind, for the others too.
                port = sock.getsockname()[1]
                self._infos[index:] = [(f, p, (a[0], a[1] or port, *a[2:])) for f, p, a in self._infos[index:]]
        except OSError:
            for sock in bound:
                sock.close()
            raise
        return bound


def listening_group(host: str | None, port: int) -> ListeningGroup:
    """The group for all addresses of `host` (None or "": all interfaces).

    Raises:
        OSError: the name does not resolve, or an address cannot be bound, because a server listens there for one.
    """
    infos: list[tuple[int, int, Any]] = []
    found = dict.fromkeys(socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    for family, _, proto, _, address in found:
        try:
            # SO_REUSEPORT would join another server of this user: without it, the bind fails as it should.
            bind_tcp(family, proto, address).close()
        except OSError:
            if family != socket.AF_INET6 or len(found) == 1:
                raise
        else:
            infos.append((family, proto, address))
    if not infos:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return ListeningGroup(infos)
