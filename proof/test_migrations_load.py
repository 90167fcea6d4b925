"""A next release migrates while this one takes reports, in the short form; and what an upgrade says that may not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app import schema
from app.core.errors import DatabaseUnavailableError
from app.db.engine import open_engine
from proof.migrations_load import NEXT_RELEASE, Plan, make_next_release, migrate_under_load
from proof.stand import Database
from tests.support.apps import opened_app
from tests.support.roles import as_owner


@pytest.fixture
def next_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For as long as this is in force, `schema.upgrade` is that of the next release."""
    monkeypatch.setattr(schema, "MIGRATIONS", make_next_release(tmp_path) / "migrations")
    return


def newest_revision() -> str:
    """The newest revision of the next release: its files' names begin with their revisions."""
    return max(path.name for path in NEXT_RELEASE.glob("*.py")).partition("_")[0]


def test_machines_report_while_the_next_release_migrates(database: Database, tmp_path: Path) -> None:
    # The machine may be busy; a migration that holds its lock while it waits stalls PUTs as long as the query runs.
    plan = Plan(50, query_seconds=6 if database.faults() else 0, stall_seconds=4)
    found = migrate_under_load(database, tmp_path, plan)
    assert found.report.violations == []
    assert found.report.acknowledged > 100


def test_upgrade_gives_up_where_a_table_is_never_free(
    postgresql_url: str, next_migrations: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "PATIENCE_SECONDS", 0)
    engine = open_engine(as_owner(postgresql_url))
    with engine.connect() as reader:
        reader.exec_driver_sql("SELECT * FROM charts")
        before = schema.current_revision(reader)
        with pytest.raises(DatabaseUnavailableError, match="other sessions hold tables that the migration needs"):
            schema.upgrade(engine)
        assert schema.current_revision(reader) == before
    schema.upgrade(engine)
    with engine.connect() as connection:
        assert schema.current_revision(connection) == newest_revision()
    engine.dispose()


def test_service_is_ready_on_what_the_next_release_has_migrated(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(as_owner(database_url))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", make_next_release(tmp_path) / "migrations")
        schema.upgrade(engine)
    engine.dispose()
    for app in opened_app(database_url):
        assert app.test_client().get("/readyz").status_code == 200
