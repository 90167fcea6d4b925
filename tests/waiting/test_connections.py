"""A request that waits holds a thread and nothing of the database's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.charts import THREE
from tests.support.processes import PATIENCE, until
from tests.support.servers import Server, running, sessions, wait_for_listeners

WAITERS = 50
POOL = 2


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    with running(database_url, tmp_path, workers="1", pool_size=str(POOL)) as server:
        wait_for_listeners(server, 1)
        server.import_chart("web", THREE)
        server.import_chart("other", THREE)
        yield server


def test_others_are_served_while_more_wait_than_there_are_connections(server: Server) -> None:
    held = server.hold("web", "second", count=WAITERS) + server.hold("web", "second", "reached", count=WAITERS)
    replies = [server.get("other", "first") for _ in range(50)]
    replies += [server.put("other", "first"), server.put("web", "second")]
    assert [reply.status for reply in replies] == [200] * 51 + [406]
    assert max(reply.seconds for reply in replies) < PATIENCE
    server.put("web", "first")
    assert {one.result(60).answer for one in held} == {(200, "second")}


def test_waiters_hold_no_session_and_no_transaction(postgresql_url: str, tmp_path: Path) -> None:
    with running(postgresql_url, tmp_path, workers="1", pool_size=str(POOL)) as server:
        wait_for_listeners(server, 1)
        server.import_chart("web", THREE)
        held = server.hold("web", "second", count=WAITERS)
        until(lambda: {state for _, state in sessions(postgresql_url)} == {"idle"}, "every session is idle")
        assert len(sessions(postgresql_url)) <= POOL + 1
        assert sessions(postgresql_url, "xact_start IS NOT NULL AND state <> 'active'") == []
        server.put("web", "first")
        assert {one.result(60).answer for one in held} == {(200, "second")}


def test_sqlite_can_be_emptied_of_its_log_while_many_wait(sqlite_url: str, tmp_path: Path) -> None:
    # A reader that is in a transaction would keep the write-ahead log from being truncated.
    with running(sqlite_url, tmp_path, workers="1", pool_size=str(POOL)) as server:
        server.import_chart("web", THREE)
        held = server.hold("web", "second", count=WAITERS)
        with server.beside() as connection:
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
        assert busy == 0
        server.put("web", "first")
        assert {one.result(60).answer for one in held} == {(200, "second")}
