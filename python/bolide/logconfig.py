"""The configuration of the logs: read from its file, applied to the standard library's logging.

One that was written for uvicorn, thus names its loggers and formatters and none of bolide's, is taken as bolide's.
"""

import json
import logging
import logging.config
import os
from collections.abc import Mapping
from configparser import Error as ConfigParserError
from configparser import RawConfigParser
from typing import IO, Any, TypeAlias

from bolide.logging import LOG_LEVELS, TRACE

__all__ = ["LogConfig", "configure_logging", "describe_strays"]

LogConfig: TypeAlias = dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None

LOGGERS = ("bolide.error", "bolide.access", "bolide.asgi")

_LOGGERS_OF_UVICORN = {name.replace("bolide", "uvicorn"): name for name in ("bolide", *LOGGERS)}
_FORMATTERS_OF_UVICORN = {
    "uvicorn.logging.DefaultFormatter": "bolide.logging.DefaultFormatter",
    "uvicorn.logging.ColourizedFormatter": "bolide.logging.DefaultFormatter",
    "uvicorn.logging.AccessFormatter": "bolide.logging.AccessFormatter",
}


def configure_logging(
    config: LogConfig,
    level: str | int | None = None,
    access_log: bool = True,
    use_colors: bool | None = None,
    log_format: str = "text",
) -> LogConfig:
    """Apply bolide.Config's log_config, log_level, access_log, use_colors and log_format.

    Returns:
        `config`, or where the others have changed it, what was applied.

    Raises:
        OSError: the file cannot be read.
        ValueError: its content is no logging configuration, or one of the others has no such value.
        ImportError: it is YAML and PyYAML is not installed.
    """
    logging.addLevelName(TRACE, "TRACE")
    if log_format not in ("text", "json"):
        raise ValueError(f"log_format is text or json, not {log_format!r}")
    if log_format == "json":
        config = _with_json(config)
    elif use_colors is not None and isinstance(config, dict):
        config = _with_colors(config, use_colors)
    _apply(_read(os.fspath(config)) if isinstance(config, str | os.PathLike) else config)
    if level is not None:
        number = _level_number(level)
        for name in LOGGERS:
            logging.getLogger(name).setLevel(number)
    if not access_log:
        access = logging.getLogger("bolide.access")
        access.handlers = []
        access.propagate = False
    return config


def _level_number(level: str | int) -> int:
    if not isinstance(level, str):
        return level
    if level.lower() not in LOG_LEVELS:
        raise ValueError(f"log_level is one of {', '.join(LOG_LEVELS)}, not {level!r}")
    return LOG_LEVELS[level.lower()]


def _with_json(config: LogConfig) -> dict[str, Any]:
    if not isinstance(config, dict) or not {"default", "access"} <= config["formatters"].keys():
        raise ValueError("log_format has no effect with a log_config of your own: it names its formatters itself")
    formatter = {"()": "bolide.logging.JSONFormatter"}
    return {**config, "formatters": {**config["formatters"], "default": formatter, "access": formatter}}


def _with_colors(config: dict[str, Any], use_colors: bool) -> dict[str, Any]:
    formatters = dict(config.get("formatters", {}))
    for name in formatters.keys() & {"default", "access"}:
        formatters[name] = {**formatters[name], "use_colors": use_colors}
    return {**config, "formatters": formatters}


def _read(path: str) -> dict[str, Any] | RawConfigParser:
    """The content of a file, for logging.config.dictConfig() or fileConfig()."""
    content: dict[str, Any]
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    elif path.endswith(".toml"):
        import tomllib

        with open(path, "rb") as binary:
            content = tomllib.load(binary)
    elif path.endswith((".yaml", ".yml")):
        try:
            import yaml
        except ImportError as exc:
            raise ImportError("a logging configuration in YAML needs the package PyYAML") from exc
        with open(path, encoding="utf-8") as file:
            try:
                content = yaml.safe_load(file)
            except yaml.YAMLError as exc:
                raise ValueError(f"{path} is no YAML: {exc}") from exc
    else:
        return _parse(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no logging configuration")
    return content


def _parse(path: str) -> RawConfigParser:
    parser = RawConfigParser()
    try:
        with open(path, encoding=None) as file:  # in the encoding of the locale, as fileConfig() itself
            parser.read_file(file)
    except (ConfigParserError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path} is no logging configuration: {exc}") from exc
    missing = {"loggers", "handlers", "formatters"} - set(parser.sections())
    if missing:
        raise ValueError(f"{path} is no logging configuration: it has no section {', '.join(sorted(missing))}")
    return parser


def _apply(config: dict[str, Any] | RawConfigParser | IO[Any] | None) -> None:
    if isinstance(config, dict):
        logging.config.dictConfig(_of_uvicorn_as_ours(config))
    elif config is not None:
        if isinstance(config, RawConfigParser):
            _rename_sections(config)
        logging.config.fileConfig(config, disable_existing_loggers=False)


# --- configurations of uvicorn ----------------------------------------------------------------------------------------


def _is_of_uvicorn(names: set[str]) -> bool:
    return bool(names & _LOGGERS_OF_UVICORN.keys()) and not names & set(_LOGGERS_OF_UVICORN.values())


def _of_uvicorn_as_ours(config: dict[str, Any]) -> dict[str, Any]:
    loggers = config.get("loggers")
    if not isinstance(loggers, Mapping) or not _is_of_uvicorn(set(loggers)):
        return config
    formatters = {
        name: {key: _FORMATTERS_OF_UVICORN.get(value, value) if isinstance(value, str) else value
               for key, value in formatter.items()}
        for name, formatter in config.get("formatters", {}).items()
    }  # fmt: skip
    renamed = {_LOGGERS_OF_UVICORN.get(name, name): settings for name, settings in loggers.items()}
    return {**config, "formatters": formatters, "loggers": {**loggers, **renamed}}


def _rename_sections(parser: RawConfigParser) -> None:
    """The same for the form of fileConfig()."""
    loggers = [name for name in parser.sections() if name.startswith("logger_") and parser.has_option(name, "qualname")]
    if not _is_of_uvicorn({parser.get(name, "qualname") for name in loggers}):
        return
    for name in loggers:
        qualname = parser.get(name, "qualname")
        parser.set(name, "qualname", _LOGGERS_OF_UVICORN.get(qualname, qualname))
    for name in parser.sections():
        if name.startswith("formatter_") and parser.has_option(name, "class"):
            formatter = parser.get(name, "class")
            parser.set(name, "class", _FORMATTERS_OF_UVICORN.get(formatter, formatter))


def _kinds(logger: logging.Logger) -> set[type]:
    return {type(item) for item in (*logger.filters, *logger.handlers)}


def describe_strays() -> str | None:
    """A sentence on the loggers of uvicorn that code has given filters or handlers to, but not bolide's; or None.

    To be called once the application is imported, whose code may have done so.
    """
    strays = {}
    for name, ours in _LOGGERS_OF_UVICORN.items():
        theirs = logging.Logger.manager.loggerDict.get(name)
        if isinstance(theirs, logging.Logger) and _kinds(theirs) - _kinds(logging.getLogger(ours)):
            strays[name] = ours
    if not strays:
        return None
    return f"The application configures the log {', '.join(strays)}: bolide logs to {', '.join(strays.values())}."
