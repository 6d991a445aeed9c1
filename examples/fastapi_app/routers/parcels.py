"""Booking parcels, listing them, reporting scans."""

import csv
import io
from collections.abc import AsyncIterator, Iterable
from typing import Annotated

import httpx
from fastapi import APIRouter, BackgroundTasks, Form, HTTPException, Query, Request, Response, UploadFile, status
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from ..dependencies import Client, KnownParcel, Store, UnitOfWork
from ..models import (
    Depot,
    ManifestReport,
    Notification,
    Page,
    Parcel,
    ParcelFilter,
    ParcelIn,
    ParcelOut,
    RowError,
    ScanIn,
    TrackingCode,
)
from ..store import NoSuchParcel, ParcelStore, WrongStatus

router = APIRouter(prefix="/parcels", tags=["parcels"])

EXPORT_COLUMNS = ("code", "status", "depot", "weight", "name", "city", "country")
ROWS_PER_CHUNK = 100


@router.post("", status_code=status.HTTP_201_CREATED, response_model=ParcelOut)
async def book(wanted: ParcelIn, work: UnitOfWork, request: Request, response: Response) -> Parcel:
    """Book a parcel."""
    parcel = work.book(wanted)
    response.headers["location"] = str(request.url_for("read", code=parcel.code))
    return parcel


@router.get("", response_model=Page)
async def list_parcels(wanted: Annotated[ParcelFilter, Query()], store: Store) -> dict[str, object]:
    """List parcels, a page at a time, optionally of one status or depot."""
    found = store.select(wanted)
    return {"total": len(found), "items": found[wanted.offset : wanted.offset + wanted.limit]}


@router.get("/export", response_class=StreamingResponse)
async def export(store: Store) -> StreamingResponse:
    """Stream all parcels as CSV."""
    headers = {"content-disposition": 'attachment; filename="parcels.csv"'}
    return StreamingResponse(export_chunks(store), media_type="text/csv", headers=headers)


async def export_chunks(parcels: Iterable[Parcel]) -> AsyncIterator[str]:
    """Yield the CSV a hundred rows at a time: a large export never stands in memory as a whole."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(EXPORT_COLUMNS)
    for number, parcel in enumerate(parcels, 1):
        to = parcel.recipient
        row = (parcel.code, parcel.status.value, parcel.depot, parcel.weight, to.name, to.city, to.country)
        writer.writerow(row)
        if number % ROWS_PER_CHUNK == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    if buffer.tell():
        yield buffer.getvalue()


@router.post("/manifest", status_code=status.HTTP_201_CREATED)
async def upload_manifest(file: UploadFile, depot: Annotated[Depot, Form()], work: UnitOfWork) -> ManifestReport:
    """Book the lines of a CSV file (columns name, street, city, postcode, country, weight); list those refused."""
    raw = await file.read()
    try:
        lines = io.StringIO(raw.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as exc:
        raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "the manifest is not UTF-8") from exc
    report = ManifestReport(filename=file.filename or "", bytes=len(raw), booked=[], errors=[])
    reader = csv.DictReader(lines)
    for row in reader:
        weight = row.pop("weight", None)
        try:
            wanted = ParcelIn.model_validate({"recipient": row, "weight": weight, "depot": depot})
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            report.errors.append(RowError(line=reader.line_num, message=f"{where}: {first['msg']}"))
        else:
            report.booked.append(work.book(wanted).code)
    return report


@router.get("/{code}", response_model=ParcelOut)
async def read(parcel: KnownParcel) -> Parcel:
    """Read one parcel."""
    return parcel


@router.post("/{code}/scans", status_code=status.HTTP_201_CREATED, response_model=ParcelOut)
async def report_scan(
    code: TrackingCode, report: ScanIn, work: UnitOfWork, store: Store, client: Client, tasks: BackgroundTasks
) -> Parcel:
    """Report that a parcel was scanned; the customer is told after the answer has left."""
    try:
        parcel = work.scan(code, report)
    except NoSuchParcel:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no parcel {code}") from None
    except WrongStatus as exc:
        raise HTTPException(status.HTTP_409_CONFLICT, str(exc)) from exc
    tasks.add_task(notify_customer, parcel, store, client)
    return parcel


async def notify_customer(parcel: Parcel, store: ParcelStore, client: httpx.AsyncClient) -> None:
    """Record a notification, and post it to the customer's webhook when there is one."""
    notification = Notification(code=parcel.code, text=f"{parcel.code} is {parcel.status} at {parcel.depot}")
    if parcel.notify_url is not None:
        try:
            answer = await client.post(str(parcel.notify_url), json=notification.model_dump(mode="json"))
            notification.delivered = answer.is_success
        except httpx.HTTPError:
            notification.delivered = False
    store.notifications.append(notification)


@router.get("/{code}/notifications")
async def notifications(parcel: KnownParcel, store: Store) -> list[Notification]:
    """List what the customer of a parcel was told."""
    return [notification for notification in store.notifications if notification.code == parcel.code]
