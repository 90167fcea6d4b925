"""PostgreSQL's sessions: what a session depends on, and which sessions the pool drops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import Engine

from app.wiring import service_of
from tests.support.apps import import_text, opened_app
from tests.support.faults import COUNTING, PATH


@pytest.fixture
def app(postgresql_url: str) -> Iterator[Flask]:
    for app in opened_app(postgresql_url, pool_size=3):
        import_text(app, COUNTING)
        yield app


def run(server: Engine, app: Flask, statement: str) -> None:
    """Run a statement as the superuser; `{name}` stands for the application's database."""
    name = service_of(app).database.engine.url.database
    with server.connect() as connection:
        connection.exec_driver_sql(statement.format(name=name))


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
