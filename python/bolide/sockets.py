"""Binds the sockets that a server listens on."""

import errno
import os
import socket
import stat
from typing import Any

__all__ = ["bind_tcp", "bind_unix", "socket_of_fd", "unlink_unix"]

DEFAULT_UDS_PERMISSIONS = 0o666


def bind_tcp(family: int, proto: int, address: Any) -> socket.socket:
    """A socket bound to `address`, a result of getaddrinfo.

    Raises:
        OSError: it cannot be bound.
    """
    sock = socket.socket(family, socket.SOCK_STREAM, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
