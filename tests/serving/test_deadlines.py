"""Deadlines: performed once, by the request that touches the chart first or by the sweeper, and lost by no restart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core.log import format_instant
from tests.support.charts import deadline
from tests.support.http import Reply
from tests.support.processes import until
from tests.support.servers import Server, beside, running, shared_database

pytestmark = pytest.mark.slow

# How late the sweeper may be, and what a machine that runs other tests beside this one may add.
LATE = timedelta(seconds=2)
BUSY = timedelta(seconds=10)


@pytest.fixture(scope="module")
def idle(request: pytest.FixtureRequest, shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a database of its own whose sweeper hardly ever looks: only a request finds what is due."""
    folder = tmp_path_factory.mktemp("idle")
    which = "sqlite" if shared_url.startswith("sqlite") else "postgresql"
    with shared_database(request, which) as url, running(url, folder, sweep_seconds="60") as idle:
        yield idle


def timeouts(url: str, chart: str) -> list[tuple[datetime, datetime]]:
    """When each timeout of a chart came due, and when it was performed; for charts that leave state 1 by age."""
    query = (
        "SELECT v.entered_at, t.at FROM transition_log t JOIN charts c ON c.name = t.chart"
        " JOIN visits v ON v.chart_id = c.id AND v.run = t.run AND v.visit = t.visit"
        f" WHERE t.chart = '{chart}' AND t.kind = 'timeout' ORDER BY t.seq"
    )
    with beside(url) as connection:
        return [(instant(entered), instant(at)) for entered, at in connection.exec_driver_sql(query)]


def instant(value: Any) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def database_now(url: str) -> datetime:
    with beside(url) as connection:
        query = "SELECT strftime('%Y-%m-%d %H:%M:%f')" if url.startswith("sqlite") else "SELECT clock_timestamp()"
        return instant(connection.exec_driver_sql(query).scalar_one())


def wait_until(url: str, when: datetime) -> None:
    until(lambda: database_now(url) >= when, f"it is {format_instant(when)}")


def entered_at(url: str, chart: str) -> datetime:
    with beside(url) as connection:
        return instant(connection.exec_driver_sql(f"SELECT entered_at FROM charts WHERE name = '{chart}'").scalar_one())


def check_on_time(url: str, chart: str, age: timedelta, since: datetime | None = None) -> None:
    """`since` is when the server was there again, if it may have been away at the deadline."""
    ((entered, performed),) = timeouts(url, chart)
    due = entered + age
    assert due <= performed <= max(due, since or due) + LATE + BUSY


def test_sweeper_performs_it_once_with_nobody_asking(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, deadline("1s"))
    until(lambda: timeouts(server.database_url, chart), "it is performed")
    # Three workers sweep; another look of each of them finds nothing more to do.
    wait_until(server.database_url, database_now(server.database_url) + timedelta(seconds=1.5))
    check_on_time(server.database_url, chart, timedelta(seconds=1))
    assert server.get(chart, "over").answer == (200, "over")


def test_many_charts_that_are_due_together_are_all_on_time(server: Server, chart: str) -> None:
    names = [f"{chart}-{number}" for number in range(30)]
    for name in names:
        server.import_chart(name, deadline("3s"))
    until(lambda: all(timeouts(server.database_url, name) for name in names), "all are performed")
    for name in names:
        check_on_time(server.database_url, name, timedelta(seconds=3))


def test_chart_whose_lock_is_held_keeps_no_other_from_its_turn(server: Server, chart: str) -> None:
    if server.database_url.startswith("sqlite"):
        return  # there is one lock for all charts
    stuck, free = f"{chart}-stuck", f"{chart}-free"
    server.import_chart(stuck, deadline("1s"))
    server.import_chart(free, deadline("2s"))
    with server.locked(stuck):
        until(lambda: timeouts(server.database_url, free), "the other one has its turn")
        assert not timeouts(server.database_url, stuck)
    check_on_time(server.database_url, free, timedelta(seconds=2))
    until(lambda: timeouts(server.database_url, stuck), "it has its turn, too")


