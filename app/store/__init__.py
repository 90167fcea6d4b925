"""Every query, by name. Each module serves one table, or a few tables that belong together."""

from __future__ import annotations

from app.store import (
    charts,
    checkpoints,
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
    "checkpoints",
    "definitions",
    "log",
    "machines",
    "overview",
    "record",
    "rosters",
    "subscriptions",
    "tokens",
]
