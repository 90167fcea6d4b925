"""What operators do to a chart: import a chart file, upgrade a chart, and the acts from pause to archive.

Each use case is one transaction under the chart's row lock. Waiters are told after its commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from app import chart_file, store
from app.chart_file.rosters import warn_of_sets
from app.core import machine
from app.core.chart import Chart
from app.core.errors import (
    BadRequestError,
    ChartFileError,
    ChartNotFoundError,
    ConflictError,
    Problem,
    ReasonRequiredError,
)
from app.core.expect import Labels, read_labels
from app.core.log import Author
from app.core.position import (
    Archive,
    Entry,
    Evict,
    Goto,
    Happening,
    Open,
    Pause,
    Position,
    Reason,
    Reset,
    Resume,
    Step,
    Upgrade,
)
from app.db import Connection, asking, retrying, transaction
from app.service.context import LockedChart, Service, list_waiting, lock, locked_chart, record
from app.service.crowds import find_absent
from app.service.hours import follow_calendars
from app.service.put import Answer, Put, apply_one
from app.service.status import Status, describe_status
from app.service.words import name_some, say_number

# The largest chart file, in bytes.
MAX_BYTES = chart_file.MAX_BYTES

# Imports


class Outcome(StrEnum):
    """What an import did."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    UPGRADED = "upgraded"


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A chart file to import.

    The chart's name is `name`, else the name in the file, else `default_name`. Each of `maps` is a text `old:new`
    that names the new home of a state which the new version no longer has.
    """

    text: str | bytes
    name: str | None = None
    default_name: str | None = None
    maps: Sequence[str] = field(default_factory=tuple)
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: the chart's status after it, and its log entries. After a dry run, what it would do."""

    outcome: Outcome
    status: Status
    warnings: tuple[Problem, ...] = ()
    entries: tuple[Entry, ...] = ()
    dry_run: bool = False

    def as_json(self) -> dict[str, Any]:
        """The import as the HTTP interface and `--json` give it."""
        return {
            "outcome": str(self.outcome),
            "dry_run": self.dry_run,
            "warnings": [warning.as_json() for warning in self.warnings],
            "steps": [
                {
                    "kind": str(entry.kind),
                    "from_state": entry.from_state,
                    "to_state": entry.to_state,
                    "reason": entry.reason,
                }
                for entry in self.entries
            ],
            **self.status.as_json(),
        }

    def as_text(self) -> str:
        """The import in a few lines for people."""
        return say_imported(self.as_json())


def say_imported(fields: Mapping[str, Any]) -> str:
    """Return an import, as `Imported.as_json` gives it, in a few lines for people."""
    would = "would be " if fields["dry_run"] else ""
    first = f"{fields['chart']}: {would}{fields['outcome']}, version {fields['version']}"
    steps = [
        f"  {step['kind']}: {step['from_state']} -> {step['to_state']}"
        + (f" ({step['reason']})" if step["reason"] else "")
        for step in fields["steps"]
    ]
    last = f"  in {fields['current_state']}, waits for {fields['waits_for']}"
    return "\n".join([first, *steps, last]) + "\n"


class _DryRunError(Exception):
    """Makes a transaction roll back what a dry run has written."""


@retrying
def import_chart(service: Service, request: ImportRequest, author: Author) -> Imported:
    """Import a chart file. A dry run does the same work and then rolls it back.

    Raises ChartFileError with every problem of the file, BadRequestError for a bad map, and ConflictError if the new
    version cannot take over the run in flight.
    """
    for text in request.maps:
        # Also where there is nothing to map: a new chart, or the same text again.
        if ":" not in text[1:-1]:
            raise BadRequestError(f"map {text!r} is not OLD:NEW")
    # For a warning this process's clock is good enough: a bad file is refused without asking the database.
    now = service.now(datetime.now(UTC))
    parsed = chart_file.parse(request.text, name=request.name, default_name=request.default_name, now=now)
    parsed = replace(parsed, chart=replace(parsed.chart, importer=author.actor, sha256=parsed.sha256))
    with suppress(_DryRunError), transaction(service.database, is_long=True) as connection:
        imported, step = _import(service, connection, parsed, request, author)
        if request.dry_run:
            raise _DryRunError
    if step is not None and not request.dry_run:
        service.tell(parsed.chart.name, step)
    return imported


@dataclass(frozen=True, slots=True)
class Behind:
    """A chart file that has the text of the version `file`, although the later version `running` runs."""

    chart: str
    file: int
    running: int


