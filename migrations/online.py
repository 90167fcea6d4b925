"""Changes to the schema during which services can still write.

This module is frozen, like the migrations that use it, and imports nothing of the service.

On PostgreSQL a migration waits only a moment for a lock, because every PUT waits behind it. If the lock is not free in
time, `app/schema.py` runs the migration again, so each migration must be able to run again. On SQLite an upgrade is one
transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations


def create_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    """Create an index while other sessions write to the table."""
    with standing_aside():
        # An attempt that failed leaves an invalid index, whose name is taken.
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def add_check(name: str, table: str, condition: str) -> None:
    """Add a CHECK to a table. Fails if a row of the table does not meet the condition."""
    if _is_sqlite():
        with rebuilding(table) as batch:
            batch.create_check_constraint(op.f(name), sa.text(condition))
        return
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
    # VALIDATE is outside the transaction: it reads all rows, and the lock of ADD CONSTRAINT stops every writer.
    with standing_aside():
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


@contextmanager
def standing_aside() -> Iterator[None]:
    """On PostgreSQL, run each statement of the block outside a transaction, with no limit to its wait for locks.

    It is for statements that block no other session while they wait. The transaction before the block is committed. On
    SQLite the block changes nothing.
    """
    if _is_sqlite():
        yield
        return
    with op.get_context().autocommit_block():
        patience = op.get_bind().exec_driver_sql("SHOW lock_timeout").scalar_one()
        op.execute("SET lock_timeout = 0")
        try:
            yield
        finally:
            op.execute(f"SET lock_timeout = '{patience}'")


@contextmanager
def rebuilding(table: str) -> Iterator[BatchOperations]:
    """Change a table in ways that SQLite's ALTER TABLE cannot, and keep its triggers and all views.

    Alembic's batch mode alone drops the triggers without a message, and fails if a view reads the table. On PostgreSQL
    the changes are plain ALTER TABLEs.
    """
    if not _is_sqlite():
        with op.batch_alter_table(table) as batch:
            yield batch
        return
    connection = op.get_bind()
    query = "SELECT type, name, sql FROM sqlite_master WHERE type = 'view' OR (type = 'trigger' AND tbl_name = ?)"
    lost = connection.exec_driver_sql(query + " ORDER BY rowid", (table,)).all()
    for kind, name, _ in lost:
        if kind == "view":
            op.execute(f"DROP VIEW {name}")
    with op.batch_alter_table(table, recreate="always") as batch:
        yield batch
    for _, _, sql in lost:
        connection.exec_driver_sql(sql)


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
