"""Where a chart stood at an instant: its log is replayed up to there, as `verify` replays it.

A long log is not replayed from its beginning each time. While a log grows, a thread of the server replays each STRIDE
further rows and leaves a checkpoint in the database: the same marker that a prune leaves in the log. A question about
rows that no server has replayed leaves them, too. A replay begins at the last checkpoint before its instant. `verify`
uses none of them.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice

from app import store
from app.core.chart import Chart
from app.core.errors import BadRequestError, ChartNotFoundError, LogDamagedError, StateServiceError
from app.core.expect import FromRoster, Listed, Reporters
from app.core.log import NOT_PAUSED, HashedRow, LogRow, Pauser, canonical, chain_hash, format_instant
from app.core.position import Kind, Position
from app.core.replay import Replay
from app.db import Connection, retrying, snapshot, transaction
from app.service.condition import Told
from app.service.context import NOBODY, Service
from app.service.crowds import FEW, Absent, Knowledge
from app.service.status import Status, describe_status
from app.service.upkeep import mark
from app.service.verifying import Progress
from app.store.checkpoints import StoredCheckpoint
from app.store.log import BATCH
from app.store.machines import MachineReport
from app.waiting.places import Turn

logger = logging.getLogger("stateservice.past")

# Rows between two checkpoints: what a question replays at most, if the log has not grown since the last look.
STRIDE = 5_000
# How often one worker of the server looks for logs that have grown.
LOOK_SECONDS = 20.0
# About how long one look takes at most: a log that grew for years without checkpoints is followed at a fifth of a core.
WORK_SECONDS = 4.0


class _Past:
    """A replay on its way, and the last row that it has read."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.last: HashedRow | None = None

    def restore(self, marker: LogRow, row_hash: str) -> None:
        self.replay.apply(marker)
        self.last = HashedRow(marker, row_hash)

    def apply(self, logged: HashedRow) -> None:
        self.replay.apply(logged.row)
        self.last = logged

    def mark(self) -> tuple[LogRow, str]:
        """Return the marker from which a replay can go on here, and the hash of the row that it stands for."""
        assert self.last is not None  # a row was applied
        self.replay.last_hash = self.last.hash
        return mark(self.replay, self.last.row, NOBODY, self.last.row.at), self.last.hash


def get_past_status(service: Service, name: str, at: datetime, progress: Progress = lambda read, of: None) -> Status:
    """Return a chart's status as it was at the instant `at`; the chart may have been archived since.

    Who waited for a slot then is not known. Raises ChartNotFoundError if the chart did not exist or was archived then,
    BadRequestError if the instant is still to come or older than the rows that a prune has left, and LogDamagedError.
    """
    with suppress(StateServiceError):
        # What is wrong is said below; and a database that cannot be written to has the answer all the same.
        _catch_up(service, name, at, progress)
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
        known = service.know(connection, row)
        absent = _find_absent(known, connection, chart, position, past.replay)
        told = ToldThen(connection, then, chart, past.replay)
        return describe_status(connection, chart, then, position, at, known=known, absent=absent, told=told)


def _replay_until(
    service: Service, connection: Connection, row: store.charts.ChartRow, at: datetime, progress: Progress
) -> _Past:
    first, last = store.log.find_seq_at(connection, row.name, at)
    if last is None:
        _refuse_pruned(connection, row.name, first)
        last = 0
    past, begun = _begin(service, connection, row, last)
    for logged in store.log.stream_history(connection, row.name, begun, last):
        past.apply(logged)
        if logged.row.seq % BATCH == 0:
            progress(logged.row.seq - begun, last - begun)
    return past


def _begin(service: Service, connection: Connection, row: store.charts.ChartRow, last: int) -> tuple[_Past, int]:
    """Return a replay at the latest checkpoint up to the row `last`, and that checkpoint's seq; 0 if there is none."""
    past = _Past(
        Replay(
            chart_of=lambda version: service.definitions.get_version(connection, row, version),
            rosters=service.know(connection, row),
            fill=partial(service.events.fill, connection),
        )
    )
    while (found := store.checkpoints.find_checkpoint(connection, row.name, last)) is not None:
        marker = _read_checkpoint(found, service.database.log_key)
        if marker is not None:
            past.restore(marker, found.row_hash)
            return past, found.seq
        last = found.seq - 1
    return past, 0


# Checkpoints


