"""Settings, read once from the environment."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs between a laptop and production.

    tariff_url: base URL of the tariff service; empty means that this application answers for it (GET /tariffs/{zone}).
    upstream_timeout: seconds to wait for the tariff service or for a customer's webhook.
    heartbeat: seconds of silence after which an event stream sends a comment, so that proxies keep it open.
    """

    tariff_url: str = ""
    upstream_timeout: float = 5.0
    heartbeat: float = 15.0

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read PARCELS_TARIFF_URL, PARCELS_UPSTREAM_TIMEOUT and PARCELS_HEARTBEAT."""
        return cls(
            tariff_url=os.environ.get("PARCELS_TARIFF_URL", ""),
            upstream_timeout=float(os.environ.get("PARCELS_UPSTREAM_TIMEOUT", "5")),
            heartbeat=float(os.environ.get("PARCELS_HEARTBEAT", "15")),
        )
