"""What sending costs. Tariffs are another service's business: by default this application stands in for it."""

from decimal import Decimal
from typing import Annotated

import httpx
from fastapi import APIRouter, HTTPException, Query, Request, status

from ..dependencies import Client, CurrentSettings
from ..models import Kilograms, Quote, Tariff, Zone

router = APIRouter(tags=["quotes"])

TARIFFS = {
    Zone.DOMESTIC: Tariff(zone=Zone.DOMESTIC, base=Decimal("3.90"), per_kilogram=Decimal("0.45")),
    Zone.EUROPE: Tariff(zone=Zone.EUROPE, base=Decimal("9.50"), per_kilogram=Decimal("1.20")),
    Zone.WORLD: Tariff(zone=Zone.WORLD, base=Decimal("17.00"), per_kilogram=Decimal("4.75")),
}


@router.get("/tariffs/{zone}")
async def tariff(zone: Zone) -> Tariff:
    """Read the prices of a zone."""
    return TARIFFS[zone]


@router.get("/quotes")
async def quote(
    zone: Zone, weight: Annotated[Kilograms, Query()], request: Request, client: Client, settings: CurrentSettings
) -> Quote:
    """Compute the price of a parcel from what the tariff service says."""
    base_url = settings.tariff_url or str(request.base_url)
    try:
        answer = await client.get(f"{base_url.rstrip('/')}/tariffs/{zone}")
        answer.raise_for_status()
    except httpx.HTTPError as exc:
        raise HTTPException(status.HTTP_502_BAD_GATEWAY, "the tariff service does not answer") from exc
    prices = Tariff.model_validate(answer.json())
    price = (prices.base + prices.per_kilogram * weight).quantize(Decimal("0.01"))
    return Quote(zone=zone, weight=weight, price=price)
