"""Seeded defects: the service made wrong on purpose, to see that the checker sees it.

Each replaces functions of the service in the process that serves, by `proof.served` alone. What would otherwise
be a race of microseconds is held open until another request has run into it, or for a while.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

import app.db
import app.service.ask
import app.service.context
import app.service.machines
import app.service.put
import app.store
import app.store.record
from app.core.chart import CountGuard, SlotRule
from app.core.errors import DatabaseUnavailableError
from app.core.log import chain_hash
from app.core.position import Position, Tick
from app.db import Connection
from app.service.context import Service
from app.service.machines import Batcher
from app.store.charts import ChartRow

DATABASES = ("sqlite", "postgresql")

# Names the defect, in the environment of a server of this suite.
VARIABLE = "FAULTS_DEFECT"
HELD_SECONDS = 0.3
LOOK_SECONDS = 0.005
local = threading.local()
# Untyped, all of them: they are overwritten here.
recording: Any = app.store.record
store: Any = app.store
db: Any = app.db
putting: Any = app.service.put
locking: Any = app.service.context
machines: Any = app.service.machines
asking: Any = app.service.ask


def _hold(until: Callable[[], bool], seconds: float = HELD_SECONDS) -> None:
    """Wait until a request ran into what is held open; not for ever, because perhaps none comes."""
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)


def _each_alone() -> None:
    """PUTs of one process share no transaction, so that they run into each other as those of two processes do."""
    take = Batcher._take

    def take_one(self: Batcher[Any, Any], key: str, limit: int) -> Any:
        # Nothing joins a batch of one.
        self._limit = 1
        return take(self, key, min(limit, self._limit))

    Batcher._take = take_one  # type: ignore[method-assign]  # that is the defect


class _Looks:
    """Counts the looks at charts that this process answers."""

    def __init__(self) -> None:
        self.count = 0
        original = machines.answer_all

        def answer_all(service: Service, questions: Sequence[Any]) -> Any:
            found = original(service, questions)
            self.count += 1
            return found

        machines.answer_all = answer_all

    def until_another(self) -> None:
        """Return once another question has been answered."""
        before = self.count
        _hold(lambda: self.count > before)


def no_lock() -> None:
    """A PUT is decided from what was read before it held the lock; the log's seq and chain are those under it."""
    _each_alone()
    machines.apply = _from_before(machines.apply, lambda batch: [sent.chart for sent in batch])


def sweeper_without_lock() -> None:
    """The clock is judged from what was read before the lock was held."""
    _each_alone()
    _sweep_from_before()
    apply, apply_from_before = (
        machines.apply,
        _from_before(machines.apply, lambda batch: [sent.chart for sent in batch]),
    )

    def apply_ticks_from_before(service: Service, batch: Sequence[Any], **options: Any) -> Any:
        is_clock = all(isinstance(sent.what, Tick) for sent in batch)
        return (apply_from_before if is_clock else apply)(service, batch, **options)

    machines.apply = apply_ticks_from_before


def _sweep_from_before() -> None:
    """The sweeper locks the charts that were due before, whether or not they still are."""
    due: list[str] = []
    find_next_due, lock_due_charts = putting.find_next_due, store.charts.lock_due_charts

    def find_next_due_charts(service: Service) -> Any:
        with db.asking(service.database) as connection:
            rows = store.charts.list_charts_due(connection, service.read_now(connection), putting.MOVES_PER_STEP)
        due[:] = [row.name for row in rows]
        return find_next_due(service)

    def lock_charts_due_before(connection: Connection, now: Any, leave: Sequence[int], limit: int) -> Any:
        locked = store.charts.lock_charts(connection, due) if due else lock_due_charts(connection, now, leave, limit)
        due.clear()
        return locked

    putting.find_next_due, store.charts.lock_due_charts = find_next_due_charts, lock_charts_due_before
    putting._sweep_some = _from_before(putting._sweep_some, lambda failures: list(due))


def _from_before(use_case: Any, names_of: Callable[[Any], list[str]]) -> Any:
    def run(service: Service, what: Any, *more: Any, **options: Any) -> Any:
        with db.asking(service.database) as connection:
            rows = list(store.charts.read_charts_and_now(connection, names_of(what))[0].values())
            local.before = {row.id: (row, store.charts.read_values(connection, row.id)) for row in rows}
        _hold(lambda: _has_moved(service, rows))
        try:
            return use_case(service, what, *more, **options)
        finally:
            local.before = {}

    original = locking.read_positions

    def read_positions(service: Service, connection: Connection, rows: Sequence[ChartRow], charts: Any) -> Any:
        positions, now = original(service, connection, rows, charts)
        before = getattr(local, "before", {})
        # The visit's number is the one under the lock: UNIQUE (chart, run, visit) would refuse any other.
        stale = [
            replace(store.charts.build_position(*before[row.id]), visit=position.visit)
            if row.id in before
            else position
            for row, position in zip(rows, positions, strict=True)
        ]
        return stale, now

    locking.read_positions = read_positions
    return run


