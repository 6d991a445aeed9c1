"""What an import string may name besides a plain function."""

from .routes import app


def make_app():
    """A factory."""
    return app


def make_app_with_argument(argument):
    """Not a factory: it wants an argument."""
    return app


class ClassApp:
    """An app as an instance with an async __call__."""

    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)


class_app = ClassApp()


class Namespace:
    """For an import string with a dotted attribute."""

    inner = class_app


not_callable = 5
