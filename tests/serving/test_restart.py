"""Starting again: it goes on where it was, and nothing is lost. The files of a later start: tests/cli/test_serve.py."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from pathlib import Path

import pytest

from tests.serving.conftest import history, serving
from tests.support.faults import COUNTING
from tests.support.processes import until
from tests.support.servers import patched, run_curl, running

TIMER = """
chart: timer
current_state: soon
states:
  - {name: soon, func: time, target: {name: done, when: {key: elapsed, value: 1s}}}
  - {name: done}
"""


def test_restart_goes_on_where_it_was(empty_database_url: str, tmp_path: Path, seed: Path) -> None:
    """The first start makes the tables."""
    with serving(empty_database_url, tmp_path, "--chart", seed, workers="1") as server:
        assert server.ask("PUT", "/state?state=green_state").status == 200
    with serving(empty_database_url, tmp_path, "--chart", seed, workers="1") as server:
        assert "states: unchanged, version 1, in red_state" in server.log.read_text()
        assert server.ask("GET", "/state?state=red_state").answer == (200, "red_state")
        assert [row["kind"] for row in history(server, "states")] == ["import", "transition"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_worker_loses_nothing(database_url: str, tmp_path: Path, workers: str) -> None:
    counting = tmp_path / "counting.yaml"
    counting.write_text(COUNTING)
    with serving(database_url, tmp_path, "--chart", counting, "--workers", workers, workers=workers) as server:
        taken = 0
        for _ in range(3):
            taken += sum(server.put("counting", "work").status == 200 for _ in range(10))
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            until(lambda gone=victim: gone not in server.workers(), "it is gone")
            until(lambda: len(server.workers()) == int(workers), "another one has come")
            until(lambda: answers(server.url), "it answers", 20)
        assert taken == 30
        assert server.status("counting")["values"] == {"count": taken}
        server.verify()


def answers(url: str) -> bool:
    return run_curl("-sf", f"{url}/readyz").returncode == 0


@pytest.mark.slow
def test_killed_server_loses_nothing(database_url: str, tmp_path: Path) -> None:
    counting = tmp_path / "counting.yaml"
    counting.write_text(COUNTING)
    with serving(database_url, tmp_path, "--chart", counting) as server:
        taken = sum(server.put("counting", "work").status == 200 for _ in range(20))
        server.kill()
    with serving(database_url, tmp_path, "--chart", counting) as server:
        assert server.status("counting")["values"] == {"count": taken}
        server.verify()


TOLD_AT_BIRTH = """
import signal

_keep = post_fork
_told = {1: signal.SIGTERM, 2: signal.SIGINT, 3: signal.SIGQUIT}


def post_fork(server, worker):
    _keep(server, worker)
    if worker.age in _told:
        os.kill(os.getpid(), _told[worker.age])
"""


def test_worker_that_is_told_to_end_when_it_is_born_ends(sqlite_url: str, tmp_path: Path) -> None:
    with running(sqlite_url, tmp_path, patched(tmp_path, TOLD_AT_BIRTH), workers="3") as server:
        until(lambda: server.log.read_text().count("Booting worker") == 6, "they ended, and others are in their place")


def test_due_clock_guard_is_performed_though_nobody_asks(database_url: str, tmp_path: Path) -> None:
    with running(database_url, tmp_path, workers="1") as server:
        server.import_chart("timer", TIMER)

        def moves() -> list[str]:
            # The log alone: to ask for the state would take the transition itself.
            return [row["at"] for row in history(server, "timer") if row["kind"] == "timeout"]

        until(moves, "the sweeper moved it")
        # Due after one second, and performed within two more.
        assert seconds_between(history(server, "timer")[0]["at"], moves()[0]) <= 3


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