def _has_moved(service: Service, rows: Sequence[ChartRow]) -> bool:
    with db.asking(service.database) as connection:
        now = store.charts.read_charts_and_now(connection, [row.name for row in rows])[0]
        return any(row.name not in now or now[row.name].seq != row.seq for row in rows)


def no_replay_check() -> None:
    """A PUT that was applied before is applied again."""
    original = putting.PriorReports.complete

    def complete(self: Any, *arguments: Any) -> Any:
        return replace(original(self, *arguments), report=None, repeats=None)

    putting.PriorReports.complete = complete


def answer_before_commit() -> None:
    """The answer is sent when the decision is made; the commit follows."""
    original, judge, commit, looks = machines.apply, putting._judge, db._commit, _Looks()

    def judge_and_keep(*known: Any) -> Any:
        found, sent = judge(*known), known[-1]
        if getattr(local, "decided", None) is not None:
            local.answers[id(sent)] = found
        return found

    def commit_late(connection: Connection, really: Callable[[], None]) -> None:
        decided = getattr(local, "decided", None)
        if decided is not None:
            decided.set()
            looks.until_another()
        commit(connection, really)

    def apply(service: Service, batch: Sequence[Any], **options: Any) -> Any:
        decided = threading.Event()
        answers: dict[int, Any] = {}
        ended: list[Any] = []

        def work() -> None:
            local.decided, local.answers = decided, answers
            try:
                ended.extend(original(service, batch, **options))
            finally:
                decided.set()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        decided.wait()
        if len(answers) == len(batch):
            return [answers[id(sent)] for sent in batch]
        thread.join()
        return ended or [DatabaseUnavailableError("the batch failed")] * len(batch)

    putting._judge = judge_and_keep
    db._commit = commit_late
    machines.apply = apply


def cached_get() -> None:
    """What a chart was is remembered for a while."""
    original = machines.answer_all
    cache: dict[Any, tuple[float, Any]] = {}

    def answer_all(service: Service, questions: Sequence[Any]) -> Any:
        now = time.monotonic()
        new = [question for question in questions if cache.get(question, (0.0, None))[0] < now]
        for question, found in zip(new, original(service, new) if new else [], strict=True):
            cache[question] = (now + HELD_SECONDS, found)
        return [cache[question][1] for question in questions]

    machines.answer_all = answer_all


def log_outside_transaction() -> None:
    """The row of the log follows in a transaction of its own."""
    _write_after("append_log", lambda connection, logs, log_key: [_chain(*log, log_key) for log in logs])


def _chain(last_hash: str, rows: Sequence[Any], log_key: bytes | None) -> str:
    for row in rows:
        last_hash = chain_hash(last_hash, row, log_key)
    return last_hash


def reports_outside_transaction() -> None:
    """What machines reported follows in a transaction of its own."""
    _write_after("_write_reports", lambda *arguments: None)


def _write_after(name: str, instead: Callable[..., Any]) -> None:
    _each_alone()
    original, apply = getattr(recording, name), machines.apply

    def put_off(connection: Connection, *arguments: Any) -> Any:
        if not hasattr(local, "later"):
            return original(connection, *arguments)
        local.later.append(arguments)
        return instead(connection, *arguments)

    def write(service: Service, later: Sequence[Any]) -> None:
        time.sleep(HELD_SECONDS / 3)
        with db.transaction(service.database) as connection:
            for arguments in later:
                original(connection, *arguments)

    def apply_and_write(service: Service, batch: Sequence[Any], **options: Any) -> Any:
        local.later = []
        try:
            return apply(service, batch, **options)
        finally:
            threading.Thread(target=write, args=(service, local.later)).start()
            del local.later

    setattr(recording, name, put_off)
    machines.apply = apply_and_write


