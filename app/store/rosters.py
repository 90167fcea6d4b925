"""The tables of rosters and calendars: what is imported from outside, in versions that are written once.

A line of a roster is a row with the versions from which on and before which it holds, so that a new version writes only
what differs. A version of a calendar is its iCalendar text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, func, insert, literal, or_, select, text, update

from app.core.errors import CalendarNotFoundError
from app.core.expect import Labels, Where, read_labels, split_labels
from app.core.log import format_instant
from app.db import Connection, Prepared, among
from app.models import calendar_versions, reports, roster_machines, roster_versions, rosters
from app.store.charts import ChartRow
from app.store.machines import MachineFilter

# Lines in one statement, and lines read at a time.
CHUNK = 5000


class RosterRow(NamedTuple):
    """A roster and its newest version."""

    id: int
    name: str
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterVersion:
    """One version of a roster; `added`, `removed` and `changed` count the lines that differ from the one before."""

    version: int
    machines: int
    added: int
    removed: int
    changed: int
    sha256: str
    imported_at: datetime
    imported_by: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the version as the HTTP interface gives it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "imported_at": format_instant(self.imported_at)}


# Machine, and its labels: `rack=r12 shard=7 shard=9`.
Line = tuple[str, str]

# Rosters and versions


def find_roster(connection: Connection, name: str) -> RosterRow | None:
    """Return a roster; None if there is none of that name."""
    row = connection.execute(select(rosters).where(rosters.c.name == name)).one_or_none()
    return None if row is None else RosterRow._make(row)


def lock_roster(connection: Connection, name: str, now: datetime) -> RosterRow:
    """Lock a roster, which is made first if there is none; then its version is 0. Used by: the import of a roster."""
    query = select(rosters).where(rosters.c.name == name).with_for_update(key_share=True)
    row = connection.execute(query).one_or_none()
    if row is None:
        values = {"name": name, "version": 0, "created_at": now}
        row = connection.execute(insert(rosters).values(values).returning(rosters)).one()
    return RosterRow._make(row)


def hold_rosters(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """Keep rosters as they are until the transaction ends; return the newest version of each that there is.

    Used by: the import of a chart, before it locks the chart. The import of a roster locks the roster and then the
    charts that follow it, so both lock in the same order.
    """
    if not names:
        return {}
    query = select(rosters.c.name, rosters.c.version).where(rosters.c.name.in_(names), rosters.c.version > 0)
    return dict(connection.execute(query.order_by(rosters.c.name).with_for_update(read=True)).all())


def list_rosters(connection: Connection) -> list[tuple[RosterRow, RosterVersion]]:
    """List every roster with its newest version, by name."""
    query = (
        select(rosters, *_VERSION_COLUMNS)
        .join(
            roster_versions,
            and_(roster_versions.c.roster_id == rosters.c.id, roster_versions.c.version == rosters.c.version),
        )
        .order_by(rosters.c.name)
    )
    width = len(RosterRow._fields)
    return [(RosterRow._make(row[:width]), _as_version(row[width:])) for row in connection.execute(query)]


_VERSION_COLUMNS = tuple(roster_versions.c[name] for name in RosterVersion.__slots__)


def _as_version(values: Sequence[Any]) -> RosterVersion:
    return RosterVersion(**dict(zip(RosterVersion.__slots__, values, strict=True)))


def list_versions(connection: Connection, roster_id: int) -> list[RosterVersion]:
    """List every version of a roster, oldest first."""
    query = select(*_VERSION_COLUMNS).where(roster_versions.c.roster_id == roster_id)
    return [_as_version(row) for row in connection.execute(query.order_by(roster_versions.c.version))]


def find_version(connection: Connection, roster_id: int, version: int) -> RosterVersion | None:
    """Return one version of a roster; None if there is none of that number."""
    here = (roster_versions.c.roster_id == roster_id, roster_versions.c.version == version)
    row = connection.execute(select(*_VERSION_COLUMNS).where(*here)).one_or_none()
    return None if row is None else _as_version(row)


def find_version_at(connection: Connection, name: str, at: datetime) -> RosterVersion | None:
    """Return the version of the roster `name` that was the newest one at `at`; None if there was none."""
    is_roster = and_(rosters.c.id == roster_versions.c.roster_id, rosters.c.name == name)
    query = select(*_VERSION_COLUMNS).join(rosters, is_roster).where(roster_versions.c.imported_at <= at)
    row = connection.execute(query.order_by(roster_versions.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else _as_version(row)


def add_version(connection: Connection, roster: RosterRow, version: RosterVersion) -> None:
    """Write the row of a new version, whose lines `write_lines` has written, and make it the newest one."""
    fields = {name: getattr(version, name) for name in RosterVersion.__slots__}
    connection.execute(insert(roster_versions), [{"roster_id": roster.id, **fields}])
    connection.execute(update(rosters).where(rosters.c.id == roster.id).values(version=version.version))


# Lines


def _is_in(version: Any) -> ColumnElement[bool]:
    columns = roster_machines.c
    return and_(columns.since <= version, or_(columns.until.is_(None), columns.until > version))


def _has_labels(connection: Connection, where: Where) -> list[ColumnElement[bool]]:
    """Return the conditions that a line has one of the wanted values of each label."""
    find = func.instr if connection.is_sqlite else func.strpos
    padded = literal(" ").op("||")(roster_machines.c.labels).op("||")(" ")
    return [or_(*(find(padded, f" {label}={value} ") > 0 for value in values)) for label, values in where]


def stream_lines(
    connection: Connection, roster_id: int, version: int, where: Where = (), after: str | None = None
) -> Iterator[Line]:
    """Yield the lines of a version by machine, CHUNK in memory at a time; only those after the machine `after`."""
    columns = roster_machines.c
    query = select(columns.machine, columns.labels).where(columns.roster_id == roster_id, _is_in(version))
    query = query.where(*_has_labels(connection, where)).order_by(columns.machine)
    if after is not None:
        query = query.where(columns.machine > after)
    # Options of this statement alone: those of the connection would make a cursor of every later statement, too.
    with connection.core.execute(query, execution_options={"yield_per": CHUNK}) as rows:
        for row in rows:
            yield row[0], row[1]


class Listing(NamedTuple):
    """The machines of a roster's version that have the labels `where`."""

    roster_id: int
    version: int
    where: Where


