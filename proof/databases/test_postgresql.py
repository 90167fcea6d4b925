"""PostgreSQL away, restarted, shut to us, locked, read-only: said plainly, and survived."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, Engine, create_engine, make_url

from app.db.engine import normalize_url
from app.wiring import service_of
from tests.support.apps import import_text, opened_app
from tests.support.faults import (
    ANSWER_SECONDS,
    COUNTING,
    PATH,
    assert_away,
    assert_heals,
    assert_refuses,
    assert_still_answers,
    put_often,
    timed,
)
from tests.support.processes import free_port, until

OUR_SESSIONS = "FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'stateservice'"


@pytest.fixture
def app(postgresql_url: str) -> Iterator[Flask]:
    for app in opened_app(postgresql_url):
        import_text(app, COUNTING)
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def server(postgresql_server: Engine) -> Engine:
    """The superuser's engine, on another database of the same server."""
    return postgresql_server


def name_of(app: Flask) -> str:
    return str(service_of(app).database.engine.url.database)


def run(server: Engine, statement: str) -> Any:
    with server.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return result.scalar() if result.returns_rows else None


def terminate_sessions(server: Engine, app: Flask) -> int:
    sessions = OUR_SESSIONS.format(name=name_of(app))
    count: int = run(server, f"SELECT count(pg_terminate_backend(pid)) {sessions}")
    until(lambda: run(server, f"SELECT count(*) {sessions}") == 0, "the sessions are gone")
    return count


def is_somebody_waiting(server: Engine, app: Flask) -> bool:
    return bool(run(server, f"SELECT count(*) {OUR_SESSIONS.format(name=name_of(app))} AND wait_event_type = 'Lock'"))


@contextmanager
def holding(app: Flask, statement: str) -> Iterator[Connection]:
    """Hold what `statement` locks, in a session of the test's own, while the block lasts."""
    engine = create_engine(service_of(app).database.engine.url)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
        yield connection
        connection.rollback()
    engine.dispose()


# Away


def test_everybody_is_told_when_nobody_listens_there() -> None:
    for app in opened_app(f"postgresql://state@127.0.0.1:{free_port()}/state"):
        assert_away(app.test_client())


def test_everybody_is_told_when_the_host_has_no_name() -> None:
    for app in opened_app("postgresql://state@no-such-host.invalid/state"):
        assert_away(app.test_client())


