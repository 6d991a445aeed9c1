"""The command `bolide`. Imports what it needs when it needs it: asyncio only once there is something to serve."""

import argparse
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

__all__ = ["OPTIONS", "Option", "main"]

_USAGE_ERROR = 2
_TRUE = ("1", "true", "t", "yes", "y", "on")
_FALSE = ("0", "false", "f", "no", "n", "off")
_LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")

SHORT_HELP = """\
bolide {version}: serves an ASGI application.

Usage: bolide [OPTIONS] MODULE:ATTRIBUTE

  bolide main:app                      serve `app` of main.py on 127.0.0.1:8000
  bolide main:app --host 0.0.0.0 --port 80
  bolide main:app --uds /run/app.sock  serve on a Unix socket
  bolide main:make_app --factory       call `make_app` to get the application

`bolide --help` lists all options.
"""


def parse_bool(text: str) -> bool:
    """True or False for one of the usual words."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_existing_path(text: str) -> str:
    """`text`, the path of something that exists."""
    if not os.path.exists(text):
        raise ValueError(f"{text!r} does not exist")
    return text


def parse_mode(text: str) -> int:
    """File permissions from octal digits."""
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise ValueError(f"{text!r} is no file mode")
    return mode


def parse_size(text: str) -> int:
    """A number of bytes, with K, M or G for the powers of 1024."""
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper())
    size = int(text[:-1]) * unit if unit else int(text)
    if size <= 0:
        raise ValueError(f"{text!r} is no size")
    return size


def _parse_number(text: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is no {'whole number' if kind is int else 'number'}") from None


def parse_header(text: str) -> tuple[str, str]:
    """A pair from `Name:Value`."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"{text!r} is not of the form Name:Value")
    return name, value


@dataclass(frozen=True)
class Option:
    """An option of the command line.

    Attributes:
        flag: its name there.
        help: one sentence.
        convert: makes a value from a word; bool for a switch.
        default: as Config has it, shown in the help unless None.
        group: the heading it stands under.
        dest: the argument of bolide.serve() that it sets; its environment variable is BOLIDE_ and this in capitals.
        metavar: what stands for the value in the help.
        choices: the values that are allowed.
        many: whether it may be given more than once.
        separator: what the values of such an option are separated by in its environment variable; None: as in a shell.
        negatable: a switch with a `--no-` form.
    """

    flag: str
    help: str
    convert: Callable[[str], Any] = str
    default: Any = None
    group: str = ""
    dest: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] = field(default=())
    many: bool = False
    separator: str | None = None
    negatable: bool = False

    @property
    def name(self) -> str:
        return self.dest or self.flag.lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        return "BOLIDE_" + self.name.upper()

    def parse(self, text: str) -> Any:
        """The value of one word, or ValueError."""
        value: Any
        if self.convert is bool:
            value = parse_bool(text)
        elif self.convert in (int, float):
            value = _parse_number(text, self.convert)
        else:
            value = self.convert(text)
        if self.choices and value not in self.choices:
            raise ValueError(f"{text!r} is none of {', '.join(self.choices)}")
        return value


_INTERFACES = ("auto", "asgi3", "asgi2", "wsgi")

