"""Does a chart's log verify, and do the tables say what it says? And the heads of all logs, signed.

The log is replayed from its first row to its last: each row's hash, each count and each transition is judged again.
What must follow from it is then compared with the tables: definitions and their texts, position, values, visits,
reports, slots and the pause.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from app import chart_file, store
from app.core.chart import Chart, CountGuard, Transition
from app.core.errors import BadRequestError, ChartFileError, ChartNotFoundError, StateServiceError
from app.core.log import Imported, format_instant
from app.core.position import next_due
from app.core.replay import Replay, Stay, mark_note
from app.db import Connection, snapshot
from app.service.context import Service

# Called now and then with the rows that are done, and the rows there are in all.
Progress = Callable[[int, int], None]
# A verification reports its progress each time it has read so many rows.
PROGRESS_ROWS = 1000
# Of each kind of difference, a verification shows so many.
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of a chart's log at some time: its `seq` and its hash."""

    seq: int
    hash: str

    @classmethod
    def of_text(cls, text: str) -> Head:
        """Return the head that a text `SEQ:HASH` means. Raises BadRequestError."""
        seq, _, row_hash = text.partition(":")
        if not re.fullmatch("[1-9][0-9]{0,18}", seq) or not re.fullmatch("[0-9a-fA-F]{64}", row_hash):
            raise BadRequestError(f"{text!r} is not SEQ:HASH, a number and 64 hexadecimal digits")
        return cls(int(seq), row_hash)

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a chart's log: the rows read, and what is wrong. Without `differences` all is well."""

    chart: str
    rows: int
    differences: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The verification as `--json` gives it."""
        return {"chart": self.chart, "rows": self.rows, "differences": list(self.differences)}

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> Verification:
        """Return the verification that `as_json` gave."""
        return cls(fields["chart"], fields["rows"], tuple(fields["differences"]))

    def as_text(self) -> str:
        """One line if all is well, else one line for each difference."""
        if not self.differences:
            return f"{self.chart}: {self.rows} rows, chain and position as they should be\n"
        return "".join(f"{difference}\n" for difference in self.differences)


def list_logged_charts(service: Service) -> list[str]:
    """Return the names of all charts, archived or not, and of all logs, by name: each must have both."""
    with snapshot(service.database) as connection:
        return sorted({*store.charts.list_all_chart_names(connection), *store.log.list_chart_names(connection)})


def verify(
    service: Service, name: str, progress: Progress = lambda read, of: None, expected: Head | None = None
) -> Verification:
    """Verify a chart's log: check its hash chain, replay it, and compare the result with the chart's tables.

    With `expected`, the log must have that row, too. The chart may be archived. Raises ChartNotFoundError if there is
    neither such a chart nor such a log.
    """
    with snapshot(service.database) as connection:
        try:
            row = store.charts.get_chart_even_archived(connection, name)
        except ChartNotFoundError:
            rows = store.log.count_rows(connection, name)
            if not rows:
                raise
            return Verification(name, rows, (f"{name}: the log has {rows} rows, but there is no such chart",))
        return _Verifier(service, connection, row, expected).verify(progress)


class _Verifier:
    """One verification: what it has found so far."""

    def __init__(
        self, service: Service, connection: Connection, row: store.charts.ChartRow, expected: Head | None
    ) -> None:
        self._service = service
        self._connection = connection
        self._row = row
        self._expected = expected
        self._differences: list[str] = []
        self._runs: set[int] = set()
        # Read anew: what this process keeps in its cache may not be what the tables have by now.
        self._charts: dict[int, Chart] = {}
        self._replay = Replay(
            chart_of=self._find_chart,
            end_run=self._compare_run,
            rosters=service.know(connection, row),
            fill=partial(service.events.fill, connection),
        )

    def verify(self, progress: Progress) -> Verification:
        """Replay the log, and compare."""
        replay, row = self._replay, self._row
        damage = self._replay_log(progress)
        if damage is not None:
            self._differences.append(damage)
        elif replay.position is None:
            self._differences.append(f"{row.name}: the log is empty")
        else:
            self._compare_position()
            self._compare_run(replay.stays)
            self._compare_definitions(replay.position.version)
            self._compare_other_runs(replay.position.run)
        if self._expected is not None and damage is None and replay.seq < self._expected.seq:
            self._differences.append(
                f"{row.name}: the log ends at seq {replay.seq}, but it once had seq {self._expected.seq}: its newest"
                " rows are gone"
            )
        return Verification(row.name, replay.rows, tuple(self._differences))

    def _find_chart(self, version: int) -> Chart:
        chart = self._charts.get(version)
        if chart is None:
            row = self._row
            chart = store.definitions.load_chart(self._connection, row.id, row.name, version)
            self._charts[version] = chart
        return chart

    def _replay_log(self, progress: Progress) -> str | None:
        """Replay the whole log. Return what is wrong with it; None if it can be replayed to its end."""
        row, replay, log_key = self._row, self._replay, self._service.database.log_key
        try:
            for logged in store.log.stream_history(self._connection, row.name):
                replay.read(logged.row, logged.hash, log_key)
                if self._expected is not None and replay.seq >= self._expected.seq:
                    self._meet_expected(self._expected)
                if replay.rows % PROGRESS_ROWS == 0:
                    progress(replay.rows, row.seq - replay.seq + replay.rows)
        except StateServiceError as error:
            return str(error)
        except (ValueError, TypeError, AttributeError) as error:
            # SQLite does not check a column's type, so a row changed from outside may hold a value of any type.
            return f"{row.name}: the row after seq {replay.seq} cannot be read: {error}"
        progress(replay.rows, replay.rows)
        return None

    def _meet_expected(self, expected: Head) -> None:
        replay = self._replay
        if replay.seq > expected.seq:
            self._differences.append(
                f"{self._row.name}: seq {expected.seq} cannot be compared: a prune took the rows up to seq {replay.seq}"
            )
        elif replay.last_hash != expected.hash.lower():
            self._differences.append(
                f"{self._row.name}: seq {expected.seq} has the hash {replay.last_hash}, not {expected.hash}"
            )
        self._expected = None

    def _compare(self, what: str, logged: Any, live: Any) -> None:
        if logged != live:
            self._differences.append(
                f"{self._row.name}: {what}: the log gives {_shown(logged)}, the tables have {_shown(live)}"
            )

    def _compare_position(self) -> None:
        row, replay, connection = self._row, self._replay, self._connection
        position = replay.position
        assert position is not None  # the caller has seen to that
        due_at = None
        if not replay.is_archived:
            due_at = next_due(replay.chart_of(position.version), replay.position_at(row.updated_at))
        self._compare("seq", replay.seq, row.seq)
        self._compare("hash of the last row", replay.last_hash, row.last_hash)
        self._compare("version", position.version, row.version)
        self._compare("run", position.run, row.run)
        self._compare("visit", position.visit, row.visit)
        self._compare("state", position.state, row.state)
        self._compare("entered_at", position.entered_at, row.entered_at)
        self._compare("paused_at", position.paused_at, row.paused_at)
        self._compare("paused_for", position.paused_for, timedelta(microseconds=row.paused_for))
        if replay.pauser is not None:
            self._compare("paused_by", replay.pauser.paused_by, row.paused_by)
            self._compare("pause_reason", replay.pauser.reason, row.pause_reason)
        self._compare("due_at", due_at, row.due_at)
        self._compare("archived", replay.is_archived, row.archived_at is not None)
        self._compare("hours", position.hours, store.charts.find_hours(row))
        self._compare("renamed", dict(position.renamed), store.charts.read_renamed(row))
        self._compare("values", dict(position.values), store.charts.read_values(connection, row.id))
        self._compare("slots", dict(position.slots), store.machines.read_held_slots(connection, row))
        self._compare("fence", position.fence, row.fence)
        self._compare("rosters", store.charts.write_rosters(position.rosters), row.rosters)
        self._compare("expected", position.expected, row.expected)

    # Visits and reports

    def _compare_run(self, stays: list[Stay]) -> None:
        """Compare the visits of one run, and every report in them, with the tables."""
        run, first = stays[0].run, stays[0].visit
        self._runs.add(run)
        visits = store.machines.list_visits_of_runs(self._connection, self._row, run, run)
        live = {visit.visit: visit for visit in visits if visit.visit >= first}
        logged = {stay.visit: stay for stay in stays}
        self._add(_visit_differences(run, logged, live))
        found = store.machines.stream_reports_of_run(self._connection, self._row, run)
        for visit, pairs in groupby(found, key=itemgetter(0)):
            stay = logged.pop(visit, None)
            if visit >= first:
                in_visit = {report.machine: report for _, report in pairs}
                self._add(_report_differences(f"run {run}, visit {visit}", stay, in_visit))
        for stay in logged.values():
            self._add(_report_differences(f"run {run}, visit {stay.visit}", stay, {}))

    def _compare_other_runs(self, last: int) -> None:
        """Note visits and reports of runs that the log does not have; those before a prune are not known."""
        first = min(self._runs)
        found = store.machines.list_runs(self._connection, self._row)
        others = [run for run in found if run > last or (run >= first and run not in self._runs)]
        self._add(f"visits: the tables have run {run}, which the log does not have" for run in others)

    def _add(self, differences: Iterator[str]) -> None:
        self._differences.extend(f"{self._row.name}: {text}" for text in islice(differences, MAX_SHOWN))

    # Definitions

    def _compare_definitions(self, last: int) -> None:
        """Compare every version's rows with its text, and the text with the hash in the log."""
        versions = {
            version.version: version for version in store.definitions.list_versions(self._connection, self._row.id)
        }
        if versions.keys() != set(range(1, last + 1)):
            self._compare("versions", list(range(1, last + 1)), list(versions))
        for version in versions.values():
            imported = self._replay.imports.get(version.version, Imported(None))
            self._add(self._definition_differences(version, imported))

    def _definition_differences(self, version: store.definitions.Version, imported: Imported) -> Iterator[str]:
        what = f"version {version.version}"
        sha256 = hashlib.sha256(version.text.encode()).hexdigest()
        for source, wanted in [("the log", imported.sha256), ("its row", version.sha256)]:
            if wanted is not None and wanted != sha256:
                yield f"{what}: the text's SHA-256 is {sha256}, {source} has {wanted}"
        if imported.at is not None and (imported.at, imported.actor) != (version.imported_at, version.imported_by):
            yield f"{what}: the log says that {imported.actor} imported it at {format_instant(imported.at)}"
        try:
            parsed = chart_file.parse(version.text, name=self._row.name).chart
        except ChartFileError:
            # The rules have become stricter since. If the text is as it was, only its rows could differ from it.
            return
        stored = self._find_chart(version.version)
        if imported.sha256 is None:
            # An earlier release, which wrote no hash, rounded percentages in another way.
            parsed, stored = _without_shares(parsed), _without_shares(stored)
        if stored != parsed or list(stored.states) != list(parsed.states):
            yield f"{what}: its rows are not what its text says{_find_changed_state(stored, parsed)}"


