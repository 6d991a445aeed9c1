"""The options of bolide.serve() as a type: the keyword arguments of bolide.Config and `app_dir`."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

from bolide.logconfig import LogConfig

if TYPE_CHECKING:
    from bolide.config import Config

__all__ = ["ServeOptions"]


class ServeOptions(TypedDict, total=False):
    """See bolide.Config for what they mean; app_dir: folder put in front of sys.path."""

    app_dir: str | None
    host: str | None
    port: int
    uds: str | None
    fd: int | None
    loop: str
    http: type[asyncio.Protocol] | str
    http2: bool
    ws: type[asyncio.Protocol] | str | None
    ws_max_size: int
    ws_max_queue: int
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_per_message_deflate: bool
    lifespan: Literal["auto", "on", "off"]
    env_file: str | os.PathLike[str] | None
    log_config: LogConfig
    log_level: str | int | None
    access_log: bool
    use_colors: bool | None
    interface: Literal["auto", "asgi3", "asgi2", "wsgi"]
    reload: bool
    reload_dirs: list[str] | str | None
    reload_delay: float
    reload_includes: list[str] | str | None
    reload_excludes: list[str] | str | None
    workers: int | None
    proxy_headers: bool
    server_header: bool
    date_header: bool
    forwarded_allow_ips: list[str] | str | None
    root_path: str
    limit_concurrency: int | None
    limit_max_requests: int | None
    limit_max_requests_jitter: int
    backlog: int
    timeout_keep_alive: float
    timeout_notify: float
    timeout_graceful_shutdown: float | None
    timeout_worker_healthcheck: float
    callback_notify: Callable[..., Awaitable[None]] | None
    ssl_keyfile: str | os.PathLike[str] | None
    ssl_certfile: str | os.PathLike[str] | None
    ssl_keyfile_password: str | None
    ssl_version: int
    ssl_cert_reqs: int
    ssl_ca_certs: str | os.PathLike[str] | None
    ssl_ciphers: str | None
    ssl_sni: Sequence[str] | None
    ssl_context_factory: "Callable[[Config, Callable[[], ssl.SSLContext]], ssl.SSLContext] | None"
    headers: Sequence[tuple[str, str]] | None
    factory: bool
    h11_max_incomplete_event_size: int | None
    limit_max_body: int | None
    limit_body_rate: int
    limit_request_headers: int
    timeout_request_head: float
    timeout_request_body: float
    timeout_write: float
    reset_contextvars: bool
    uds_permissions: int | None
    max_rss: int | None
    threads: int
    log_format: Literal["text", "json"]
    access_log_format: str | None
    bind: Sequence[str] | str | None
    tcp_keepalive: int
    tcp_defer_accept: int
    tcp_fast_open: int
    health_path: str | None
    pathsend: bool