def list_absent(
    connection: Connection, row: ChartRow, visit: int | None, listing: Listing, wanted: MachineFilter
) -> tuple[list[str], int]:
    """List a page of the machines that have not reported in a visit of the current run, and count them on all pages.

    A visit of None has no reports.
    """
    columns = roster_machines.c
    reported = and_(
        reports.c.chart_id == row.id,
        reports.c.run == row.run,
        reports.c.visit == (0 if visit is None else visit),
        reports.c.machine == columns.machine,
    )
    query = (
        select(columns.machine)
        .select_from(roster_machines.outerjoin(reports, reported))
        .where(columns.roster_id == listing.roster_id, _is_in(listing.version), reports.c.machine.is_(None))
        .where(*_has_labels(connection, listing.where))
    )
    if wanted.text:
        query = query.where(columns.machine.contains(wanted.text, autoescape=True))
    total = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    if wanted.after is not None:
        query = query.where(columns.machine > wanted.after)
    page = query.order_by(columns.machine).offset(wanted.offset).limit(wanted.limit)
    return list(connection.execute(page).scalars()), total


def list_page(
    connection: Connection, roster_id: int, version: int, where: Where, *, after: str, limit: int
) -> list[Line]:
    """List the first `limit` lines of a version after the machine `after`."""
    columns = roster_machines.c
    query = select(columns.machine, columns.labels).where(columns.roster_id == roster_id, _is_in(version))
    query = query.where(columns.machine > after, *_has_labels(connection, where))
    return [(row[0], row[1]) for row in connection.execute(query.order_by(columns.machine).limit(limit))]


_LABELS = Prepared(
    {
        dialect: select(roster_machines.c.machine, roster_machines.c.labels).where(
            roster_machines.c.roster_id == bindparam("roster_id"), _is_in(bindparam("version")), is_asked
        )
        for dialect, is_asked in among(roster_machines.c.machine, "machines").items()
    }
)


def find_labels(connection: Connection, roster_id: int, version: int, machines: Collection[str]) -> dict[str, Labels]:
    """Return the labels of those of `machines` that a version lists. Used by: PUTs and claims on charts that follow."""
    parameters = {"roster_id": roster_id, "version": version, "machines": list(machines)}
    return {machine: read_labels(labels) for machine, labels in _LABELS.rows(connection, parameters)}


def count_lines(connection: Connection, roster_id: int, version: int, where: Where, without: str | None = None) -> int:
    """Count the lines of a version that have the labels `where`; with `without` those that lack that label."""
    query = select(func.count()).select_from(roster_machines)
    query = query.where(roster_machines.c.roster_id == roster_id, _is_in(version), *_has_labels(connection, where))
    if without is not None:
        find = func.instr if connection.is_sqlite else func.strpos
        query = query.where(find(literal(" ").op("||")(roster_machines.c.labels), f" {without}=") == 0)
    counted: int = connection.execute(query).scalar_one()
    return counted


