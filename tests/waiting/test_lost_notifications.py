"""What tells the waiters of a change is lost, replaced or not there at all: they are told all the same."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.waiting.hub import LISTENER_NAME
from tests.support.charts import THREE
from tests.support.databases import Copies, administering
from tests.support.processes import PATIENCE, until
from tests.support.servers import Server, beside, running, sessions

IS_LISTENER = f"application_name = '{LISTENER_NAME}'"


@pytest.fixture(scope="module")
def shared_url(postgresql_copies: Copies) -> Iterator[str]:
    yield from postgresql_copies.make()


@pytest.fixture(scope="module")
def server(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that listens; its listen URL is written as the database's is."""
    assert shared_url.startswith("postgresql+psycopg://")
    with running(shared_url, tmp_path_factory.mktemp("server"), workers="1", listen_url=shared_url) as server:
        yield server


def release(server: Server, other: Server, chart: str) -> None:
    """Have `other` serve the PUT that waiters of `server` wait for, and check that they are told."""
    server.import_chart(chart, THREE)
    held = server.hold(chart, "second", count=6)
    since = server.clock()
    assert other.put(chart, "first").answer == (200, "first")
    replies = [one.result(60) for one in held]
    assert {reply.answer for reply in replies} == {(200, "second")}
    assert max(reply.at for reply in replies) - since < PATIENCE


def count_listeners(url: str) -> int:
    return len(sessions(url, IS_LISTENER))


def terminate_listeners(url: str) -> int:
    with beside(url) as connection:
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND {IS_LISTENER}"
        )
        return int(connection.exec_driver_sql(query).scalar_one())


def test_listener_that_was_terminated_is_replaced(server: Server, other: Server, chart: str) -> None:
    until(lambda: count_listeners(server.database_url) == 2, "both listen")
    server.import_chart(chart, THREE)
    held = server.hold(chart, "second", count=6)
    assert terminate_listeners(server.database_url) == 2
    since = server.clock()
    other.put(chart, "first")
    replies = [one.result(60) for one in held]
    assert {reply.answer for reply in replies} == {(200, "second")}
    assert max(reply.at for reply in replies) - since < PATIENCE
    until(lambda: count_listeners(server.database_url) == 2, "both listen again")
    release(server, other, f"{chart}-again")


def test_waiters_outlive_every_session_of_their_server(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    held = server.hold(chart, "second", count=6)
    with server.beside() as connection:
        # Not PostgreSQL's own, such as autovacuum's: the role that serves may not end them.
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        connection.exec_driver_sql(f"{query} AND usename = current_user AND pid <> pg_backend_pid()").all()
    assert other.put(chart, "first").answer == (200, "first")
    assert {one.result(60).answer for one in held} == {(200, "second")}


def test_listen_url_may_be_written_as_the_database_url_is(server: Server) -> None:
    assert "cannot listen to the database, will look every 0.5 s: missing" not in server.log.read_text()
    until(lambda: count_listeners(server.database_url) >= 1, "it listens")


DEAF = {
    "nobody can listen": {"listen_url": "postgresql://nobody@127.0.0.1:1/nothing"},
    "a pooler stands between and there is no listen url": {"pooler": "true"},
}


@pytest.mark.parametrize("settings", DEAF.values(), ids=DEAF)
def test_waiters_are_told_where(
    shared_url: str, other: Server, tmp_path: Path, chart: str, settings: dict[str, str]
) -> None:
    until(lambda: count_listeners(shared_url) >= 1, "the other one listens")
    before = count_listeners(shared_url)
    with running(shared_url, tmp_path, workers="1", **settings) as deaf:
        release(deaf, other, chart)
        assert count_listeners(shared_url) == before


def test_waiters_are_told_where_notify_never_arrives(
    postgresql_url: str, postgresql_server: Engine, tmp_path: Path
) -> None:
    # As behind a pooler that the settings do not mention: LISTEN succeeds, and nothing is ever heard.
    with administering(postgresql_server, postgresql_url) as connection:
        connection.exec_driver_sql("CREATE SCHEMA silent")
        connection.exec_driver_sql("GRANT USAGE ON SCHEMA silent TO PUBLIC")
        connection.exec_driver_sql("CREATE FUNCTION silent.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT'")
        database = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        connection.exec_driver_sql(f"ALTER DATABASE {database} SET search_path = silent, pg_catalog, public")
    one = running(postgresql_url, tmp_path, workers="1")
    with one as server, running(postgresql_url, tmp_path, workers="1") as other:
        until(lambda: count_listeners(postgresql_url) == 2, "both listen")
        release(server, other, "web")


def test_sqlite_file_that_was_replaced_is_watched(sqlite_url: str, tmp_path: Path) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    with running(sqlite_url, tmp_path, workers="1") as server:
        server.import_chart("web", THREE)
        held = server.hold("web", "second", count=6)
        copy = file.with_name("copy.db")
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        # A restored backup: another file under the same name, without what belonged to the old one.
        for name in (f"{file}-wal", f"{file}-shm"):
            Path(name).unlink(missing_ok=True)
        os.replace(copy, file)
        with running(sqlite_url, tmp_path, workers="1") as other:
            since = server.clock()
            assert other.put("web", "first").answer == (200, "first")
            replies = [one.result(60) for one in held]
    assert {reply.answer for reply in replies} == {(200, "second")}
    assert max(reply.at for reply in replies) - since < PATIENCE


def test_sqlite_file_that_is_gone_for_a_while_is_found_again(sqlite_url: str, tmp_path: Path) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    away = file.with_name("away.db")
    with running(sqlite_url, tmp_path, workers="1") as server:
        server.import_chart("web", THREE)
        held = server.hold("web", "second", count=6)
        time.sleep(1)  # until the hub's first look, which wakes every waiter, is over
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("VACUUM INTO ?", (str(away),))
        for name in (str(file), f"{file}-wal", f"{file}-shm"):
            Path(name).unlink(missing_ok=True)
        until(lambda: "cannot watch" in server.log.read_text(), "it notices")
        assert not any(one.done() for one in held)
        os.replace(away, file)
        until(lambda: server.put("web", "first").status == 200, "it serves again")
        assert {one.result(60).answer for one in held} == {(200, "second")}
