"""Seeded defects: the service made wrong on purpose, to see that the checker sees it.

Each replaces functions of the service in the process that serves, by `proof.served` alone. What would otherwise
be a race of microseconds is held open until somebody else has run into it, or for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

import app.db
import app.service.ask
import app.service.locked
import app.service.put
import app.store
import app.store.record
from app.core.log import chain_hash
from app.service.batching import Ticket, Turns
from app.service.context import Service
from app.store.charts import ChartRow

# Names the defect, in the environment of a server of this suite.
VARIABLE = "FAULTS_DEFECT"
HELD_SECONDS = 0.3
LOOK_SECONDS = 0.005
local = threading.local()
# Untyped, all of them: they are overwritten here.
recording: Any = app.store.record
store: Any = app.store
db: Any = app.db
updating: Any = app.service.put
holding: Any = app.service.locked
asking: Any = app.service.ask


def _hold(until: Callable[[], bool], seconds: float = HELD_SECONDS) -> None:
    """Wait until somebody ran into what is held open; not for ever, for perhaps nobody comes."""
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)


def _each_alone() -> None:
    """PUTs of one process share no transaction, so that they run into each other as those of two processes do."""

    def request(self: Turns[Any, Any], key: str, asked: Any, run: Any) -> Any:
        ticket: Ticket[Any, Any] = Ticket(asked)
        run([ticket])
        return ticket.take()

    Turns.request = request  # type: ignore[method-assign]  # that is the defect


class _Looks:
    """Counts the looks at charts that this process answers."""

    def __init__(self) -> None:
        self.count = 0
        original = asking.look

        def look(service: Service, name: str) -> Any:
            view = original(service, name)
            self.count += 1
            return view

        asking.look = look

    def until_another(self) -> None:
        """Return once somebody has looked from now on."""
        before = self.count
        _hold(lambda: self.count > before)


def no_lock() -> None:
    """A PUT is decided from what was read before it held the lock; the log's seq and chain are those under it."""
    _each_alone()
    updating.apply_all = _from_before(updating.apply_all, lambda tickets: [ticket.asked.chart for ticket in tickets])


def sweeper_without_lock() -> None:
    """The clock is judged from what was read before the lock was held."""
    updating.tick = asking.tick = _from_before(updating.tick, lambda name: [name])


def _from_before(use_case: Any, names_of: Callable[[Any], list[str]]) -> Any:
    def run(service: Service, what: Any, **options: Any) -> Any:
        with db.asking(service.database) as connection:
            rows = [store.charts.get_chart_and_now(connection, name)[0] for name in names_of(what)]
            local.before = {row.id: (row, store.charts.read_values(connection, row.id)) for row in rows}
        _hold(lambda: _has_moved(service, rows))
        try:
            return use_case(service, what, **options)
        finally:
            local.before = {}

    original = holding.read_positions

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

    holding.read_positions = read_positions
    return run


def _has_moved(service: Service, rows: Sequence[ChartRow]) -> bool:
    with db.asking(service.database) as connection:
        return any(store.charts.get_chart_and_now(connection, row.name)[0].seq != row.seq for row in rows)


def no_replay_check() -> None:
    """A PUT that was applied before is applied again."""
    original = app.service.put.Standing.gather

    def gather(self: Any, put: Any) -> Any:
        return replace(original(self, put), report=None, repeats=None)

    app.service.put.Standing.gather = gather  # type: ignore[method-assign]  # that is the defect


def answer_before_commit() -> None:
    """The answer is sent when the decision is made; the commit follows."""
    original, commit, looks = updating.apply_all, db._commit, _Looks()

    def commit_late(connection: Connection, really: Callable[[], None]) -> None:
        decided = getattr(local, "decided", None)
        if decided is not None:
            decided.set()
            looks.until_another()
        commit(connection, really)

    def apply_all(service: Service, tickets: Sequence[Any], **options: Any) -> None:
        decided = threading.Event()

        def work() -> None:
            local.decided = decided
            try:
                original(service, tickets, **options)
            finally:
                decided.set()

        threading.Thread(target=work, daemon=True).start()
        decided.wait()

    db._commit = commit_late
    updating.apply_all = apply_all


def cached_get() -> None:
    """What a chart was is remembered for a while."""
    original = asking.look
    cache: dict[str, tuple[float, Any]] = {}

    def look(service: Service, name: str) -> Any:
        until, view = cache.get(name, (0.0, None))
        if time.monotonic() > until:
            view = original(service, name)
            cache[name] = (time.monotonic() + HELD_SECONDS, view)
        return view

    asking.look = look


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
    original, apply_all = getattr(recording, name), updating.apply_all

    def put_off(connection: Connection, *arguments: Any) -> Any:
        if not hasattr(local, "later"):
            return original(connection, *arguments)
        local.later.append(arguments)
        return instead(connection, *arguments)

    def apply_and_write(service: Service, tickets: Sequence[Any], **options: Any) -> None:
        local.later = []
        try:
            apply_all(service, tickets, **options)
            time.sleep(HELD_SECONDS / 3)
            with db.transaction(service.database) as connection:
                for arguments in local.later:
                    original(connection, *arguments)
        finally:
            del local.later

    setattr(recording, name, put_off)
    updating.apply_all = apply_and_write


def waiter_answered_before_commit() -> None:
    """Who waits is told of a move that is not committed yet."""
    original_record, original_look = store.record.record_all, asking.look
    ahead: dict[str, Any] = {}

    def record_all(connection: Connection, changes: Sequence[store.record.Change], *arguments: Any) -> list[ChartRow]:
        afters: list[ChartRow] = original_record(connection, changes, *arguments)
        service = getattr(local, "service", None)
        for change, after in zip(changes, afters, strict=True):
            if service is not None and after.visit != change.row.visit:
                chart = service.definitions.get(connection, after)
                ahead[after.name] = asking.View(service, after, chart)
                service.hub.tell(after.name)
                time.sleep(HELD_SECONDS)
                ahead.pop(after.name, None)
        return afters

    def apply_all(service: Service, tickets: Sequence[Any], **options: Any) -> None:
        local.service = service
        original_apply(service, tickets, **options)

    def wait(service: Service, name: str, question: Any, seconds: float) -> Any:
        local.waits = True
        try:
            return original_wait(service, name, question, seconds)
        finally:
            local.waits = False

    def look(service: Service, name: str) -> Any:
        view = ahead.get(name) if getattr(local, "waits", False) else None
        return original_look(service, name) if view is None else view

    original_apply, original_wait = updating.apply_all, asking._wait
    store.record.record_all = record_all
    updating.apply_all = apply_all
    asking._wait = wait
    asking.look = look


DEFECTS: dict[str, Callable[[], None]] = {
    defect.__name__: defect
    for defect in (
        no_lock,
        no_replay_check,
        answer_before_commit,
        cached_get,
        log_outside_transaction,
        reports_outside_transaction,
        sweeper_without_lock,
        waiter_answered_before_commit,
    )
}
