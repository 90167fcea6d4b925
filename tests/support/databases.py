"""A new, migrated database for a script that is no test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app import schema
from app.db.engine import normalize_url, open_engine, str_url
from tests.conftest import start_postgresql


@contextmanager
def new_database(which: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a migrated database: `sqlite`, a PostgreSQL server of its own, or the one whose URL is given."""
    if which == "sqlite":
        yield migrated(f"sqlite:///{folder / 'state_service.db'}")
    elif which == "postgresql":
        server = start_postgresql(folder)
        try:
            yield migrated(server.get_uri())
        finally:
            server.cleanup()
    else:
        yield migrated(which)


def migrated(url: str) -> str:
    """Migrate the database at `url`; return its URL as the service writes it."""
    engine = open_engine(url, create=True)
    schema.upgrade(engine)
    engine.dispose()
    return str_url(normalize_url(url))
