"""Rosters: imported from an inventory, taken over by the charts that follow them, and read back.

An import locks the roster, writes what differs, and lets each chart that follows take the new version over under its
own lock, in one transaction: either all of them go by the new version, or none does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import Any

from app import store
from app.chart_file import keeps_promises, parse
from app.chart_file.fields import say_alike, spell_plainly
from app.chart_file.rosters import digest, find_labelled, parse_roster, write_labels, write_line
from app.core.chart import CHART_NAME, CHART_NAME_RULE
from app.core.errors import ChartFileError, ConflictError, Problem, RosterNotFoundError, VersionNotFoundError
from app.core.expect import FromRoster, Labels, Where, read_labels
from app.core.log import Author, format_instant
from app.core.position import Kind, NewRoster, Step
from app.db import Connection, asking, retrying, snapshot, transaction
from app.service.context import Budget, LockedChart, Service, locked_chart, record
from app.service.crowds import Knowledge, RosterCache
from app.service.operate import read_lists

# Machines that may vanish in one import, unless it says otherwise.
MAX_LOSS = Fraction(10, 100)
# With more machines than this whose lines differ, all reports of a chart are read instead of theirs.
MANY = 5000
# Lines that one query reads, and machines that an answer names.
PAGE = 5000
MAX_NAMED = 100


@dataclass(frozen=True, slots=True)
class RosterRequest:
    """A roster to import. More than the share `max_loss` of its machines must not vanish."""

    name: str
    lines: Mapping[str, str]
    max_loss: Fraction = MAX_LOSS
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """What a new version does to a chart that follows the roster: how many took part before and do now, and so on.

    `withdrawn` are the machines whose reports were undone. `current_state` is where the chart stands after it.
    """

    chart: str
    before: int | None
    after: int | None
    withdrawn: tuple[str, ...]
    moves: tuple[tuple[str, str, str | None], ...]
    current_state: str
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The effect as the HTTP interface gives it; of the machines that were withdrawn at most MAX_NAMED."""
        steps = [{"from_state": start, "to_state": end, "reason": reason} for start, end, reason in self.moves]
        return {
            "chart": self.chart,
            "before": self.before,
            "after": self.after,
            "withdrawn": len(self.withdrawn),
            "withdrawn_machines": list(self.withdrawn[:MAX_NAMED]),
            "steps": steps,
            "current_state": self.current_state,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterImported:
    """What an import did: the version in force after it, what differs, and what became of the charts that follow.

    After a dry run, what it would do. An import without a difference has no `changes`.
    """

    roster: str
    outcome: str
    version: store.rosters.RosterVersion
    charts: tuple[TakenOver, ...] = ()
    dry_run: bool = False
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The import as the HTTP interface and `--json` give it."""
        is_new = self.outcome != "unchanged"
        return {
            "roster": self.roster,
            "outcome": self.outcome,
            "dry_run": self.dry_run,
            "version": self.version.version,
            "machines": self.version.machines,
            "sha256": self.version.sha256,
            "added": self.version.added if is_new else 0,
            "removed": self.version.removed if is_new else 0,
            "changed": self.version.changed if is_new else 0,
            "charts": [chart.as_json() for chart in self.charts],
            "warnings": list(self.warnings),
        }

    def as_text(self) -> str:
        """The import in a few lines for people."""
        return say_imported(self.as_json())


def say_imported(fields: Mapping[str, Any]) -> str:
    """Return an import, as `RosterImported.as_json` gives it, in a few lines for people."""
    would = "would be " if fields["dry_run"] else ""
    first = (
        f"{fields['roster']}: {would}{fields['outcome']}, version {fields['version']}, {fields['machines']} machines"
    )
    if fields["outcome"] != "unchanged":
        first += f" ({fields['added']} added, {fields['removed']} removed, {fields['changed']} changed)"
    lines = [first, *(f"  warning: {warning}" for warning in fields.get("warnings", ()))]
    for chart in fields["charts"]:
        sizes = f"{chart['before']} to {chart['after']} machines"
        lines.append(f"  {chart['chart']}: {sizes}, {chart['withdrawn']} reports withdrawn")
        lines += [f"    {step['from_state']} -> {step['to_state']} ({step['reason']})" for step in chart["steps"]]
        lines += [f"    warning: {warning}" for warning in chart["warnings"]]
    return "\n".join(lines) + "\n"


class _DryRunError(Exception):
    """Makes a transaction roll back what a dry run has written."""


@retrying
def import_roster(service: Service, request: RosterRequest, author: Author) -> RosterImported:
    """Import a roster, and let each chart that follows it take the new version over.

    A dry run does the same work and then rolls it back. Raises ConflictError if too many machines would vanish, or if
    a chart cannot take the version over.
    """
    taken: list[LockedChart] = []
    sha256 = digest(request.lines)
    with suppress(_DryRunError), transaction(service.database, is_long=True) as connection:
        imported = _import(service, connection, request, author, sha256=sha256, taken=taken)
        if request.dry_run:
            raise _DryRunError
    if not request.dry_run:
        for chart in taken:
            for step in chart.steps:
                service.tell(chart.row.name, step)
    return imported


def _import(
    service: Service,
    connection: Connection,
    request: RosterRequest,
    author: Author,
    *,
    sha256: str,
    taken: list[LockedChart],
) -> RosterImported:
    now = service.read_now(connection)
    roster = store.rosters.lock_roster(connection, request.name, now)
    newest = store.rosters.find_version(connection, roster.id, roster.version)
    warnings = tuple(islice(warn_of_spellings(request.lines), MAX_NAMED))
    if newest is not None and newest.sha256 == sha256:
        return RosterImported(
            roster=request.name, outcome="unchanged", version=newest, dry_run=request.dry_run, warnings=warnings
        )
    difference = _compare(connection, roster, request.lines)
    _refuse_loss(request, difference)
    version = store.rosters.RosterVersion(
        version=roster.version + 1,
        machines=len(request.lines),
        added=len(difference.added),
        removed=len(difference.removed),
        changed=len(difference.changed),
        sha256=sha256,
        imported_at=now,
        imported_by=author.actor,
    )
    begun = ((machine, request.lines[machine]) for names in (difference.added, difference.changed) for machine in names)
    ended = [*difference.removed, *difference.changed]
    store.rosters.write_lines(connection, roster.id, version.version, ended=ended, begun=begun)
    store.rosters.add_version(connection, roster, version)
    effects = []
    # Nothing of this version may be kept by the process until it is committed.
    cache, budget = RosterCache(), Budget()
    for name in store.charts.list_followers(connection, request.name):
        held = _hold(service, connection, name, request.name, cache=cache, budget=budget)
        if held is not None:
            _hold_to_promises(connection, held, {**held.position.rosters, request.name: version.version})
            reports = _read_reports(connection, held.row, ended)
            step = held.decide(NewRoster(request.name, version.version, reports), author)
            record(service, connection, held)
            taken.append(held)
            effects.append(_describe(held, step, request.name, version.version))
    outcome = "created" if roster.version == 0 else "updated"
    return RosterImported(
        roster=request.name,
        outcome=outcome,
        version=version,
        charts=tuple(effects),
        dry_run=request.dry_run,
        warnings=warnings,
    )


def warn_of_spellings(machines: Mapping[str, object]) -> Iterator[str]:
    """Yield a warning for each machine whose id differs from another's only in case or in a dot at the end."""
    # Most ids are in lower case and have no such dot. Only the others are kept here: there may be a million ids.
    others: dict[str, str] = {}
    for machine in machines:
        plain = spell_plainly(machine)
        if plain == machine:
            continue
        twin = plain if plain in machines else others.setdefault(plain, machine)
        if twin != machine:
            yield say_alike(repr(twin), repr(machine))


@dataclass(slots=True)
class _Difference:
    """The machines whose lines a new version adds, removes and changes, and how many there were before."""

    before: int = 0
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def _compare(connection: Connection, roster: store.rosters.RosterRow, lines: Mapping[str, str]) -> _Difference:
    found = _Difference()
    kept: set[str] = set()
    for machine, labels in store.rosters.stream_lines(connection, roster.id, roster.version):
        found.before += 1
        new = lines.get(machine)
        if new is None:
            found.removed.append(machine)
            continue
        kept.add(machine)
        if new != labels:
            found.changed.append(machine)
    found.added = [machine for machine in lines if machine not in kept]
    return found


def _refuse_loss(request: RosterRequest, difference: _Difference) -> None:
    lost = len(difference.removed)
    if lost and lost > difference.before * request.max_loss:
        raise ConflictError(
            f"roster {request.name!r}: {lost} of {difference.before} machines would vanish, more than max_loss allows"
            f" ({float(request.max_loss * 100):g}%): nothing was changed"
        )


def _hold(
    service: Service, connection: Connection, name: str, roster: str, *, cache: RosterCache, budget: Budget
) -> LockedChart | None:
    """Lock a chart; None if it does not follow the roster any more."""
    row = store.charts.lock_chart_even_archived(connection, name)
    if row is None or row.archived_at is not None:
        return None
    held = locked_chart(service, connection, row, budget)
    held.known_by(Knowledge(cache, connection, row))
    return held if roster in held.chart.rosters else None


def _hold_to_promises(connection: Connection, held: LockedChart, versions: Mapping[str, int]) -> None:
    """Raise ChartFileError if the chart can break a promise by these versions of its rosters."""
    if not held.chart.promises:
        return
    lists = read_lists(connection, versions)
    if keeps_promises(held.chart, held.now, lists):
        return
    # The text is read only now, for the places of the promises.
    text = store.definitions.get_version(connection, held.row.id, held.row.version).text
    try:
        parse(text, name=held.row.name, now=held.now, rosters=lists)
    except ChartFileError as error:
        broken = (
            Problem(1, 1, f"chart {held.row.name!r}, {one.line}:{one.column}: {one.message}", one.story)
            for one in error.problems
        )
        raise ChartFileError(tuple(broken)) from None


def _read_reports(
    connection: Connection, row: store.charts.ChartRow, machines: Collection[str]
) -> dict[str, str | None]:
    if len(machines) > MANY:
        reports = store.machines.read_reports(connection, row)
        return {machine: reports[machine] for machine in machines if machine in reports}
    found = store.machines.find_reports(connection, row, [row.visit], machines)
    return {report.machine: report.key for report in found}


def _describe(held: LockedChart, step: Step, roster: str, version: int) -> TakenOver:
    own = next(entry for entry in step.entries if entry.kind is Kind.ROSTER)
    return TakenOver(
        chart=held.row.name,
        before=own.value_before,
        after=own.value_after,
        withdrawn=tuple(str(entry.machine) for entry in step.entries if entry.kind is Kind.WITHDRAW),
        moves=tuple(
            (entry.from_state, entry.to_state, entry.reason)
            for entry in step.entries
            if entry.from_state != entry.to_state
        ),
        current_state=step.position.state,
        warnings=(*_warn_of_sets(held, roster, version), *_warn_of_groups(held, roster, version)),
    )


def _warn_of_sets(held: LockedChart, roster: str, version: int) -> Iterator[str]:
    """Yield a warning for each state that no machine takes part in any more: a percentage of none holds at once."""
    for name, state in held.chart.states.items():
        expect = held.chart.expect_of(name)
        if not state.is_counting or not isinstance(expect, FromRoster) or expect.roster != roster:
            continue
        if not held.knowledge.count_machines(roster, version, expect.where):
            yield f"state {name!r}: no machine of the roster has the labels of its set: no machine takes part"


def _warn_of_groups(held: LockedChart, roster: str, version: int) -> Iterator[str]:
    for state in held.chart.states.values():
        for limit in () if state.slots is None else state.slots.per:
            labelled, where = find_labelled(held.chart, state.name)
            without = held.knowledge.count_without(roster, version, where, limit.label) if labelled == roster else 0
            if without:
                who, they = ("1 machine has", "it is") if without == 1 else (f"{without} machines have", "they are")
                message = f"{who} no label {limit.label!r}: {they} in no group of it"
                yield f"state {state.name!r}: {message}"


# Reading


@dataclass(frozen=True, slots=True)
class RosterStatus:
    """A roster with its newest version, and the charts that follow it."""

    name: str
    version: store.rosters.RosterVersion
    charts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The roster as the HTTP interface gives it."""
        return {
            "roster": self.name,
            "version": self.version.version,
            "machines": self.version.machines,
            "sha256": self.version.sha256,
            "updated_at": format_instant(self.version.imported_at),
            "updated_by": self.version.imported_by,
            "charts": list(self.charts),
        }


def list_rosters(service: Service) -> list[RosterStatus]:
    """Return every roster, by name."""
    with snapshot(service.database) as connection:
        return [
            RosterStatus(roster.name, version, tuple(store.charts.list_followers(connection, roster.name)))
            for roster, version in store.rosters.list_rosters(connection)
        ]


def list_versions(service: Service, name: str) -> list[store.rosters.RosterVersion]:
    """Return every version of a roster, oldest first. Raises RosterNotFoundError."""
    with snapshot(service.database) as connection:
        return store.rosters.list_versions(connection, _get_roster(connection, name).id)


def find_earlier(service: Service, name: str, lines: Mapping[str, str]) -> int | None:
    """Return the version that had these lines before the newest one had others; None if no version had."""
    sha256 = digest(lines)
    with snapshot(service.database) as connection:
        roster = store.rosters.find_roster(connection, name)
        found = [] if roster is None else store.rosters.list_versions(connection, roster.id)
    if not found or found[-1].sha256 == sha256:
        return None
    return next((one.version for one in reversed(found) if one.sha256 == sha256), None)


@dataclass(frozen=True, slots=True)
class RosterView:
    """A version of a roster that is being read: `lines` yields machines and labels, a page at a time."""

    name: str
    version: int
    lines: Iterator[store.rosters.Line]

    def as_text(self) -> Iterator[str]:
        """The lines as text; each piece is many lines."""
        for chunk in batched(self.lines):
            yield "".join(write_line(machine, labels) for machine, labels in chunk)

    def chunks(self) -> Iterator[list[tuple[str, dict[str, list[str]]]]]:
        """Each machine with the values of its labels, many at a time."""
        for chunk in batched(self.lines):
            labels = ((machine, read_labels(text)) for machine, text in chunk)
            yield [(machine, {label: list(values) for label, values in one.items()}) for machine, one in labels]


def batched(lines: Iterator[store.rosters.Line]) -> Iterator[list[store.rosters.Line]]:
    """Yield the lines, PAGE at a time."""
    while page := list(islice(lines, PAGE)):
        yield page


def read_roster(service: Service, name: str, version: int | None = None, where: Where = ()) -> RosterView:
    """Return the lines of a roster's version, the newest one if it is None.

    They are read a page at a time, so that a large roster needs little memory and holds no transaction open. Raises
    RosterNotFoundError, VersionNotFoundError.
    """
    with asking(service.database) as connection:
        roster = _get_roster(connection, name)
    number = _get_version(roster, version)
    return RosterView(name, number, _iterate_lines(service, roster.id, number, where))


def read_list(service: Service, name: str, version: int | None = None) -> dict[str, Labels]:
    """Return every machine of a roster's version, by default the newest, with its labels.

    Raises RosterNotFoundError, VersionNotFoundError.
    """
    return {machine: read_labels(text) for machine, text in read_roster(service, name, version).lines}


def _iterate_lines(service: Service, roster_id: int, version: int, where: Where) -> Iterator[store.rosters.Line]:
    after = ""
    while True:
        with asking(service.database) as connection:
            page = store.rosters.list_page(connection, roster_id, version, where, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1][0]


@dataclass(frozen=True, slots=True)
class RosterDiff:
    """What differs between two versions: for each machine its labels in each of them; None if it is not there."""

    name: str
    before: int
    after: int
    changes: Mapping[str, Sequence[str | None]]

    def as_json(self) -> dict[str, Any]:
        """The difference as the HTTP interface gives it."""
        return {
            "roster": self.name,
            "from": self.before,
            "to": self.after,
            "added": [machine for machine, (old, _) in self.changes.items() if old is None],
            "removed": [machine for machine, (_, new) in self.changes.items() if new is None],
            "changed": [
                {"machine": machine, "from": write_labels(old), "to": write_labels(new)}
                for machine, (old, new) in self.changes.items()
                if old is not None and new is not None
            ],
        }

    def as_text(self) -> str:
        """The difference as lines with - and + before them."""
        lines: Iterable[str] = (
            sign + write_line(machine, labels)
            for machine, both in self.changes.items()
            for sign, labels in zip("-+", both, strict=True)
            if labels is not None
        )
        return "".join(lines)


def diff_roster(service: Service, name: str, before: int | None = None, after: int | None = None) -> RosterDiff:
    """Return what differs between two versions, the newest two if they are None.

    Raises RosterNotFoundError, VersionNotFoundError.
    """
    with snapshot(service.database) as connection:
        roster = _get_roster(connection, name)
        new = _get_version(roster, after)
        old = max(new - 1, 0) if before is None else _get_version(roster, before)
        return RosterDiff(name, old, new, store.rosters.list_changes(connection, roster.id, old, new))


def _get_roster(connection: Connection, name: str) -> store.rosters.RosterRow:
    roster = store.rosters.find_roster(connection, name)
    if roster is None or roster.version == 0:
        raise RosterNotFoundError(name)
    return roster


def _get_version(roster: store.rosters.RosterRow, version: int | None) -> int:
    if version is not None and not 1 <= version <= roster.version:
        raise VersionNotFoundError(f"the roster {roster.name!r} has no version {version}")
    return roster.version if version is None else version


def find_name_problem(name: str) -> str | None:
    """Return why a roster cannot have this name; None if it can."""
    return None if CHART_NAME.fullmatch(name) else f"the name of a roster is {CHART_NAME_RULE}"


def read_lines(lines: Iterable[bytes]) -> dict[str, str]:
    """Return each machine with its labels from a roster's lines. Raises RosterFileError with every problem."""
    return parse_roster(lines)
