"""What travels over the wire: requests are validated by these, responses are made of them."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, HttpUrl

TrackingCode = Annotated[str, Field(pattern=r"^PX[0-9]{8}$", examples=["PX00000017"])]
Depot = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="Three-letter code of a depot", examples=["BER"])]
Kilograms = Annotated[Decimal, Field(gt=0, le=70, max_digits=5, decimal_places=3)]


class Status(StrEnum):
    """Where a parcel is in its life."""

    BOOKED = "booked"
    IN_TRANSIT = "in-transit"
    OUT_FOR_DELIVERY = "out-for-delivery"
    DELIVERED = "delivered"
    RETURNED = "returned"


class Zone(StrEnum):
    """Tariff zones."""

    DOMESTIC = "domestic"
    EUROPE = "europe"
    WORLD = "world"


class Address(BaseModel):
    """A postal address."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    street: Annotated[str, Field(min_length=1, max_length=120)]
    city: Annotated[str, Field(min_length=1, max_length=80)]
    postcode: Annotated[str, Field(pattern=r"^[0-9A-Z -]{3,10}$")]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "DE"


class ParcelIn(BaseModel):
    """A parcel as a customer books it."""

    model_config = ConfigDict(extra="forbid")

    recipient: Address
    weight: Kilograms
    depot: Depot
    notify_url: HttpUrl | None = None


class Scan(BaseModel):
    """One scan of a parcel, numbered from 1 within the parcel."""

    number: int
    status: Status
    depot: Depot
    at: datetime
    note: str = ""


class ScanIn(BaseModel):
    """A scan as a depot reports it."""

    status: Status
    depot: Depot
    note: Annotated[str, Field(max_length=200)] = ""


class Parcel(BaseModel):
    """A parcel and its way so far."""

    code: TrackingCode
    recipient: Address
    weight: Decimal
    depot: Depot
    notify_url: HttpUrl | None = None
    scans: list[Scan] = []

    @property
    def status(self) -> Status:
        """The status of the last scan."""
        return self.scans[-1].status


class ParcelOut(BaseModel):
    """A parcel as clients see it."""

    code: TrackingCode
    status: Status
    recipient: Address
    weight: Decimal
    depot: Depot
    scans: list[Scan]


class ParcelFilter(BaseModel):
    """Query parameters of the list of parcels."""

    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    depot: Depot | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    offset: Annotated[int, Field(ge=0)] = 0


class Page(BaseModel):
    """A part of the list of parcels; total counts all that the filter lets through."""

    total: int
    items: list[ParcelOut]


class RowError(BaseModel):
    """Why a line of a manifest was refused; line 1 holds the column names."""

    line: int
    message: str


class ManifestReport(BaseModel):
    """What became of an uploaded manifest."""

    filename: str
    bytes: int
    booked: list[TrackingCode]
    errors: list[RowError]


class Notification(BaseModel):
    """A message to the customer; delivered is None while no webhook is known."""

    code: TrackingCode
    text: str
    delivered: bool | None = None


class Tariff(BaseModel):
    """Prices of a zone, in euros."""

    zone: Zone
    base: Decimal
    per_kilogram: Decimal


class Quote(BaseModel):
    """What it costs to send a parcel."""

    zone: Zone
    weight: Decimal
    price: Decimal
    currency: str = "EUR"
