"""Every query, by name. Each module serves one table, or a few tables that belong together."""

from __future__ import annotations

from app.store import (
    calendars,
    charts,
    definitions,
    log,
    machines,
    overview,
    record,
    rosters,
    sessions,
    subscriptions,
    tokens,
)

__all__ = [
    "calendars",
    "charts",
    "definitions",
    "log",
    "machines",
    "overview",
    "record",
    "rosters",
    "sessions",
    "subscriptions",
    "tokens",
]
