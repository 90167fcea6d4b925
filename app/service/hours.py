"""When charts are open: what machines and people are told of it, and the labels that name machines' own time zones."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from cachetools import LRUCache

from app import store
from app.chart_file.windows import parse_calendar
from app.core.chart import Chart
from app.core.errors import CalendarNotFoundError
from app.core.log import format_instant
from app.core.position import Reason
from app.core.window import HORIZON, NO_LABELS, Hours, Interval, Labels, find_fitting, judge
from app.db import Connection
from app.service.words import say_opening

# The reasons of a no that a window gives.
# Events are found from this long before they may matter.
MARGIN = timedelta(days=40)
WINDOW_REASONS = frozenset({Reason.WINDOW, Reason.WINDOW_SHORT})


@dataclass(frozen=True, slots=True)
class Closed:
    """When a machine that was refused by a window may ask again: `seconds` from now, at `opens_at`.

    Both are None if it does not open, or not within the horizon. `says` is for people.
    """

    opens_at: datetime | None
    seconds: float | None
    says: str

    def as_json(self) -> dict[str, Any]:
        """The members that an answer has beside the others."""
        return {"opens_at": None if self.opens_at is None else format_instant(self.opens_at), "opens": self.says}


class CalendarEvents:
    """The events of calendars' versions, found once for each month that is asked about; threads share it."""

    def __init__(self, size: int = 64) -> None:
        self._kept: LRUCache[Any, tuple[Interval, ...]] = LRUCache(size)
        self._lock = threading.Lock()

    def fill(self, connection: Connection, hours: Hours, since: datetime, now: datetime) -> Hours:
        """Return `hours` with the events of its calendars, from `since` to the horizon."""
        if not hours.calendars:
            return hours
        first = _month(min(since, now) - MARGIN)
        last = _month(now + HORIZON + MARGIN)
        return replace(
            hours,
            events={
                name: self._list_events(connection, name, version, first, last) for name, version in hours.calendars
            },
        )

    def _list_events(
        self, connection: Connection, name: str, version: int, first: datetime, last: datetime
    ) -> tuple[Interval, ...]:
        # If the database file is replaced by another one, the same name means another calendar.
        key = (connection.info.get("identity"), name, version, first, last)
        with self._lock, suppress(KeyError):
            return self._kept[key]
        text = store.rosters.get_calendar_version(connection, name, version).text
        found = parse_calendar(text).list_intervals(first, last)
        with self._lock:
            self._kept[key] = found
        return found


def _month(instant: datetime) -> datetime:
    return instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def follow_calendars(events: CalendarEvents, connection: Connection, chart: Chart, now: datetime) -> Hours:
    """Return the newest versions of the calendars that a chart names, with their events.

    Raises CalendarNotFoundError.
    """
    versions = []
    for name in sorted(chart.calendars):
        newest = store.rosters.find_newest_calendar(connection, name)
        if newest is None:
            raise CalendarNotFoundError(f"no calendar named {name!r}")
        versions.append((name, newest.version))
    return events.fill(connection, Hours(calendars=tuple(versions)), now, now)


def describe_closed(
    chart: Chart, state: str, hours: Hours, now: datetime, *, reason: Reason, labels: Labels = NO_LABELS
) -> Closed | None:
    """Return when the window opens that gave a no for `reason`; None if the reason is another."""
    schedule = chart.find_schedule(state) if reason in WINDOW_REASONS else None
    if schedule is None:
        return None
    opening = judge(schedule, hours, now, labels)
    opens_at, says = opening.opens_at, say_opening(opening, now)
    rule = chart.states[state].slots
    if reason is Reason.WINDOW_SHORT and rule is not None and rule.lease is not None:
        opens_at = find_fitting(schedule, hours, now, rule.lease, labels)
        says = f"a lease of {rule.lease_written} does not fit: it {says}"
    return Closed(opens_at, None if opens_at is None else (opens_at - now).total_seconds(), says)


def read_labels(
    connection: Connection, row: store.charts.ChartRow, chart: Chart, machines: Collection[str]
) -> Mapping[str, Labels]:
    """Return the labels of `machines` that name time zones, by machine; none if no window of the state asks."""
    schedule = chart.find_schedule(row.state)
    if schedule is None or not schedule.needs_labels:
        return {}
    roster = chart.find_label_roster(row.state)
    found = None if roster is None else store.rosters.find_roster(connection, roster)
    version = store.charts.build_position(row, {}).rosters.get(roster or "")
    if found is None or version is None:
        # A chart without a roster has machines without labels.
        return {}
    return store.rosters.find_labels(connection, found.id, version, machines)
