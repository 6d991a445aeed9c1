"""Reads files of environment variables (`--env-file`): lines of NAME=VALUE."""

import os
import re
from collections.abc import Mapping

__all__ = ["load_env_file", "parse_env"]

_ASSIGNMENT = re.compile(
    r"""
    ^[^\S\n]* (?:export[^\S\n]+)? (?P<name>[A-Za-z_][A-Za-z0-9_.]*) [^\S\n]* = [^\S\n]*
    (?: '(?P<single>(?:[^'\\]|\\.)*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>[^\n]*?) )
    [^\S\n]* (?:(?<=\s)\#[^\n]*)? $
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_.]*)(?::-(?P<default>[^}]*))?\}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}


def _unescape_double(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text, flags=re.DOTALL)


def _unescape_single(text: str) -> str:
    return re.sub(r"\\(['\\])", r"\1", text)


def parse_env(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that `text` assigns.

    A value is bare (up to the end of the line or ` #`), in double quotes (with backslash escapes) or in single quotes;
    quoted values may span lines. `export` before a name is skipped, and so are comments and lines without "=". Outside
    of single quotes, `${NAME}` and `${NAME:-default}` stand for a variable of `environ` or else of the file so far.

    Args:
        text: the content of the file.
        environ: the variables that are already set.
    """
    found: dict[str, str] = {}

    def expand(value: str) -> str:
        def replace(match: re.Match[str]) -> str:
            name = match["name"]
            return environ.get(name, found.get(name, match["default"] or ""))

        return _REFERENCE.sub(replace, value)

    for match in _ASSIGNMENT.finditer(text):
        if match["single"] is not None:
            value = _unescape_single(match["single"])
        elif match["double"] is not None:
            value = expand(_unescape_double(match["double"]))
        else:
            bare = match["bare"]
            value = expand("" if bare.startswith("#") else bare.strip())
        found[match["name"]] = value
    return found


def load_env_file(path: str | os.PathLike[str]) -> None:
    """Set the variables of the file `path` in os.environ; those that are set already keep their values.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, encoding="utf-8") as file:
        variables = parse_env(file.read().replace("\r\n", "\n"), os.environ)
    for name, value in variables.items():
        os.environ.setdefault(name, value)
