"""Migrates the database's schema, and lists how it differs from the models. `create_app` never calls this module.

Alembic takes a tenth of a second to import, and few processes migrate: the functions that need it import it.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from app.core.errors import DatabaseUnavailableError
from app.db.errors import errors_translated
from app.db.postgresql import set_deadline
from app.models import metadata

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"

# How long an upgrade waits for another upgrade to end.
TURN_SECONDS = 60
# On PostgreSQL, an ALTER waits for every session that reads its table, and every PUT queues behind the ALTER. So an
# upgrade gives up the wait for a table's lock after LOCK_MILLISECONDS, lets the PUTs pass for GIVE_WAY_SECONDS, and
# tries again, for PATIENCE_SECONDS in all.
LOCK_MILLISECONDS = 400
GIVE_WAY_SECONDS = 1.0
PATIENCE_SECONDS = 60
_LOCK_NOT_AVAILABLE = "55P03"

# An arbitrary number that only this service uses.
ADVISORY_LOCK = 0x57A7E5E2

# The text of each trigger once all migrations have run, for each database; a test compares it with a new database.
TRIGGERS = MIGRATIONS / "triggers.json"
VIEWS = frozenset({"v_current", "v_machine_reports", "v_state_durations"})

# Alembic's context is global to the process, so one thread at a time may run a command.
_one_command = threading.Lock()


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest revision. Services may write meanwhile, and several processes may call this.

    On PostgreSQL each revision is a transaction of its own: if one fails, the revisions before it stay.
    Raises DatabaseUnavailableError, also if the database has tables of another application.
    """
    _refuse_foreign_tables(engine)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _try_to_upgrade(engine):
        if time.monotonic() > deadline:
            raise DatabaseUnavailableError(
                f"other sessions hold tables that the migration needs, and have done so for {PATIENCE_SECONDS} s:"
                " see pg_stat_activity for the oldest xact_start, and try again"
            )
        time.sleep(GIVE_WAY_SECONDS)


_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    # Without the tables that belong to an extension.
    "postgresql": (
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = quote_ident(current_schema())::regnamespace"
        " AND c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_depend d"
        " WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY c.relname"
    ),
}


def _refuse_foreign_tables(engine: Engine) -> None:
    """Raise DatabaseUnavailableError if the database has tables but no revision."""
    with errors_translated(), engine.connect() as connection:
        # A plain BEGIN, because another migration may hold SQLite's lock for long.
        connection.execution_options(begin="BEGIN")
        # First the tables: if another process migrates the database meanwhile, the revision is there with the tables.
        tables = [name for name in connection.scalars(text(_TABLES[engine.dialect.name])) if name != "alembic_version"]
        if not tables or current_revision(connection) is not None:
            return
    raise DatabaseUnavailableError(
        f"the database has tables of another application ({', '.join(tables[:3])}{', …' if tables[3:] else ''}):"
        " give this service a database of its own, or a schema of its own in PostgreSQL"
    )


def upgrade_past_pooler(pooled: Engine, direct: Engine | None) -> None:
    """Bring the database behind a pooler in transaction mode to the newest revision, if needed through `direct`.

    A pooler may give each transaction to another session, and a migration needs one session: for its advisory lock and
    for its time limits. Raises DatabaseUnavailableError, also if `direct` is None or is another database.
    """
    with errors_translated(), pooled.connect() as connection:
        if is_current(connection):
            return
        there = connection.execute(text(_IDENTITY)).one()
    if direct is None:
        raise DatabaseUnavailableError(
            "the database must be migrated, which a pooler in transaction mode cannot do: set STATE_SERVICE_LISTEN_URL"
            " to PostgreSQL's own URL; or run ./state_service --database URL db upgrade with that URL and"
            " STATE_SERVICE_POOLER=false"
        )
    with errors_translated(), direct.connect() as connection:
        if connection.execute(text(_IDENTITY)).one() != there:
            raise DatabaseUnavailableError(
                "the database must be migrated, and STATE_SERVICE_LISTEN_URL is another database"
            )
    upgrade(direct)


# One database of one running server.
_IDENTITY = "SELECT oid, datname, pg_postmaster_start_time()::text FROM pg_database WHERE datname = current_database()"


def _try_to_upgrade(engine: Engine) -> bool:
    """Bring the database to the newest revision; False if a table's lock was not free in time."""
    from alembic import command

    with _one_command, errors_translated(), _revisions_known(), engine.connect() as connection:
        try:
            command.upgrade(_config(connection), "head")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            return False
    return True


def downgrade(engine: Engine, revision: str) -> None:
    """Take the database back to `revision`; `base` drops everything, even the log. Raises DatabaseUnavailableError."""
    from alembic import command

    with _one_command, errors_translated(), engine.connect() as connection:
        command.downgrade(_config(connection), revision)


@contextmanager
def _revisions_known() -> Iterator[None]:
    from alembic.util import CommandError

    try:
        yield
    except CommandError as error:
        raise DatabaseUnavailableError(
            f"the database is newer than this service, or belongs to another application: {error}"
        ) from error