def find_behind(service: Service, request: ImportRequest) -> Behind | None:
    """Return how far a chart file is behind its chart; None if it is new, changed, or what runs.

    Raises ChartFileError.
    """
    parsed = chart_file.parse(request.text, name=request.name, default_name=request.default_name)
    name = parsed.chart.name
    with asking(service.database) as connection, suppress(ChartNotFoundError):
        row = store.charts.get_chart(connection, name)
        if store.definitions.get_version(connection, row.id, row.version).text == parsed.text:
            return None
        earlier = store.definitions.find_version_of_text(connection, row.id, parsed.text)
        return None if earlier is None else Behind(name, earlier, row.version)
    return None


def _import(
    service: Service,
    connection: Connection,
    parsed: chart_file.ParsedChart,
    request: ImportRequest,
    author: Author,
) -> tuple[Imported, Step | None]:
    """Do the import; return what it did, and the step if there was one."""
    if parsed.calendars:
        # Before the chart's row, as the import of a calendar takes its locks.
        store.rosters.lock_calendars(connection)
        known = {calendar.calendar for calendar in store.rosters.list_calendars(connection)}
        missing = [problem for name, problem in parsed.calendars.items() if name not in known]
        if missing:
            raise ChartFileError(tuple(sorted(missing)))
    rosters = _hold_rosters(connection, parsed)
    if parsed.chart.promises and rosters:
        parsed = chart_file.hold_to_rosters(parsed, read_lists(connection, rosters), service.read_now(connection))
    row = store.charts.lock_chart_even_archived(connection, parsed.chart.name)
    if row is None:
        outcome = Outcome.CREATED
        status, step = _create(service, connection, parsed, author, rosters)
    elif row.archived_at is not None:
        outcome = Outcome.CREATED
        status, step = _bring_back(service, connection, row, parsed, author, rosters=rosters)
    elif store.definitions.get_version(connection, row.id, row.version).text == parsed.text:
        held = locked_chart(service, connection, row)
        status = describe_status(
            connection, held.chart, row, held.position, held.now, known=service.know(connection, row)
        )
        return Imported(Outcome.UNCHANGED, status, parsed.warnings, dry_run=request.dry_run), None
    else:
        outcome = Outcome.UPGRADED
        status, step = _upgrade(service, connection, row, parsed, author, maps=request.maps, rosters=rosters)
    found = warn_of_sets(parsed.chart, parsed.sets, service.know(connection, None), rosters)
    warnings = (*parsed.warnings, *found)
    return Imported(outcome, status, warnings, step.entries, request.dry_run), step


def read_lists(connection: Connection, rosters: Mapping[str, int]) -> dict[str, dict[str, Labels]]:
    """Return the lines of rosters in these versions, to hold a chart to its promises."""
    found = {}
    for name, version in rosters.items():
        roster = store.rosters.find_roster(connection, name)
        assert roster is not None  # the chart goes by it
        lines = store.rosters.stream_lines(connection, roster.id, version)
        found[name] = {machine: read_labels(labels) for machine, labels in lines}
    return found


def _hold_rosters(connection: Connection, parsed: chart_file.ParsedChart) -> dict[str, int]:
    """Return the newest version of each roster that the chart follows. Raises ChartFileError if one is missing."""
    found = store.rosters.hold_rosters(connection, parsed.chart.rosters)
    missing = [name for name in parsed.chart.rosters if name not in found]
    if missing:
        spots = {name: parsed.rosters[name] for name in missing}
        text = "there is no roster {!r}: import it first (PUT /rosters/{})"
        raise ChartFileError(
            tuple(sorted(Problem(spot.line, spot.column, text.format(name, name)) for name, spot in spots.items()))
        )
    return found


def _create(
    service: Service,
    connection: Connection,
    parsed: chart_file.ParsedChart,
    author: Author,
    rosters: Mapping[str, int],
) -> tuple[Status, Step]:
    chart = parsed.chart
    now = service.read_now(connection)
    hours = follow_calendars(service.events, connection, chart, now)
    step = machine.start(chart, 1, 1, now, hours=hours, rosters=rosters, known=service.know(connection, None))
    first = store.record.DecidedStep(step, author)
    row = store.record.create_chart(connection, chart.name, first, now, log_key=service.database.log_key)
    store.definitions.add_version(
        connection, row.id, row.version, chart=chart, text=parsed.text, now=now, actor=author.actor
    )
    return describe_status(
        connection, chart, row, step.position, row.updated_at, known=service.know(connection, row)
    ), step


def _bring_back(
    service: Service,
    connection: Connection,
    row: store.charts.ChartRow,
    parsed: chart_file.ParsedChart,
    author: Author,
    *,
    rosters: Mapping[str, int],
) -> tuple[Status, Step]:
    """Start an archived chart again. Its version, run, seq and fencing number continue from before."""
    chart = parsed.chart
    row = store.record.set_archived(connection, store.record.set_pause(connection, row, None, None), None)
    held = locked_chart(service, connection, row)
    hours = follow_calendars(service.events, connection, chart, held.now)
    known = service.know(connection, None)
    step = machine.start(
        chart,
        row.version + 1,
        row.run + 1,
        held.now,
        fence=row.fence,
        hours=hours,
        rosters=rosters,
        known=known,
    )
    held.take(step, author)
    row = record(service, connection, held)
    store.definitions.add_version(
        connection, row.id, row.version, chart=chart, text=parsed.text, now=held.now, actor=author.actor
    )
    return describe_status(
        connection, chart, row, step.position, row.updated_at, known=service.know(connection, row)
    ), step


