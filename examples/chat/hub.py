"""Who is in which room, and how messages reach them: within this process, and through Redis across processes."""

import asyncio
import contextlib
import json
import os
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from typing import Any, Self

from starlette.websockets import WebSocket, WebSocketDisconnect

# Messages that wait for a member who reads slowly; one who falls further behind has to go.
BACKLOG = 256
TRY_AGAIN_LATER = 1013
SECONDS_BETWEEN_REPORTS = 1.0
# A process that has not reported for so long is gone.
SECONDS_OF_VALIDITY = 3.5
ROOM_CHANNEL, REPORT_CHANNEL = "chat:room:", "chat:reports"


class Member:
    """A connection that is sent to from a task of its own, so that a slow one keeps nobody waiting."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(BACKLOG)

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._sender.cancel()

    def tell(self, text: str) -> None:
        """Have `text` sent."""
        if self._sender.done():
            return
        try:
            self._outgoing.put_nowait(text)
        except asyncio.QueueFull:
            self._sender.cancel()
            self._closer = asyncio.create_task(self._close())

    async def _send(self) -> None:
        # Whoever left is seen by the task that receives.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
            while True:
                await self._websocket.send_text(await self._outgoing.get())

    async def _close(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
            await self._websocket.close(TRY_AGAIN_LATER, "too slow")


class Hub:
    """The rooms. With `redis_url`, those of all processes that use the same Redis are one."""

    def __init__(self, redis_url: str | None = None) -> None:
        self._redis_url = redis_url
        self._redis: Any = None
        self._process = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._rooms: defaultdict[str, dict[Member, str]] = defaultdict(dict)
        self._watchers: set[Member] = set()
        self._messages = 0
        # By process: when it reported, and what.
        self._reports: dict[str, tuple[float, dict[str, Any]]] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._report_regularly())]
        if self._redis_url is not None:
            import redis.asyncio

            self._redis = redis.asyncio.from_url(self._redis_url, decode_responses=True)
            await self._redis.ping()
            self._tasks.append(asyncio.create_task(self._listen_for_ever()))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._redis is not None:
            await self._redis.aclose()

    @contextlib.asynccontextmanager
    async def joined(self, room: str, name: str, member: Member) -> AsyncIterator[None]:
        """Let `member` be in the room, under that name."""
        self._rooms[room][member] = name
        self._changed.set()
        await self.publish(room, {"kind": "joined", "name": name})
        try:
            yield
        finally:
            del self._rooms[room][member]
            if not self._rooms[room]:
                del self._rooms[room]
            self._changed.set()
            await self.publish(room, {"kind": "left", "name": name})

    @contextlib.asynccontextmanager
    async def watched(self, member: Member) -> AsyncIterator[None]:
        """Let `member` see the dashboard."""
        self._watchers.add(member)
        member.tell(self._overview())
        try:
            yield
        finally:
            self._watchers.discard(member)

    async def publish(self, room: str, message: dict[str, str]) -> None:
        """Send a message to all members of the room, in whatever process they are."""
        text = json.dumps(message, ensure_ascii=False)
        self._messages += message["kind"] == "text"
        if self._redis is not None:
            await self._redis.publish(ROOM_CHANNEL + room, text)
        else:
            self._deliver(room, text)

    def _deliver(self, room: str, text: str) -> None:
        for member in list(self._rooms.get(room, ())):
            member.tell(text)

    # --- the dashboard ---

    async def _report_regularly(self) -> None:
        while True:
            report = {
                "rooms": {room: sorted(m.values()) for room, m in self._rooms.items()},
                "messages": self._messages,
            }
            if self._redis is not None:
                text = json.dumps({"process": self._process, **report})
                with contextlib.suppress(OSError):
                    await self._redis.publish(REPORT_CHANNEL, text)
            self._take_report(self._process, report)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), SECONDS_BETWEEN_REPORTS)
            self._changed.clear()

    def _take_report(self, process: str, report: dict[str, Any]) -> None:
        now = time.monotonic()
        self._reports[process] = (now, report)
        self._reports = {p: (t, r) for p, (t, r) in self._reports.items() if now - t < SECONDS_OF_VALIDITY}
        overview = self._overview()
        for watcher in list(self._watchers):
            watcher.tell(overview)

    def _overview(self) -> str:
        rooms: Counter[str] = Counter()
        for _, report in self._reports.values():
            rooms.update({room: len(names) for room, names in report["rooms"].items()})
        messages = sum(report["messages"] for _, report in self._reports.values())
        return json.dumps({"processes": len(self._reports), "rooms": rooms, "messages": messages})

    # --- Redis ---

    async def _listen_for_ever(self) -> None:
        while True:
            # Redis may be restarted; redis-py's errors of the connection are its own.
            with contextlib.suppress(OSError, self._connection_error()):
                await self._listen()
            await asyncio.sleep(0.5)

    @staticmethod
    def _connection_error() -> type[Exception]:
        import redis.exceptions

        return redis.exceptions.ConnectionError

    async def _listen(self) -> None:
        async with self._redis.pubsub() as subscription:
            await subscription.psubscribe(ROOM_CHANNEL + "*", REPORT_CHANNEL)
            async for message in subscription.listen():
                if message["type"] != "pmessage":
                    continue
                channel, text = message["channel"], message["data"]
                if channel == REPORT_CHANNEL:
                    report = json.loads(text)
                    if (process := report.pop("process")) != self._process:
                        self._take_report(process, report)
                else:
                    self._deliver(channel.removeprefix(ROOM_CHANNEL), text)