def test_first_to_ask_performs_it(idle: Server, chart: str) -> None:
    idle.import_chart(chart, deadline("1s"))
    wait_until(idle.database_url, entered_at(idle.database_url, chart) + timedelta(seconds=1))
    replies = [idle.callers.submit(idle.get, chart, "over") for _ in range(8)]
    assert {one.result(30).answer for one in replies} == {(200, "over")}
    assert len(timeouts(idle.database_url, chart)) == 1


def test_put_that_comes_when_it_is_due_is_refused(idle: Server, chart: str) -> None:
    idle.import_chart(chart, deadline("1s"))
    wait_until(idle.database_url, entered_at(idle.database_url, chart) + timedelta(seconds=1))
    assert idle.put(chart, "open", machine="m1").status == 406
    assert idle.put(chart, "over", machine="m1").answer == (200, "over")
    assert [row["kind"] for row in idle.history(chart)] == ["import", "timeout", "update"]


def test_put_that_waited_for_the_lock_past_the_deadline_is_refused(idle: Server, chart: str) -> None:
    url = idle.database_url
    idle.import_chart(chart, deadline("2s"))
    due = entered_at(url, chart) + timedelta(seconds=2)
    # Not for long: who waits too long for a lock is answered 503.
    wait_until(url, due - timedelta(seconds=0.7))
    with idle.locked(chart):
        puts: list[Future[Reply]] = [
            idle.callers.submit(idle.put, chart, "open", machine=f"m{number}") for number in range(3)
        ]
        until(lambda: idle.connections() >= 3, "they have come")
        wait_until(url, due)
        assert not [put.result() for put in puts if put.done()]
    assert {put.result(30).answer for put in puts} == {(406, "")}
    assert [row["kind"] for row in idle.history(chart)] == ["import", "timeout"]


def test_paused_time_does_not_count(server: Server, chart: str) -> None:
    url = server.database_url
    server.import_chart(chart, deadline("2s"))
    server.act(chart, "pause")
    wait_until(url, entered_at(url, chart) + timedelta(seconds=3.5))
    assert timeouts(url, chart) == []
    server.act(chart, "resume")
    assert server.get(chart, "open").answer == (200, "open")
    until(lambda: timeouts(url, chart), "it is performed")
    paused, resumed, over = (row["at"] for row in server.history(chart) if row["kind"] != "import")
    running_for = (
        datetime.fromisoformat(over)
        - entered_at_first(server, chart)
        - (datetime.fromisoformat(resumed) - datetime.fromisoformat(paused))
    )
    assert timedelta(seconds=2) <= running_for <= timedelta(seconds=2) + LATE + BUSY


def entered_at_first(server: Server, chart: str) -> datetime:
    return datetime.fromisoformat(server.history(chart)[0]["at"])


@pytest.mark.parametrize("is_killed", [False, True], ids=["restart", "kill -9"])
def test_deadline_outlives_its_server(database_url: str, tmp_path: Path, is_killed: bool) -> None:
    with running(database_url, tmp_path, workers="1") as server:
        server.import_chart("before", deadline("1s"))
        server.import_chart("after", deadline("8s"))
        server.put("after", "open", machine="m1")
        if is_killed:
            server.kill()
        else:
            server.stop()
    wait_until(database_url, entered_at(database_url, "before") + timedelta(seconds=1.5))
    with running(database_url, tmp_path, workers="1") as server:
        since = database_now(database_url)
        until(lambda: timeouts(database_url, "before"), "the one that came due meanwhile is performed")
        until(lambda: timeouts(database_url, "after"), "the one that was due later is performed")
        check_on_time(database_url, "after", timedelta(seconds=8), since)
        assert server.put("after", "open", machine="m1").answer == (200, "open")
        assert server.put("after", "open", machine="m2").status == 406
        assert len(timeouts(database_url, "before")) == 1
        server.verify()