def _catch_up(service: Service, name: str, at: datetime, progress: Progress) -> None:
    """Leave the checkpoints that a long log lacks up to the instant `at`.

    No server may have run since the log grew. The question reads those rows anyway, and the next one need not.
    """
    while True:
        with snapshot(service.database) as connection:
            store.charts.get_chart_even_archived(connection, name)
            first, last = store.log.find_seq_at(connection, name, at)
            found = None if last is None else store.checkpoints.find_checkpoint(connection, name, last)
        begun = first - 1 if found is None else found.seq
        if last is None or last - begun < STRIDE:
            return
        progress(begun, last)
        if not leave_checkpoint(service, name):
            return


def leave_checkpoint(service: Service, name: str) -> bool:
    """Replay a chart's log from its last checkpoint on, and leave the next one; return False if too few rows follow.

    Raises ChartNotFoundError, LogDamagedError.
    """
    with snapshot(service.database) as connection:
        row = store.charts.get_chart_even_archived(connection, name)
        past, begun = _begin(service, connection, row, row.seq)
        for number, logged in enumerate(store.log.stream_history(connection, name, begun), start=1):
            past.apply(logged)
            if number == STRIDE:
                break
        else:
            return False
        marker, row_hash = past.mark()
    _keep(service, marker, chain_hash(row_hash, marker, service.database.log_key))
    return True


@retrying
def _keep(service: Service, marker: LogRow, hash_: str) -> None:
    packed = zlib.compress(canonical(marker).encode())
    with transaction(service.database) as connection:
        store.checkpoints.keep_checkpoint(connection, marker.chart, marker.seq, hash_, packed)


def _read_checkpoint(found: StoredCheckpoint, log_key: bytes | None) -> LogRow | None:
    """Return the marker of a checkpoint; None if it, or the row of the log, is not what it was when it was written."""
    try:
        fields = json.loads(zlib.decompress(found.marker))
        marker = LogRow(**{**fields, "at": datetime.fromisoformat(fields["at"])})
    except (zlib.error, ValueError, TypeError, KeyError):
        return None
    return marker if chain_hash(found.row_hash, marker, log_key) == found.hash else None


class Checkpointer:
    """The thread of one process that leaves checkpoints; the workers of a server take turns."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # Charts whose logs could not be replayed: `verify` says what is wrong with them.
        self._damaged: set[str] = set()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)

    def start(self) -> None:
        """Begin to look for logs that have grown."""
        self._thread.start()

    def stop(self) -> None:
        """Leave no further checkpoint, and wait for the one in hand."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._is_stopping.wait(LOOK_SECONDS):
            if not self._service.hub.places.take_turn(Turn.CHECKPOINTS, LOOK_SECONDS):
                continue
            try:
                self.look(WORK_SECONDS)
            except StateServiceError as error:
                logger.warning("could not leave checkpoints, will try again: %s", error)
            except Exception:
                logger.exception("could not leave checkpoints, will try again")

    def look(self, seconds: float = math.inf) -> None:
        """Leave checkpoints in the logs that have grown by STRIDE rows since their last one.

        The charts take turns, so a very long log does not keep the others from theirs. No checkpoint is begun after so
        many `seconds`.
        """
        until = time.monotonic() + seconds
        with snapshot(self._service.database) as connection:
            names = deque(store.checkpoints.list_grown(connection, STRIDE))
        while names and time.monotonic() < until and not self._is_stopping.is_set():
            name = names.popleft()
            if self._follow(name):
                names.append(name)

    def _follow(self, name: str) -> bool:
        """Leave a chart's next checkpoint; return False if there is none to leave."""
        try:
            return name not in self._damaged and leave_checkpoint(self._service, name)
        except LogDamagedError as error:
            self._damaged.add(name)
            logger.warning("no checkpoints for a log that cannot be replayed, verify it: %s", error)
            return False


# What was told


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


def _find_absent(
    known: Knowledge, connection: Connection, chart: Chart, position: Position, replay: Replay
) -> Absent | None:
    """Return who of a set that names its machines had not reported."""
    expect, reports = chart.expect_of(position.state), replay.reports
    if expect is None or not expect.names_machines or not chart.states[position.state].attributes:
        return None
    if isinstance(expect, FromRoster):
        total = expect.count(position, known, ()) - len(expect.keep(list(reports), position, known))
        roster = store.rosters.find_roster(connection, expect.roster)
        assert roster is not None  # the chart went by it
        lines = store.rosters.stream_lines(connection, roster.id, position.rosters[expect.roster], expect.where)
        return Absent(tuple(islice((name for name, _ in lines if name not in reports), FEW.limit)), total)
    if isinstance(expect, Listed):
        members: Iterable[str] = expect.machines
    else:
        assert isinstance(expect, Reporters)  # no other set names its machines
        spoken = {report.machine for report in replay.list_reports(position.run, expect.states)}
        members = sorted(expect.keep(spoken, position, replay))
    absent = tuple(name for name in members if name not in reports)
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
