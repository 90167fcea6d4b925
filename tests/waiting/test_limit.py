"""The limit on waiting requests, counted over all workers of a server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.charts import THREE
from tests.support.crowd import Crowd
from tests.support.processes import until
from tests.support.servers import JSON, Server, chart_path, running, wait_for_listeners

WORKERS = 3
LIMIT = 30


@pytest.fixture(scope="module")
def limited(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limited")
    settings = {"workers": str(WORKERS), "max_waiters": str(LIMIT), "default_chart": "web"}
    with running(shared_url, folder, **settings) as server:
        wait_for_listeners(server, WORKERS)
        server.import_chart("web", THREE)
        yield server


@pytest.fixture
def server(limited: Server, chart: str) -> Server:
    """The server that the tests here share, with a chart of the test's own; no request waits."""
    until(lambda: limited.waiters() == 0, "every place is free")
    limited.import_chart(chart, THREE)
    return limited


def paths(chart: str, count: int) -> list[str]:
    return [chart_path(chart, state="second", machine=f"m{number}", wait="55") for number in range(count)]


def test_one_more_than_the_limit_is_turned_away(server: Server, chart: str) -> None:
    with Crowd(server.port) as crowd:
        crowd.ask(paths(chart, LIMIT + 1))
        refused = crowd.collect(20, until=1)
        assert [one.status for one in refused] == [503]
        assert "retry-after: 1\r\n" in refused[0].head + "\r\n"
        assert server.waiters() == LIMIT
        server.put(chart, "first")
        answered = crowd.collect(20)
    assert sorted((one.status, one.body) for one in answered if one not in refused) == [(200, "second")] * LIMIT
    until(lambda: server.waiters() == 0, "every place is free again")


def test_refusal_says_why(server: Server, chart: str) -> None:
    with Crowd(server.port) as crowd:
        crowd.ask(paths(chart, LIMIT))
        server.until_waiting(LIMIT)
        refused = server.get(chart, "second", wait="55")
        default = server.ask("GET", "/state?state=second&wait=55", **JSON)
        at_once = server.get(chart, "second")
        history = server.ask("GET", chart_path(chart, "history", after="1", wait="5"))
    assert (refused.status, refused.headers["Content-Type"]) == (503, "application/problem+json")
    assert str(LIMIT) in refused.json()["detail"]
    assert (default.status, default.json()["detail"]) == (500, refused.json()["detail"])
    assert at_once.status == 406
    assert history.status == 503


def test_waiters_of_a_killed_worker_are_forgotten(server: Server, chart: str) -> None:
    with Crowd(server.port) as crowd:
        crowd.ask(paths(chart, LIMIT))
        server.until_waiting(LIMIT)
        victim = server.busiest_worker()
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.waiters() < LIMIT, "the dead worker's waiters are forgotten")
        lost = LIMIT - server.waiters()
        assert {one.status for one in crowd.collect(10, until=lost)} == {None}
        until(lambda: len(server.workers()) == WORKERS and victim not in server.workers(), "another worker")
        crowd.ask(paths(chart, lost + 1))
        refused = [one for one in crowd.collect(20, until=lost + 1) if one.status is not None]
        assert [one.status for one in refused] == [503]
        server.put(chart, "first")
        answered = crowd.collect(20)
    assert [one.status for one in answered].count(200) == LIMIT
    server.verify()


def test_no_request_waits_where_the_limit_is_zero(sqlite_url: str, tmp_path: Path) -> None:
    with running(sqlite_url, tmp_path, workers="1", max_waiters="0") as server:
        server.import_chart("web", THREE)
        assert server.get("web", "first", wait="55").answer == (200, "first")
        assert server.get("web", "second", wait="55").status == 503
        assert server.get("web", "nowhere", wait="55").status == 406