def _upgrade(
    service: Service,
    connection: Connection,
    row: store.charts.ChartRow,
    parsed: chart_file.ParsedChart,
    author: Author,
    *,
    maps: Sequence[str],
    rosters: Mapping[str, int],
) -> tuple[Status, Step]:
    """Let the next version take over the run in flight."""
    chart = parsed.chart
    held = locked_chart(service, connection, row)
    homes = machine.read_homes(maps, held.chart, chart)
    has_approvers = held.chart.states[row.state].approvers is not None
    # Only a set that names its machines, and a state of approvers, can withdraw reports, and there may be many.
    reports = store.machines.read_reports(connection, row) if names_machines(chart) or has_approvers else {}
    if chart.remembered:
        # The new version asks for reports under the new names; below, visits follow that the clock has just begun.
        store.machines.rename_visits(connection, row, homes)
    hours = follow_calendars(service.events, connection, chart, held.now)
    upgrade = Upgrade(chart=chart, version=row.version + 1, homes=homes, reports=reports, hours=hours, rosters=rosters)
    step = held.decide(upgrade, author)
    store.definitions.add_version(
        connection, row.id, row.version + 1, chart=chart, text=parsed.text, now=held.now, actor=author.actor
    )
    after = record(service, connection, held)
    store.machines.rename_visits(connection, row, homes)
    store.machines.drop_report_keys(connection, row, chart)
    return describe_status(
        connection, chart, after, step.position, held.now, known=service.know(connection, after)
    ), step


def names_machines(chart: Chart) -> bool:
    """Return whether some set of the chart says which machines take part."""
    sets = (chart.expect_of(name) for name in chart.states)
    return any(item is not None and item.names_machines for item in sets)


# Acts


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What an act that ends the visit takes away: the counts, the reports they came from, and the slots.

    `machines` hold the slots, so they may be at work.
    """

    state: str
    counts: Mapping[str, int]
    reports: int
    machines: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The loss as the HTTP interface and `--json` give it."""
        return {
            "state": self.state,
            "counts": dict(self.counts),
            "reports": self.reports,
            "slots": len(self.machines),
            "machines": list(self.machines),
        }

    def as_text(self) -> str:
        """The loss in one sentence."""
        counts = " and ".join(f"{say_number(value)} on {key}" for key, value in self.counts.items() if value)
        parts = [f"{counts} in {self.state} {'is' if ' and ' not in counts else 'are'} lost"] if counts else []
        if self.reports:
            parts.append(f"{say_number(self.reports)} reported by name, and count again if the state is entered again")
        if self.machines:
            lose = "machine at work loses its slot" if len(self.machines) == 1 else "machines at work lose their slots"
            parts.append(f"{say_number(len(self.machines))} {lose}: {name_some(self.machines, 3)}")
        return "; ".join(parts) or f"nothing is lost: no machine has reported in {self.state}, and no slot is held"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What an act would do: what is lost, the chart's status after it, and its log entries."""

    loss: Loss
    status: Status
    entries: tuple[Entry, ...]

    def as_json(self) -> dict[str, Any]:
        """The rehearsal as the HTTP interface and `--json` give it."""
        steps = [
            {"kind": str(entry.kind), "from_state": entry.from_state, "to_state": entry.to_state}
            for entry in self.entries
        ]
        return {"dry_run": True, "lost": self.loss.as_json(), "steps": steps, **self.status.as_json()}

    def as_text(self) -> str:
        """The rehearsal in a few lines for people."""
        steps = [f"  {entry.kind}: {entry.from_state} -> {entry.to_state}" for entry in self.entries]
        return "\n".join([f"would change {self.status.chart}: {self.loss.as_text()}", *steps]) + "\n"


@retrying
def act(service: Service, name: str, happening: Happening, author: Author) -> Status:
    """Do an operator's act, and return the chart's status after it.

    Raises ChartNotFoundError, and BadRequestError or ConflictError if the act does not fit the chart's position.
    """
    with transaction(service.database) as connection:
        held = lock(service, connection, name)
        status, step = _act(service, connection, held, happening, author)
    service.tell(name, step)
    return status


