"""Parcels in memory, changed through transactions, with subscribers to what happens to them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from .models import Notification, Parcel, ParcelFilter, ParcelIn, Scan, ScanIn, Status

NEXT_STATUS = {
    Status.BOOKED: {Status.IN_TRANSIT},
    Status.IN_TRANSIT: {Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY, Status.RETURNED},
    Status.OUT_FOR_DELIVERY: {Status.DELIVERED, Status.IN_TRANSIT, Status.RETURNED},
    Status.DELIVERED: set(),
    Status.RETURNED: set(),
}


class NoSuchParcel(Exception):
    """No parcel has this code."""


class WrongStatus(Exception):
    """The parcel's status does not allow this scan."""


class ParcelStore:
    """All parcels. One loop uses it: a transaction's writes become visible together, when it commits."""

    def __init__(self) -> None:
        self._parcels: dict[str, Parcel] = {}
        self._last_number = 0
        self._subscribers: dict[str, set[asyncio.Queue[Scan]]] = {}
        self.notifications: list[Notification] = []

    def get(self, code: str) -> Parcel:
        """Return the parcel with this code, or raise NoSuchParcel."""
        try:
            return self._parcels[code]
        except KeyError:
            raise NoSuchParcel(code) from None

    def select(self, wanted: ParcelFilter) -> list[Parcel]:
        """Return every parcel that passes the filter (its limit and offset are the caller's)."""
        return [
            parcel
            for parcel in self._parcels.values()
            if wanted.status in (None, parcel.status) and wanted.depot in (None, parcel.depot)
        ]

    def __iter__(self) -> Iterator[Parcel]:
        return iter(list(self._parcels.values()))

    def __len__(self) -> int:
        return len(self._parcels)

    def next_code(self) -> str:
        """Return a tracking code that was never given out: seven digits and a check digit."""
        self._last_number += 1
        digits = f"{self._last_number:07d}"
        check = sum(int(digit) * weight for digit, weight in zip(digits, (7, 3, 1, 7, 3, 1, 7), strict=True)) % 10
        return f"PX{digits}{check}"

    @contextmanager
    def subscribe(self, code: str) -> Iterator[asyncio.Queue[Scan]]:
        """Give a queue that receives every scan of this parcel from now on."""
        queue: asyncio.Queue[Scan] = asyncio.Queue()
        self._subscribers.setdefault(code, set()).add(queue)
        try:
            yield queue
        finally:
            self._subscribers[code].discard(queue)
            if not self._subscribers[code]:
                del self._subscribers[code]

    def subscriber_count(self, code: str) -> int:
        """Return how many follow this parcel at the moment."""
        return len(self._subscribers.get(code, ()))

    def _commit(self, changed: dict[str, Parcel]) -> None:
        for code, parcel in changed.items():
            known = len(self._parcels[code].scans) if code in self._parcels else 0
            self._parcels[code] = parcel
            for queue in self._subscribers.get(code, ()):
                for scan in parcel.scans[known:]:
                    queue.put_nowait(scan)


class Transaction:
    """Changes to a store that take effect together or not at all."""

    def __init__(self, store: ParcelStore) -> None:
        self.store = store
        self._changed: dict[str, Parcel] = {}

    def get(self, code: str) -> Parcel:
        """Return a parcel as this transaction sees it, or raise NoSuchParcel."""
        return self._changed.get(code) or self.store.get(code)

    def book(self, wanted: ParcelIn) -> Parcel:
        """Enter a new parcel, with its first scan."""
        first = Scan(number=1, status=Status.BOOKED, depot=wanted.depot, at=datetime.now(UTC))
        parcel = Parcel(
            code=self.store.next_code(),
            recipient=wanted.recipient,
            weight=wanted.weight,
            depot=wanted.depot,
            notify_url=wanted.notify_url,
            scans=[first],
        )
        self._changed[parcel.code] = parcel
        return parcel

    def scan(self, code: str, report: ScanIn) -> Parcel:
        """Add a scan to a parcel; raises NoSuchParcel, or WrongStatus when the step is not possible."""
        parcel = self.get(code)
        if report.status not in NEXT_STATUS[parcel.status]:
            raise WrongStatus(f"a parcel that is {parcel.status} cannot become {report.status}")
        scan = Scan(number=len(parcel.scans) + 1, at=datetime.now(UTC), **report.model_dump())
        changed = parcel.model_copy(update={"depot": report.depot, "scans": [*parcel.scans, scan]})
        self._changed[code] = changed
        return changed

    def commit(self) -> None:
        """Make the changes visible and tell the subscribers."""
        self.store._commit(self._changed)
        self._changed = {}

    def rollback(self) -> None:
        """Forget the changes."""
        self._changed = {}
