"""Following a parcel live, as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from ..dependencies import CurrentSettings, KnownParcel, Store
from ..models import Scan
from ..store import NEXT_STATUS, ParcelStore

router = APIRouter(prefix="/parcels", tags=["tracking"])


@router.get("/{code}/events", response_class=StreamingResponse)
async def follow(
    parcel: KnownParcel,
    store: Store,
    settings: CurrentSettings,
    last_event_id: Annotated[int, Header(ge=0)] = 0,
) -> StreamingResponse:
    """Send every scan so far and then each new one, until the parcel arrives; Last-Event-ID resumes after a break."""
    events = scan_events(store, parcel.code, last_event_id, settings.heartbeat)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


@router.get("/{code}/followers")
async def followers(parcel: KnownParcel, store: Store) -> int:
    """Count the clients that follow a parcel at the moment."""
    return store.subscriber_count(parcel.code)


async def scan_events(store: ParcelStore, code: str, last_seen: int, heartbeat: float) -> AsyncIterator[str]:
    """Yield the scans of a parcel after number last_seen as events, ending with one from which no step leads on."""
    with store.subscribe(code) as queue:
        for scan in store.get(code).scans:
            queue.put_nowait(scan)
        final = False
        while not final:
            try:
                async with asyncio.timeout(heartbeat):
                    scan = await queue.get()
            except TimeoutError:
                yield ": still here\n\n"
                continue
            final = not NEXT_STATUS[scan.status]
            if scan.number > last_seen:
                yield as_event(scan)


def as_event(scan: Scan) -> str:
    """Format a scan as a server-sent event (WHATWG HTML, 9.2.6)."""
    return f"id: {scan.number}\nevent: scan\ndata: {scan.model_dump_json()}\n\n"
