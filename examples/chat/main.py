"""The application: `bolide --app-dir examples chat.main:app` serves it; workers share the rooms through Redis."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketException
from fastapi.responses import FileResponse

from .hub import Hub, Member

PAGES = Path(__file__).parent / "pages"
LONGEST_NAME = 40
LONGEST_MESSAGE = 2000
POLICY_VIOLATION = 1008


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open the hub that all connections of this process share."""
    async with Hub(os.environ.get("REDIS_URL")) as hub:
        yield {"hub": hub}


app = FastAPI(title="Chat", lifespan=lifespan)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page: a chat and the dashboard."""
    return FileResponse(PAGES / "index.html")


@app.get("/chat.js", include_in_schema=False)
async def script() -> FileResponse:
    """Its script."""
    return FileResponse(PAGES / "chat.js", media_type="text/javascript")


def checked(name: str) -> str:
    """A name of a room or a person, trimmed; closes the connection when it is empty or too long."""
    name = name.strip()
    if not 0 < len(name) <= LONGEST_NAME:
        raise WebSocketException(POLICY_VIOLATION, f"a name has 1 to {LONGEST_NAME} characters")
    return name


@app.websocket("/rooms/{room}")
async def chat(websocket: WebSocket, room: str, name: str) -> None:
    """A member of a room: each text from it goes to all members, as JSON with its sender."""
    hub: Hub = websocket.state.hub
    await websocket.accept()
    room, name = checked(room), checked(name)
    async with Member(websocket) as member, hub.joined(room, name, member):
        async for text in websocket.iter_text():
            if len(text) > LONGEST_MESSAGE:
                raise WebSocketException(POLICY_VIOLATION, f"a message has at most {LONGEST_MESSAGE} characters")
            await hub.publish(room, {"kind": "text", "name": name, "text": text})


@app.websocket("/dashboard")
async def dashboard(websocket: WebSocket) -> None:
    """What goes on in all rooms, each time it changes and once a second."""
    hub: Hub = websocket.state.hub
    await websocket.accept()
    async with Member(websocket) as member, hub.watched(member):
        async for _ in websocket.iter_text():
            pass