OPTIONS: dict[str, list[Option]] = {
    "Application": [
        Option("--factory", "MODULE:ATTRIBUTE is a function that returns the application.", bool, False),
        Option("--app-dir", "Look for MODULE in this folder. [default: the current one]", metavar="DIR"),
        Option("--interface", "How the application is called.", str, "auto", choices=_INTERFACES),
        Option("--lifespan", "Whether the application is told of startup and shutdown; auto: if it can be.", str,
               "auto", choices=("auto", "on", "off")),
        Option("--root-path", "Prefix under which a proxy serves the application.", str, "", metavar="PATH"),
        Option("--env-file", "Load environment variables from this file.", parse_existing_path, metavar="FILE"),
        Option("--reset-contextvars", "Start each request with an empty contextvars.Context.", bool, False),
    ],
    "Sockets": [
        Option("--host", "Listen on this address.", str, "127.0.0.1"),
        Option("--port", "Listen on this port; 0 picks a free one.", int, 8000),
        Option("--uds", "Listen on a Unix socket of this path.", metavar="PATH"),
        Option("--uds-permissions", "Mode of the Unix socket's file, octal. [default: as it was, or 666]", parse_mode,
               metavar="MODE"),
        Option("--fd", "Listen on the socket of this file descriptor.", int),
        Option("--bind", "Listen here instead: HOST:PORT, :PORT for all interfaces, [IPV6]:PORT, unix:PATH or "
               "fd://NUMBER; may be repeated.", metavar="ADDRESS", many=True),
        Option("--backlog", "Length of the queue of connections not yet accepted.", int, 2048),
        Option("--tcp-keepalive", "Seconds after which an idle peer is asked whether it is there.", int, 0,
               metavar="SECONDS"),
        Option("--tcp-defer-accept", "Accept a connection once it has sent something, or after these seconds.", int, 0,
               metavar="SECONDS"),
        Option("--tcp-fast-open", "Length of the queue for TCP Fast Open; 0: off.", int, 0),
    ],
    "HTTP": [
        Option("--header", "Add a header to every response; may be repeated.", parse_header, dest="headers",
               metavar="NAME:VALUE", many=True),
        Option("--server-header", "Send a Server header.", bool, True, negatable=True),
        Option("--date-header", "Send a Date header.", bool, True, negatable=True),
        Option("--proxy-headers", "Take scheme and client from the X-Forwarded-Proto and X-Forwarded-For of trusted "
               "proxies.", bool, True, negatable=True),
        Option("--forwarded-allow-ips", "The trusted proxies: addresses, networks, literals, separated by commas; * "
               "trusts all. [default: $FORWARDED_ALLOW_IPS or 127.0.0.1,::1]", metavar="LIST"),
        Option("--pathsend", "Offer applications to send files by path, unseen by middleware.", bool, True,
               negatable=True),
        Option("--health-path", "Answer this path by the server alone, with 200 while it serves.", metavar="PATH"),
        Option("--http", "HTTP implementation: bolide has one; other names are ignored with a note.", str, "auto"),
        Option("--http2", "HTTP/2: not yet.", bool, False),
        Option("--h11-max-incomplete-event-size", "Longest head of a request, bytes.", int, metavar="BYTES"),
    ],
    "WebSocket": [
        Option("--ws", "WebSocket implementation: bolide has one; none refuses WebSocket; other names are ignored with "
               "a note.", str, "auto"),
        Option("--ws-max-size", "Longest message, bytes.", int, 16777216, metavar="BYTES"),
        Option("--ws-max-queue", "Length of the queue of received messages.", int, 32),
        Option("--ws-ping-interval", "Seconds between two pings.", float, 20.0, metavar="SECONDS"),
        Option("--ws-ping-timeout", "Seconds to wait for the pong.", float, 20.0, metavar="SECONDS"),
        Option("--ws-per-message-deflate", "Compress messages.", parse_bool, True, metavar="BOOL"),
    ],
    "Limits": [
        Option("--limit-concurrency", "Answer 503 above this number of connections or requests.", int),
        Option("--limit-max-body", "Answer 413 to a longer request body: bytes, or with K, M, G. [default: no limit]",
               parse_size, metavar="SIZE"),
        Option("--limit-body-rate", "Bytes a second that a client must at least send of a body; 0: any number.", int, 0,
               metavar="BYTES"),
        Option("--limit-request-headers", "Answer 431 above this number of header fields.", int, 256),
        Option("--limit-max-requests", "Stop after this number of requests.", int),
        Option("--limit-max-requests-jitter", "Add a random number up to this one to --limit-max-requests.", int, 0),
        Option("--timeout-keep-alive", "Seconds that an idle connection is kept; 0: none is.", int, 5,
               metavar="SECONDS"),
        Option("--timeout-request-head", "Seconds in which the head of a request must come.", float, 60.0,
               metavar="SECONDS"),
        Option("--timeout-request-body", "Seconds in which more of a body must come; 0: no bound.", float, 60.0,
               metavar="SECONDS"),
        Option("--timeout-write", "Seconds in which a client must take some of its output; 0: no bound.", float, 60.0,
               metavar="SECONDS"),
        Option("--timeout-graceful-shutdown", "Seconds that shutdown waits for running requests. [default: no bound]",
               int, metavar="SECONDS"),
    ],
    "Processes": [
        Option("--workers", "Number of worker processes. [default: $WEB_CONCURRENCY or 1]", int),
        Option("--timeout-worker-healthcheck", "Seconds without a sign of life after which a worker is replaced.", int,
               5, metavar="SECONDS"),
        Option("--max-rss", "Replace a worker that has more resident memory: bytes, or with K, M, G.", parse_size,
               metavar="SIZE"),
        Option("--threads", "Event loops in a process; more than one: not yet.", int, 1),
        Option("--loop", "Event loop: auto, or the import string of a factory of bolide loops; names of other loops "
               "are ignored with a note.", str, "auto"),
        Option("--reload", "Restart when files change.", bool, False),
        Option("--reload-dir", "Watch this folder; may be repeated. [default: the current one]", parse_existing_path,
               dest="reload_dirs", metavar="DIR", many=True, separator=os.pathsep),
        Option("--reload-include", "Watch files of this pattern; may be repeated.", dest="reload_includes",
               metavar="GLOB", many=True),
        Option("--reload-exclude", "Do not watch files of this pattern; may be repeated.", dest="reload_excludes",
               metavar="GLOB", many=True),
        Option("--reload-delay", "Seconds within which several changes are one.", float, 0.25, metavar="SECONDS"),
    ],
    "Logging": [
        Option("--log-level", "Least level that is logged. [default: info]", choices=_LOG_LEVELS),
        Option("--access-log", "Log each request.", bool, True, negatable=True),
        Option("--log-format", "How both logs look.", str, "text", choices=("text", "json")),
        Option("--access-log-format", "Lines of the access log, with gunicorn's atoms: '%(h)s \"%(r)s\" %(s)s %(L)s'.",
               metavar="FORMAT"),
        Option("--use-colors", "Colour the log. [default: on a terminal]", bool, negatable=True),
        Option("--log-config", "Logging configuration: .json, .toml, .yaml or .ini.", parse_existing_path,
               metavar="FILE"),
    ],
    "TLS": [
        Option("--ssl-keyfile", "Private key. [default: in the file of the certificate]", metavar="FILE"),
        Option("--ssl-certfile", "Certificate chain; the server then speaks HTTPS.", metavar="FILE"),
        Option("--ssl-keyfile-password", "Password of the private key.", metavar="TEXT"),
        Option("--ssl-version", "Protocol, a number of the ssl module.", int, 17),
        Option("--ssl-cert-reqs", "Whether clients must show a certificate, a number of the ssl module.", int, 0),
        Option("--ssl-ca-certs", "Certificates that clients' are checked against.", metavar="FILE"),
        Option("--ssl-ciphers", "OpenSSL cipher list.", metavar="LIST"),
        Option("--ssl-sni", "Certificate, and key, for clients that ask for NAME, which may start with *.; may be "
               "repeated.", metavar="NAME=CERT[,KEY]", many=True),
    ],
}  # fmt: skip


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=29, width=79)

    def _split_lines(self, text: str, width: int) -> list[str]:
        # Neither an option nor "[default: 1]" is broken over two lines.
        whole = text.replace("[default: ", "[default:\xa0")
        lines = textwrap.wrap(whole, width, break_on_hyphens=False)
        return [line.replace("\xa0", " ") for line in lines]


