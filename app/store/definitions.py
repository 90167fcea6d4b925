"""The tables of definitions: a version is written once as rows, and read back as the chart.

They are `chart_versions`, `roster`, `states`, `attributes` and `transitions`.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from fractions import Fraction
from typing import Any

from sqlalchemy import Row, func, insert, select, tuple_

from app.core.chart import (
    NO_PROMISES,
    Approvers,
    Attribute,
    Chart,
    ClockGuard,
    CountGuard,
    ElapsedGuard,
    Func,
    Guard,
    OnExpire,
    Op,
    SlotRule,
    State,
    Transition,
)
from app.core.errors import VersionNotFoundError
from app.core.expect import Expect, FromRoster, GroupLimit, Listed, Number, Reporters
from app.core.log import MICROSECOND, format_instant
from app.core.promises import read_promises
from app.core.window import DAYS, Schedule, Window
from app.db import Connection
from app.models import attributes, chart_versions, roster, states, transitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One imported definition of a chart; `text` is the chart file as it was imported."""

    version: int
    sha256: str
    description: str
    imported_at: datetime
    imported_by: str | None
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return the version without its text, as the HTTP interface gives it."""
        return {
            "version": self.version,
            "sha256": self.sha256,
            "description": self.description,
            "imported_at": format_instant(self.imported_at),
            "imported_by": self.imported_by,
        }


# The column is an INTEGER, and PostgreSQL refuses to compare it with a larger number.
MAX_VERSION = 2**31 - 1
_VERSION_COLUMNS = tuple(chart_versions.c[name] for name in Version.__slots__)


def list_versions(connection: Connection, chart_id: int) -> list[Version]:
    """List every version of a chart, oldest first."""
    query = select(*_VERSION_COLUMNS).where(chart_versions.c.chart_id == chart_id).order_by(chart_versions.c.version)
    return [Version(**row) for row in connection.execute(query).mappings()]


def get_version(connection: Connection, chart_id: int, version: int) -> Version:
    """Return one version of a chart. Raises VersionNotFoundError."""
    if version > MAX_VERSION:
        raise VersionNotFoundError(f"the chart has no version {version}")
    query = select(*_VERSION_COLUMNS).where(chart_versions.c.chart_id == chart_id, chart_versions.c.version == version)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise VersionNotFoundError(f"the chart has no version {version}")
    return Version(**row)


def find_version_of_text(connection: Connection, chart_id: int, text: str) -> int | None:
    """Return the latest version whose text is `text`; None if there is none. Used by: a start with chart files."""
    query = select(func.max(chart_versions.c.version)).where(
        chart_versions.c.chart_id == chart_id, chart_versions.c.sha256 == hashlib.sha256(text.encode()).hexdigest()
    )
    found: int | None = connection.execute(query).scalar_one()
    return found


def add_version(
    connection: Connection, chart_id: int, version: int, chart: Chart, *, text: str, now: datetime, actor: str | None
) -> None:
    """Write the rows of a new version. The database refuses every later change of them."""
    values = {
        "chart_id": chart_id,
        "version": version,
        "text": text,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "description": chart.description,
        "initial_state": chart.initial,
        "expect": chart.expect,
        "has_roster": chart.roster is not None,
        "require_machine": chart.require_machine,
        "promises": json.dumps(chart.promises.as_json()) if chart.promises else None,
        "imported_at": now,
        "imported_by": actor,
        "schedule": _write_schedule(chart.schedule),
        "follows": _write_set(chart.follows),
    }
    version_id = connection.execute(insert(chart_versions).returning(chart_versions.c.id), values).scalar_one()
    _insert_all(
        connection,
        roster,
        [
            {"version_id": version_id, "machine": machine, "position": position}
            for position, machine in enumerate(chart.roster or ())
        ],
    )
    _add_states(connection, version_id, chart)


def _add_states(connection: Connection, version_id: int, chart: Chart) -> None:
    _insert_all(
        connection,
        states,
        [_state_row(version_id, position, state) for position, state in enumerate(chart.states.values())],
    )
    found = connection.execute(select(states.c.name, states.c.id).where(states.c.version_id == version_id))
    ids = dict(found.all())
    _insert_all(
        connection,
        attributes,
        [
            {"state_id": ids[state.name], "position": position, "key": item.key, "value": item.value}
            for state in chart.states.values()
            for position, item in enumerate(state.attributes)
        ],
    )
    _insert_all(
        connection,
        transitions,
        [
            {"state_id": ids[state.name], "position": position, "target": item.target, **_guard_columns(item.guard)}
            for state in chart.states.values()
            for position, item in enumerate(state.transitions)
        ],
    )


def _insert_all(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _state_row(version_id: int, position: int, state: State) -> dict[str, Any]:
    rule = state.slots
    return {
        "version_id": version_id,
        "position": position,
        "name": state.name,
        "description": state.description,
        "func": state.func,
        "slots": None if rule is None else _write_limits(rule),
        "lease": None if rule is None else rule.lease_written,
        "lease_us": None if rule is None or rule.lease is None else rule.lease // MICROSECOND,
        "on_expire": None if rule is None else rule.on_expire,
        "reported": json.dumps(state.reported) if state.reported else None,
        "schedule": _write_schedule(state.schedule),
        "who": None if state.approvers is None else "approvers",
        "who_not": "importer" if state.approvers is not None and state.approvers.not_importer else None,
        "expect": _write_set(state.expect),
        "including": json.dumps(state.including) if state.including else None,
    }


def _write_schedule(schedule: Schedule | None) -> str | None:
    if schedule is None:
        return None
    windows = None if schedule.windows is None else [_write_window(window) for window in schedule.windows]
    parts = {"windows": windows, "except": schedule.calendars, "fit": schedule.fit}
    return json.dumps({name: value for name, value in parts.items() if value is not None})


def _write_window(window: Window) -> dict[str, Any]:
    days = [DAYS[day] for day in window.days]
    return {"days": days, "from": f"{window.start:%H:%M}", "to": f"{window.end:%H:%M}", "zone": window.zone}


def _load_schedule(text: str | None) -> Schedule | None:
    if text is None:
        return None
    parts = json.loads(text)
    return Schedule(
        windows=tuple(_load_window(item) for item in parts["windows"]) if "windows" in parts else None,
        calendars=tuple(parts["except"]) if "except" in parts else None,
        fit=parts.get("fit"),
    )


def _load_window(parts: dict[str, Any]) -> Window:
    days = tuple(DAYS.index(day) for day in parts["days"])
    return Window(time.fromisoformat(parts["from"]), time.fromisoformat(parts["to"]), parts["zone"], days)


def _write_limits(rule: SlotRule) -> str:
    limits: dict[str, Any] = {"written": rule.written, "stages": rule.stages}
    if rule.per:
        limits["per"] = {limit.label: limit.written for limit in rule.per}
    return json.dumps(limits)


def _write_set(expect: Expect | None) -> str | None:
    match expect:
        case Number(machines):
            return json.dumps({"count": machines})
        case Listed():
            return json.dumps({"machines": expect.machines})
        case FromRoster(roster, where):
            return json.dumps({"roster": roster, "where": where})
        case Reporters(states, key):
            return json.dumps({"reported": states, "key": key})
    return None


def _read_set(text: str | None) -> Expect | None:
    if text is None:
        return None
    fields = json.loads(text)
    if "count" in fields:
        return Number(fields["count"])
    if "machines" in fields:
        return Listed(tuple(fields["machines"]))
    if "roster" in fields:
        return FromRoster(fields["roster"], tuple((label, tuple(values)) for label, values in fields["where"]))
    return Reporters(tuple(fields["reported"]), fields["key"])


def _guard_columns(guard: Guard) -> dict[str, Any]:
    columns: dict[str, Any] = {"op": None, "threshold": None, "age": None, "instant": None, "of_time": None}
    match guard:
        case CountGuard():
            columns |= {"op": guard.op, "threshold": guard.threshold}
        case ClockGuard():
            columns |= {"instant": guard.instant}
        case ElapsedGuard():
            columns |= {"age": guard.age // MICROSECOND, "of_time": None if guard.schedule is None else "open"}
    return {"key": guard.key, "value": guard.written, **columns}


def load_chart(connection: Connection, chart_id: int, name: str, version: int) -> Chart:
    """Read a version's definition back from its rows. Raises VersionNotFoundError."""
    found = load_charts(connection, {(chart_id, version): name})
    if not found:
        raise VersionNotFoundError(f"chart {name!r} has no version {version}")
    return found[chart_id, version]


