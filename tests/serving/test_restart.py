"""Starting again: it goes on where it was; a changed file is an upgrade or a clear refusal; nothing is lost."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from pathlib import Path

import pytest

from tests.serving.conftest import STATE_SERVICE, history, run, serving
from tests.support.apps import SEED
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


def test_restart_goes_on_where_it_was(database_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(database_url, tmp_path, "--chart", seed) as server:
        assert server.ask("PUT", "/state?state=green_state").status == 200
    with serving(database_url, tmp_path, "--chart", seed) as server:
        assert "states: unchanged, version 1, in red_state" in server.log.read_text()
        assert server.ask("GET", "/state?state=red_state").answer == (200, "red_state")
        assert [row["kind"] for row in history(server, "states")] == ["import", "transition"]


def test_database_is_made_and_migrated(empty_database_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(empty_database_url, tmp_path, "--chart", seed) as server:
        assert server.ask("GET", "/state?state=green_state").status == 200


def test_restart_without_charts_serves_those_there_are(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed):
        pass
    with serving(sqlite_url, tmp_path) as server:
        assert server.ask("GET", "/state?state=green_state").status == 200


def test_changed_file_is_an_upgrade(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed) as server:
        server.ask("PUT", "/state?state=green_state")
    seed.write_text(SEED.replace("blue_state", "purple_state"))
    with serving(sqlite_url, tmp_path, "--chart", seed) as server:
        assert "states: upgraded, version 2, in red_state" in server.log.read_text()
        assert server.ask("PUT", "/state?state=red_state").status == 200
        assert server.ask("GET", "/state?state=purple_state").status == 200


def test_file_that_drops_the_current_state_is_refused(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed):
        pass
    good = seed.read_text()
    seed.write_text(SEED.replace("green_state", "lime_state"))
    done = run([*STATE_SERVICE, "--database", sqlite_url, "--chart", str(seed)], sqlite_url)
    assert done.returncode == 1
    assert "green_state" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    seed.write_text(good)
    with serving(sqlite_url, tmp_path, "--chart", seed) as server:
        assert [row["kind"] for row in history(server, "states")] == ["import"]


def test_bad_file_is_refused_with_its_problems(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    seed.write_text(SEED.replace("increment", "incremnt"))
    done = run([*STATE_SERVICE, "--database", sqlite_url, "--chart", str(seed)], sqlite_url)
    assert done.returncode == 2
    assert f"{seed}:6:11: error: " in done.stderr


def test_first_of_two_charts_is_the_default(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    counting = tmp_path / "counting.yaml"
    counting.write_text(COUNTING)
    with serving(sqlite_url, tmp_path, "--chart", counting, "--chart", seed) as server:
        assert server.ask("GET", "/state?state=work").status == 200
        assert server.ask("GET", "/state?state=green_state").status == 406
        assert server.get("states", "green_state").status == 200
        assert server.get("counting", "work").status == 200


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_ends_it_cleanly(sqlite_url: str, tmp_path: Path, seed: Path, number: signal.Signals) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed) as server:
        server.ask("PUT", "/state?state=green_state")
        workers = server.workers()
        server.send(number)
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log.read_text()
        assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)


TOLD_AT_BIRTH = """
import signal

_keep = post_fork


def post_fork(server, worker):
    _keep(server, worker)
    if worker.age == 1:
        os.kill(os.getpid(), signal.{name})
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_worker_that_is_told_to_end_when_it_is_born_ends(sqlite_url: str, tmp_path: Path, name: str) -> None:
    with running(sqlite_url, tmp_path, patched(tmp_path, TOLD_AT_BIRTH.format(name=name))) as server:
        until(lambda: server.log.read_text().count("Booting worker") == 3, "it ended, and another is in its place")


def test_due_clock_guard_is_performed_though_nobody_asks(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path) as server:
        server.import_chart("timer", TIMER)

        def moves() -> list[str]:
            # The log alone: to ask for the state would take the transition itself.
            return [row["at"] for row in history(server, "timer") if row["kind"] == "timeout"]

        until(moves, "the sweeper moved it")
        # Due after one second, and performed within two more.
        assert seconds_between(history(server, "timer")[0]["at"], moves()[0]) <= 3


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
