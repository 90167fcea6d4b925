"""Calendars: import iCalendar texts in versions; every chart that names one goes by its newest version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app import store
from app.chart_file.fields import ScalarError, to_chart_name
from app.chart_file.nodes import MAX_BYTES
from app.chart_file.windows import parse_calendar
from app.core.errors import BadRequestError, CalendarNotFoundError
from app.core.log import Author, format_instant
from app.core.position import FollowCalendar
from app.core.window import HORIZON, Hours, Interval
from app.db import Connection, asking, retrying, transaction
from app.service.context import LockedChart, Service, locked_charts, record_all
from app.store.rosters import CalendarVersion

__all__ = ["MAX_BYTES"]
# Events that a calendar's view shows.
SHOWN_EVENTS = 20


@dataclass(frozen=True, slots=True)
class ImportedCalendar:
    """What an import of a calendar did, and to which charts: each with the state that it is in then."""

    outcome: str
    version: CalendarVersion
    charts: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The import as the HTTP interface and `--json` give it."""
        charts = [{"chart": name, "current_state": state} for name, state in self.charts.items()]
        return {"outcome": self.outcome, **self.version.as_json(), "charts": charts}


@dataclass(frozen=True, slots=True)
class CalendarView:
    """A calendar's newest version, the charts that go by it, and its next events."""

    version: CalendarVersion
    charts: tuple[str, ...]
    events: tuple[Interval, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The calendar as the HTTP interface gives it; `next` are the times in which it closes charts."""
        shown = [{"start": format_instant(item.start), "end": format_instant(item.end)} for item in self.events]
        return {**self.version.as_json(), "charts": list(self.charts), "next": shown}


@retrying
def import_calendar(service: Service, name: str, source: bytes | str, author: Author) -> ImportedCalendar:
    """Import a calendar's text; every chart that names it goes by it from the same commit on.

    Raises CalendarFileError with every problem of the text, BadRequestError for a name that is not allowed.
    """
    check_name(name)
    with transaction(service.database, is_long=True) as connection:
        store.rosters.lock_calendars(connection)
        now = service.read_now(connection)
        parsed = parse_calendar(source, Interval(now, now + HORIZON))
        newest = store.rosters.find_newest_calendar(connection, name)
        if newest is not None and newest.text == parsed.text:
            return ImportedCalendar("unchanged", newest, _find_states(connection, name))
        version = CalendarVersion(
            calendar=name,
            version=1 if newest is None else newest.version + 1,
            sha256=hashlib.sha256(parsed.text.encode()).hexdigest(),
            events=len(parsed.events),
            imported_at=now,
            imported_by=author.actor,
            text=parsed.text,
        )
        store.rosters.add_calendar_version(connection, version)
        held = _follow(service, connection, version, author)
        if held:
            record_all(service, connection, held)
    for chart in held:
        for step in chart.steps:
            service.tell(chart.row.name, step)
    outcome = "created" if newest is None else "changed"
    return ImportedCalendar(outcome, version, {chart.row.name: chart.position.state for chart in held})


def check_name(name: str) -> None:
    """Raise BadRequestError if no calendar can have this name."""
    try:
        to_chart_name(name)
    except ScalarError as error:
        raise BadRequestError(f"calendar: {error}") from None


def _follow(service: Service, connection: Connection, version: CalendarVersion, author: Author) -> list[LockedChart]:
    names = store.charts.list_calendar_followers(connection, version.calendar)
    rows = store.charts.lock_charts(connection, names)
    charts = locked_charts(service, connection, rows) if rows else []
    for chart in charts:
        before = chart.position.hours
        hours = before.with_calendar(version.calendar, version.version)
        filled = service.events.fill(connection, hours, chart.position.entered_at, chart.now)
        chart.decide(FollowCalendar(version.calendar, filled), author)
    return charts


def _find_states(connection: Connection, calendar: str) -> dict[str, str]:
    names = store.charts.list_calendar_followers(connection, calendar)
    return {name: store.charts.get_chart(connection, name).state for name in names}


def list_calendars(service: Service) -> list[CalendarView]:
    """Every calendar with its newest version, by name."""
    with asking(service.database) as connection:
        return [
            CalendarView(version, tuple(store.charts.list_calendar_followers(connection, version.calendar)))
            for version in store.rosters.list_calendars(connection)
        ]


def get_calendar(service: Service, name: str) -> CalendarView:
    """A calendar with its newest version and its next events. Raises CalendarNotFoundError."""
    with asking(service.database) as connection:
        version = store.rosters.find_newest_calendar(connection, name)
        if version is None:
            raise CalendarNotFoundError(f"no calendar named {name!r}")
        now: datetime = service.read_now(connection)
        hours = service.events.fill(connection, Hours(calendars=((name, version.version),)), now, now)
        ahead = tuple(item for item in hours.events[name] if item.end > now)[:SHOWN_EVENTS]
        view = CalendarView(version, tuple(store.charts.list_calendar_followers(connection, name)))
        return replace(view, events=ahead)


def list_versions(service: Service, name: str) -> list[CalendarVersion]:
    """Every version of a calendar, oldest first. Raises CalendarNotFoundError."""
    with asking(service.database) as connection:
        return store.rosters.list_calendar_versions(connection, name)


def get_version(service: Service, name: str, version: int) -> CalendarVersion:
    """One version of a calendar. Raises CalendarNotFoundError."""
    with asking(service.database) as connection:
        return store.rosters.get_calendar_version(connection, name, version)
