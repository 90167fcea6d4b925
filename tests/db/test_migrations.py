"""The migrations create the schema of the models, and the database refuses changes of the log and of definitions."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Table, insert, inspect, select, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from app import schema
from app.core.errors import DatabaseUnavailableError
from app.db.engine import open_engine
from app.models import attribute_values, metadata, transition_log
from tests.support.databases import opened
from tests.support.roles import as_owner
from tests.support.rows import NOON, insert_chart, log_row
from tests.support.schema_dump import dump_schema

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
DEFINITIONS = ("calendar_versions", "chart_versions", "roster", "states", "attributes", "transitions")


@pytest.fixture
def empty_engine(empty_database_url: str) -> Any:
    engine = open_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def owner_engine(database_url: str) -> Iterator[Engine]:
    """The same database as `engine`, as the role that owns the tables: only triggers refuse it a change."""
    yield from opened(as_owner(database_url))


@pytest.fixture
def filled_engine(engine: Engine) -> Engine:
    with engine.begin() as connection:
        insert_chart(connection)
        connection.execute(insert(transition_log), [log_row(1), log_row(2, idempotency_key="k")])
        calendar = {"calendar": "freeze", "version": 1, "text": "", "sha256": "0" * 64, "events": 0}
        connection.execute(insert(metadata.tables["calendar_versions"]), calendar | {"imported_at": NOON})
    return engine


def only_row(engine: Engine, query: str) -> dict[str, Any]:
    with engine.connect() as connection:
        return dict(connection.execute(text(query)).mappings().one())


# Upgrade and downgrade


def test_upgrade_creates_the_schema_of_the_models(engine: Engine) -> None:
    assert schema.check(engine) == []


def test_upgrade_works_after_a_downgrade_that_drops_everything(filled_engine: Engine, owner_engine: Engine) -> None:
    schema.downgrade(owner_engine, "base")
    left = inspect(filled_engine)
    assert left.get_table_names() == ["alembic_version"]
    assert left.get_view_names() == []

    schema.upgrade(owner_engine)

    assert schema.check(owner_engine) == []


def test_upgrade_does_not_change_a_current_database(filled_engine: Engine) -> None:
    schema.upgrade(filled_engine)
    assert only_row(filled_engine, "SELECT count(*) AS rows FROM transition_log") == {"rows": 2}


def test_revision_is_none_before_the_first_upgrade_and_the_head_after_it(empty_engine: Engine) -> None:
    with empty_engine.connect() as connection:
        assert schema.current_revision(connection) is None
        assert not schema.is_current(connection)
    schema.upgrade(empty_engine)
    with empty_engine.connect() as connection:
        assert schema.current_revision(connection) == schema.head_revision()
        assert schema.is_current(connection)


def test_schema_equals_the_golden_file(engine: Engine) -> None:
    golden = GOLDEN / f"schema-{engine.dialect.name}.sql"
    with engine.connect() as connection:
        dump = dump_schema(connection)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        golden.write_text(dump)
    assert dump == golden.read_text(), "if the change is intended, run UPDATE_GOLDEN=1 make test and read the diff"


def test_triggers_are_those_that_a_check_compares_with(engine: Engine) -> None:
    name = engine.dialect.name
    with engine.connect() as connection:
        found = schema.read_triggers(connection)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        known = json.loads(schema.TRIGGERS.read_text()) | {name: dict(sorted(found.items()))}
        schema.TRIGGERS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    assert json.loads(schema.TRIGGERS.read_text())[name] == found, "run UPDATE_GOLDEN=1 make test and read the diff"


# Several upgrades at once


def upgrade_in_process(url: str) -> subprocess.Popen[str]:
    program = (
        "import sys; from app import schema; from app.db.engine import open_engine;"
        " sys.stdin.readline(); schema.upgrade(open_engine(sys.argv[1], create=True))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, url],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_four_upgrades_succeed(url: str) -> None:
    processes = [upgrade_in_process(url) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    engine = open_engine(url)
    try:
        assert schema.check(engine) == []
    finally:
        engine.dispose()


@pytest.mark.slow
def test_four_upgrades_at_once_succeed(empty_database_url: str) -> None:
    assert_four_upgrades_succeed(empty_database_url)


@pytest.mark.slow
def test_four_upgrades_at_once_succeed_when_the_file_is_missing(tmp_path: Path) -> None:
    assert_four_upgrades_succeed(f"sqlite:///{tmp_path / 'instance' / 'new.db'}")


def test_upgrades_in_four_threads_succeed(empty_engine: Engine) -> None:
    failures: list[Exception] = []

    def run() -> None:
        try:
            schema.upgrade(empty_engine)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []
    assert schema.check(empty_engine) == []


def test_upgrade_waits_for_an_upgrade_that_has_begun(empty_engine: Engine) -> None:
    done = threading.Event()
    upgrade = threading.Thread(target=lambda: (schema.upgrade(empty_engine), done.set()))
    with empty_engine.connect() as connection, schema.alone(connection):
        upgrade.start()
        assert not done.wait(0.5)
    upgrade.join(30)
    assert done.is_set()


# How a migration runs


def test_upgrade_changes_neither_loggers_nor_the_connection_settings(empty_engine: Engine) -> None:
    logger = logging.getLogger("app.some_module")
    settings = connection_settings(empty_engine)

    schema.upgrade(empty_engine)

    assert not logger.disabled
    assert connection_settings(empty_engine) == settings


def connection_settings(engine: Engine) -> list[Any]:
    sqlite = ["PRAGMA foreign_keys", "PRAGMA busy_timeout"]
    postgresql = [
        "SHOW lock_timeout",
        "SHOW statement_timeout",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
    ]
    with engine.connect() as connection:
        queries = sqlite if engine.dialect.name == "sqlite" else postgresql
        return [connection.exec_driver_sql(query).scalar() for query in queries]


def test_failed_migration_changes_nothing(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with empty_engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW v_machine_reports AS SELECT 1 AS one")

    with pytest.raises((DatabaseError, DatabaseUnavailableError)):
        schema.upgrade(empty_engine)

    assert set(inspect(empty_engine).get_table_names()) <= {"alembic_version"}
    with empty_engine.connect() as connection:
        assert schema.current_revision(connection) is None


def test_sqlite_migration_refuses_to_leave_broken_references(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    orphan = insert(attribute_values).values(chart_id=99, key="count", value=1)
    with (
        engine.connect() as connection,
        pytest.raises(Exception, match="broken references in: attribute_values"),
        schema.alone(connection),
    ):
        connection.execute(orphan)
    with engine.connect() as connection:
        assert connection.scalar(select(attribute_values.c.value)) is None
    engine.dispose()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_alembic_command_migrates_the_database_of_the_settings(request: pytest.FixtureRequest, database: str) -> None:
    url = request.getfixturevalue(f"empty_{database}_url")
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"STATE_SERVICE_DATABASE_URL": url}, check=True, timeout=60)
    engine = open_engine(url)
    assert schema.check(engine) == []
    engine.dispose()


def test_upgrade_drops_slot_waiters_that_a_dead_process_left(filled_engine: Engine, owner_engine: Engine) -> None:
    schema.downgrade(owner_engine, "0001")
    with owner_engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO slot_waiters (chart_id, machine, since, until)"
            " SELECT id, 'm1', created_at, created_at FROM charts"
        )

    schema.upgrade(owner_engine)

    assert schema.check(owner_engine) == []


def test_upgrade_refuses_a_database_of_another_application(empty_engine: Engine) -> None:
    with empty_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id integer)")
    with pytest.raises(DatabaseUnavailableError, match=r"tables of another application \(orders\)"):
        schema.upgrade(empty_engine)
    assert inspect(empty_engine).get_table_names() == ["orders"]


@pytest.mark.parametrize("revision", ["e3a1", "9999"])
def test_upgrade_refuses_a_database_at_an_unknown_revision(empty_engine: Engine, revision: str) -> None:
    with empty_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num varchar(32))")
        connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revision}')")
    with pytest.raises(DatabaseUnavailableError, match="belongs to another application"):
        schema.upgrade(empty_engine)
    assert inspect(empty_engine).get_table_names() == ["alembic_version"]


# What `check` reports


DAMAGES: dict[str, tuple[dict[str, str] | str, str]] = {
    "a missing view": ("DROP VIEW v_machine_reports", "missing view: v_machine_reports"),
    "a missing trigger": (
        {
            "sqlite": "DROP TRIGGER transition_log_refuses_delete",
            "postgresql": "DROP TRIGGER transition_log_refuses_delete ON transition_log",
        },
        "missing trigger: transition_log_refuses_delete",
    ),
    "a disabled trigger": (
        {
            "sqlite": "DROP TRIGGER transition_log_refuses_update",
            "postgresql": "ALTER TABLE transition_log DISABLE TRIGGER transition_log_refuses_update",
        },
        "missing trigger: transition_log_refuses_update",
    ),
    "a trigger that refuses nothing": (
        {
            "sqlite": "CREATE TRIGGER transition_log_refuses_update BEFORE UPDATE ON slots BEGIN SELECT 1; END",
            "postgresql": "CREATE OR REPLACE FUNCTION check_log_insert() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RETURN NEW; END'",
        },
        "changed trigger: transition_log_",
    ),
    "a missing index": ("DROP INDEX ix_charts_due_at", "add index: Index('ix_charts_due_at', "),
    "a missing table": ("DROP TABLE slots", "add table: slots"),
    "a foreign column": ("ALTER TABLE tokens ADD COLUMN salt text", "remove column: tokens "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_names_the_difference(engine: Engine, owner_engine: Engine, damage: str) -> None:
    statement, line = DAMAGES[damage]
    with owner_engine.begin() as connection:
        if damage == "a trigger that refuses nothing" and engine.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER transition_log_refuses_update")
        connection.exec_driver_sql(statement if isinstance(statement, str) else statement[engine.dialect.name])

    problems = schema.check(engine)

    assert len(problems) == 1
    assert problems[0].startswith(line)


def test_check_reports_a_database_that_was_never_migrated(empty_engine: Engine) -> None:
    assert schema.check(empty_engine) == [f"the database is at revision none, the code needs {schema.head_revision()}"]


# The log is append-only


@pytest.mark.parametrize(
    "act", ["UPDATE transition_log SET reason = 'edited' WHERE seq = 1", "DELETE FROM transition_log"]
)
def test_log_refuses_change(filled_engine: Engine, owner_engine: Engine, act: str) -> None:
    assert_refused(owner_engine, lambda c: c.execute(text(act)), "transition_log is append-only")


def test_postgresql_log_refuses_truncate(postgresql_url: str) -> None:
    engine = open_engine(as_owner(postgresql_url))
    assert_refused(engine, lambda c: c.execute(text("TRUNCATE transition_log")), "transition_log is append-only")
    engine.dispose()


@pytest.mark.parametrize("seq", [0, 1, 2, 4, 100])
def test_log_refuses_a_seq_other_than_the_next(filled_engine: Engine, seq: int) -> None:
    assert_refused(filled_engine, lambda c: c.execute(insert(transition_log), log_row(seq)), "append-only: seq must be")


def test_log_refuses_a_first_seq_other_than_one(engine: Engine) -> None:
    assert_refused(engine, lambda c: c.execute(insert(transition_log), log_row(2)), "append-only: seq must be")


def test_log_numbers_each_chart_separately_also_within_one_statement(filled_engine: Engine) -> None:
    rows = [log_row(1, "db"), log_row(3), log_row(2, "db"), log_row(4)]
    with filled_engine.begin() as connection:
        connection.execute(insert(transition_log).values([row | {"reason": "x"} for row in rows]))
    assert only_row(filled_engine, "SELECT count(*) AS rows FROM transition_log") == {"rows": 6}


REPLACING: dict[str, dict[str, Any]] = {
    "the same seq": {"seq": 1},
    "the next seq and an old id": {"seq": 3, "id": 1},
    "the next seq and an old key": {"seq": 3, "idempotency_key": "k"},
}


@pytest.mark.parametrize("columns", REPLACING.values(), ids=REPLACING)
@pytest.mark.parametrize("recursive_triggers", ["ON", "OFF"])
def test_sqlite_log_refuses_insert_or_replace(
    sqlite_url: str, columns: dict[str, Any], recursive_triggers: str
) -> None:
    engine = open_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(insert(transition_log), [log_row(1), log_row(2, idempotency_key="k")])
    row = insert(transition_log).prefix_with("OR REPLACE").values(**log_row(**columns))

    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.execute(f"PRAGMA recursive_triggers={recursive_triggers}")
        with pytest.raises(IntegrityError, match="append-only"):
            connection.execute(row)

    assert only_row(engine, "SELECT count(*) AS rows, max(seq) AS last FROM transition_log") == {"rows": 2, "last": 2}
    engine.dispose()


def assert_refused(engine: Engine, act: Callable[[Connection], object], message: str) -> None:
    with pytest.raises(IntegrityError, match=message), engine.begin() as connection:
        act(connection)


# Definitions are immutable


@pytest.mark.parametrize("table", DEFINITIONS)
@pytest.mark.parametrize(
    "act", ["UPDATE {table} SET {column} = {column}", "DELETE FROM {table}"], ids=["update", "delete"]
)
def test_definition_refuses_change(filled_engine: Engine, owner_engine: Engine, table: str, act: str) -> None:
    column = first_column(metadata.tables[table])
    statement = text(act.format(table=table, column=column))
    assert_refused(owner_engine, lambda c: c.execute(statement), f"{table} is immutable")


@pytest.mark.parametrize("table", DEFINITIONS)
def test_postgresql_definition_refuses_truncate(postgresql_url: str, table: str) -> None:
    engine = open_engine(as_owner(postgresql_url))
    assert_refused(engine, lambda c: c.execute(text(f"TRUNCATE {table} CASCADE")), "is immutable")
    engine.dispose()


def first_column(table: Table) -> str:
    return next(iter(table.columns)).name


# Views


def test_current_shows_the_first_attribute_and_its_first_threshold(filled_engine: Engine) -> None:
    row = only_row(filled_engine, "SELECT * FROM v_current")
    assert list(row) == [
        "chart",
        "version",
        "run",
        "visit",
        "current_state",
        "is_final",
        "entered_at",
        "paused_at",
        "paused_by",
        "pause_reason",
        "key",
        "value",
        "needed",
        "reported",
        "due_at",
        "seq",
        "updated_at",
    ]
    expected = {"chart": "web", "version": 2, "run": 1, "visit": 2, "current_state": "canary", "is_final": False}
    expected |= {"key": "count", "value": 3, "needed": 5, "reported": 3, "seq": 7, "paused_at": None}
    assert {name: row[name] for name in expected} == expected


def test_current_shows_a_final_state_without_key(engine: Engine) -> None:
    with engine.begin() as connection:
        insert_chart(connection, state="done")
    row = only_row(engine, "SELECT is_final, key, value, needed FROM v_current WHERE is_final")
    assert row == {"is_final": True, "key": None, "value": None, "needed": None}


def test_current_omits_archived_charts(engine: Engine) -> None:
    with engine.begin() as connection:
        insert_chart(connection, archived_at=NOON)
        assert connection.execute(text("SELECT * FROM v_current")).all() == []


def test_state_durations_count_seconds_to_the_microsecond(filled_engine: Engine) -> None:
    row = only_row(filled_engine, "SELECT * FROM v_state_durations WHERE visit = 1")
    assert list(row) == ["chart", "run", "visit", "state", "entered_at", "left_at", "seconds"]
    assert (row["chart"], row["run"], row["state"]) == ("web", 1, "boot")
    assert float(row["seconds"]) == pytest.approx(86_489.874_999, abs=1e-9)


def test_state_durations_count_an_open_visit_until_now(filled_engine: Engine) -> None:
    row = only_row(filled_engine, "SELECT left_at, seconds FROM v_state_durations WHERE visit = 2")
    assert row["left_at"] is None
    assert 0 <= row["seconds"] < 30


def test_machine_reports_name_the_state_of_their_visit(filled_engine: Engine) -> None:
    query = text("SELECT * FROM v_machine_reports ORDER BY seq")
    with filled_engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    assert list(rows[0]) == ["chart", "run", "visit", "state", "machine", "key", "reported_at", "seq", "note"]
    assert [(row["state"], row["machine"], row["key"], row["seq"]) for row in rows] == [
        ("boot", "web-01", "count", 3),
        ("canary", "web-01", "count", 5),
        ("canary", "web-02", None, 6),
        ("canary", "web-03", "failed", 7),
    ]