def _visit_differences(
    run: int, logged: Mapping[int, Stay], live: Mapping[int, store.machines.VisitRow]
) -> Iterator[str]:
    for number in sorted(logged.keys() | live.keys()):
        stay, visit = logged.get(number), live.get(number)
        if stay is None:
            yield f"visits: the tables have run {run}, visit {number}, which the log does not have"
        elif visit is None:
            yield f"visits: the tables lack run {run}, visit {number} of {stay.state!r}"
        else:
            known = (stay.state or visit.state, stay.entered_at, stay.left_at)
            if known != (visit.state, visit.entered_at, visit.left_at):
                yield (
                    f"visits: run {run}, visit {number}: the log gives {known[0]!r} from {_shown(known[1])} to"
                    f" {_shown(known[2])}, the tables have {visit.state!r} from {_shown(visit.entered_at)} to"
                    f" {_shown(visit.left_at)}"
                )


def _report_differences(
    where: str, stay: Stay | None, live: Mapping[str, store.machines.MachineReport]
) -> Iterator[str]:
    logged = {} if stay is None else stay.reports
    for machine in sorted(logged.keys() | live.keys()):
        line, report = logged.get(machine), live.get(machine)
        if line is None or report is None:
            who = "the log gives none" if line is None else "the tables have none"
            yield f"reports: {where}: {machine!r}: {who}, unlike the {'tables' if line is None else 'log'}"
        elif line.key != report.key:
            yield f"reports: {where}: {machine!r}: the log gives {line.key!r}, the tables have {report.key!r}"
        elif line.seq is not None and (line.seq, line.at) != (report.seq, report.reported_at):
            yield f"reports: {where}: {machine!r}: the log gives seq {line.seq}, the tables have seq {report.seq}"
        elif line.seq is not None and line.note != mark_note(report.note):
            yield f"reports: {where}: {machine!r}: the note is not that of the log's row {line.seq}"


