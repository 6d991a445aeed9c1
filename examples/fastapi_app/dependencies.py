"""What endpoints ask for: the store, a transaction on it, the HTTP client, a parcel by its code."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
from fastapi import Depends, HTTPException, Request, status

from .models import Parcel, TrackingCode
from .settings import Settings
from .store import NoSuchParcel, ParcelStore, Transaction


def get_store(request: Request) -> ParcelStore:
    """The store that the lifespan opened."""
    return request.state.store


def get_client(request: Request) -> httpx.AsyncClient:
    """The HTTP client that the lifespan opened, shared so that its connections are kept."""
    return request.state.client


def get_settings(request: Request) -> Settings:
    """The settings that the application was started with."""
    return request.state.settings


Store = Annotated[ParcelStore, Depends(get_store)]
Client = Annotated[httpx.AsyncClient, Depends(get_client)]
CurrentSettings = Annotated[Settings, Depends(get_settings)]


async def unit_of_work(store: Store) -> AsyncIterator[Transaction]:
    """A transaction that commits when the endpoint returns and is rolled back when it raises."""
    transaction = Transaction(store)
    try:
        yield transaction
    except BaseException:
        transaction.rollback()
        raise
    transaction.commit()


# The scope "function" ends the transaction before the answer is sent: a client that has its answer sees the change.
UnitOfWork = Annotated[Transaction, Depends(unit_of_work, scope="function")]


def known_parcel(code: TrackingCode, store: Store) -> Parcel:
    """The parcel that the path names; answers 404 when there is none."""
    try:
        return store.get(code)
    except NoSuchParcel:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no parcel {code}") from None


KnownParcel = Annotated[Parcel, Depends(known_parcel)]