@retrying
def rehearse(service: Service, name: str, happening: Happening, author: Author) -> Rehearsal:
    """Do an act and roll it back: say what it would do. Raises as `act` does."""
    with suppress(_DryRunError), transaction(service.database) as connection:
        held = lock(service, connection, name)
        loss = _find_loss(connection, held)
        status, step = _act(service, connection, held, happening, author)
        raise _DryRunError
    return Rehearsal(loss, status, step.entries)


def _find_loss(connection: Connection, held: LockedChart) -> Loss:
    reports = sum(store.machines.count_reports(connection, held.row, held.position.visit).values())
    return describe_loss(held.chart, held.position, reports)


def describe_loss(chart: Chart, position: Position, reports: int) -> Loss:
    """Return what the end of the visit takes away; `reports` is how many machines reported in it."""
    initial = chart.states[position.state].initial_values()
    return Loss(
        state=position.state,
        counts={key: value for key, value in position.values.items() if value != initial.get(key)},
        reports=reports,
        machines=tuple(sorted(position.slots)),
    )


def _act(
    service: Service, connection: Connection, held: LockedChart, happening: Happening, author: Author
) -> tuple[Status, Step]:
    chart, now = held.chart, held.now
    step = held.decide(happening, author)
    after = record(service, connection, held)
    match happening:
        case Pause():
            after = store.record.set_pause(connection, after, author.actor or author.remote_addr, happening.reason)
        case Resume():
            after = store.record.set_pause(connection, after, None, None)
        case Archive():
            after = store.record.set_archived(connection, after, now)
    status = describe_status(
        connection,
        chart,
        after,
        step.position,
        now,
        waiting=list_waiting(service, after, chart),
        absent=find_absent(service.know(connection, after), connection, after, chart),
        known=service.know(connection, after),
    )
    return status, step


def pause(service: Service, name: str, reason: str, author: Author) -> Status:
    """Pause the chart: every question is answered no, reports are counted, and no guard is judged."""
    return act(service, name, Pause(require_reason(reason)), author)


def resume(service: Service, name: str, reason: str, author: Author) -> Status:
    """Resume a paused chart. Guards that hold by now are taken at once."""
    return act(service, name, Resume(require_reason(reason)), author)


def reset(service: Service, name: str, reason: str, author: Author) -> Status:
    """Begin the chart's next run, in the initial state."""
    return act(service, name, Reset(require_reason(reason)), author)


def goto(service: Service, name: str, state: str, reason: str, author: Author) -> Status:
    """Begin a visit of `state` without asking the guards."""
    return act(service, name, Goto(state, require_reason(reason)), author)


def open_chart(service: Service, name: str, until: datetime, reason: str, author: Author) -> Status:
    """Open the chart until then, whatever its windows and calendars say. A later act takes the place of this one."""
    return act(service, name, Open(until, require_reason(reason)), author)


def approve(service: Service, name: str, key: str, reason: str, author: Author, person: str | None = None) -> Answer:
    """Have a person report on the attribute `key` of the current state, which must be one of approvers.

    `person` is the name if the author has none. Raises ConflictError if that state has no
    approvers, or this person may not approve it.
    """
    with asking(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        state = service.definitions.get(connection, row).states[row.state]
    if state.approvers is None:
        raise ConflictError(say_no_approvers(name, row.state))
    put = Put(row.state, person, key, note=require_reason(reason))
    answer = apply_one(service, name, put, author)
    if not answer.is_yes:
        raise ConflictError(say_not_counted(name, row.version, answer.reason))
    return answer


def say_no_approvers(name: str, state: str) -> str:
    """Return the message for a person who approves in a state that takes no approvals."""
    return f"chart {name!r} is in {state!r}, where people approve nothing"


def say_not_counted(name: str, version: int, reason: str) -> str:
    """Return why a person's report was not counted."""
    if reason == Reason.OWN_CHANGE:
        return f"the person who imported version {version} of {name!r} may not approve it"
    return f"chart {name!r} did not count it: {reason}"


def archive(service: Service, name: str, reason: str, author: Author) -> Status:
    """Archive the chart: requests for it get 404, and its log stays readable."""
    return act(service, name, Archive(require_reason(reason)), author)


def evict(service: Service, name: str, machine_id: str, reason: str, author: Author) -> Status:
    """Take away the slot that a machine holds."""
    return act(service, name, Evict(machine_id, require_reason(reason)), author)


def require_reason(reason: str | None, hint: str = "the log keeps it") -> str:
    """Return an act's reason without the spaces around it. `hint` tells the caller how, or why, to give one.

    Raises ReasonRequiredError if it is missing or blank, and BadRequestError if it cannot be printed.
    """
    text = (reason or "").strip()
    if not text:
        raise ReasonRequiredError(f"a reason is required: {hint}")
    if not text.isprintable():
        # Terminals show it in a line of a table: a control character could hide or forge other lines.
        raise BadRequestError("reason has characters that cannot be printed")
    return text
