"""Times and numbers as the pages write them. Every instant is UTC."""

from __future__ import annotations

from datetime import datetime

from app.core.log import LogRow, format_instant
from app.service.condition import Condition, say_span

__all__ = ["CONDITIONS", "iso", "say_change", "say_percent", "say_span", "stamp"]

CONDITIONS = {
    Condition.STUCK: "Stuck",
    Condition.FAILED: "Failed",
    Condition.PAUSED: "Paused",
    Condition.RUNNING: "Running",
    Condition.ENDED: "Ended",
}


def stamp(instant: datetime) -> str:
    """A date and a time to the second."""
    return f"{instant:%Y-%m-%d %H:%M:%S}"


def iso(instant: datetime) -> str:
    """An instant for machines."""
    return format_instant(instant)


def say_percent(value: int, needed: int) -> str:
    """How much of what is needed is there; 100 % only where all is."""
    if needed <= 0:
        return "100 %"
    share = value * 100 // needed
    return f"{max(min(share, 100), 0)} %"


def say_change(row: LogRow) -> str:
    """What a row of the log did to the attribute it is about."""
    if row.key is None or row.value_after is None:
        return ""
    return f"{row.key} {row.value_before} → {row.value_after}"
