"""The application: `bolide --app-dir examples fastapi_app.main:app` serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from .dependencies import Store
from .middleware import RequestIdMiddleware, add_server_timing
from .routers import labels, parcels, quotes, tracking
from .settings import Settings
from .store import ParcelStore


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open what all requests share; requests find it in request.state."""
    settings = Settings.from_environment()
    async with httpx.AsyncClient(timeout=settings.upstream_timeout) as client:
        yield {"settings": settings, "client": client, "store": ParcelStore()}


app = FastAPI(title="Parcels", description="Book, scan and follow parcels.", version="1.0", lifespan=lifespan)
app.middleware("http")(add_server_timing)
app.add_middleware(RequestIdMiddleware)
app.include_router(parcels.router)
app.include_router(tracking.router)
app.include_router(labels.router)
app.include_router(quotes.router)


@app.get("/health", response_class=PlainTextResponse, tags=["service"])
async def health(store: Store) -> str:
    """Say that the service is up, in plain text, with the number of parcels it knows."""
    return f"ok, {len(store)} parcels\n"
