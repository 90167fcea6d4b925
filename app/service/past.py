"""Where a chart stood at an instant: its log is replayed up to there, as `verify` replays it.

A long log is not replayed from its beginning each time. Whenever the replay has read `STRIDE` rows, it leaves a
checkpoint in this process: the same marker that a prune leaves in the log. The next question begins at the last
checkpoint before its instant.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from cachetools import LRUCache

from app import store
from app.core.chart import Chart
from app.core.errors import BadRequestError, ChartNotFoundError
from app.core.expect import Listed
from app.core.log import NOT_PAUSED, HashedRow, LogRow, Pauser, format_instant
from app.core.position import Kind, Position
from app.core.replay import Replay
from app.db import Connection, snapshot
from app.service.condition import Told
from app.service.context import NOBODY, Service
from app.service.crowds import Absent
from app.service.status import Status, describe_status
from app.service.upkeep import mark
from app.service.verifying import Progress
from app.store.machines import MachineReport

# Rows between two checkpoints: what a question replays at most once the log has been read.
STRIDE = 20_000
# Characters of the checkpoints that one process keeps, over all charts.
MAX_KEPT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A chart as it stood after a row of its log; `hash` is the row's, so that another chart's log is noticed."""

    hash: str
    marker: LogRow


class Checkpoints:
    """The checkpoints of one process, by chart and seq; threads share it. Those used last are kept."""

    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self._kept: LRUCache[tuple[str, int], Checkpoint] = LRUCache(
            max_kept, getsizeof=lambda item: len(item.marker.reason or "") + 1000
        )
        self._lock = threading.Lock()

    def add(self, name: str, seq: int, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; one that is larger than all that may be kept is dropped."""
        with self._lock:
            if self._kept.getsizeof(checkpoint) <= self._kept.maxsize:
                self._kept[name, seq] = checkpoint

    def list_seqs(self, name: str, last: int) -> list[int]:
        """Return the seqs of a chart's checkpoints up to `last`, the latest first."""
        with self._lock:
            return sorted((seq for chart, seq in self._kept if chart == name and seq <= last), reverse=True)

    def find(self, name: str, seq: int) -> Checkpoint | None:
        """Return a checkpoint, if it is still kept."""
        with self._lock:
            return self._kept.get((name, seq))


CHECKPOINTS = Checkpoints()


class _Past:
    """A replay on its way, and the last row that it has read."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.last: HashedRow | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        self.replay.apply(checkpoint.marker)
        self.last = HashedRow(checkpoint.marker, checkpoint.hash)

    def apply(self, logged: HashedRow) -> None:
        self.replay.apply(logged.row)
        self.last = logged

    def as_checkpoint(self) -> Checkpoint:
        assert self.last is not None  # a row was applied
        self.replay.last_hash = self.last.hash
        marker = mark(self.replay, self.last.row, NOBODY, self.last.row.at)
        return Checkpoint(self.last.hash, marker)


def get_past_status(service: Service, name: str, at: datetime, progress: Progress = lambda read, of: None) -> Status:
    """Return a chart's status as it was at the instant `at`; the chart may have been archived since.

    Who waited for a slot then is not known. Raises ChartNotFoundError if the chart did not exist or was archived then,
    BadRequestError if the instant is still to come or older than the rows that a prune has left, and LogDamagedError.
    """
    with snapshot(service.database) as connection:
        row = store.charts.get_chart_even_archived(connection, name)
        if at > service.read_now(connection):
            raise BadRequestError(f"{format_instant(at)} is still to come")
        past = _replay_until(service, connection, row, at, progress)
        position = past.replay.position
        if past.last is None or position is None or past.replay.is_archived:
            raise ChartNotFoundError(name)
        chart = past.replay.chart_of(position.version)
        position = _complete(chart, position, past.replay)
        hours = service.events.fill(connection, position.hours, position.entered_at, at)
        position = replace(position, hours=hours)
        then = _row_then(row, position, past)
        absent = _find_absent(chart, position, past.replay)
        told = ToldThen(connection, then, chart, past.replay)
        return describe_status(connection, chart, then, position, at, absent=absent, told=told)


def _replay_until(
    service: Service, connection: Connection, row: store.charts.ChartRow, at: datetime, progress: Progress
) -> _Past:
    first, last = store.log.find_seq_at(connection, row.name, at)
    past = _Past(
        Replay(
            chart_of=lambda version: service.definitions.get_version(connection, row, version),
            rosters=service.know(connection, row),
            fill=partial(service.events.fill, connection),
        )
    )
    if last is None:
        _refuse_pruned(connection, row.name, first)
        return past
    begun = 0
    for seq in CHECKPOINTS.list_seqs(row.name, last):
        checkpoint = CHECKPOINTS.find(row.name, seq)
        if checkpoint is not None and store.log.find_hash(connection, row.name, seq) == checkpoint.hash:
            past.restore(checkpoint)
            begun = seq
            break
    for logged in store.log.stream_history(connection, row.name, begun, last):
        past.apply(logged)
        seq = logged.row.seq
        if seq % STRIDE == 0:
            CHECKPOINTS.add(row.name, seq, past.as_checkpoint())
            progress(seq - begun, last - begun)
    return past


class ToldThen(Told):
    """What the log said of a chart when its row was `row`. The table of reports has only each machine's latest one."""

    def __init__(self, connection: Connection, row: store.charts.ChartRow, chart: Chart, replay: Replay) -> None:
        super().__init__(connection, row)
        self._chart = chart
        self._replay = replay

    def count_reports(self, visit: int) -> Mapping[str | None, int]:
        """Count the machines that had reported on each attribute in a visit of the run.

        The replay knows those that were counted when the visit began, which have no rows of their own. If it began at a
        checkpoint, it knows earlier visits only of a chart that looks back at them.
        """
        past = self._replay.list_past(self.row.run).get(visit)
        if past is not None:
            return Counter(past.reports.values())
        return Counter(report.key for report in self._list_reports(visit))

    def find_latest_report(self, key: str | None = None) -> MachineReport | None:
        """Return the latest report that the visit had then, on the attribute `key` if it is given."""
        found = [report for report in self._list_reports(self.row.visit) if key in (None, report.key)]
        return max(found, key=lambda report: report.seq, default=None)

    def _list_reports(self, visit: int) -> list[MachineReport]:
        reports: dict[str, MachineReport] = {}
        for row in store.log.list_reported(self.connection, self.row, visit):
            name = row.machine or ""
            if row.kind == Kind.WITHDRAW:
                reports.pop(name, None)
            elif row.key is not None and (row.kind != Kind.EXPIRE or row.value_before != row.value_after):
                state = self._chart.states.get(row.from_state)
                kept = state is None or state.has_attribute(row.key)
                reports[name] = MachineReport(name, row.key if kept else None, row.at, row.seq, row.note)
        return list(reports.values())


def _refuse_pruned(connection: Connection, name: str, first: int) -> None:
    """Raise BadRequestError if the rows before the log's first one, `first`, were pruned."""
    if first > 1:
        at = store.log.list_log_samples(connection, name, [first])[0].at
        raise BadRequestError(f"the log of chart {name!r} was pruned: it goes back to {format_instant(at)}")


def _complete(chart: Chart, position: Position, replay: Replay) -> Position:
    """Return the position with what a decision must know of the reports in a state with slots."""
    state = chart.states[position.state]
    if state.slots is None:
        return position
    return replace(position, succeeded=sum(key == state.default_key for key in replay.reports.values()))


def _find_absent(chart: Chart, position: Position, replay: Replay) -> Absent | None:
    """Return who of a list in the chart file had not reported. Who of a roster had not is not told."""
    expect = chart.expect_of(position.state)
    if not isinstance(expect, Listed) or not chart.states[position.state].attributes:
        return None
    absent = tuple(machine for machine in expect.machines if machine not in replay.reports)
    return Absent(absent, len(absent))


def _row_then(row: store.charts.ChartRow, position: Position, past: _Past) -> store.charts.ChartRow:
    """Return the chart's row as it was then."""
    assert past.last is not None  # the log had a row
    pauser = past.replay.pauser
    if pauser is None:
        # The marker of an older release does not say who paused the chart. The chart's row does while the pause lasts.
        lasts = position.paused_at is not None and position.paused_at == row.paused_at
        pauser = Pauser(row.paused_by, row.pause_reason) if lasts else NOT_PAUSED
    return row._replace(
        version=position.version,
        run=position.run,
        visit=position.visit,
        state=position.state,
        entered_at=position.entered_at,
        paused_at=position.paused_at,
        paused_by=pauser.paused_by,
        pause_reason=pauser.reason,
        seq=past.last.row.seq,
        updated_at=past.last.row.at,
        archived_at=None,
    )
