"""Which machines did what: the machines of one visit of a chart, and the charts of one machine."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app import store
from app.core.chart import FAILED_KEY, Chart
from app.core.errors import BadRequestError
from app.core.log import format_instant
from app.core.position import Slot
from app.db import Connection, snapshot
from app.service.condition import judge
from app.service.context import Service, list_positions
from app.service.crowds import ALL, FEW, Knowledge, find_absent_in, takes_part
from app.service.reading import quote_cell
from app.service.words import name_some, say_number, say_reported
from app.store.machines import MachineFilter, MachineReport, VisitReport, VisitRow

# Machines in one answer, if the request does not say how many.
MAX_MACHINES = 1_000_000
# Reports of one machine that an answer about it lists, the latest first.
MAX_REPORTS = 1000


class Which(StrEnum):
    """Which machines of a visit are wanted."""

    REPORTED = "reported"
    MISSING = "missing"
    FAILED = "failed"
    WORKING = "working"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollQuery:
    """Which machines are wanted: of one visit, those on one attribute, `limit` of them from the one after `after` on.

    Without `visit` it is the latest visit of `state`, without `state` that of the current state, or of an earlier run's
    last state. Without `run` it is the current run.
    """

    state: str | None = None
    run: int | None = None
    visit: int | None = None
    key: str | None = None
    which: Which = Which.REPORTED
    after: str | None = None
    limit: int = MAX_MACHINES


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A machine that holds a slot, or held one when the chart moved on; the lease is known only as long as it is held.

    `claimed_at` and `fence` are those of its claim.
    """

    machine: str
    fence: int | None
    claimed_at: Any
    expires_at: Any = None
    expired_at: Any = None

    @classmethod
    def of(cls, slot: Slot) -> Worker:
        """The holder of a slot."""
        return cls(
            machine=slot.machine,
            fence=slot.fence,
            claimed_at=slot.claimed_at,
            expires_at=slot.expires_at,
            expired_at=slot.expired_at,
        )

    def as_json(self) -> dict[str, Any]:
        """The machine as the HTTP interface gives it."""
        instants = {name: getattr(self, name) for name in ("claimed_at", "expires_at", "expired_at")}
        return {
            "machine": self.machine,
            "fence": self.fence,
            **{name: None if at is None else format_instant(at) for name, at in instants.items()},
        }


@dataclass(frozen=True, slots=True)
class Missing:
    """A machine that is expected and has not reported."""

    machine: str

    def as_json(self) -> dict[str, Any]:
        """The machine as the HTTP interface gives it."""
        return {"machine": self.machine}


Entry = MachineReport | Worker | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """The machines that were asked for. `visit` is None if the run has not entered the state.

    `hint` says why the list is empty if the service cannot know which machines are meant.
    """

    chart: str
    run: int
    visit: int | None
    state: str
    machines: Sequence[Entry]
    hint: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The machines as the HTTP interface gives them."""
        return {
            "chart": self.chart,
            "run": self.run,
            "visit": self.visit,
            "state": self.state,
            "machines": [entry.as_json() for entry in self.machines],
            **({} if self.hint is None else {"hint": self.hint}),
        }

    def as_text(self) -> str:
        """The machines' ids, one on each line, as `ansible --limit @file` takes them."""
        return "".join(f"{entry.machine}\n" for entry in self.machines)

    def as_csv(self) -> str:
        """The machines as CSV under a heading; only the heading `machine` if there are none."""
        rows = [entry.as_json() for entry in self.machines] or [{"machine": None}]
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(rows[0])
        writer.writerows([quote_cell(value) for value in row.values()] for row in rows if row["machine"] is not None)
        return buffer.getvalue()


def list_roll(service: Service, name: str, wanted: RollQuery) -> Roll:
    """Return the machines of one visit that `wanted` asks for, by id; missing ones in the order of the roster.

    Raises ChartNotFoundError, and BadRequestError if there is no such run, visit, state or attribute, or if missing
    machines are asked for and nothing says which machines are expected.
    """
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        run = _check_run(row, wanted.run)
        visit = _find_visit(connection, chart, row, wanted, run)
        state = wanted.state if visit is None else visit.state
        assert state is not None  # without a visit, the state was named
        known = service.know(connection, row)
        machines = _list_entries(known, connection, chart, row, wanted, place=(state, visit))
        hint = None
        if wanted.which is Which.WORKING and not machines and is_work_unseen(chart, state):
            hint = _explain_unseen(known, connection, chart, row, place=(state, visit))
    number = None if visit is None else visit.visit
    return Roll(chart=name, run=run, visit=number, state=state, machines=machines, hint=hint)