def load_charts(connection: Connection, names: Mapping[tuple[int, int], str]) -> dict[tuple[int, int], Chart]:
    """Read the definitions of several charts, in few queries; those that do not exist are left out.

    `names` has the chart's name for each pair of a chart's id and a version.
    """
    key = tuple_(chart_versions.c.chart_id, chart_versions.c.version)
    rows = connection.execute(select(chart_versions).where(key.in_(list(names)))).all()
    parts = _read_parts(connection, [row.id for row in rows])
    return {
        (row.chart_id, row.version): _build_chart(connection, row, names[row.chart_id, row.version], parts)
        for row in rows
    }


def _build_chart(connection: Connection, row: Row[Any], name: str, parts: _Parts) -> Chart:
    schedule, follows = _load_schedule(row.schedule), _read_set(row.follows)
    assert follows is None or isinstance(follows, FromRoster)  # as `add_version` wrote it
    return Chart(
        name=name,
        initial=row.initial_state,
        states={
            state.name: _load_state(
                state, parts.attributes[state.id], parts.transitions[state.id], schedule, follows=follows
            )
            for state in parts.states[row.id]
        },
        description=row.description,
        expect=row.expect,
        roster=_load_roster(connection, row.id) if row.has_roster else None,
        require_machine=row.require_machine,
        schedule=schedule,
        importer=row.imported_by,
        sha256=row.sha256,
        promises=NO_PROMISES if row.promises is None else read_promises(json.loads(row.promises)),
        follows=follows,
    )