def _without_shares(chart: Chart) -> Chart:
    """Return the chart with the numbers that percentages came to left out."""
    states = {
        name: replace(
            state,
            transitions=tuple(_without_share(move) for move in state.transitions),
            slots=None if state.slots is None else replace(state.slots, stages=()),
        )
        for name, state in chart.states.items()
    }
    return replace(chart, states=states)


def _without_share(move: Transition) -> Transition:
    guard = move.guard
    if isinstance(guard, CountGuard) and guard.written.endswith("%"):
        return replace(move, guard=replace(guard, threshold=0))
    return move


def _find_changed_state(stored: Chart, parsed: Chart) -> str:
    for name, state in parsed.states.items():
        if stored.states.get(name) != state:
            return f", in the state {name!r}"
    return ""


def _shown(value: Any) -> str:
    return format_instant(value) if isinstance(value, datetime) else repr(value)


# Heads


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A chart's last log row, and a signature under the log's key; None without a key."""

    chart: str
    seq: int
    hash: str
    signature: str | None

    def as_json(self) -> dict[str, Any]:
        """The head as a line of the service's log."""
        return {"chart": self.chart, "seq": self.seq, "hash": self.hash, "signature": self.signature}


def list_heads(service: Service) -> list[SignedHead]:
    """Return the head of every chart's log, archived or not, by name."""
    with snapshot(service.database) as connection:
        heads = store.charts.list_heads(connection)
    return [SignedHead(*head, sign_head(service.database.log_key, *head)) for head in heads]


def sign_head(log_key: bytes | None, chart: str, seq: int, last_hash: str) -> str | None:
    """Return the HMAC-SHA-256 of the text `head CHART SEQ HASH`; None without a key."""
    if log_key is None:
        return None
    return hmac.new(log_key, f"head {chart} {seq} {last_hash}".encode(), hashlib.sha256).hexdigest()