def count_groups(
    connection: Connection, roster_id: int, version: int, where: Where, labels: Collection[str]
) -> dict[str, dict[str, int]]:
    """Return for each of `labels` how many machines of a version have each of its values, from one reading."""
    columns = roster_machines.c
    query = select(columns.labels, func.count()).where(columns.roster_id == roster_id, _is_in(version))
    query = query.where(*_has_labels(connection, where)).group_by(columns.labels)
    found: dict[str, dict[str, int]] = {label: {} for label in labels}
    with connection.core.execute(query, execution_options={"yield_per": CHUNK}) as rows:
        for text, machines in rows:
            for label, value in split_labels(text):
                if label in found:
                    found[label][value] = found[label].get(value, 0) + machines
    return found


# Writing lines


def write_lines(
    connection: Connection, roster_id: int, version: int, *, ended: Collection[str], begun: Iterable[Line]
) -> None:
    """End the lines of the machines `ended` before `version`, and begin the lines `begun` with it."""
    for chunk in _chunks(ended):
        parameters = {"roster_id": roster_id, "version": version, "machines": chunk}
        _END.run(connection, parameters)
    if connection.is_sqlite:
        rows = ((roster_id, machine, version, labels) for machine, labels in begun)
        statement = "INSERT INTO roster_machines (roster_id, machine, since, labels) VALUES (?, ?, ?, ?)"
        connection.run(connection.driver.executemany, statement, rows)
    else:
        connection.run(_copy, connection.driver, roster_id, version, begun)


def _copy(driver: Any, roster_id: int, version: int, begun: Iterable[Line]) -> None:
    # COPY takes a million lines in seconds, INSERT in half a minute.
    statement = "COPY roster_machines (roster_id, machine, since, labels) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for machine, labels in begun:
            copy.write_row((roster_id, machine, version, labels))


_END = Prepared(
    {
        dialect: update(roster_machines)
        .where(
            roster_machines.c.roster_id == bindparam("roster_id"),
            roster_machines.c.until.is_(None),
            is_asked,
        )
        .values(until=bindparam("version"))
        for dialect, is_asked in among(roster_machines.c.machine, "machines").items()
    }
)


def _chunks(items: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def list_changes(connection: Connection, roster_id: int, before: int, after: int) -> Mapping[str, list[str | None]]:
    """Return the machines whose lines differ between two versions, with their labels in each; None if it lacks them."""
    columns = roster_machines.c
    query = (
        select(columns.machine, columns.labels, _is_in(before).label("was"), _is_in(after).label("is"))
        .where(columns.roster_id == roster_id, _is_in(before) != _is_in(after))
        .order_by(columns.machine)
    )
    found: dict[str, list[str | None]] = {}
    for machine, labels, was, _ in connection.execute(query):
        found.setdefault(machine, [None, None])[0 if was else 1] = labels
    return {machine: labels for machine, labels in found.items() if labels[0] != labels[1]}


# Calendars


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


def list_calendar_versions(connection: Connection, calendar: str) -> list[CalendarVersion]:
    """List every version of a calendar, oldest first. Raises CalendarNotFoundError."""
    query = select(*_COLUMNS).where(_table.calendar == calendar).order_by(_table.version)
    found = [CalendarVersion(**row) for row in connection.execute(query).mappings()]
    if not found:
        raise CalendarNotFoundError(f"no calendar named {calendar!r}")
    return found


def find_newest_calendar(connection: Connection, calendar: str) -> CalendarVersion | None:
    """Return the newest version of a calendar; None if there is no such calendar."""
    query = select(*_COLUMNS).where(_table.calendar == calendar).order_by(_table.version.desc()).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else CalendarVersion(**row)


def get_calendar_version(connection: Connection, calendar: str, version: int) -> CalendarVersion:
    """Return one version of a calendar. Raises CalendarNotFoundError."""
    query = select(*_COLUMNS).where(_table.calendar == calendar, _table.version == version)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise CalendarNotFoundError(f"there is no version {version} of a calendar {calendar!r}")
    return CalendarVersion(**row)


def add_calendar_version(connection: Connection, version: CalendarVersion) -> None:
    """Write a new version. The database refuses every later change of it."""
    connection.execute(insert(calendar_versions), [{name: getattr(version, name) for name in version.__slots__}])