def waiter_answered_before_commit() -> None:
    """A waiter is told of a move that is not committed yet."""
    original_record, original_answer, original_apply = store.record.record_all, machines.answer_all, machines.apply
    ahead: dict[str, Any] = {}

    def record_all(connection: Connection, changes: Sequence[Any], *arguments: Any) -> list[ChartRow]:
        afters: list[ChartRow] = original_record(connection, changes, *arguments)
        service = getattr(local, "service", None)
        for change, after in zip(changes, afters, strict=True):
            if service is not None and after.visit != change.row.visit:
                chart = service.definitions.get(connection, after)
                known, now = service.know(connection, after), service.read_now(connection)
                ahead[after.name] = asking._View(
                    connection, after, chart, now, is_due=False, events=service.events, known=known
                )
                service.hub.tell(after.name)
                _hold(lambda name=after.name: name not in ahead)  # type: ignore[misc]
                ahead.pop(after.name, None)
                # A waiter that was told looks once more.
                time.sleep(HELD_SECONDS / 3)
        return afters

    def apply(service: Service, batch: Sequence[Any], **options: Any) -> Any:
        local.service = service
        return original_apply(service, batch, **options)

    def answer_all(service: Service, questions: Sequence[Any]) -> Any:
        states = {name: view.row.state for name, view in list(ahead.items())}
        early = [one for one in questions if states.get(one.chart) == one.state and not one.reached]
        views = {one.chart: ahead.pop(one.chart, None) for one in early}
        early = [one for one in early if views[one.chart] is not None]
        others = [question for question in questions if question not in early]
        found = dict(zip(others, original_answer(service, others) if others else [], strict=True))
        return [views[one.chart].find(one, is_done=False) if one in early else found[one] for one in questions]

    store.record.record_all = record_all
    machines.apply = apply
    machines.answer_all = answer_all


def waiters_told_before_commit() -> None:
    """A waiter is told of a move outside its transaction, before the commit: if it looks then, it sees the past."""

    def announce(connection: Connection, names: Sequence[str]) -> None:
        if not names:
            return
        url = connection.core.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as other:
            for name in names:
                other.execute("SELECT pg_notify(%s, %s)", (recording.CHANNEL, name))
        # The commit comes when the waiter that was told has looked.
        time.sleep(HELD_SECONDS / 3)

    def tell_nobody(self: Service, chart: str, step: Any) -> None:
        """Nobody is told after the commit."""

    recording.announce = announce
    Service.tell = tell_nobody  # type: ignore[method-assign]  # that is the defect


def one_report_early() -> None:
    """A transition is taken one report before its threshold."""
    CountGuard.holds = lambda self, position, now: position.values[self.key] >= self.threshold - 1  # type: ignore[method-assign]


def one_slot_too_many() -> None:
    """A state gives one slot more than it has."""
    limit = SlotRule.limit
    SlotRule.limit = lambda self, succeeded: limit(self, succeeded) + 1  # type: ignore[method-assign]


def clock_runs_in_a_pause() -> None:
    """The time of a pause counts as time in the state."""
    Position.pause_in_visit = lambda self, now: self.paused_for  # type: ignore[method-assign]


def lost_count() -> None:
    """An upgrade sets the attributes back to the values in the definition."""

    def make(original: Any) -> Any:
        def upgraded(self: Position, version: int, chart: Any, name: str, homes: Any) -> Position:
            return replace(original(self, version, chart, name, homes), values=chart.states[name].initial_values())

        return upgraded

    Position.upgraded = make(Position.upgraded)  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect, the violation by which it is to be found (a regular expression), and the databases that can have it.

    The load has so many `operators`, one of its charts has slots if the defect `needs_slots`, and each update is sent
    twice at once if it `needs_twins`: all of that takes time from those whose race shows a defect.
    """

    seed: Callable[[], None]
    violation: str
    databases: tuple[str, ...] = DATABASES
    operators: int = 0
    needs_slots: bool = False
    needs_twins: bool = False
    # Half of the waiting clients wait for the state that lasts.
    is_patient: bool = False

    def find(self, violations: Sequence[str]) -> str | None:
        """Return the first of these violations that is this defect's."""
        return next((found for found in violations if re.search(self.violation, found)), None)


# The service as it is, under the load that shows most.
NO_DEFECT = Defect(lambda: None, "(?!)", operators=2, needs_slots=True)
DEFECTS: dict[str, Defect] = {
    defect.seed.__name__: defect
    for defect in (
        Defect(no_lock, r"the rows before give"),
        Defect(no_replay_check, r"counted twice|applied more than once"),
        Defect(answer_before_commit, r"is explained by no version|known before and|not its row"),
        Defect(cached_get, r"is explained by no version|known before and"),
        Defect(
            log_outside_transaction,
            r"is not in the log|which is not its row|applied more than once|stands where",
            needs_twins=True,
        ),
        Defect(reports_outside_transaction, r"counted twice|the rows before give", needs_twins=True),
        Defect(
            sweeper_without_lock,
            r"where the chart is in|the rows before give|which no guard allows|although",
            operators=2,
        ),
        Defect(waiter_answered_before_commit, r"is explained by no version|known before and"),
        Defect(waiters_told_before_commit, r"waiting clients usually hear of a move", ("postgresql",), is_patient=True),
        Defect(one_report_early, r"moves from '\w+' to '\w+' at .*, which no guard allows"),
        Defect(one_slot_too_many, r"claims slot 4 of 3|claims slot 3 of 2", needs_slots=True),
        Defect(clock_runs_in_a_pause, r"the clock moved the chart after|ends at .*, it was to end at", operators=3),
        Defect(lost_count, r"the rows before give", operators=2),
    )
}
