"""Every query, by name. Each module serves one table, or a few tables that belong together."""

from __future__ import annotations

from app.store import (
    charts,
    definitions,
    log,
    machines,
    overview,
    record,
    rosters,
    subscriptions,
    tokens,
)

__all__ = [
    "charts",
    "definitions",
    "log",
    "machines",
    "overview",
    "record",
    "rosters",
    "subscriptions",
    "tokens",
]