def _check_run(row: store.charts.ChartRow, run: int | None) -> int:
    if run is None:
        return row.run
    if not 1 <= run <= row.run:
        raise BadRequestError(f"run={run}: chart {row.name!r} has the runs 1 to {row.run}")
    return run


def _find_visit(
    connection: Connection, chart: Chart, row: store.charts.ChartRow, wanted: RollQuery, run: int
) -> VisitRow | None:
    """Return the visit that is asked for; None if the run has not entered the state."""
    state = wanted.state
    if wanted.visit is not None:
        found = store.machines.find_visit(connection, row, run, visit=wanted.visit)
        if found is None or (state is not None and found.state != state):
            of = "" if state is None else f" of state {state!r}"
            raise BadRequestError(f"visit={wanted.visit}: run {run} of chart {row.name!r} has no such visit{of}")
        return found
    if state is None and run == row.run:
        state = row.state
    found = store.machines.find_visit(connection, row, run, state=state)
    if found is None and (state is None or state not in chart.states):
        raise BadRequestError(f"chart {row.name!r} has no state {state!r}")
    return found


def _list_entries(
    known: Knowledge,
    connection: Connection,
    chart: Chart,
    row: store.charts.ChartRow,
    wanted: RollQuery,
    *,
    place: tuple[str, VisitRow | None],
) -> Sequence[Entry]:
    state, visit = place
    key = _find_key(chart, wanted, state)
    if wanted.which is Which.MISSING:
        return _list_missing(known, connection, chart, row, wanted, place=place)
    if visit is None:
        return ()
    if wanted.which is Which.WORKING:
        return _cut(list_working(connection, row, visit), wanted)
    filtered = store.machines.ReportFilter(key=key, after=wanted.after, limit=wanted.limit)
    return store.machines.list_reports_of(connection, row, visit, filtered)


def _find_key(chart: Chart, wanted: RollQuery, state: str) -> str | None:
    """Return the attribute on which the reports must stand; None for any. Raises BadRequestError."""
    definition = chart.states.get(state)
    key = wanted.key
    if key is not None and definition is not None and not definition.has_attribute(key):
        raise BadRequestError(f"state {state!r} has no attribute {key!r}")
    meant = {Which.FAILED: FAILED_KEY, Which.DONE: None if definition is None else definition.default_key}
    if wanted.which not in meant:
        if key is not None and wanted.which is not Which.REPORTED:
            raise BadRequestError(f"key={key} and is={wanted.which}: machines that are {wanted.which} have no report")
        return key
    own = meant[wanted.which]
    if key is not None and key != own:
        raise BadRequestError(f"key={key} and is={wanted.which} contradict each other")
    # A state without an attribute has no report that stands on it: an empty key finds none.
    return own or ""


def _list_missing(
    known: Knowledge,
    connection: Connection,
    chart: Chart,
    row: store.charts.ChartRow,
    wanted: RollQuery,
    *,
    place: tuple[str, VisitRow | None],
) -> Sequence[Missing]:
    state, visit = place
    chosen = MachineFilter(after=wanted.after, limit=ALL.limit if wanted.limit is None else wanted.limit)
    run = row if visit is None else row._replace(run=visit.run)
    number = None if visit is None else visit.visit
    absent = find_absent_in(known, connection, run, chart, state, visit=number, wanted=chosen)
    if absent is None:
        raise BadRequestError(
            f"chart {row.name!r} has no roster (expect: a list, or roster:) in state {state!r}, so no machine can be"
            " missing"
        )
    return [Missing(name) for name in absent.machines]


def list_working(connection: Connection, row: store.charts.ChartRow, visit: VisitRow) -> Sequence[Worker]:
    """The machines that hold a slot in a visit that lasts, or that held one when it ended."""
    if (visit.run, visit.visit) == (row.run, row.visit):
        return [Worker.of(slot) for slot in store.machines.read_held_slots(connection, row).values()]
    claims = store.log.list_open_claims(connection, row.name, visit.run, visit.visit)
    return [
        Worker(machine=claim.machine or "", fence=claim.value_after, claimed_at=claim.at)
        for claim in claims
        if claim.machine is not None
    ]


