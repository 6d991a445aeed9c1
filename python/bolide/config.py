"""What a server is told: the application, where it listens, its limits and its logs."""

import asyncio
import logging
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeAlias

from bolide._types import ASGI3App
from bolide.accesslog import check_format
from bolide.application import ApplicationError, interface_of, make_application, resolve_interface, wrap_application
from bolide.importer import ImportFromStringError, import_from_string
from bolide.logconfig import LogConfig, configure_logging, describe_strays
from bolide.logging import LOG_LEVELS, LOGGING_CONFIG, styled
from bolide.sockets import Address, BindError, TCPOptions, parse_address
from bolide.tls import TLSExtension, choose_by_name, create_ssl_context, parse_named_certificate

__all__ = [
    "LOAD_FAILURE",
    "LOGGING_CONFIG",
    "LOG_LEVELS",
    "STARTUP_FAILURE",
    "Config",
    "UnsupportedOptionError",
    "resolve_interface",
]

LifespanType: TypeAlias = Literal["auto", "on", "off"]
InterfaceType: TypeAlias = Literal["auto", "asgi3", "asgi2", "wsgi"]
PathType: TypeAlias = str | os.PathLike[str]

LOAD_FAILURE = 1
"""Exit code when the application cannot be found or the address cannot be bound."""

STARTUP_FAILURE = 3
"""Exit code when the application's startup or shutdown fails."""

SSL_PROTOCOL_VERSION = int(ssl.PROTOCOL_TLS_SERVER)
LIFESPANS = ("auto", "on", "off")
INTERFACES = ("auto", "asgi3", "asgi2", "wsgi")

# Values of `loop`, `http` and `ws` that name others' implementations: bolide has one of each.
_OTHER_LOOPS = ("none", "asyncio", "uvloop", "zuvloop")
_OTHER_HTTP = ("h11", "httptools", "zttp")
_OTHER_WS = ("websockets", "websockets-sansio", "wsproto")

_DEFAULT_TRUSTED_PROXIES = "127.0.0.1,::1"
_HOW_TO_QUIT = "(Press CTRL+C to quit)"

logger = logging.getLogger("bolide.error")


