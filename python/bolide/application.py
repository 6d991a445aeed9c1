"""The application that a server is given: made by its factory, judged by how it is called, wrapped in middleware."""

import inspect
import logging
from collections.abc import Callable
from typing import Any, Literal

from bolide._types import ASGI3App
from bolide.logging import TRACE

__all__ = ["ApplicationError", "interface_of", "make_application", "resolve_interface", "wrap_application"]

logger = logging.getLogger("bolide.error")


class ApplicationError(Exception):
    """What was given is no application, or no factory of one; the text is a sentence that names it."""


def resolve_interface(app: Any) -> Literal["asgi3", "asgi2"]:
    """Which version of ASGI the callable `app` speaks, judged by how it can be called.

    Raises:
        TypeError: it can be called like neither.
    """
    # A class is called to make an instance: its __call__ is not what the server calls first.
    call = None if inspect.isclass(app) else getattr(app, "__call__", None)  # noqa: B004
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call):
        return "asgi3"
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return "asgi3"
    if _accepts(signature, 3):
        return "asgi3"
    if _accepts(signature, 1):
        return "asgi2"
    if _accepts(signature, 2):
        raise TypeError("it takes two arguments as a WSGI application does: use the interface `wsgi`")
    raise TypeError("it takes neither (scope, receive, send) nor (scope)")


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _is_bare_factory(app: Any) -> bool:
    """Whether `app` can only be a factory: it takes no argument and is not a coroutine function."""
    if inspect.iscoroutinefunction(app):
        return False
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return False
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    takes_any = any(parameter.kind in variadic for parameter in signature.parameters.values())
    return not takes_any and _accepts(signature, 0)


def _is_callable_without_arguments(app: Callable[..., Any]) -> bool:
    try:
        return _accepts(inspect.signature(app), 0)
    except (TypeError, ValueError):
        return True


def make_application(found: Any, given: object, is_factory: bool) -> Any:
    """The application: `found`, or what that returns when it is a factory.

    Args:
        found: the object that was given, imported.
        given: what names it in an error: the object itself or its import string.
        is_factory: whether it is said to be a factory; one that can be nothing else is called all the same.

    Raises:
        ApplicationError: the factory wants arguments, or the application cannot be called.
        Exception: whatever the factory raises.
    """
    app = found
    if is_factory:
        if not callable(app) or not _is_callable_without_arguments(app):
            raise ApplicationError(
                f"Error loading ASGI app factory: {_describe(given)} cannot be called without arguments."
            )
        app = app()
    elif callable(app) and _is_bare_factory(app):
        logger.warning("ASGI app factory detected. Using it; the option --factory says so explicitly.")
        app = app()
    if not callable(app):
        what = _describe(given) if app is found else f"What the factory {_describe(given)} returned"
        raise ApplicationError(f"Error loading ASGI app. {what} is not callable.")
    return app


def interface_of(app: Any, given: object) -> Literal["asgi3", "asgi2"]:
    """resolve_interface(), for an error that names the application.

    Raises:
        ApplicationError: it can be called like neither.
    """
    try:
        return resolve_interface(app)
    except TypeError as exc:
        raise ApplicationError(f"Error loading ASGI app. {_describe(given)} is no ASGI application: {exc}.") from exc


def wrap_application(app: Any, interface: Literal["asgi3", "asgi2", "wsgi"]) -> ASGI3App:
    """An application of ASGI 3 that calls `app` by its own interface, and logs the messages at the level TRACE."""
    wrapped: ASGI3App = app
    if interface == "asgi2":
        from bolide.middleware.asgi2 import ASGI2Middleware

        wrapped = ASGI2Middleware(app)
    elif interface == "wsgi":
        from bolide.middleware.wsgi import WSGIMiddleware

        wrapped = WSGIMiddleware(app)
    if logger.getEffectiveLevel() <= TRACE:
        from bolide.middleware.message_logger import MessageLoggerMiddleware

        wrapped = MessageLoggerMiddleware(wrapped)
    return wrapped


def _describe(app: object) -> str:
    return f'"{app}"' if isinstance(app, str) else repr(app)
