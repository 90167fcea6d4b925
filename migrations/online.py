"""Changes to the schema that let others go on writing. Frozen, like the migrations that use it: nothing of the service.

On PostgreSQL a migration waits only a moment for a lock, because every PUT waits behind it, and is begun again if that
was in vain (`app/schema.py`): each must be able to begin again. On SQLite an upgrade is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations


def create_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    """Create an index while others write to the table."""
    with standing_aside():
        # What is left of an attempt that failed is of no use, and in the way.
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def add_check(name: str, table: str, condition: str) -> None:
    """Have a table refuse rows that do not meet a condition; fails where one is there already."""
    if _is_sqlite():
        with rebuilding(table) as batch:
            batch.create_check_constraint(op.f(name), sa.text(condition))
        return
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
    # Not in the same transaction: reading all rows takes time, and the lock of ADD CONSTRAINT stops everybody.
    with standing_aside():
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


@contextmanager
def standing_aside() -> Iterator[None]:
    """On PostgreSQL, run each statement of the block by itself, and let it wait for others as long as it takes.

    For statements that stop nobody while they wait. What came before the block is committed. On SQLite, no difference.
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
    """Change a table in ways that SQLite's ALTER TABLE cannot; its triggers, and all views, are there again afterwards.

    Alembic's batch mode by itself drops the triggers without a word, and fails where a view reads the table. On
    PostgreSQL the changes are plain ALTER TABLEs.
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