def _all_options() -> list[Option]:
    return [option for group in OPTIONS.values() for option in group]


def _converter(option: Option) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return option.parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return convert


def _shown_default(option: Option) -> str:
    if option.default is True:
        return " [default: on]"
    return "" if option.default in (None, "", False) else f" [default: {option.default}]"


def _add(group: "argparse._ArgumentGroup", option: Option) -> None:
    text = (option.help + _shown_default(option)).replace("%", "%%")
    common: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": text}
    if option.convert is bool:
        action: Any = argparse.BooleanOptionalAction if option.negatable else "store_true"
        group.add_argument(option.flag, action=action, **common)
        return
    metavar = option.metavar or "|".join(option.choices) or ("N" if option.convert is int else "NAME")
    group.add_argument(
        option.flag,
        type=_converter(option),
        action="append" if option.many else "store",
        metavar=metavar,
        **common,
    )


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As its own, but with a guess at what an option that does not exist was to be."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if not unknown:
            return parsed
        import difflib

        flag = unknown[0].partition("=")[0]
        like = difflib.get_close_matches(flag, self._option_string_actions, n=1) if flag.startswith("-") else []
        guess = f" (did you mean {like[0]}?)" if like else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{guess}")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line. What is not given is missing in the namespace."""
    parser = _Parser(
        prog="bolide",
        usage="bolide [OPTIONS] MODULE:ATTRIBUTE",
        description="Serves an ASGI application on an event loop and an HTTP server in C.",
        epilog="Every option can also be set by the environment variable BOLIDE_<OPTION>, and in the table "
        "[tool.bolide] of pyproject.toml in the current folder; the command line comes first, then the environment.",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    general = parser.add_argument_group("General")
    general.add_argument("app", nargs="?", default=argparse.SUPPRESS, metavar="MODULE:ATTRIBUTE",
                         help="The application, for example main:app.")  # fmt: skip
    general.add_argument("--version", action="store_true", default=False, help="Show the version and exit.")
    general.add_argument("--help", action="help", help="Show this help and exit.")
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for option in options:
            _add(group, option)
    return parser


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"bolide: {message}\n")
    sys.exit(_USAGE_ERROR)


