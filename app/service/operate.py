"""Importing a chart file: a new chart, the same one again, or an upgrade in flight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app import chart_file, store
from app.core import machine
from app.core.chart import Chart
from app.core.errors import BadRequestError, Problem, ReasonRequiredError
from app.core.log import Author
from app.core.position import Archive, Entry, Evict, Goto, Happening, Pause, Reset, Resume, Step, Upgrade
from app.db import Connection, retrying, transaction
from app.service.context import Service, list_missing, list_waiting
from app.service.locked import lock, locked_chart, record
from app.service.status import Status, describe


@retrying
def act(service: Service, name: str, happening: Happening, author: Author) -> Status:
    """Do an operator's act in one transaction under the chart's row lock; return the chart's status after it.

    Raises ChartNotFoundError, BadRequestError, ConflictError.
    """
    with transaction(service.database) as connection:
        held = lock(service, connection, name)
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
        status = describe(
            chart,
            after,
            step.position,
            now,
            list_waiting(service, after, chart),
            list_missing(connection, after, chart),
        )
    service.tell(name, step)
    return status


def pause(service: Service, name: str, reason: str, author: Author) -> Status:
    """Hold the chart: every question is answered no, and its clock stands still."""
    return act(service, name, Pause(_given(reason)), author)


def resume(service: Service, name: str, reason: str, author: Author) -> Status:
    """Let a paused chart go on, and judge its guards again."""
    return act(service, name, Resume(_given(reason)), author)


def reset(service: Service, name: str, reason: str, author: Author) -> Status:
    """Begin the next run, in the initial state."""
    return act(service, name, Reset(_given(reason)), author)


def goto(service: Service, name: str, state: str, reason: str, author: Author) -> Status:
    """Begin a visit of `state`, whatever the guards say."""
    return act(service, name, Goto(state, _given(reason)), author)


def archive(service: Service, name: str, reason: str, author: Author) -> Status:
    """Put the chart away: it answers no more, its log stays."""
    return act(service, name, Archive(_given(reason)), author)


def evict(service: Service, name: str, machine_id: str, reason: str, author: Author) -> Status:
    """Take a machine's slot away."""
    return act(service, name, Evict(machine_id, _given(reason)), author)


def _given(reason: str) -> str:
    text = reason.strip()
    if not text:
        raise ReasonRequiredError("a reason is required: the log keeps it")
    if not text.isprintable():
        # It is shown on terminals, as a line among others.
        raise BadRequestError("reason has characters that cannot be printed")
    return text


# The largest chart file.
MAX_BYTES = chart_file.MAX_BYTES