def test_everybody_is_told_when_there_is_no_such_database(postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(database="nowhere").render_as_string(hide_password=False)
    for app in opened_app(url):
        assert_away(app.test_client())


def test_everybody_is_told_when_it_was_never_migrated(empty_postgresql_url: str) -> None:
    for app in opened_app(empty_postgresql_url):
        assert_away(app.test_client())


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_service_outlives_a_restart_of_the_server(own_server: Any, own_url: str, mode: str) -> None:
    for app in opened_app(own_url):
        import_text(app, COUNTING)
        client = app.test_client()
        taken = put_often(client, 3)
        stop_server(own_server, mode)
        try:
            assert_away(client)
        finally:
            start_server(own_server)
        assert_heals(app, taken)


def stop_server(server: Any, mode: str) -> None:
    control(server, "stop", "-m", mode)


def start_server(server: Any) -> None:
    control(server, "start", "-l", str(server.log), "-o", f'-h "" -k {server.pgdata}')


def control(server: Any, act: str, *options: str) -> None:
    command = [str(server.bin_path / "pg_ctl"), "-w", "-D", str(server.pgdata), *options, act]
    # A server that starts keeps what it was given for its output.
    subprocess.run(command, user=server.system_user, stdout=subprocess.DEVNULL, timeout=60, check=True)


def test_service_heals_when_the_database_lets_it_in_again(app: Flask, client: FlaskClient, server: Engine) -> None:
    taken = put_often(client, 3)
    run(server, f"ALTER DATABASE {name_of(app)} ALLOW_CONNECTIONS false")
    assert terminate_sessions(server, app) > 0
    assert_away(client)
    run(server, f"ALTER DATABASE {name_of(app)} ALLOW_CONNECTIONS true")
    assert_heals(app, taken)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_nobody_notices_when_idle_sessions_were_ended(
    app: Flask, client: FlaskClient, server: Engine, method: str
) -> None:
    put_often(client, 1)
    for _ in range(3):
        assert terminate_sessions(server, app) > 0
        assert client.open(PATH, method=method).status_code == 200


def test_put_is_done_once_when_its_session_was_ended_while_it_waited(
    app: Flask, client: FlaskClient, server: Engine
) -> None:
    with ThreadPoolExecutor(1) as machine:
        with holding(app, "SELECT 1 FROM charts FOR UPDATE"):
            put = machine.submit(timed, app.test_client(), "PUT", PATH)
            until(lambda: is_somebody_waiting(server, app), "the PUT waits")
            terminate_waiting(server, app)
            until(lambda: is_somebody_waiting(server, app), "the PUT waits again")
        assert put.result().status_code == 200
    assert_heals(app, 1)


def terminate_waiting(server: Engine, app: Flask) -> None:
    where = OUR_SESSIONS.format(name=name_of(app))
    pid = run(server, f"SELECT pid {where} AND wait_event_type = 'Lock'")
    run(server, f"SELECT pg_terminate_backend({pid})")
    until(lambda: run(server, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == 0, "it is gone")


# Locked


def test_writer_is_told_when_the_chart_is_locked_for_long(app: Flask, client: FlaskClient) -> None:
    taken = put_often(client, 3)
    with holding(app, "SELECT 1 FROM charts FOR UPDATE"):
        assert_refuses(client, "PUT")
        assert "another session holds a lock" in client.put(PATH).get_json()["detail"]
        assert_still_answers(client)
    assert_heals(app, taken)


def test_everybody_is_told_when_the_table_is_locked_for_long(app: Flask, client: FlaskClient) -> None:
    taken = put_often(client, 3)
    with holding(app, "LOCK TABLE charts IN ACCESS EXCLUSIVE MODE"):
        assert_refuses(client, "GET", "PUT")
    assert_heals(app, taken)


def test_crowd_is_answered_in_time_when_the_chart_is_locked(postgresql_url: str) -> None:
    for app in opened_app(postgresql_url, pool_size=3):
        import_text(app, COUNTING)
        with holding(app, "SELECT 1 FROM charts FOR UPDATE"), ThreadPoolExecutor(24) as crowd:
            asked = [crowd.submit(timed, app.test_client(), "PUT", PATH) for _ in range(24)]
            assert {answer.result().status_code for answer in asked} == {503}
        assert_heals(app, 0)


def test_lock_that_is_given_up_in_time_is_waited_for(app: Flask, client: FlaskClient, server: Engine) -> None:
    with ThreadPoolExecutor(1) as machine:
        with holding(app, "SELECT 1 FROM charts FOR UPDATE"):
            put = machine.submit(timed, app.test_client(), "PUT", PATH)
            until(lambda: is_somebody_waiting(server, app), "the PUT waits")
        assert put.result().status_code == 200
    assert_heals(app, 1)


# Read-only


def test_writer_is_told_when_the_database_is_read_only(app: Flask, client: FlaskClient, server: Engine) -> None:
    taken = put_often(client, 3)
    run(server, f"ALTER DATABASE {name_of(app)} SET default_transaction_read_only = on")
    terminate_sessions(server, app)
    assert_refuses(client, "PUT")
    assert timed(client, "GET", PATH).status_code == 200
    assert timed(client, "GET", "/readyz").status_code == 503
    run(server, f"ALTER DATABASE {name_of(app)} RESET default_transaction_read_only")
    assert_heals(app, taken)


# Every connection in use


def test_everybody_is_told_when_every_connection_is_in_use(postgresql_url: str) -> None:
    for app in opened_app(postgresql_url, pool_size=1):
        import_text(app, COUNTING)
        client = app.test_client()
        taken = put_often(client, 2)
        with service_of(app).database.engine.connect():
            started = time.monotonic()
            assert_refuses(client, "GET", "PUT")
            assert time.monotonic() - started < 4 * ANSWER_SECONDS
        assert_heals(app, taken)


def test_everybody_is_told_when_the_server_has_no_connection_left(own_admin: Engine, own_url: str) -> None:
    name = make_url(own_url).database
    with own_admin.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE plain LOGIN SUPERUSER")
        connection.exec_driver_sql("ALTER ROLE plain NOSUPERUSER CONNECTION LIMIT 0")
        connection.exec_driver_sql(f"GRANT ALL ON DATABASE {name} TO plain")
    url = normalize_url(own_url).set(username="plain").render_as_string(hide_password=False)
    try:
        for app in opened_app(url):
            assert_away(app.test_client())
    finally:
        with own_admin.connect() as connection:
            connection.exec_driver_sql(f"REVOKE ALL ON DATABASE {name} FROM plain")
            connection.exec_driver_sql("DROP ROLE plain")