class UnsupportedOptionError(NotImplementedError):
    """Options were given that bolide does not have yet.

    Attributes:
        options: the names of the fields of Config.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self.options = list(options)
        super().__init__("not supported yet: " + ", ".join(self.options))


def exit_with_error(message: object, code: int) -> NoReturn:
    """Log `message` as an error and raise SystemExit with `code`."""
    logger.error("%s", message)
    sys.exit(code)


class Config:
    """The configuration of a server.

    The names and defaults are those of uvicorn.Config. A field stays as it was given until load().

    Args:
        app: the application: an ASGI callable or an import string "module:attribute".
        host: host name or address to listen on; "" or None listens on all interfaces.
        port: TCP port; 0 picks a free one.
        uds: path of a Unix socket to listen on instead.
        fd: number of an open listening (or bound) socket to listen on instead.
        loop: "auto" for bolide's loop, or the import string of a factory whose loop is bolide's. The names of others'
            loops are accepted and ignored.
        http, ws: "auto"; ws may be "none" to refuse WebSocket. The names of others' implementations are ignored.
        http2: not supported yet.
        ws_max_size: longest WebSocket message, bytes.
        ws_max_queue: length of the queue of received WebSocket messages.
        ws_ping_interval, ws_ping_timeout: seconds, or None.
        ws_per_message_deflate: whether permessage-deflate is offered.
        lifespan: "on", "off", or "auto": on, but an application without it is served all the same.
        env_file: file of environment variables, loaded at once; variables already set win.
        log_config: a dict for logging.config.dictConfig, or a file of one (.json, .toml, .yaml, .yml), or a file for
            logging.config.fileConfig; None leaves logging alone.
        log_level: name ("critical" ... "trace") or number; None keeps that of log_config.
        access_log: whether requests are logged on "bolide.access".
        use_colors: True, False, or None: when the log goes to a terminal.
        log_format: "text", or "json" for an object a line, in both logs; the latter needs the formatters of the default
            log_config.
        access_log_format: a line of the access log with gunicorn's atoms: '%(h)s "%(r)s" %(s)s %(L)s'; None: the usual.
        interface: "asgi3", "asgi2", "wsgi", or "auto" to tell ASGI 3 from 2 by the application's signature.
        reload: whether the server restarts when files change; needs an import string as `app`.
        reload_dirs: the folders to watch, by default the current one.
        reload_delay: seconds within which several changes are one, and between two looks without watchfiles.
        reload_includes: patterns of files that matter besides "*.py", and folders to watch.
        reload_excludes: patterns of files and folders that do not matter.
        workers: number of worker processes, by default $WEB_CONCURRENCY or 1; they need an import string as `app`.
        proxy_headers: whether X-Forwarded-Proto and X-Forwarded-For of trusted proxies set scheme and client.
        server_header, date_header: whether responses get these headers by default.
        forwarded_allow_ips: the trusted proxies: addresses, networks, literals, "*"; a list, or separated by commas; by
            default $FORWARDED_ALLOW_IPS or "127.0.0.1,::1".
        root_path: the ASGI root_path.
        limit_concurrency: number of connections or requests above which the answer is 503.
        limit_max_body: longest body of a request, bytes, answered with 413 beyond; None: no limit.
        limit_body_rate: bytes a second that a client must at least send of a body, over each timeout_request_body.
        limit_request_headers: number of header fields of a request, answered with 431 beyond.
        limit_max_requests: number of requests after which the server stops.
        limit_max_requests_jitter: upper bound of a random number added to limit_max_requests.
        backlog: length of the queue of connections not yet accepted.
        timeout_keep_alive: seconds that an idle connection is kept; 0: each is closed after its response.
        timeout_request_head: seconds in which the head of a request must come.
        timeout_request_body: seconds in which more of a request's body must come while it is waited for; 0: no bound.
        timeout_write: seconds in which a client must take some of what waits for it, or it is cut off; 0: no bound.
        timeout_notify: seconds between two calls of callback_notify.
        timeout_graceful_shutdown: seconds that shutdown waits for running requests; None: without bound.
        timeout_worker_healthcheck: seconds without a sign of life after which a worker that is not busy is killed and
            replaced.
        callback_notify: coroutine function called every timeout_notify seconds.
        ssl_certfile: PEM file with the certificate and those that lead to the root's; makes the server one of HTTPS.
        ssl_keyfile: PEM file with the private key; None: it is in ssl_certfile.
        ssl_keyfile_password: password of the private keys.
        ssl_version, ssl_cert_reqs: numbers of the ssl module: the protocol; whether clients must show a certificate.
        ssl_ca_certs: PEM file with the certificates that clients' are checked against.
        ssl_ciphers: OpenSSL cipher list for TLS 1.2; None: that of the ssl module.
        ssl_sni: certificates for clients that ask for a certain name, each "NAME=CERTFILE[,KEYFILE]"; NAME may start
            with "*.".
        ssl_context_factory: called with this object and a function that makes the context of the options above; returns
            the ssl.SSLContext to use.
        headers: pairs of strings, added to every response.
        factory: whether `app` is a callable without arguments that returns the application.
        h11_max_incomplete_event_size: longest head of a request, bytes; None: the server's default.
        reset_contextvars: whether each request starts with an empty contextvars.Context.
        uds_permissions: mode of the Unix socket's file; None: as the file had, or 0o666.
        bind: addresses to listen on in place of host, port, uds and fd: each "HOST:PORT", ":PORT" for all interfaces,
            "[IPV6]:PORT", "unix:PATH" or "fd://NUMBER".
        tcp_keepalive: seconds after which an idle peer is asked whether it is there; 0: never.
        tcp_defer_accept: seconds within which a connection is only accepted once it has sent something; 0: at once.
        tcp_fast_open: length of the queue for TCP Fast Open; 0: off.
        health_path: path that GET and HEAD are answered for by the server alone, with 200; None: there is none.
        pathsend: whether applications are offered to hand files over by path, which middleware then does not see.
        max_rss: resident memory, in bytes, above which a worker is replaced; None: no limit.
        threads: event loops in a process, a thread each. More than 1 needs a free-threaded build of CPython, and is not
            supported there yet either.

    Raises:
        UnsupportedOptionError: an option that does not work yet was set to other than its default.
        ValueError: a value is out of its range.
        OSError: env_file or log_config cannot be read.
    """

    def __init__(
        self,
        app: Callable[..., Any] | str,
        host: str | None = "127.0.0.1",
        port: int = 8000,
        uds: str | None = None,
        fd: int | None = None,
        loop: str = "auto",
        http: type[asyncio.Protocol] | str = "auto",
        http2: bool = False,
        ws: type[asyncio.Protocol] | str | None = "auto",
        ws_max_size: int = 16 * 1024 * 1024,
        ws_max_queue: int = 32,
        ws_ping_interval: float | None = 20.0,
        ws_ping_timeout: float | None = 20.0,
        ws_per_message_deflate: bool = True,
        lifespan: LifespanType = "auto",
        env_file: PathType | None = None,
        log_config: LogConfig = LOGGING_CONFIG,
        log_level: str | int | None = None,
        access_log: bool = True,
        use_colors: bool | None = None,
        interface: InterfaceType = "auto",
        reload: bool = False,
        reload_dirs: list[str] | str | None = None,
        reload_delay: float = 0.25,
        reload_includes: list[str] | str | None = None,
        reload_excludes: list[str] | str | None = None,
        workers: int | None = None,
        proxy_headers: bool = True,
        server_header: bool = True,
        date_header: bool = True,
        forwarded_allow_ips: list[str] | str | None = None,
        root_path: str = "",
        limit_concurrency: int | None = None,
        limit_max_requests: int | None = None,
        limit_max_requests_jitter: int = 0,
        backlog: int = 2048,
        timeout_keep_alive: float = 5,
        timeout_notify: float = 30,
        timeout_graceful_shutdown: float | None = None,
        timeout_worker_healthcheck: float = 5,
        callback_notify: Callable[..., Awaitable[None]] | None = None,
        ssl_keyfile: PathType | None = None,
        ssl_certfile: PathType | None = None,
        ssl_keyfile_password: str | None = None,
        ssl_version: int = SSL_PROTOCOL_VERSION,
        ssl_cert_reqs: int = ssl.CERT_NONE,
        ssl_ca_certs: PathType | None = None,
        ssl_ciphers: str | None = None,
        ssl_context_factory: Callable[["Config", Callable[[], ssl.SSLContext]], ssl.SSLContext] | None = None,
        headers: Sequence[tuple[str, str]] | None = None,
        factory: bool = False,
        h11_max_incomplete_event_size: int | None = None,
        reset_contextvars: bool = False,
        ssl_sni: Sequence[str] | None = None,
        limit_max_body: int | None = None,
        limit_body_rate: int = 0,
        limit_request_headers: int = 256,
        timeout_request_head: float = 60.0,
        timeout_request_body: float = 60.0,
        timeout_write: float = 60.0,
        uds_permissions: int | None = None,
        max_rss: int | None = None,
        threads: int = 1,
        log_format: Literal["text", "json"] = "text",
        access_log_format: str | None = None,
        bind: Sequence[str] | str | None = None,
        tcp_keepalive: int = 0,
        tcp_defer_accept: int = 0,
        tcp_fast_open: int = 0,
        health_path: str | None = None,
        pathsend: bool = True,
    ) -> None:
        self.app = app
        self.host = host
        self.port = port
        self.uds = uds
        self.fd = fd
        self.loop = loop
        self.http = http
        self.http2 = http2
        self.ws = ws
        self.ws_max_size = ws_max_size
        self.ws_max_queue = ws_max_queue
        self.ws_ping_interval = ws_ping_interval
        self.ws_ping_timeout = ws_ping_timeout
        self.ws_per_message_deflate = ws_per_message_deflate
        self.lifespan: LifespanType = lifespan
        self.env_file = env_file
        self.log_config = log_config
        self.log_level = log_level
        self.access_log = access_log
        self.use_colors = use_colors
        self.interface: InterfaceType = interface
        self.reload = reload
        self.reload_dirs = reload_dirs
        self.reload_delay = reload_delay
        self.reload_includes = reload_includes
        self.reload_excludes = reload_excludes
        self.proxy_headers = proxy_headers
        self.server_header = server_header
        self.date_header = date_header
        self.root_path = root_path
        self.limit_concurrency = limit_concurrency
        self.limit_max_requests = limit_max_requests
        self.limit_max_requests_jitter = limit_max_requests_jitter
        self.backlog = backlog
        self.timeout_keep_alive = timeout_keep_alive
        self.timeout_notify = timeout_notify
        self.timeout_graceful_shutdown = timeout_graceful_shutdown
        self.timeout_worker_healthcheck = timeout_worker_healthcheck
        self.callback_notify = callback_notify
        self.ssl_keyfile = ssl_keyfile
        self.ssl_certfile = ssl_certfile
        self.ssl_keyfile_password = ssl_keyfile_password
        self.ssl_version = ssl_version
        self.ssl_cert_reqs = ssl_cert_reqs
        self.ssl_ca_certs = ssl_ca_certs
        self.ssl_ciphers = ssl_ciphers
        self.ssl_context_factory = ssl_context_factory
        self.ssl_sni = [parse_named_certificate(text) for text in ssl_sni or ()]
        self.ssl: ssl.SSLContext | None = None
        self.tls_extension: TLSExtension | None = None
        self.headers: list[tuple[str, str]] = [(name, value) for name, value in headers or ()]
        self.factory = factory
        self.h11_max_incomplete_event_size = h11_max_incomplete_event_size
        self.limit_max_body = limit_max_body
        self.limit_body_rate = limit_body_rate
        self.limit_request_headers = limit_request_headers
        self.timeout_request_head = timeout_request_head
        self.timeout_request_body = timeout_request_body
        self.timeout_write = timeout_write
        self.reset_contextvars = reset_contextvars
        self.uds_permissions = uds_permissions
        self.max_rss = max_rss
        self.threads = threads
        self.log_format: Literal["text", "json"] = log_format
        self.access_log_format = access_log_format
        self.bind = [bind] if isinstance(bind, str) else list(bind or ())
        self.tcp_options = TCPOptions(tcp_keepalive, tcp_defer_accept, tcp_fast_open)
        self.health_path = health_path
        self.pathsend = pathsend

        self.loaded = False
        self.loaded_app: ASGI3App | None = None
        self.encoded_headers: list[tuple[bytes, bytes]] = []

        self.configure_logging()
        if env_file is not None:
            from bolide.envfile import load_env_file

            logger.info("Loading environment from '%s'", env_file)
            load_env_file(env_file)
        self.workers = int(os.environ.get("WEB_CONCURRENCY") or 1) if workers is None else workers or 1
        self.forwarded_allow_ips: list[str] | str = (
            os.environ.get("FORWARDED_ALLOW_IPS", _DEFAULT_TRUSTED_PROXIES)
            if forwarded_allow_ips is None
            else forwarded_allow_ips
        )
        self._check()

    def _check(self) -> None:
        """Raise for a value out of its range or not supported yet, and warn about one that has no meaning here."""
        unsupported = [name for name, in_use in _unsupported_options(self).items() if in_use]
        if unsupported:
            raise UnsupportedOptionError(unsupported)
        if self.lifespan not in LIFESPANS:
            raise ValueError(f"lifespan is one of {', '.join(LIFESPANS)}, not {self.lifespan!r}")
        if not self.ssl_certfile and (self.ssl_keyfile or (self.ssl_sni and not self.ssl_context_factory)):
            raise ValueError("ssl_keyfile and ssl_sni need ssl_certfile")
        if self.interface not in INTERFACES:
            raise ValueError(f"interface is one of {', '.join(INTERFACES)}, not {self.interface!r}")
        if self.workers < 1:
            raise ValueError(f"workers is at least 1, not {self.workers}")
        if self.threads < 1:
            raise ValueError(f"threads is at least 1, not {self.threads}")
        if self.threads > 1 and "t" not in sys.abiflags:
            raise ValueError("threads needs a free-threaded build of CPython, which this is not: use workers")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is 0 to 65535, not {self.port}")
        self.addresses()
        if self.health_path is not None and not self.health_path.startswith("/"):
            raise ValueError(f"health_path starts with a slash, which {self.health_path!r} does not")
        if self.access_log_format is not None:
            check_format(self.access_log_format)
        for name in ("ws_max_size", "ws_max_queue"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        for name, least in (("limit_max_body", 1), ("limit_request_headers", 1), ("limit_body_rate", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is at least {least}, not {value}")
        if not 0 < self.timeout_request_head <= 86400:
            raise ValueError(f"timeout_request_head is more than 0 and up to 86400, not {self.timeout_request_head}")
        for name in ("timeout_request_body", "timeout_write"):
            if not 0 <= getattr(self, name) <= 86400:
                raise ValueError(f"{name} is 0 to 86400 seconds, not {getattr(self, name)}")
        for name in ("ws_ping_interval", "ws_ping_timeout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 86400:
                raise ValueError(f"{name} is 0 to 86400 seconds, not {value}")
        self.encoded_headers = [_encode_header(name, value) for name, value in self.headers]
        if self.reload and self.workers > 1:
            logger.warning("The option workers is ignored with reload.")
            self.workers = 1
        if (self.reload_dirs or self.reload_includes or self.reload_excludes) and not self.should_reload:
            logger.warning("The reload options have no effect without reload and an import string.")
        for name, others in (("loop", _OTHER_LOOPS), ("http", _OTHER_HTTP), ("ws", _OTHER_WS)):
            value = getattr(self, name)
            if value in others and value != "none":
                logger.warning("The option %s=%s is ignored: bolide has its own implementation.", name, value)

    @property
    def asgi_version(self) -> Literal["2.0", "3.0"]:
        """The version of ASGI that the application speaks, as scope["asgi"]["version"] says it."""
        return "2.0" if self.interface == "asgi2" else "3.0"

    @property
    def is_ssl(self) -> bool:
        """Whether TLS was asked for."""
        return bool(self.ssl_certfile or self.ssl_context_factory)

    @property
    def use_subprocess(self) -> bool:
        """Whether the server runs in a child process of a supervisor."""
        return bool(self.reload or self.workers > 1 or self.max_rss is not None)

    @property
    def should_reload(self) -> bool:
        """Whether the server restarts when files change: only an application given by its import string can."""
        return isinstance(self.app, str) and self.reload

    def configure_logging(self) -> None:
        """Apply log_config, log_level, access_log, use_colors and log_format to the standard library's logging.

        Raises:
            OSError: the file cannot be read.
            ValueError: its content is no logging configuration, or one of the others has no such value.
            ImportError: it is YAML and PyYAML is not installed.
        """
        self.log_config = configure_logging(
            self.log_config, self.log_level, self.access_log, self.use_colors, self.log_format
        )

    def load_app(self) -> Any:
        """The object that `app` names, imported.

        Raises:
            SystemExit: code 1, after one line in the log: there is no such module or attribute.
        """
        try:
            return import_from_string(self.app)
        except ImportFromStringError as exc:
            exit_with_error(f"Error loading ASGI app. {exc}", LOAD_FAILURE)

    def load(self) -> None:
        """Import the application, call its factory, wrap it in the middleware that it needs, encode the headers.

        Sets loaded_app, encoded_headers, interface and loaded; a second call does nothing.

        Raises:
            SystemExit: code 1: the application cannot be loaded.
            ValueError: a header cannot be encoded as Latin-1 or contains a control character.
        """
        if self.loaded:
            return
        self.encoded_headers = [_encode_header(name, value) for name, value in self.headers]
        try:
            app = make_application(self.load_app(), self.app, self.factory)
            interface = interface_of(app, self.app) if self.interface == "auto" else self.interface
        except ApplicationError as exc:
            exit_with_error(exc, LOAD_FAILURE)
        strays = describe_strays()
        if strays:
            logger.warning("%s", strays)
        self.interface = interface
        self.loaded_app = wrap_application(app, interface)
        if self.is_ssl:
            try:
                self.load_ssl()
            except (OSError, ValueError) as exc:
                exit_with_error(f"Error loading the certificates: {exc}", LOAD_FAILURE)
        self.loaded = True

    def load_ssl(self) -> None:
        """Make the context of the ssl_* options, from the files as they are now. Sets `ssl`, unless it raises.

        Raises:
            OSError (also as ssl.SSLError): a file cannot be read or does not fit.
            ValueError: an ssl_* number is not one of the ssl module.
            RuntimeError: ssl_context_factory asks for the default context, and there is no ssl_certfile.
            TypeError: ssl_context_factory returns another object.
        """
        files: dict[ssl.SSLContext, PathType] = {}
        context = self._make_ssl_context(files)
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"ssl_context_factory must return an ssl.SSLContext, not {type(context).__name__}")
        extension = self.tls_extension or TLSExtension()
        extension.add(files)
        self.ssl, self.tls_extension = context, extension

    def _make_ssl_context(self, files: dict[ssl.SSLContext, PathType]) -> ssl.SSLContext:
        """The server's context; `files` gets the certificate's file of each context that was made here."""

        def make(certfile: PathType, keyfile: PathType | None) -> ssl.SSLContext:
            password: Any = self.ssl_keyfile_password
            if password is None and self.loaded:
                password = str  # a server at work is not to wait for someone at its terminal
            context = create_ssl_context(
                certfile,
                keyfile,
                password,
                self.ssl_version,
                self.ssl_cert_reqs,
                self.ssl_ca_certs,
                self.ssl_ciphers,
            )
            files[context] = certfile
            return context

        def make_default() -> ssl.SSLContext:
            if not self.ssl_certfile:
                raise RuntimeError("the default SSL context needs ssl_certfile")
            context = make(self.ssl_certfile, self.ssl_keyfile)
            if self.ssl_sni:
                choose_by_name(context, {name: make(certfile, keyfile) for name, certfile, keyfile in self.ssl_sni})
            return context

        return self.ssl_context_factory(self, make_default) if self.ssl_context_factory else make_default()

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """The factory of the loop that Server.run() runs on.

        Raises:
            SystemExit: code 1: `loop` is the import string of something that does not exist.
        """
        if self.loop == "auto" or self.loop in _OTHER_LOOPS:
            import bolide

            factory: Callable[[], asyncio.AbstractEventLoop] = bolide.new_event_loop
            return factory
        try:
            found: Callable[[], asyncio.AbstractEventLoop] = import_from_string(self.loop)
        except ImportFromStringError as exc:
            exit_with_error(f"Error loading event loop factory. {exc}", LOAD_FAILURE)
        return found

    def addresses(self) -> list[Address]:
        """Where to listen.

        Raises:
            ValueError: one of `bind` is no address.
        """
        if self.bind:
            return [parse_address(text) for text in self.bind]
        if self.uds is not None:
            return [Address(path=self.uds)]
        if self.fd is not None:
            return [Address(fd=self.fd)]
        return [Address(host=self.host or "", port=self.port)]

    def bind_socket(self) -> socket.socket:
        """A bound, inheritable socket that does not listen yet, for a parent that hands it to its workers.

        The address is logged. With a host that has several addresses, the first is bound.

        Raises:
            SystemExit: code 1, after one line in the log: the address cannot be bound.
        """
        address = self.addresses()[0]
        try:
            sock = address.bind_first(self.uds_permissions, self.tcp_options)
        except BindError as exc:
            exit_with_error(exc, LOAD_FAILURE)
        self.log_listening([(address, [sock])])
        sock.set_inheritable(True)
        return sock

    def log_listening(self, bound: Sequence[tuple[Address, Sequence[socket.socket]]]) -> None:
        """Log where the server listens: each address with its sockets, at least one."""
        for address, sockets in bound:
            if address.path is not None:
                where, shown = "unix socket %s", address.path
            elif address.fd is not None:
                where, shown = "socket %s", str(sockets[0].getsockname())
            else:
                host = address.host or "0.0.0.0"
                port = address.port or sockets[0].getsockname()[1]
                scheme = "https" if self.is_ssl else "http"
                where, shown = "%s", f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
            color_message = f"Bolide running on {where.replace('%s', styled('%s', 'bold'))} {_HOW_TO_QUIT}"
            logger.info(f"Bolide running on {where} {_HOW_TO_QUIT}", shown, extra={"color_message": color_message})


def _unsupported_options(config: Config) -> Mapping[str, bool]:
    """The options that do not work yet, and whether `config` sets them to other than what bolide does."""
    return {
        "http2": config.http2,
        "threads": config.threads > 1 and "t" in sys.abiflags,
    }


def _encode_header(name: str, value: str) -> tuple[bytes, bytes]:
    encoded = name.strip().lower().encode("latin-1"), value.strip().encode("latin-1")
    if not encoded[0] or any(byte <= 0x20 or byte in b'"(),/:;<=>?@[\\]{}\x7f' for byte in encoded[0]):
        raise ValueError(f"{name!r} is no header name")
    if any(byte in b"\r\n\0" for byte in encoded[1]):
        raise ValueError(f"the value of the header {name} contains a control character")
    return encoded
