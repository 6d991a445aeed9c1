"""Shipping labels. Drawing one is plain computation, so the endpoint is a `def`: it runs in the thread pool."""

from xml.sax.saxutils import escape

from fastapi import APIRouter, Response

from ..dependencies import KnownParcel
from ..models import Parcel

router = APIRouter(prefix="/parcels", tags=["labels"])

# Code 39 (ISO/IEC 16388): nine elements a character, bar and space in turn, 1 for a wide one.
CODE_39 = {
    "0": "000110100",
    "1": "100100001",
    "2": "001100001",
    "3": "101100000",
    "4": "000110001",
    "5": "100110000",
    "6": "001110000",
    "7": "000100101",
    "8": "100100100",
    "9": "001100100",
    "P": "001010010",
    "X": "010010001",
    "*": "010010100",
}
NARROW, WIDE, HEIGHT = 2, 5, 80


@router.get("/{code}/label", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
def label(parcel: KnownParcel) -> Response:
    """Draw the label of a parcel as SVG."""
    return Response(draw_label(parcel), media_type="image/svg+xml")


def draw_label(parcel: Parcel) -> str:
    """Return an SVG with the address and the tracking code as a Code 39 barcode."""
    bars, width = draw_bars(f"*{parcel.code}*")
    to = parcel.recipient
    lines = (to.name, to.street, f"{to.postcode} {to.city}", to.country, f"{parcel.weight} kg")
    text = "".join(
        f'<text x="0" y="{HEIGHT + 20 * number}">{escape(line)}</text>' for number, line in enumerate(lines, 1)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT + 20 * len(lines) + 10}">'
        f"<title>{parcel.code}</title>{bars}{text}</svg>"
    )


def draw_bars(message: str) -> tuple[str, int]:
    """Return the bars of a message as SVG rectangles, and how wide they are together."""
    bars, x = [], 0
    for character in message:
        for index, wide in enumerate(CODE_39[character]):
            width = WIDE if wide == "1" else NARROW
            if index % 2 == 0:
                bars.append(f'<rect x="{x}" width="{width}" height="{HEIGHT}"/>')
            x += width
        x += NARROW
    return "".join(bars), x
