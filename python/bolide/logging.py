"""The log records' look: a level prefix, coloured on a terminal, one line per request in the access log; or JSON."""

import datetime
import http
import json
import logging
import sys
from typing import Any, Literal

__all__ = [
    "LOGGING_CONFIG",
    "LOG_LEVELS",
    "TRACE",
    "AccessFormatter",
    "DefaultFormatter",
    "JSONFormatter",
    "reopen_log_files",
]

TRACE = 5
"""Level below DEBUG: every ASGI message is logged, bodies replaced by their lengths."""

LOG_LEVELS: dict[str, int] = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}

_ACCESS_LINE = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "bolide.logging.DefaultFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "bolide.logging.AccessFormatter",
            "fmt": _ACCESS_LINE,
            "use_colors": None,
        },
    },
    "handlers": {
        "default": {"class": "bolide.logqueue.QueuedHandler", "formatter": "default", "stream": "ext://sys.stderr"},
        "access": {"class": "bolide.logqueue.QueuedHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "bolide": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "bolide.error": {"level": "INFO"},
        "bolide.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
"""The default of `Config(log_config=...)`, in the form of logging.config.dictConfig."""

_RESET = "\x1b[0m"
_CODES = {
    "bold": "\x1b[1m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "blue": "\x1b[34m",
    "cyan": "\x1b[36m",
    "bright_red": "\x1b[91m",
    "bright_white": "\x1b[97m",
}
_LEVEL_COLORS = {
    TRACE: "blue",
    logging.DEBUG: "cyan",
    logging.INFO: "green",
    logging.WARNING: "yellow",
    logging.ERROR: "red",
    logging.CRITICAL: "bright_red",
}
_STATUS_COLORS = {1: "bright_white", 2: "green", 3: "yellow", 4: "red", 5: "bright_red"}
PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
"""The reason phrases of status codes."""


def styled(text: str, *styles: str) -> str:
    """`text` within the ANSI escape codes of `styles` ("bold" or the name of a colour)."""
    return "".join(_CODES[name] for name in styles) + text + _RESET


def _is_terminal(stream: Any) -> bool:
    # A stream may be None (no console) or closed.
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


class DefaultFormatter(logging.Formatter):
    """Formatter with the extra field `levelprefix`: the level's name and a colon, padded to nine columns.

    A record with a `color_message` (given by `extra=`) is shown with that in place of its message when colours are on.

    Args:
        fmt, datefmt, style: as of logging.Formatter.
        use_colors: True or False; None means: when the log's stream is a terminal.
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        super().__init__(fmt, datefmt, style)
        self.use_colors = self.should_use_colors() if use_colors is None else bool(use_colors)

    def should_use_colors(self) -> bool:
        """Whether the stream that this log goes to by default, stderr, is a terminal."""
        return _is_terminal(sys.stderr)

    def add_fields(self, record: logging.LogRecord) -> None:
        """Set the extra fields on `record`, a copy that other handlers do not see."""
        prefix = f"{record.levelname}:"
        padding = " " * (9 - len(prefix))
        if self.use_colors:
            color = _LEVEL_COLORS.get(record.levelno)
            prefix = (styled(record.levelname, color) if color else record.levelname) + ":"
            color_message = record.__dict__.get("color_message")
            if color_message is not None:
                record.msg = color_message
                record.message = record.getMessage()
        record.levelprefix = prefix + padding

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of `record`, without traceback."""
        shown = logging.makeLogRecord(record.__dict__)
        self.add_fields(shown)
        return super().formatMessage(shown)


class AccessFormatter(DefaultFormatter):
    """Formatter of the access log, with the fields `client_addr`, `request_line` and `status_code`.

    The arguments of a record are (client address, method, path with query, HTTP version, status code); the status code
    is shown with its reason phrase. A record without arguments is a line of access_log_format and stands as it is.
    """

    def should_use_colors(self) -> bool:
        """Whether the stream that this log goes to by default, stdout, is a terminal."""
        return _is_terminal(sys.stdout)

    @property
    def is_usual(self) -> bool:
        """Whether it makes the default's line, without colours."""
        return not self.use_colors and self._fmt == _ACCESS_LINE

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        return super().formatMessage(record) if record.args else record.message

    def add_fields(self, record: logging.LogRecord) -> None:
        super().add_fields(record)
        if not isinstance(record.args, tuple) or len(record.args) != 5:
            raise ValueError("an access record has five arguments: client address, method, path, HTTP version, status")
        client_addr, method, path, http_version, code = record.args
        status = int(code)  # type: ignore[call-overload]
        request_line = f"{method} {path} HTTP/{http_version}"
        status_code = f"{status} {PHRASES.get(status, '')}"
        if self.use_colors:
            request_line = styled(request_line, "bold")
            color = _STATUS_COLORS.get(status // 100)
            status_code = styled(status_code, color) if color else status_code
        record.__dict__.update(client_addr=client_addr, request_line=request_line, status_code=status_code)


class JSONFormatter(logging.Formatter):
    """Formatter that makes each record a line of JSON.

    The keys are `time` (ISO 8601, UTC), `level`, `logger`, `message`, for a traceback `exception`, for a stack `stack`.
    Records of the access log have those of bolide.accesslog.Access.fields() besides.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().rstrip("\n"),
        }
        fields.update(getattr(record, "access", None) or {})
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def reopen_log_files() -> None:
    """Close the files of all file handlers and open them anew by their names, after something has rotated them."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", ())}
    for handler in handlers:
        if isinstance(handler, logging.FileHandler):
            # The handler's lock keeps other threads from writing meanwhile; close() would forget the handler.
            handler.acquire()
            try:
                if handler.stream is not None:
                    handler.stream.close()
                    handler.stream = handler._open()
            finally:
                handler.release()