def _from_environment(option: Option) -> Any:
    """The value of the option's environment variable; None if it is unset or empty."""
    text = os.environ.get(option.variable)
    if not text:
        return None
    try:
        if not option.many:
            return option.parse(text)
        words = text.split(option.separator) if option.separator else shlex.split(text)
        return [option.parse(word) for word in words]
    except ValueError as exc:
        _fail(f"environment variable {option.variable}: {exc}")


def _read_pyproject() -> dict[str, Any]:
    """The table [tool.bolide] of ./pyproject.toml, its keys with underscores; empty if there is none."""
    try:
        with open("pyproject.toml", "rb") as file:
            content = file.read()
    except OSError:
        return {}
    if b"bolide" not in content:
        return {}
    import tomllib

    try:
        table = tomllib.loads(content.decode()).get("tool", {}).get("bolide", {})
    except ValueError as exc:
        _fail(f"pyproject.toml: {exc}")
    return {key.replace("-", "_"): value for key, value in table.items()}


def _from_pyproject(option: Option, table: dict[str, Any]) -> Any:
    """The value of the option in `table`, taken out of it, or None. A repeatable one is named `header` or `headers`."""
    flag_name = option.flag.lstrip("-").replace("-", "_")
    value = table.pop(option.name, None)
    if value is None:
        value = table.pop(flag_name, None)
    if value is None:
        return None
    try:
        if option.many:
            return [option.parse(str(item)) for item in (value if isinstance(value, list) else [value])]
        return option.parse(str(value))
    except ValueError as exc:
        _fail(f"pyproject.toml: {option.flag.lstrip('-')}: {exc}")


def gather_options(given: dict[str, Any]) -> dict[str, Any]:
    """`given`, completed by the environment and by pyproject.toml: the arguments of bolide.serve(), `app` included."""
    options = dict(given)
    table = _read_pyproject()
    for option in _all_options():
        in_file = _from_pyproject(option, table)
        if option.name in options:
            continue
        value = _from_environment(option)
        if value is None:
            value = in_file
        if value is not None:
            options[option.name] = value
    app_in_file = table.pop("app", None)
    if "app" not in options:
        app = os.environ.get("BOLIDE_APP") or app_in_file
        if app is not None:
            options["app"] = app
    if table:
        _fail(f"pyproject.toml: no such option: {', '.join(sorted(table))}")
    return options


def _print_version() -> None:
    import platform

    import bolide

    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"Running bolide {bolide.__version__} with {python} on {platform.system()}")


def _print_short_help() -> None:
    import bolide

    print(SHORT_HELP.format(version=bolide.__version__), end="")


def _flags(names: Sequence[str]) -> str:
    flags = {option.name: option.flag for option in _all_options()}
    return ", ".join(flags.get(name, name) for name in names)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: the arguments; None: those of the process.

    Raises:
        SystemExit: code 1: the application cannot be loaded or the address not be bound; 2: wrong or unsupported
            options; 3: the application's startup or shutdown failed. After a stop by SIGINT or SIGTERM it returns.
    """
    arguments = sys.argv[1:] if argv is None else argv
    given = vars(make_parser().parse_args(arguments))
    if given.pop("version"):
        _print_version()
        return
    options = gather_options(given)
    if "app" not in options:
        if not arguments:
            _print_short_help()
            return
        _fail("which application? Give MODULE:ATTRIBUTE, for example main:app (see bolide --help)")
    options.setdefault("app_dir", "")

    from bolide.config import UnsupportedOptionError
    from bolide.server import make_config, serve_config

    try:
        config = make_config(**options)
    except UnsupportedOptionError as exc:
        _fail(f"not supported yet: {_flags(exc.options)}")
    except (ValueError, OSError, ImportError) as exc:
        _fail(f"error: {exc}")
    serve_config(config)
