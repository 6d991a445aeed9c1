"""Sources of applications that tests write into files."""

import textwrap

LIFESPAN_APP = """
import asyncio, os, pathlib, socket

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
{startup}
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
{shutdown}
    await send({{"type": "lifespan.shutdown.complete"}})
"""


def lifespan_app(startup: str, shutdown: str = "pass") -> str:
    """An application of a lifespan alone, which runs these statements before it says that either phase is complete."""
    blocks = {"startup": startup, "shutdown": shutdown}
    return LIFESPAN_APP.format(
        **{name: textwrap.indent(textwrap.dedent(block), "    ") for name, block in blocks.items()}
    )
