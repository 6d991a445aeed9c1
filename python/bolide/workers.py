"""The worker class for gunicorn: `gunicorn -k bolide.workers.BolideWorker main:app`.

gunicorn is what supervises then: it binds, starts, watches and replaces the workers, and each serves by bolide.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from bolide import _runner
from bolide.config import Config
from bolide.server import Server

__all__ = ["BolideWorker"]

# Seconds for tasks that the application has left running when the worker stops, and when it stops at once.
_PATIENCE = 5.0
_QUICK_PATIENCE = 0.5


class _Server(Server):
    """A server whose signals are the worker's, which gunicorn sends."""

    def install_signal_handlers(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True
        if sig != signal.SIGTERM:
            self.force_exit = True


class BolideWorker(Worker):
    """A worker of gunicorn that serves an ASGI application by bolide.

    From gunicorn's settings it takes bind, backlog, timeout (a worker whose loop is blocked for longer is killed and
    replaced), graceful_timeout, keepalive, max_requests, max_requests_jitter, forwarded_allow_ips, root_path,
    limit_request_fields, the certificates, accesslog, errorlog, loglevel, access_log_format and reload. SIGTERM stops
    it gracefully, SIGINT and SIGQUIT at once, SIGUSR1 reopens the log files.

    Attributes:
        CONFIG_KWARGS: more arguments for bolide.Config; a subclass sets them, and they win over gunicorn's settings.
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, theirs in (("bolide.error", self.log.error_log), ("bolide.access", self.log.access_log)):
            logger = logging.getLogger(name)
            logger.handlers = theirs.handlers
            logger.setLevel(theirs.level)
            logger.propagate = False
        self.config = Config(**{**self._settings(), **self.CONFIG_KWARGS})

    def _settings(self) -> dict[str, Any]:
        """gunicorn's settings as arguments of bolide.Config."""
        cfg = self.cfg
        options: dict[str, Any] = {
            "app": None,
            "log_config": None,
            "timeout_keep_alive": cfg.keepalive,
            "timeout_graceful_shutdown": cfg.graceful_timeout or None,
            # self.timeout is half of gunicorn's; 0 is for workers that nobody watches.
            "timeout_notify": self.timeout / 2 if self.timeout else 30,
            "callback_notify": self._notify,
            "limit_max_requests": self.max_requests if self.max_requests != sys.maxsize else None,
            "forwarded_allow_ips": cfg.forwarded_allow_ips,
            "limit_request_headers": cfg.limit_request_fields,
            "backlog": cfg.backlog,
            "root_path": getattr(cfg, "root_path", ""),
            **self._logs(),
        }
        if cfg.is_ssl:
            tls = cfg.ssl_options
            options |= {
                "ssl_keyfile": tls.get("keyfile"),
                "ssl_certfile": tls.get("certfile"),
                "ssl_keyfile_password": tls.get("password"),
                "ssl_ca_certs": tls.get("ca_certs"),
                "ssl_ciphers": tls.get("ciphers"),
                "ssl_cert_reqs": int(tls.get("cert_reqs") or 0),
            }
        return options

    def _logs(self) -> dict[str, Any]:
        """What the access log is, as arguments of bolide.Config."""
        cfg = self.cfg
        enabled = bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or cfg.syslog)
        return {"access_log": enabled, "access_log_format": cfg.access_log_format}

    def init_signals(self) -> None:
        """Leave the signals to the server, but for SIGUSR1, which reopens the logs, and SIGABRT, which comes when
        gunicorn misses the signs of life."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGABRT, self.handle_abort)
        signal.signal(signal.SIGWINCH, signal.SIG_IGN)
        # Reopening takes the handlers' locks, which the code that the signal interrupts may hold.
        signal.signal(signal.SIGUSR1, lambda number, frame: threading.Thread(target=self.log.reopen_files).start())
        signal.siginterrupt(signal.SIGUSR1, False)

    def run(self) -> None:
        """Serve until told to stop."""
        self.config.app = self.wsgi
        server = _Server(self.config)
        patience = lambda: _QUICK_PATIENCE if server.force_exit else _PATIENCE  # noqa: E731
        _runner.run(self._serve(server), self.config.get_loop_factory(), patience)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def _serve(self, server: Server) -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_reader(self.PIPE[0])
            server.should_exit = True

        # gunicorn's reloader writes there, from its own thread.
        loop.add_reader(self.PIPE[0], stop)
        await server.serve(self.sockets)

    async def _notify(self) -> None:
        self.notify()
        # The arbiter may have died without a word.
        if os.getppid() != self.ppid:
            self.log.info("Parent changed, shutting down: %s", self)
            os.kill(os.getpid(), signal.SIGTERM)
