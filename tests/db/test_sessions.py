"""PostgreSQL's sessions: what a session depends on, and which sessions the pool drops."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, make_url

from app import schema
from app.core.errors import DatabaseUnavailableError
from app.db import transaction
from app.db.engine import open_engine
from app.db.postgresql import APPLICATION_NAME, SETTINGS
from app.wiring import service_of
from tests.support.apps import import_text, opened_app
from tests.support.databases import database_on, migrate, url_text
from tests.support.faults import COUNTING, PATH
from tests.support.processes import until
from tests.support.roles import as_owner


@pytest.fixture
def app(postgresql_url: str) -> Iterator[Flask]:
    for app in opened_app(postgresql_url, pool_size=3):
        import_text(app, COUNTING)
        yield app


def run(server: Engine, app: Flask, statement: str) -> Any:
    """Run a statement as the superuser; `{name}` stands for the application's database."""
    name = service_of(app).database.engine.url.database
    with server.connect() as connection:
        result = connection.exec_driver_sql(statement.format(name=name))
        return result.scalar() if result.returns_rows else None


def run_in_database(app: Flask, *statements: str) -> None:
    """Run statements as the role that owns the tables."""
    owner = open_engine(as_owner(url_text(service_of(app).database.engine.url)))
    with owner.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    owner.dispose()


# Read-only


END_SESSIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"


def make_read_only(server: Engine, app: Flask) -> None:
    run(server, app, "ALTER DATABASE {name} SET default_transaction_read_only = on")
    run(server, app, END_SESSIONS)


def open_all_sessions(app: Flask) -> None:
    engine = service_of(app).database.engine
    for connection in [engine.connect() for _ in range(3)]:
        connection.close()


def test_first_put_after_the_database_is_writable_is_taken(app: Flask, postgresql_server: Engine) -> None:
    client = app.test_client()
    make_read_only(postgresql_server, app)
    open_all_sessions(app)
    refused = client.put(PATH)
    assert (refused.status_code, refused.get_json()["outcome"]) == (503, "not_applied")
    run(postgresql_server, app, "ALTER DATABASE {name} RESET default_transaction_read_only")
    assert client.put(PATH).status_code == 200
    assert client.get("/charts/counting").get_json()["values"] == {"count": 1}


def test_readyz_is_503_while_the_database_is_read_only(app: Flask, postgresql_server: Engine) -> None:
    client = app.test_client()
    make_read_only(postgresql_server, app)
    refused = client.get("/readyz")
    assert (refused.status_code, refused.get_json()["detail"]) == (503, "the database is read-only")
    assert client.get(PATH).status_code == 200
    run(postgresql_server, app, "ALTER DATABASE {name} RESET default_transaction_read_only")
    assert client.get("/readyz").status_code == 200


# Messages that are no errors

SEND_AT_COMMIT = """
CREATE FUNCTION send() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE {level} 'hello'; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER send AFTER INSERT ON transition_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION send()
"""


@pytest.mark.parametrize("level", ["NOTICE", "WARNING", "INFO"])
def test_put_is_taken_though_a_trigger_sends_a_message(app: Flask, level: str) -> None:
    run_in_database(app, SEND_AT_COMMIT.format(level=level))
    assert app.test_client().put(PATH).status_code == 200


@pytest.mark.parametrize("level", ["debug5", "log", "notice"])
def test_put_is_taken_though_the_database_sends_its_log(app: Flask, postgresql_server: Engine, level: str) -> None:
    run(postgresql_server, app, f"ALTER DATABASE {{name}} SET client_min_messages = {level}")
    run(postgresql_server, app, "ALTER DATABASE {name} SET log_min_duration_statement = 0")
    run(postgresql_server, app, END_SESSIONS)
    assert app.test_client().put(PATH).status_code == 200


