"""Takes a request's scheme and client from X-Forwarded-Proto and X-Forwarded-For, if its sender is a trusted proxy."""

import functools
import ipaddress
from collections.abc import Iterable

from bolide._types import ASGI3App, Receive, Scope, Send

__all__ = ["ProxyHeadersMiddleware", "TrustedHosts", "apply_proxy_headers"]

# A longer name is no host name (RFC 1035: 253 characters) and must not fill the cache.
_LONGEST_HOST = 253


def _split(hosts: str) -> list[str]:
    return [host.strip() for host in hosts.split(",")]


def _host_and_port(value: str) -> tuple[str, int]:
    """Split an element of X-Forwarded-For: an address, `ipv4:port`, `[ipv6]` or `[ipv6]:port`; port 0 if none is given.

    What has another form is returned whole, so that it never equals a trusted address by accident.
    """
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return value, 0
        port = rest[1:]
        return (host, int(port)) if port.isascii() and port.isdigit() else (host, 0)
    host, colon, port = value.partition(":")
    if colon and port.isascii() and port.isdigit():
        return host, int(port)
    return value, 0


class TrustedHosts:
    """The proxies whose headers are believed.

    Args:
        hosts: addresses, networks (`10.0.0.0/8`) and literals such as the path of a Unix socket, as a list or separated
            by commas; "*" trusts everyone.
    """

    def __init__(self, hosts: Iterable[str] | str) -> None:
        names = _split(hosts) if isinstance(hosts, str) else list(hosts)
        self.always_trust = names == ["*"]
        self._addresses: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._literals: set[str] = set()
        for name in names:
            try:
                if "/" in name:
                    self._networks.append(ipaddress.ip_network(name))
                else:
                    self._addresses.add(ipaddress.ip_address(name))
            except ValueError:
                self._literals.add(name)
        self._cached = functools.lru_cache(maxsize=1024)(self._is_trusted)

    def __contains__(self, host: str | None) -> bool:
        if self.always_trust:
            return True
        if not host:
            return False
        return self._is_trusted(host) if len(host) > _LONGEST_HOST else self._cached(host)

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in self._literals
        return address in self._addresses or any(address in network for network in self._networks)

    def client_of(self, forwarded_for: str) -> tuple[str, int]:
        """The client that X-Forwarded-For names: the last host that is not a trusted proxy, as (host, port).

        Every proxy appends the peer that it saw. If all of them are trusted, the first is the client.
        """
        hosts = _split(forwarded_for)
        if not self.always_trust:
            for value in reversed(hosts):
                host, port = _host_and_port(value)
                if host not in self:
                    return host, port
        return _host_and_port(hosts[0])


def apply_proxy_headers(trusted: TrustedHosts, scope: Scope) -> None:
    """Set `scheme` and `client` of the http or websocket `scope` as X-Forwarded-* say, if its client is trusted."""
    client = scope.get("client")
    if (client[0] if client else None) not in trusted:
        return
    proto = b""
    forwarded_for = []
    for name, value in scope["headers"]:
        if name == b"x-forwarded-proto":
            proto = value
        elif name == b"x-forwarded-for":
            forwarded_for.append(value)
    scheme = proto.decode("latin-1").strip()
    if scheme in ("http", "https", "ws", "wss"):
        scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme
    if forwarded_for:
        host, port = trusted.client_of(b",".join(forwarded_for).decode("latin-1"))
        if host:
            scope["client"] = (host, port)


class ProxyHeadersMiddleware:
    """Application that calls `app` with the client and the scheme that a trusted proxy reports.

    Args:
        app: the ASGI application.
        trusted_hosts: see TrustedHosts.
    """

    def __init__(self, app: ASGI3App, trusted_hosts: Iterable[str] | str = "127.0.0.1") -> None:
        self.app = app
        self.trusted_hosts = TrustedHosts(trusted_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            apply_proxy_headers(self.trusted_hosts, scope)
        await self.app(scope, receive, send)
