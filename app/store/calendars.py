"""The table `calendar_versions`: iCalendar texts, each version written once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, text

from app.core.errors import CalendarNotFoundError
from app.core.log import format_instant
from app.db import Connection
from app.models import calendar_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarVersion:
    """One imported text of a calendar; `events` is how many events it has."""

    calendar: str
    version: int
    sha256: str
    events: int
    imported_at: datetime
    imported_by: str | None
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return the version without its text, as the HTTP interface gives it."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "text"}
        return {**fields, "imported_at": format_instant(self.imported_at)}


_COLUMNS = tuple(calendar_versions.c[name] for name in CalendarVersion.__slots__)
_table = calendar_versions.c


# An arbitrary number that only this lock uses.
ADVISORY_LOCK = 0x57A7E5E3


def lock_calendars(connection: Connection) -> None:
    """Let no other transaction import a calendar, or a chart that names one, until this one is over."""
    # On SQLite the transaction's BEGIN IMMEDIATE is the lock. PostgreSQL lets only a role that may change the table's
    # rows lock the table like this, and the role that serves may not.
    if not connection.is_sqlite:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})


def list_calendars(connection: Connection) -> list[CalendarVersion]:
    """List the newest version of every calendar, by name."""
    newest = select(_table.calendar, func.max(_table.version)).group_by(_table.calendar).subquery()
    query = (
        select(*_COLUMNS)
        .join(newest, (newest.c[0] == _table.calendar) & (newest.c[1] == _table.version))
        .order_by(_table.calendar)
    )
    return [CalendarVersion(**row) for row in connection.execute(query).mappings()]


def list_versions(connection: Connection, calendar: str) -> list[CalendarVersion]:
    """List every version of a calendar, oldest first. Raises CalendarNotFoundError."""
    query = select(*_COLUMNS).where(_table.calendar == calendar).order_by(_table.version)
    found = [CalendarVersion(**row) for row in connection.execute(query).mappings()]
    if not found:
        raise CalendarNotFoundError(f"no calendar named {calendar!r}")
    return found


def find_newest(connection: Connection, calendar: str) -> CalendarVersion | None:
    """Return the newest version of a calendar; None if there is no such calendar."""
    query = select(*_COLUMNS).where(_table.calendar == calendar).order_by(_table.version.desc()).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else CalendarVersion(**row)


def get_version(connection: Connection, calendar: str, version: int) -> CalendarVersion:
    """Return one version of a calendar. Raises CalendarNotFoundError."""
    query = select(*_COLUMNS).where(_table.calendar == calendar, _table.version == version)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise CalendarNotFoundError(f"there is no version {version} of a calendar {calendar!r}")
    return CalendarVersion(**row)


def add_version(connection: Connection, version: CalendarVersion) -> None:
    """Write a new version. The database refuses every later change of it."""
    connection.execute(insert(calendar_versions), [{name: getattr(version, name) for name in version.__slots__}])
