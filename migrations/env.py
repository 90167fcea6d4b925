"""Alembic runs this module for every command. It locks other migrations out, and uses the service's own engine."""

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
    """Run the command's migrations on `connection`, which is not in a transaction yet."""
    with schema.alone(connection):
        context.configure(
            connection=connection,
            target_metadata=metadata,
            # On PostgreSQL a migration gives its locks back before the next one runs. SQLite has only one lock, and the
            # migrations are one transaction, so that no other session changes the schema between them.
            transaction_per_migration=connection.dialect.name == "postgresql",
            **schema.compare_options(connection),
        )
        with context.begin_transaction():
            context.run_migrations()


def main() -> None:
    """Migrate on the connection that the service passes in, or migrate the database that its settings name."""
    if context.is_offline_mode():
        raise CommandError("migrations read the database they change: --sql is not supported")
    handed_in = context.config.attributes.get("connection")
    if handed_in is not None:
        migrate(handed_in)
        return
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    # The URL is not read from the ini file, because the file's interpolation fails on a % in a password.
    engine = open_engine(os.environ.get("STATE_SERVICE_DATABASE_URL") or DEFAULT_URL, create=True)
    try:
        with engine.connect() as connection:
            migrate(connection)
    finally:
        engine.dispose()


main()