def is_work_unseen(chart: Chart, state: str) -> bool:
    """Whether machines work in a state of the chart's present version, but claim no slots there."""
    found = chart.states.get(state)
    return found is not None and found.is_counting and found.slots is None and found.approvers is None


def _explain_unseen(
    known: Knowledge,
    connection: Connection,
    chart: Chart,
    row: store.charts.ChartRow,
    *,
    place: tuple[str, VisitRow | None],
) -> str:
    """Why the service does not know which machines are at work in a state without slots, and what it knows instead."""
    state, visit = place
    said = (
        f"which machines are at work in {state} is not known, because the state has no slots: a question leaves no"
        " trace. Give the state `slots:`, and each machine claims one before it works"
    )
    if visit is None:
        return f"{said}."
    here = row._replace(run=visit.run)
    reported = sum(store.machines.count_reports(connection, here, visit.visit).values())
    absent = find_absent_in(known, connection, here, chart, state, visit=visit.visit, wanted=FEW)
    if absent is None:
        return f"{said}. {say_number(reported)} have reported in this visit."
    named = name_some(absent.machines, total=absent.total)
    missing = f"; {say_number(absent.total)} have not: {named}" if absent.total else ""
    return f"{said}. {say_reported(reported, reported + absent.total, 'have')} in this visit{missing}."


def _cut(workers: Sequence[Worker], wanted: RollQuery) -> Sequence[Worker]:
    after = wanted.after or ""
    return sorted((one for one in workers if one.machine > after), key=lambda one: one.machine)[: wanted.limit]


# One machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a machine has to do with one chart: its reports, the latest first, and the slot that it holds.

    `is_expected` is whether the chart names the machine among those that take part.
    """

    chart: str
    current_state: str
    run: int
    visit: int
    condition: str
    is_expected: bool
    reports: Sequence[VisitReport]
    slot: Slot | None

    def as_json(self) -> dict[str, Any]:
        """The part as the HTTP interface gives it."""
        return {
            "chart": self.chart,
            "current_state": self.current_state,
            "run": self.run,
            "visit": self.visit,
            "condition": self.condition,
            "expected": self.is_expected,
            "slot": None if self.slot is None else Worker.of(self.slot).as_json(),
            "reports": [report.as_json() for report in self.reports],
        }


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine, and every chart that it is in, by the chart's name."""

    machine: str
    parts: Sequence[Part]

    def as_json(self) -> dict[str, Any]:
        """The machine as the HTTP interface gives it."""
        return {"machine": self.machine, "charts": [part.as_json() for part in self.parts]}

    def as_text(self) -> str:
        """The machine in lines for people."""
        lines = [f"{self.machine}: in {len(self.parts)} {'chart' if len(self.parts) == 1 else 'charts'}"]
        for part in self.parts:
            lines.append(f"{part.chart}: {part.condition} in {part.current_state}, run {part.run}")
            if part.slot is not None:
                lines.append(f"  holds a slot since {format_instant(part.slot.claimed_at)}, fence {part.slot.fence}")
            lines += [f"  {report.as_text()}" for report in part.reports]
            if not part.reports:
                lines.append("  has not reported")
        return "\n".join(lines) + "\n"


def get_machine(service: Service, machine: str, may_see: Callable[[str], bool]) -> Machine:
    """Return every chart that is not archived, that `may_see` allows, and in which the machine plays a part.

    A machine of which no chart has heard has no parts.
    """
    with snapshot(service.database) as connection:
        reports: Mapping[str, list[VisitReport]] = store.machines.list_reports_of_machine(
            connection, machine, MAX_REPORTS
        )
        slots = store.machines.list_slots_of_machine(connection, machine)
        positions, now = list_positions(service, connection)
        parts = []
        for row, chart, position in positions:
            is_expected = takes_part(service.know(connection, row), chart, position, machine)
            found, slot = reports.get(row.name, []), slots.get(row.name)
            if not may_see(row.name) or not (is_expected or found or slot):
                continue
            part = Part(
                chart=row.name,
                current_state=row.state,
                run=row.run,
                visit=row.visit,
                condition=str(judge(chart, row, position, now).condition),
                is_expected=is_expected,
                reports=found,
                slot=slot,
            )
            parts.append(part)
    return Machine(machine, parts)
