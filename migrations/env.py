"""What Alembic runs for every command: alone on the database, on the service's own engine."""

from __future__ import annotations

import os
from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from app import schema
from app.db.engine import open_engine
from app.models import metadata

DEFAULT_URL = "sqlite:///instance/state_service.db"


def migrate(connection: Connection) -> None:
    """Run the command's migrations on `connection`, which has begun no transaction yet."""
    with schema.alone(connection):
        context.configure(
            connection=connection,
            target_metadata=metadata,
            # A lock that a migration took is not held while the next one runs. On SQLite there is one lock, and the
            # migrations are alone because they are one transaction.
            transaction_per_migration=connection.dialect.name == "postgresql",
            **schema.compare_options(connection),
        )
        with context.begin_transaction():
            context.run_migrations()


def main() -> None:
    """Migrate the connection that the service hands in, or the database that its settings name."""
    if context.is_offline_mode():
        raise CommandError("migrations read the database they change: --sql is not supported")
    handed_in = context.config.attributes.get("connection")
    if handed_in is not None:
        migrate(handed_in)
        return
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    # Not from the ini file: its interpolation breaks on a % in a password.
    engine = open_engine(os.environ.get("STATE_SERVICE_DATABASE_URL") or DEFAULT_URL, create=True)
    try:
        with engine.connect() as connection:
            migrate(connection)
    finally:
        engine.dispose()


main()
