"""How sentences for people write lengths of time, numbers, lists of names, and when it opens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.core.window import HORIZON, OUTSIDE, Opening, load_zone

# A sentence names at most this many machines, and counts the others.
MAX_NAMED = 10


def say_span(span: timedelta) -> str:
    """A length of time in its two largest units, for example `2 h 5 min`."""
    seconds = max(int(span.total_seconds()), 0)
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            # From ten minutes on, seconds are noise.
            rest = 0 if small == "s" and seconds >= 600 else seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{seconds} s"


def say_number(number: int) -> str:
    """A whole number with commas: `1,237`."""
    return f"{number:,}"


def say_ordinal(number: int) -> str:
    """A number that counts a position: `21st`, `112th`."""
    last = abs(number) % 100
    ending = "th" if 11 <= last <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(last % 10, "th")
    return f"{number:,}{ending}"


def name_some(names: Sequence[str], most: int = MAX_NAMED, *, total: int | None = None) -> str:
    """The first names, `most` of them, and how many more there are; `total` counts all if not all are in `names`."""
    left = (len(names) if total is None else total) - min(len(names), most)
    more = f" and {say_number(left)} more" if left > 0 else ""
    return ", ".join(names[:most]) + more


def say_reported(reported: int, expect: int | None, verb: str = "had") -> str:
    """How many machines of those expected reported by name: `1,237 of 2,000 had reported`."""
    of = "" if expect is None else f" of {say_number(expect)}"
    return f"{say_number(reported)}{of} {verb} reported"


def say_opening(opening: Opening, now: datetime) -> str:
    """When it opens or closes, in local time: `opens Mon 22:00 Europe/Berlin, in 3 h`."""
    if opening.is_open:
        if opening.closes_at is None:
            return "is open"
        return f"closes {_say_local(opening.closes_at, opening.zone, now)}"
    why = "" if opening.why == OUTSIDE else f"{opening.why}; "
    if opening.opens_at is None:
        return f"{why}does not open within {HORIZON.days} days"
    return f"{why}opens {_say_local(opening.opens_at, opening.zone, now)}"


def _say_local(instant: datetime, zone: str, now: datetime) -> str:
    local, span = instant.astimezone(load_zone(zone)), instant - now
    day = f"{local:%a}" if span < timedelta(days=6) else f"{local:%a %Y-%m-%d}"
    return f"{day} {local:%H:%M} {zone}, in {say_span(span)}"
