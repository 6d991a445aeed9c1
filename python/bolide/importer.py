"""Finds an object by its import string, `package.module:attribute`."""

import importlib
import os
from typing import Any

__all__ = ["ImportFromStringError", "import_from_string"]


class ImportFromStringError(Exception):
    """The import string is malformed, or names a module or an attribute that does not exist."""


def _guess(path: str, attributes: str) -> str:
    """A guess at what was meant if `path` is that of a Python file, else nothing."""
    if not path.endswith(".py"):
        return ""
    module_name = os.path.normpath(path).removesuffix(".py").strip("./").replace(os.sep, ".")
    return f' Did you mean "{module_name}:{attributes}"?'


def import_from_string(import_str: Any) -> Any:
    """The object that `import_str` names; anything but a string is returned as it is.

    Args:
        import_str: "module:attribute"; both parts may be dotted.

    Raises:
        ImportFromStringError: the string has another form, or there is no such module or attribute.
        Exception: whatever importing the module raises, a missing module that it imports itself included.
    """
    if not isinstance(import_str, str):
        return import_str
    module_name, _, attributes = import_str.partition(":")
    if not module_name or not attributes:
        guess = _guess(module_name, "app")
        raise ImportFromStringError(f'"{import_str}" is not of the form "<module>:<attribute>".{guess}')
    if "/" in module_name or module_name.startswith("."):
        guess = _guess(module_name, attributes)
        raise ImportFromStringError(f'"{module_name}" is not the name of a module.{guess}')
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # A package that is missing inside the module is the module's own error and keeps its traceback.
        if exc.name is None or not (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise
        guess = _guess(module_name, attributes)
        raise ImportFromStringError(f'Could not import module "{module_name}".{guess}') from None
    for name in attributes.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ImportFromStringError(f'Attribute "{attributes}" not found in module "{module_name}".') from None
    return found
