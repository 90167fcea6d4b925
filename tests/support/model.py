"""A model of the service: the core, with dicts in the place of the tables.

It turns every `Step` of `core.machine` into log rows, visits and reports. Tests compare the replay, and the service on
a real database, with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.core import machine
from app.core.chart import Chart
from app.core.decision import MOVES_PER_STEP
from app.core.errors import StateServiceError
from app.core.expect import Book, Labels, PastReport, Where
from app.core.log import LogRow
from app.core.position import (
    Archive,
    Claim,
    CountedRow,
    Entry,
    Happening,
    Kind,
    LoggedUpdate,
    NewRoster,
    Position,
    Reason,
    Report,
    Step,
    Tick,
    Update,
    Upgrade,
    Visit,
    is_due,
)

Reports = dict[str, str | None]


@dataclass
class Model:
    """The whole history of one chart."""

    versions: dict[int, Chart] = field(default_factory=dict)
    position: Position | None = None
    rows: list[LogRow] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    reports: dict[tuple[int, int], Reports] = field(default_factory=dict)
    keys: dict[str, LoggedUpdate] = field(default_factory=dict)
    due_at: datetime | None = None
    is_archived: bool = False
    book: dict[str, dict[int, dict[str, Labels]]] = field(default_factory=dict)
    # The clock transitions that are left if several happenings share a transaction; None if each has its own.
    moves: int | None = None

    @property
    def chart(self) -> Chart:
        return self.versions[self.here.version]

    @property
    def here(self) -> Position:
        """The chart's position, including what a decision must know about slots."""
        assert self.position is not None
        here = self.position
        if self.versions[here.version].states[here.state].slots is None:
            return here
        reports = self.current_reports
        held = {name: reports[name] for name in here.slots if name in reports}
        first = self.versions[here.version].states[here.state].default_key
        succeeded = sum(key == first for key in reports.values())
        return replace(here, succeeded=succeeded, holder_reports=held)

    # What a decision asks about machines: the model is a `Known`.

    def find_labels(self, roster: str, version: int, machines: Collection[str]) -> Mapping[str, Labels]:
        return Book(self.book).find_labels(roster, version, machines)

    def count_machines(self, roster: str, version: int, where: Where) -> int:
        return Book(self.book).count_machines(roster, version, where)

    def count_groups(self, roster: str, version: int, where: Where, label: str) -> Mapping[str, int]:
        return Book(self.book).count_groups(roster, version, where, label)

    def list_reports(
        self, run: int, states: Collection[str], machines: Collection[str] | None = None
    ) -> list[PastReport]:
        return [
            PastReport(visit.visit, visit.state, machine_id, key)
            for visit in sorted(self.visits, key=lambda item: item.visit)
            if visit.run == run and visit.state in states
            for machine_id, key in sorted(self.reports.get((run, visit.visit), {}).items())
            if machines is None or machine_id in machines
        ]

    def import_roster(self, name: str, lines: Mapping[str, Labels], now: datetime) -> Step | None:
        """Write a new version of a roster; the chart takes it over if it follows the roster."""
        versions = self.book.setdefault(name, {})
        before = versions.get(len(versions), {})
        versions[len(versions) + 1] = dict(lines)
        if self.position is None or self.is_archived or name not in self.chart.rosters:
            return None
        reports = {
            machine_id: key
            for machine_id, key in self.current_reports.items()
            if machine_id in before and before[machine_id] != lines.get(machine_id)
        }
        return self.do(NewRoster(name, len(versions), reports), now)

    def _newest(self, chart: Chart) -> dict[str, int]:
        return {name: len(self.book[name]) for name in chart.rosters}

    @property
    def current_reports(self) -> Reports:
        """The attribute on which each machine reported in the current visit."""
        assert self.position is not None
        return self.reports.get((self.position.run, self.position.visit), {})

    def find_update(self) -> int:
        """Return the seq of the latest accepted PUT."""
        counted = (Kind.UPDATE, Kind.TRANSITION, Kind.LATE)
        return next(row.seq for row in reversed(self.rows) if row.kind in counted and row.key is not None)

    def import_chart(
        self, chart: Chart, now: datetime, homes: Mapping[str, str] | None = None, sha256: str | None = None
    ) -> Step:
        """Create the chart, bring it back, or upgrade it. Raises ConflictError."""
        chart = replace(chart, sha256=sha256)
        if self.position is not None and not self.is_archived:
            reports = dict(self.current_reports)
            return self._upgrade(
                Upgrade(
                    chart=chart,
                    version=self.here.version + 1,
                    homes=homes or {},
                    reports=reports,
                    rosters=self._newest(chart),
                ),
                now,
            )
        before = self.position
        version, run, fence = (1, 1, 0) if before is None else (before.version + 1, before.run + 1, before.fence)
        self.versions[version] = chart
        step = machine.start(chart, version, run, now, fence=fence, rosters=self._newest(chart), known=self)
        self.is_archived = False
        return self._take(step, run, now)

    def _upgrade(self, upgrade: Upgrade, now: datetime) -> Step:
        before = self.visits
        if upgrade.chart.remembered:
            self.visits = [replace(item, state=self._home(item, upgrade.homes)) for item in before]
        try:
            step = machine.step(self.chart, self.here, upgrade, now, self)
        except StateServiceError:
            self.visits = before
            raise
        self.versions[upgrade.version] = upgrade.chart
        self._take(step, self.here.run, now)
        self.visits = [replace(item, state=self._home(item, upgrade.homes)) for item in self.visits]
        for visit in self.visits:
            self._drop_keys(visit, upgrade.chart)
        return step

    def _home(self, visit: Visit, homes: Mapping[str, str]) -> str:
        return homes.get(visit.state, visit.state) if visit.run == self.here.run else visit.state

    def _drop_keys(self, visit: Visit, chart: Chart) -> None:
        state, reports = chart.states.get(visit.state), self.reports.get((visit.run, visit.visit), {})
        if state is not None and visit.run == self.here.run:
            for name, key in reports.items():
                reports[name] = key if key is not None and state.has_attribute(key) else None

    def put(
        self,
        state: str,
        now: datetime,
        machine_id: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Step:
        """Apply a PUT. Raises BadRequestError, KeyReusedError, ConflictError."""
        was_entered, report = self._standing(state, machine_id)
        repeats = self.keys.get(idempotency_key or "")
        step = self.do(
            Update(state=state, machine=machine_id, key=key, report=report, was_entered=was_entered, repeats=repeats),
            now,
            idempotency_key,
        )
        if idempotency_key is not None and idempotency_key not in self.keys and step.reason is Reason.REPLAY:
            self.keys[idempotency_key] = self._logged(state, machine_id, step.key if key is None else key)
        return step

    def _standing(self, state: str, machine_id: str | None) -> tuple[bool, Report | None]:
        state = self.here.renamed.get(state, state)
        stays = [item.visit for item in self.visits if item.run == self.here.run and item.state == state]
        if machine_id is None or not stays:
            return False, None
        reports = self.reports.get((self.here.run, max(stays)), {})
        if machine_id not in reports:
            return True, None
        return True, Report(max(stays), machine_id, reports[machine_id])

    def _logged(
        self, state: str, machine_id: str | None, key: str | None, row: CountedRow | None = None
    ) -> LoggedUpdate:
        known = self.chart.states.get(state)
        return LoggedUpdate(state, machine_id, key, key if known is None else known.default_key, row)

    def do(self, happening: Happening, now: datetime, idempotency_key: str | None = None) -> Step:
        """Decide `happening` and remember the result. If `machine.step` raises, nothing changes."""
        if isinstance(happening, Claim):
            _, report = self._standing(self.here.state, happening.machine)
            happening = replace(happening, report=report)
        step = machine.step(self.chart, self.here, happening, now, self, moves=self._find_moves(now))
        if self.moves is not None:
            self.moves -= step.clock_moves
        self._take(step, self.here.run, now, idempotency_key)
        if isinstance(happening, Archive):
            self.is_archived, self.due_at = True, None
        return step

    def _find_moves(self, now: datetime) -> int:
        """Return how many clock transitions the next happening may take; the next transaction has a whole budget."""
        if self.moves is None:
            return MOVES_PER_STEP
        if self.moves < MOVES_PER_STEP and is_due(self.chart, self.here, now):
            step = machine.step(self.chart, self.here, Tick(), now)
            if step.clock_moves > self.moves and not is_due(self.chart, step.position, now):
                self.moves = MOVES_PER_STEP
        return self.moves

    def find_error(self, happening: Happening, now: datetime) -> StateServiceError | None:
        """Return the error that `happening` would raise, or None; nothing changes."""
        try:
            machine.step(self.chart, self.here, happening, now, self)
        except StateServiceError as error:
            return error
        return None

    def _take(self, step: Step, run: int, now: datetime, idempotency_key: str | None = None) -> Step:
        for entry in step.entries:
            row = self._row(entry, now, idempotency_key)
            self.rows.append(row)
            if row.idempotency_key is not None:
                counted = CountedRow(row.run, row.visit, row.seq, row.value_after)
                self.keys[row.idempotency_key] = self._logged(row.from_state, row.machine, row.key, counted)
        for report in step.withdrawn:
            self.reports.get((run, report.visit), {}).pop(report.machine, None)
        for report in step.reports:
            self.reports.setdefault((run, report.visit), {})[report.machine] = report.key
        self.visits.extend(step.visits)
        self.position = step.position
        if step.entries:
            self.due_at = step.due_at
        return step

    def _row(self, entry: Entry, now: datetime, idempotency_key: str | None) -> LogRow:
        is_update = entry.kind in (Kind.UPDATE, Kind.TRANSITION, Kind.LATE) and entry.key is not None
        return LogRow(
            chart="web",
            version=entry.version,
            run=entry.run,
            visit=entry.visit,
            seq=len(self.rows) + 1,
            at=now,
            kind=str(entry.kind),
            from_state=entry.from_state,
            to_state=entry.to_state,
            key=entry.key,
            value_before=entry.value_before,
            value_after=entry.value_after,
            machine=entry.machine,
            idempotency_key=idempotency_key if is_update else None,
            reason=entry.reason,
            note=entry.note,
        )