class Outcome(StrEnum):
    """What an import came to."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    UPGRADED = "upgraded"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or with `dry_run` would do: the chart's status after it and the log entries it makes."""

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
        would = "would be " if self.dry_run else ""
        first = f"{self.status.chart}: {would}{self.outcome}, version {self.status.version}"
        steps = [
            f"  {entry.kind}: {entry.from_state} -> {entry.to_state}" + (f" ({entry.reason})" if entry.reason else "")
            for entry in self.entries
        ]
        last = f"  in {self.status.current_state}, waits for {self.status.waits_for}"
        return "\n".join([first, *steps, last]) + "\n"


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A chart file to import. `name` goes before the file's own, `default_name` behind it.

    `maps` are texts `old:new`, each naming the new home of a state that is gone.
    """

    text: str | bytes
    name: str | None = None
    default_name: str | None = None
    maps: Sequence[str] = field(default_factory=tuple)
    dry_run: bool = False


class _DryRunError(Exception):
    """Carries the result out of a transaction that must not commit."""

    def __init__(self, imported: Imported) -> None:
        self.imported = imported


@retrying
def import_chart(service: Service, request: ImportRequest, author: Author) -> Imported:
    """Import a chart file in one transaction; `dry_run` does the same and rolls back.

    Raises ChartFileError with every problem, BadRequestError for a bad map, ConflictError where the new version
    cannot take over the run in flight.
    """
    parsed = chart_file.parse(request.text, name=request.name, default_name=request.default_name)
    try:
        with transaction(service.database, is_long=True) as connection:
            imported = _import(service, connection, parsed, request, author)
            if request.dry_run:
                raise _DryRunError(imported)
    except _DryRunError as dry_run:
        return dry_run.imported
    if imported.entries:
        service.hub.tell(parsed.chart.name)
    return imported


def _import(
    service: Service,
    connection: Connection,
    parsed: chart_file.ParsedChart,
    request: ImportRequest,
    author: Author,
) -> Imported:
    chart = parsed.chart
    row = store.charts.lock_chart_even_archived(connection, chart.name)
    if row is not None and row.archived_at is None:
        return _upgrade_or_keep(service, connection, row, parsed, request, author)
    row, step = _begin(service, connection, row, parsed, author)
    status = describe(chart, row, step.position, row.updated_at)
    return Imported(Outcome.CREATED, status, parsed.warnings, step.entries, request.dry_run)


def _begin(
    service: Service,
    connection: Connection,
    row: store.charts.ChartRow | None,
    parsed: chart_file.ParsedChart,
    author: Author,
) -> tuple[store.charts.ChartRow, Step]:
    """Start a new chart, or bring an archived one back with its next version, run and seq."""
    chart = parsed.chart
    if row is None:
        now = service.now(store.charts.read_now(connection))
        step = machine.start(chart, 1, 1, now)
        row = store.record.create_chart(connection, chart.name, step, now, author, service.database.log_key)
    else:
        row = store.record.set_archived(connection, store.record.set_pause(connection, row, None, None), None)
        held = locked_chart(service, connection, row)
        now = held.now
        step = machine.start(chart, row.version + 1, row.run + 1, now, row.fence)
        held.take(step, author)
        row = record(service, connection, held)
    store.definitions.add_version(connection, row.id, row.version, chart, parsed.text, now, author.actor)
    return row, step


def _upgrade_or_keep(
    service: Service,
    connection: Connection,
    row: store.charts.ChartRow,
    parsed: chart_file.ParsedChart,
    request: ImportRequest,
    author: Author,
) -> Imported:
    held = locked_chart(service, connection, row)
    running, now = held.chart, held.now
    if store.definitions.get_version(connection, row.id, row.version).text == parsed.text:
        status = describe(running, row, held.position, now)
        return Imported(Outcome.UNCHANGED, status, parsed.warnings, (), request.dry_run)
    chart = parsed.chart
    homes = read_homes(request.maps, running, chart)
    step = held.decide(Upgrade(chart, row.version + 1, homes), author)
    store.definitions.add_version(connection, row.id, row.version + 1, chart, parsed.text, now, author.actor)
    after = record(service, connection, held)
    store.record.rename_visits(connection, row, homes)
    store.record.drop_report_keys(connection, row, chart)
    status = describe(chart, after, step.position, now)
    return Imported(Outcome.UPGRADED, status, parsed.warnings, step.entries, request.dry_run)


def read_homes(maps: Sequence[str], old: Chart, new: Chart) -> Mapping[str, str]:
    """Read texts `old:new` into a mapping; a name may hold colons itself. Raises BadRequestError."""
    homes: dict[str, str] = {}
    for text in maps:
        gone, home = _read_home(text, old, new)
        if homes.get(gone, home) != home:
            raise BadRequestError(f"map: state {gone!r} is given two new homes")
        homes[gone] = home
    return homes


def _read_home(text: str, old: Chart, new: Chart) -> tuple[str, str]:
    cuts = [(text[:at], text[at + 1 :]) for at, character in enumerate(text) if character == ":"]
    known = [(gone, home) for gone, home in cuts if gone in old.states and home in new.states]
    fitting = [(gone, home) for gone, home in known if gone not in new.states]
    if len(fitting) == 1:
        return fitting[0]
    if fitting or not known:
        raise BadRequestError(f"map {text!r} is not OLD:NEW, a state of the running version and one of the new")
    raise BadRequestError(f"map {text!r}: the new version still has the state {known[0][0]!r}")
