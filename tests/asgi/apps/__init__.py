"""Small ASGI apps, one a behaviour: `app` serves each of them under the path of its name.

They talk to a test through named events and values: a test sets `NAME.release` and waits for `NAME.done` over
`/control/...` (see support.server.Control), so that nothing depends on how long something takes.
"""

from . import calls, errors, extensions, requests, responses, streams, tasks
from .routes import app

__all__ = ["app", "calls", "errors", "extensions", "requests", "responses", "streams", "tasks"]
