"""deploy/roles.sql: the role that serves can do its work, and can neither change the log nor lift what guards it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ProgrammingError

from app import schema
from app.core.position import Reason
from app.db.engine import open_engine
from app.service import operate
from app.service.context import Service
from app.service.upkeep import check_ready
from app.service.verifying import verify
from tests.service.support import ANN, CANARY, REBOOT, import_text, opened_service, put
from tests.support import requests

SQL = (Path(__file__).parents[2] / "deploy" / "roles.sql").read_text()


@pytest.fixture
def serving(postgresql_url: str) -> Iterator[Service]:
    """The service as the role that serves, on a database that the owner's role has migrated."""
    suffix = uuid4().hex[:8]
    owner, role = f"stateservice_owner_{suffix}", f"stateservice_{suffix}"
    sql = SQL.replace("stateservice_owner", "@").replace("stateservice", role).replace("@", owner)
    engine = open_engine(postgresql_url)
    for _ in range(2):
        with engine.begin() as connection:
            connection.connection.driver_connection.execute(sql)  # type: ignore[union-attr]
    url = make_url(postgresql_url).set(username=role, password=None)
    with opened_service(url.render_as_string(hide_password=False)) as service:
        yield service
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {role}, {owner} CASCADE")
        connection.exec_driver_sql(f"DROP ROLE {role}, {owner}")
    engine.dispose()


def test_role_that_serves_starts_on_a_current_schema(serving: Service) -> None:
    """The shipped unit runs `db upgrade` before it serves; if the schema is current, that changes nothing."""
    schema.upgrade(serving.database.engine)
    assert schema.check(serving.database.engine) == []
    check_ready(serving)


def test_role_that_serves_does_the_main_use_cases(serving: Service) -> None:
    import_text(serving, CANARY)
    assert put(serving, "canary", "m1").reason is Reason.UPDATED
    assert put(serving, "canary", "m2").reason is Reason.TRANSITIONED
    import_text(serving, CANARY.replace("value: 5", "value: 6"))
    operate.pause(serving, "web", "look", ANN)
    operate.resume(serving, "web", "on", ANN)
    operate.goto(serving, "web", "canary", "again", ANN)
    operate.reset(serving, "web", "again", ANN)
    import_text(serving, REBOOT, name="reboot")
    assert requests.claim(serving, "reboot", "reboot", "m1").is_yes
    assert put(serving, "reboot", "m1", chart="reboot").is_yes
    operate.archive(serving, "web", "over", ANN)
    assert [verify(serving, name).differences for name in ("web", "reboot")] == [(), ()]


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