def _load_roster(connection: Connection, version_id: int) -> tuple[str, ...]:
    query = select(roster.c.machine).where(roster.c.version_id == version_id).order_by(roster.c.position)
    return tuple(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class _Parts:
    """Rows of several versions: states by version, attributes and transitions by state, each in its order."""

    states: Mapping[int, Sequence[Row[Any]]]
    attributes: Mapping[int, list[Attribute]]
    transitions: Mapping[int, list[Row[Any]]]


def _read_parts(connection: Connection, version_ids: Sequence[int]) -> _Parts:
    found_states: dict[int, list[Row[Any]]] = defaultdict(list)
    found_attributes: dict[int, list[Attribute]] = defaultdict(list)
    found_transitions: dict[int, list[Row[Any]]] = defaultdict(list)
    query = select(states).where(states.c.version_id.in_(version_ids)).order_by(states.c.position)
    for row in connection.execute(query):
        found_states[row.version_id].append(row)
    for row in connection.execute(_of_versions(attributes, version_ids)):
        found_attributes[row.state_id].append(Attribute(row.key, row.value))
    for row in connection.execute(_of_versions(transitions, version_ids)):
        found_transitions[row.state_id].append(row)
    return _Parts(found_states, found_attributes, found_transitions)


def _load_reported(row: Row[Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((key, tuple(machines)) for key, machines in json.loads(row.reported or "[]"))


def _load_state(
    row: Row[Any],
    found_attributes: list[Attribute],
    moves: list[Row[Any]],
    common: Schedule | None,
    *,
    follows: Expect | None,
) -> State:
    expect = _read_set(row.expect)
    # The percentages of such a state are of a set whose size must be looked up.
    is_looked_up = not (expect or follows or Number(0)).is_fixed
    own = _load_schedule(row.schedule)
    schedule = common if own is None else own.within(common)
    return State(
        name=row.name,
        func=None if row.func is None else Func(row.func),
        attributes=tuple(found_attributes),
        transitions=tuple(
            Transition(move.target, _load_guard(move, schedule, is_looked_up=is_looked_up)) for move in moves
        ),
        slots=_load_slots(row, is_looked_up=is_looked_up),
        description=row.description,
        reported=_load_reported(row),
        expect=expect,
        including=() if row.including is None else tuple(json.loads(row.including)),
        schedule=own,
        approvers=None if row.who is None else Approvers(not_importer=row.who_not is not None),
    )


def _of_versions(table: Any, version_ids: Sequence[int]) -> Any:
    return (
        select(table)
        .join(states, states.c.id == table.c.state_id)
        .where(states.c.version_id.in_(version_ids))
        .order_by(table.c.state_id, table.c.position)
    )


def _find_share(written: str, is_looked_up: bool) -> Fraction | None:
    return Fraction(written[:-1]) / 100 if is_looked_up and written.endswith("%") else None


def _load_guard(row: Row[Any], schedule: Schedule | None, *, is_looked_up: bool) -> Guard:
    if row.threshold is not None:
        return CountGuard(row.key, Op(row.op), row.threshold, row.value, _find_share(row.value, is_looked_up))
    if row.instant is not None:
        return ClockGuard(row.instant, row.value)
    return ElapsedGuard(timedelta(microseconds=row.age), row.value, schedule=None if row.of_time is None else schedule)


def _load_slots(row: Row[Any], *, is_looked_up: bool) -> SlotRule | None:
    if row.slots is None:
        return None
    limits = json.loads(row.slots)
    shares = tuple(_find_share(written, is_looked_up) for written in limits["written"])
    lease = None if row.lease_us is None else timedelta(microseconds=row.lease_us)
    return SlotRule(
        stages=tuple(limits["stages"]),
        written=tuple(limits["written"]),
        lease=lease,
        lease_written=row.lease,
        on_expire=OnExpire(row.on_expire),
        shares=shares if any(shares) else (),
        per=tuple(_load_limit(label, written) for label, written in limits.get("per", {}).items()),
    )


def _load_limit(label: str, written: str) -> GroupLimit:
    if written.endswith("%"):
        return GroupLimit(label, written, share=Fraction(written[:-1]) / 100)
    return GroupLimit(label, written, machines=int(written))