@pytest.fixture
def absent_standby(app: Flask, postgresql_server: Engine) -> Iterator[None]:
    """Let every commit in the application's database wait for a synchronous standby that does not exist."""
    run(postgresql_server, app, "ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    run(postgresql_server, app, "SELECT pg_reload_conf()")
    until(lambda: run(postgresql_server, app, "SHOW synchronous_standby_names") == "absent", "the server waits")
    run(postgresql_server, app, "ALTER DATABASE {name} SET synchronous_commit = on")
    run(postgresql_server, app, END_SESSIONS)
    yield
    run(postgresql_server, app, "ALTER SYSTEM RESET synchronous_standby_names")
    run(postgresql_server, app, "SELECT pg_reload_conf()")


STOP_WAITING = """
SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'SyncRep'
"""


@pytest.mark.usefixtures("absent_standby")
def test_outcome_is_unknown_if_the_wait_for_the_standby_was_cancelled(app: Flask, postgresql_server: Engine) -> None:
    with ThreadPoolExecutor(1) as machine:
        put = machine.submit(app.test_client().put, PATH)
        until(lambda: run(postgresql_server, app, STOP_WAITING) == 1, "the PUT waits for the standby")
        answer = put.result()
    assert (answer.status_code, answer.get_json()["outcome"]) == (503, "unknown")
    assert "synchronous replication" in answer.get_json()["detail"]


# Prepared statements


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_request_is_answered_after_the_type_of_a_column_changed(app: Flask, method: str) -> None:
    open_all_sessions(app)
    client = app.test_client()
    assert {client.open(PATH, method=method).status_code for _ in range(40)} == {200}
    run_in_database(
        app,
        "DROP VIEW v_current, v_machine_reports, v_state_durations",
        "ALTER TABLE charts ALTER COLUMN last_hash TYPE text, ALTER COLUMN name TYPE text",
    )
    assert [client.open(PATH, method=method).status_code for _ in range(6)] == [200] * 6


# Settings

HOSTILE = {
    "client_encoding": "LATIN1",
    "datestyle": "SQL, DMY",
    "timezone": "Asia/Kathmandu",
    "client_min_messages": "error",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
}
HOSTILE_ENVIRONMENT = {
    "PGOPTIONS": "-c client_min_messages=error -c standard_conforming_strings=off",
    "PGCLIENTENCODING": "SQL_ASCII",
    "PGTZ": "Asia/Kathmandu",
    "PGDATESTYLE": "SQL, DMY",
}


def assert_settings_are_ours(url: str, **more: Any) -> None:
    """Fail unless the settings hold in a transaction, and an instant of the year 9999 and a name can be read."""
    for app in opened_app(url, **more):
        with transaction(service_of(app).database) as connection:
            found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in SETTINGS}
            isolation = connection.exec_driver_sql("SHOW transaction_isolation").scalar_one()
            name = connection.exec_driver_sql("SELECT 'ü'").scalar_one()
            instant = connection.exec_driver_sql("SELECT timestamptz '9999-12-31 23:00:00+00'").scalar_one()
        assert found == SETTINGS | {"DateStyle": found["DateStyle"]}
        assert found["DateStyle"].startswith("ISO")
        assert (isolation, name, instant.isoformat()) == ("read committed", "ü", "9999-12-31T23:00:00+00:00")


@pytest.mark.parametrize("is_pooler", [False, True])
def test_settings_of_the_database_do_not_matter(app: Flask, postgresql_server: Engine, is_pooler: bool) -> None:
    for name, value in HOSTILE.items():
        run(postgresql_server, app, f"ALTER DATABASE {{name}} SET {name} = '{value}'")
    assert_settings_are_ours(url_text(service_of(app).database.engine.url), pooler=is_pooler)


@pytest.mark.parametrize("is_pooler", [False, True])
def test_environment_of_libpq_does_not_matter(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, is_pooler: bool
) -> None:
    for name, value in HOSTILE_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert_settings_are_ours(postgresql_url, pooler=is_pooler)


def show(url: str, name: str) -> str:
    engine = open_engine(url)
    with engine.connect() as connection:
        value = str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())
    engine.dispose()
    return value


@pytest.mark.parametrize("given", ["URL", "PGOPTIONS"])
def test_tables_are_in_the_schema_of_the_callers_search_path(
    empty_postgresql_url: str, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    engine = open_engine(empty_postgresql_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA app")
    url = make_url(empty_postgresql_url)
    if given == "URL":
        url = url.update_query_dict({"options": "-csearch_path=app"})
    else:
        monkeypatch.setenv("PGOPTIONS", "-c search_path=app")
    migrate(url_text(url))
    with engine.connect() as connection:
        query = "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname IN ('app', 'public')"
        assert connection.exec_driver_sql(query).scalars().all() == ["app"]
    engine.dispose()
    assert show(url_text(url), "lock_timeout") == "1500ms"
    other = open_engine(url_text(url))
    assert schema.check(other) == []
    other.dispose()


def test_name_and_time_limit_of_the_url_are_kept(postgresql_url: str) -> None:
    url = make_url(postgresql_url).update_query_dict({"application_name": "mine", "connect_timeout": "7"})
    assert show(url_text(url), "application_name") == "mine"
    assert show(postgresql_url, "application_name") == APPLICATION_NAME


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_database_that_is_not_utf8_is_refused(postgresql_server: Engine, encoding: str) -> None:
    for url in database_on(postgresql_server, f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"):
        engine = open_engine(url)
        with pytest.raises(DatabaseUnavailableError, match=f"the database must be UTF8, not {encoding}"):
            schema.upgrade(engine)
        engine.dispose()