@cache
def head_revision() -> str:
    """Return the newest revision that this code knows."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError(f"no migrations in {MIGRATIONS}")
    return head


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the database; None if it was never migrated."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def is_current(connection: Connection) -> bool:
    """True if the database is at the newest revision that this code knows."""
    return current_revision(connection) == head_revision()


def is_later(revision: str | None) -> bool:
    """True for a revision that is newer than this code.

    This code keeps serving on such a database, because migrations keep what the release before them needs.
    """
    return revision is not None and revision > head_revision()


def check(engine: Engine) -> list[str]:
    """Return every difference between the database and the code, a line each; the list is empty if there is none."""
    with errors_translated(), engine.connect() as connection:
        revision = current_revision(connection)
        if revision != head_revision():
            return [f"the database is at revision {revision or 'none'}, the code needs {head_revision()}"]
        return [
            *_model_differences(connection),
            *_check_constraint_differences(connection),
            *_missing("view", VIEWS, inspect(connection).get_view_names()),
            *_trigger_differences(connection),
        ]


def _trigger_differences(connection: Connection) -> list[str]:
    there = read_triggers(connection)
    expected: dict[str, str] = json.loads(TRIGGERS.read_text())[connection.dialect.name]
    changed = sorted(name for name, text in expected.items() if name in there and there[name] != text)
    return [
        *_missing("trigger", expected, there),
        *(f"changed trigger: {name}: it does not say what the migrations made it say" for name in changed),
    ]


def read_triggers(connection: Connection) -> dict[str, str]:
    """Return the text of each trigger that is in force; on PostgreSQL with the body of the function that it calls."""
    if connection.dialect.name == "sqlite":
        found = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
        return dict(found.all())
    # `tgenabled`: a trigger that fires for replicas alone, or never, guards nothing.
    query = text(
        "SELECT t.tgname, replace(pg_get_triggerdef(t.oid), quote_ident(current_schema()) || '.', ''), p.prosrc"
        " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND NOT t.tgisinternal"
        " AND t.tgenabled IN ('O', 'A')"
    )
    return {name: f"{definition}: {body.strip()}" for name, definition, body in connection.execute(query)}


def compare_options(connection: Connection) -> dict[str, Any]:
    """Return what Alembic needs to compare the models with a database, and to write a migration for it."""
    return {
        "compare_type": True,
        "compare_server_default": True,
        "render_as_batch": connection.dialect.name == "sqlite",
    }


def alone(connection: Connection) -> AbstractContextManager[None]:
    """Keep every other migration of this database out while the block runs. Raises DatabaseUnavailableError."""
    return _alone_on_sqlite(connection) if connection.dialect.name == "sqlite" else _alone_on_postgresql(connection)


@contextmanager
def _alone_on_sqlite(connection: Connection) -> Iterator[None]:
    # On the driver's connection: foreign_keys cannot change inside a transaction, and SQLAlchemy would begin one.
    # Foreign keys are off because a migration may rebuild a table, which with them on would delete its child rows.
    raw: Any = connection.connection.driver_connection
    busy_milliseconds = raw.execute("PRAGMA busy_timeout").fetchone()[0]
    raw.execute(f"PRAGMA busy_timeout={TURN_SECONDS * 1000}")
    raw.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            yield
            _refuse_broken_references(connection)
    finally:
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute(f"PRAGMA busy_timeout={busy_milliseconds}")


def _refuse_broken_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        tables = ", ".join(sorted({row[0] for row in broken}))
        raise DatabaseUnavailableError(f"the migration would leave broken references in: {tables}")


@contextmanager
def _alone_on_postgresql(connection: Connection) -> Iterator[None]:
    _take_advisory_lock(connection)
    try:
        with connection.begin():
            connection.exec_driver_sql(f"SET lock_timeout = {LOCK_MILLISECONDS}")
            connection.exec_driver_sql("SET statement_timeout = 0")
        set_deadline(connection.connection.driver_connection, math.inf)
        yield
    finally:
        if not connection.invalidated:
            # Each migration has committed. The open transaction is Alembic's, which has read the revision in it.
            connection.rollback()
            with connection.begin():
                connection.exec_driver_sql("RESET lock_timeout")
                connection.exec_driver_sql("RESET statement_timeout")
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})


def _take_advisory_lock(connection: Connection) -> None:
    # The lock is tried again and again instead of waited for. A session that waits holds a snapshot, and if the
    # migration that has the lock creates an index CONCURRENTLY, that would wait for this snapshot for ever.
    deadline = time.monotonic() + TURN_SECONDS
    while True:
        with connection.begin():
            if connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}):
                return
        if time.monotonic() > deadline:
            raise DatabaseUnavailableError(f"another migration has been running for {TURN_SECONDS} s")
        time.sleep(0.1)


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _model_differences(connection: Connection) -> list[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts=compare_options(connection))
    return [line for difference in compare_metadata(context, metadata) for line in _describe(difference)]


def _describe(difference: Any) -> list[str]:
    if isinstance(difference, list):
        return [line for part in difference for line in _describe(part)]
    operation, *parts = difference
    told = " ".join(str(part) for part in parts if part is not None and not isinstance(part, dict))
    return [f"{operation.replace('_', ' ')}: {told}"]


def _check_constraint_differences(connection: Connection) -> list[str]:
    # Only the names are compared: each database rewrites the conditions in its own way, and Alembic ignores them.
    inspector = inspect(connection)
    there = {
        str(constraint["name"])
        for table in metadata.tables
        if inspector.has_table(table)
        for constraint in inspector.get_check_constraints(table)
    }
    return _missing("check constraint", _check_constraints(), there)


def _check_constraints() -> set[str]:
    return {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }


def _missing(what: str, expected: Iterable[str], there: Iterable[str]) -> list[str]:
    return [f"missing {what}: {name}" for name in sorted(set(expected) - set(there))]
