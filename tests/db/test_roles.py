"""deploy/roles.sql: the role that serves can do its work, and can neither change the log nor lift what guards it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError

from app import schema
from app.models import metadata
from app.service.context import Service
from app.service.upkeep import check_ready
from tests.service.support import opened_service
from tests.support.databases import administering
from tests.support.roles import Roles, divide

# Tables to whose rows the service only adds.
KEPT = frozenset(
    {
        *("transition_log", "token_log", "chart_versions", "states", "attributes", "transitions"),
        *("roster", "roster_versions", "calendar_versions"),
    }
)


@pytest.fixture
def serving(serving_url: str) -> Iterator[Service]:
    with opened_service(serving_url) as service:
        yield service


@pytest.fixture
def server_of_service(serving_url: str, postgresql_server: Engine) -> Iterator[Connection]:
    """A superuser's connection to the database that `serving` uses."""
    with administering(postgresql_server, serving_url) as connection:
        yield connection


def test_role_that_serves_starts_on_a_current_schema(serving: Service) -> None:
    """The shipped unit runs `db upgrade` before it serves; if the schema is current, that changes nothing."""
    schema.upgrade(serving.database.engine)
    assert schema.check(serving.database.engine) == []
    check_ready(serving)


def list_rights(connection: Connection, role: str, table: str) -> set[str]:
    """Return what the role may do with the rows of a table."""
    asked = text("SELECT has_table_privilege(:role, :table, :right)")
    return {
        right
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES")
        if connection.execute(asked, {"role": role, "table": table, "right": right}).scalar_one()
    }


def test_role_that_serves_has_its_rights_on_every_table(server_of_service: Connection, roles: Roles) -> None:
    rights = {table: list_rights(server_of_service, roles.serving, table) for table in metadata.tables}
    assert rights == {
        table: {"SELECT", "INSERT"} if table in KEPT else {"SELECT", "INSERT", "UPDATE", "DELETE"}
        for table in metadata.tables
    }


def test_role_that_serves_reads_every_view(server_of_service: Connection, roles: Roles) -> None:
    assert all("SELECT" in list_rights(server_of_service, roles.serving, view) for view in schema.VIEWS)


def test_table_of_a_later_release_gets_its_rights_when_the_script_is_run_again(
    server_of_service: Connection, roles: Roles
) -> None:
    server_of_service.exec_driver_sql("CREATE TABLE later (id int)")
    divide(server_of_service.engine.url.render_as_string(hide_password=False), roles)
    assert list_rights(server_of_service, roles.serving, "later") == {"SELECT", "INSERT", "UPDATE", "DELETE"}


FORBIDDEN = [
    "UPDATE transition_log SET reason = 'x'",
    "DELETE FROM transition_log",
    "TRUNCATE transition_log",
    "ALTER TABLE transition_log DISABLE TRIGGER transition_log_refuses_update",
    "DROP TRIGGER transition_log_refuses_update ON transition_log",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "UPDATE transitions SET threshold = 1",
    "UPDATE chart_versions SET text = 'x'",
    "DELETE FROM states",
    "TRUNCATE charts CASCADE",
    "DROP TABLE transition_log",
    "ALTER TABLE charts ADD COLUMN x text",
    "DELETE FROM token_log",
    "UPDATE token_log SET actor = 'x'",
    "DELETE FROM roster",
    "UPDATE calendar_versions SET text = 'x'",
    "UPDATE alembic_version SET version_num = '0001'",
    "CREATE TABLE mine (id int)",
    "SET session_replication_role = replica",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_role_that_serves_may_not(serving: Service, statement: str) -> None:
    engine = create_engine(serving.database.engine.url)
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
