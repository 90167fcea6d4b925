"""One holds the chart's row, the other must wait; and a service without the lock is found out by the same test."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest
from sqlalchemy import select

from app import db, store
from app.core.position import Reason
from app.db import Prepared, among
from app.models import charts
from app.service import operate
from app.service.context import Service
from app.service.operate import ImportRequest, import_chart
from app.service.put import tick
from app.service.upkeep import verify
from tests.service.support import ANN, NOBODY, get_row, import_text, opened_service, put, rows
from tests.support.concurrency import PATIENCE, Hold, counting_chart, threads
from tests.support.requests import Question, ask


@pytest.fixture
def time_source() -> None:
    """The service goes by the database's time."""


# Long against what a PUT takes, short against how long it may wait for a lock.
A_WHILE = 0.5


def waits(future: Future[Any]) -> bool:
    try:
        future.exception(A_WHILE)
    except FutureTimeoutError:
        return True
    return False


@pytest.fixture(autouse=True)
def chart(service: Service) -> None:
    import_text(service, counting_chart(2))


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Hold:
    return Hold(monkeypatch)


def race(hold: Hold, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[bool, Future[Any], Future[Any]]:
    """Let `second` begin while `first` holds the row; return whether it waited, and what came of both."""
    with threads(2) as pool:
        holder = pool.submit(hold.stopping(first))
        assert hold.is_held.wait(PATIENCE)
        follower = pool.submit(second)
        has_waited = waits(follower)
        hold.released.set()
    return has_waited, holder, follower


def test_second_put_waits_for_the_first(service: Service, other: Service, hold: Hold) -> None:
    waited, first, second = race(hold, lambda: put(service, "a"), lambda: put(other, "a"))
    assert waited
    assert (first.result().value, first.result().reason) == (1, Reason.UPDATED)
    assert (second.result().value, second.result().reason) == (2, Reason.TRANSITIONED)
    assert [row.seq for row in rows(service)] == [1, 2, 3]
    assert verify(service, "web").differences == ()


def test_second_put_is_judged_by_what_the_first_one_left(service: Service, other: Service, hold: Hold) -> None:
    put(service, "a")
    waited, first, second = race(hold, lambda: put(service, "a"), lambda: put(other, "a"))
    assert waited
    assert (first.result().reason, second.result().reason) == (Reason.TRANSITIONED, Reason.NOT_CURRENT)


def test_same_machine_counts_once_though_both_puts_began_before_it_had(
    service: Service, other: Service, hold: Hold
) -> None:
    waited, first, second = race(hold, lambda: put(service, "a", "m1"), lambda: put(other, "a", "m1"))
    assert waited
    assert (first.result().reason, second.result().reason) == (Reason.UPDATED, Reason.REPLAY)


def test_same_key_counts_once_though_both_puts_began_before_it_had(
    service: Service, other: Service, hold: Hold
) -> None:
    waited, first, second = race(
        hold, lambda: put(service, "a", idempotency_key="k"), lambda: put(other, "a", idempotency_key="k")
    )
    assert waited
    assert (first.result().reason, second.result().reason) == (Reason.UPDATED, Reason.REPLAY)


WRITERS: dict[str, Callable[[Service], object]] = {
    "pause": lambda service: operate.pause(service, "web", "look", ANN),
    "reset": lambda service: operate.reset(service, "web", "again", ANN),
    "goto": lambda service: operate.goto(service, "web", "b", "there", ANN),
    "archive": lambda service: operate.archive(service, "web", "over", ANN),
    "import": lambda service: import_chart(service, ImportRequest(counting_chart(3)), NOBODY),
    "tick": lambda service: tick(service, "web"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_everything_that_changes_a_chart_waits_for_a_put(
    service: Service, other: Service, hold: Hold, kind: str
) -> None:
    waited, first, second = race(hold, lambda: put(service, "a"), lambda: WRITERS[kind](other))
    assert waited
    assert (first.exception(), second.exception()) == (None, None)
    assert verify(service, "web").differences == ()


def test_get_does_not_wait(service: Service, other: Service, hold: Hold) -> None:
    waited, _, second = race(hold, lambda: put(service, "a"), lambda: ask(other, "web", Question("a")))
    assert (waited, second.result().is_yes) == (False, True)


def test_put_on_another_chart_does_not_wait_on_postgresql(postgresql_url: str, hold: Hold) -> None:
    with opened_service(postgresql_url) as service, opened_service(postgresql_url) as other:
        for name in ("web", "free"):
            import_text(service, counting_chart(2), name=name)
        waited, _, second = race(hold, lambda: put(service, "a"), lambda: put(other, "a", chart="free"))
        assert (waited, second.result().is_yes) == (False, True)


def without_lock(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    if service.database.is_sqlite:
        monkeypatch.setitem(db.BEGIN_WRITING, "sqlite", "BEGIN")
    else:
        monkeypatch.setattr(store.charts, "_CHART_LOCKED", store.charts._CHART_PREPARED)
        free = select(charts).where(among(charts.c.name, "names")["postgresql"])
        monkeypatch.setattr(store.charts, "_FREE_CHARTS", Prepared({"postgresql": free}))


def test_missing_lock_is_found_out(
    service: Service, other: Service, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness proves itself: without the lock the second PUT goes ahead, and the first one is in trouble."""
    for each in (service, other):
        without_lock(each, monkeypatch)
    waited, first, second = race(hold, lambda: put(service, "a"), lambda: put(other, "a"))
    assert not waited
    assert second.result().value == 1
    assert first.exception() is not None or first.result().value != 1
    assert get_row(service).seq < 4
