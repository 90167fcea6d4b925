"""A standby that takes over under load, in the short form; and what is said where the standby did not confirm."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.db import Database
from app.db.engine import open_engine
from app.waiting.hub import read_listen_url
from proof.failover import Plan, run_failovers
from proof.load import RING
from proof.replication import Pair, replicated_database
from tests.support.databases import FOLDER
from tests.support.http import Reply
from tests.support.processes import until
from tests.support.servers import JSON, Server, chart_path, running

IS_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
CANCEL = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    # In a folder that PostgreSQL's system user may enter.
    with replicated_database(Path(tempfile.mkdtemp(dir=os.environ[FOLDER]))) as found:
        yield found


def test_nothing_acknowledged_is_lost_when_the_standby_takes_over(pair: Pair, tmp_path: Path) -> None:
    found = run_failovers(pair, tmp_path, Plan(failovers=2, acknowledged=100, threads=6))
    assert found.report.invalid == []
    assert found.report.violations == []
    assert found.report.fired == {"failover": 2}
    assert found.report.acknowledged >= 300


def test_an_update_that_the_standby_did_not_confirm_is_unknown_until_it_has(pair: Pair, tmp_path: Path) -> None:
    with running(pair.url, tmp_path, sweep_seconds="60") as server:
        server.import_chart("ring", RING)
        pair.standby.stop()
        assert_unknown(pair, server)
        # Now its row is there, on one server. That is still no yes.
        assert_unknown(pair, server)
        pair.standby.start()
        pair.require_standby()
        reply = put(server)
        assert (reply.status, reply.json()["replay"], reply.json()["seq"]) == (200, True, 2)


def assert_unknown(pair: Pair, server: Server) -> None:
    """Send the update, which waits for the standby, end that wait, and see what is said."""
    sent = server.callers.submit(put, server)
    until(lambda: pair.primary.ask(IS_WAITING), "the commit waits for the standby")
    assert not sent.done()
    pair.primary.ask(CANCEL)
    reply = sent.result(30)
    assert (reply.status, reply.json().get("outcome")) == (503, "unknown")


def put(server: Server) -> Reply:
    """Report, always as the same machine."""
    return server.ask("PUT", chart_path("ring", state="one", machine="web-01"), **JSON)


HOSTS = {
    "libpq's way": "host=127.0.0.1,127.0.0.1&port={0},{1}",
    "SQLAlchemy's way": "host=127.0.0.1:{0}&host=127.0.0.1:{1}",
}


@pytest.mark.parametrize("hosts", HOSTS.values(), ids=HOSTS)
def test_a_waiting_room_listens_to_the_one_of_several_hosts_that_takes_writes(pair: Pair, hosts: str) -> None:
    query = hosts.format(pair.standby.port, pair.primary.port)
    engine = open_engine(f"postgresql://postgres@/state?{query}&target_session_attrs=read-write")
    with psycopg.connect(read_listen_url(Database(engine), None)) as listening:
        assert listening.info.port == pair.primary.port
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT inet_server_port()").scalar_one() == pair.primary.port
    engine.dispose()
