"""A server that is told to stop answers everybody who waits, at once."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.charts import THREE
from tests.support.crowd import Crowd, Held
from tests.support.processes import PATIENCE, free_port, until
from tests.support.servers import GUNICORN, ROOT, Server, chart_path, running, wait_for_listeners

WAITERS = 60


def hold(server: Server, crowd: Crowd) -> None:
    server.import_chart("web", THREE)
    ways = ("state", "reached")
    crowd.ask([chart_path("web", ways[number % 2], state="second", wait="55") for number in range(WAITERS)])
    server.until_waiting(WAITERS)


def check(crowd: Crowd, since: float) -> None:
    answered = crowd.collect(PATIENCE)
    assert {(one.status, one.body) for one in answered} == {(406, "")}
    assert latest(answered) - since < PATIENCE


def latest(answered: list[Held]) -> float:
    return max(one.at for one in answered if one.at is not None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_master_answers_everybody_and_ends_the_server(
    database_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    with running(database_url, tmp_path) as server, Crowd(server.port) as crowd:
        wait_for_listeners(server, 2)
        hold(server, crowd)
        check(crowd, server.send(number))
        assert server.process.wait(PATIENCE) == 0
        assert server.workers_left == []
    assert "Traceback" not in server.log.read_text()


def test_reload_answers_everybody_and_serves_on(database_url: str, tmp_path: Path) -> None:
    with running(database_url, tmp_path, max_waiters=str(WAITERS)) as server:
        before = server.workers()
        with Crowd(server.port) as crowd:
            hold(server, crowd)
            # The new workers start first, and are as slow as a start is; the old ones are told after that.
            server.send(signal.SIGHUP)
            answered = crowd.collect(PATIENCE)
        assert {(one.status, one.body) for one in answered} == {(406, "")}
        assert latest(answered) - min(one.at for one in answered if one.at is not None) < PATIENCE
        until(lambda: len(server.workers()) == 2 and not set(server.workers()) & set(before), "new workers alone")
        with Crowd(server.port) as crowd:
            hold(server, crowd)
            server.put("web", "first")
            assert {(one.status, one.body) for one in crowd.collect(PATIENCE)} == {(200, "second")}


def test_signal_to_one_worker_answers_its_waiters_and_no_others(sqlite_url: str, tmp_path: Path) -> None:
    with running(sqlite_url, tmp_path) as server, Crowd(server.port) as crowd:
        hold(server, crowd)
        victim = server.busiest_worker()
        os.kill(victim, signal.SIGTERM)
        until(lambda: victim not in server.workers(), "it ends")
        left = server.waiters()
        assert {(one.status, one.body) for one in crowd.collect(PATIENCE, until=WAITERS - left)} == {(406, "")}
        server.put("web", "first")
        assert [one.status for one in crowd.collect(PATIENCE)].count(200) == left


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
def test_ctrl_c_answers_everybody(sqlite_url: str, tmp_path: Path, debug: tuple[str, ...]) -> None:
    port = free_port()
    command = [sys.executable, str(ROOT / "state_service"), "--port", str(port), *debug]
    with running(sqlite_url, tmp_path, command, port, workers="1") as server, Crowd(server.port) as crowd:
        hold(server, crowd)
        told = time.monotonic()
        # A terminal sends it to the whole foreground group.
        os.killpg(server.process.pid, signal.SIGINT)
        check(crowd, told)
        assert server.process.wait(PATIENCE) == 0


def test_stop_answers_everybody_while_the_database_is_locked(sqlite_url: str, tmp_path: Path) -> None:
    with running(sqlite_url, tmp_path, workers="1") as server, Crowd(server.port) as crowd:
        hold(server, crowd)
        with server.locked("web"):
            check(crowd, server.send(signal.SIGTERM))


def test_requests_that_came_before_a_stop_are_answered(database_url: str, tmp_path: Path) -> None:
    with running(database_url, tmp_path, workers="1") as server:
        server.import_chart("web", THREE)
        with server.locked("web"):
            puts = [server.callers.submit(server.put, "web", "first", machine=f"m{number}") for number in range(4)]
            until(lambda: server.connections() >= len(puts), "they have come")
            server.send(signal.SIGTERM)
        statuses = sorted(put.result(30).status for put in puts)
        server.process.wait(PATIENCE)
    assert statuses == [200, 406, 406, 406]


def test_more_waiters_than_the_soft_limit_on_open_files(sqlite_url: str, tmp_path: Path) -> None:
    waiters, limit = 200, 150
    with running(sqlite_url, tmp_path, limited(limit), workers="1") as server, Crowd(server.port) as crowd:
        server.import_chart("web", THREE)
        crowd.ask([chart_path("web", state="second", wait="55")] * waiters)
        server.until_waiting(waiters)
        server.put("web", "first")
        assert {one.status for one in crowd.collect(PATIENCE)} == {200}


def limited(files: int) -> list[str]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ["prlimit", f"--nofile={files}:{hard}", *GUNICORN]


def test_peer_that_does_not_close_its_end_holds_up_nobody(sqlite_url: str, tmp_path: Path) -> None:
    with running(sqlite_url, tmp_path, workers="1") as server, Crowd(server.port) as crowd:
        server.import_chart("web", THREE)
        # Each asks for its connection to be closed, and then leaves its own end open.
        crowd.ask([chart_path("web", state="first")] * 20)
        assert {one.status for one in crowd.collect(PATIENCE)} == {200}
        assert server.get("web", "first").seconds < PATIENCE
