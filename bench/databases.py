"""The databases that are measured: SQLite files, and databases of a PostgreSQL of our own; durable, on a disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from app.db.engine import normalize_url, str_url
from tests.support.databases import migrated, start_postgresql

DATABASES = ("sqlite", "postgresql")
TEMPLATE = "migrated"
# What must be so on PostgreSQL for a commit to be one; SQLite's synchronous=FULL is the service's own default.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


@contextmanager
def folder_on_disk() -> Iterator[Path]:
    """A folder that ends with the block, on a file system where fsync means something."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        kind = subprocess.run(["stat", "-f", "-c", "%T", name], capture_output=True, text=True, check=True)
        if kind.stdout.strip() in ("tmpfs", "ramfs"):
            sys.exit(f"{name} is in memory, where nothing is durable: set TMPDIR to a folder on a disk")
        yield Path(name)


@dataclass(slots=True)
class Databases:
    """Makes databases of both kinds, migrated, durable and empty."""

    folder: Path
    server: str
    # Where PostgreSQL's own programs are.
    programs: Path
    count: int = 0

    def migrate(self) -> None:
        """Make what every new database is a copy of."""
        execute(self.server, f"CREATE DATABASE {TEMPLATE}")
        migrated(self._url("postgresql", TEMPLATE))
        migrated(self._url("sqlite", TEMPLATE))

    def new(self, which: str) -> str:
        """The URL of a new one."""
        self.count += 1
        url = self._url(which, f"bench{self.count}")
        if which == "sqlite":
            shutil.copyfile(self.folder / f"{TEMPLATE}.db", self.folder / f"bench{self.count}.db")
        else:
            execute(self.server, f"CREATE DATABASE bench{self.count} TEMPLATE {TEMPLATE}")
        return url

    def _url(self, which: str, name: str) -> str:
        if which == "sqlite":
            return f"sqlite:///{self.folder / name}.db"
        return str_url(normalize_url(self.server).set(database=name))

    def drop(self, url: str) -> None:
        """Be rid of one whose servers have ended."""
        parsed = normalize_url(url)
        if parsed.drivername == "sqlite":
            for end in ("", "-wal", "-shm"):
                Path(f"{parsed.database}{end}").unlink(missing_ok=True)
        else:
            execute(self.server, f"DROP DATABASE {parsed.database} WITH (FORCE)")


@contextmanager
def databases() -> Iterator[Databases]:
    """A PostgreSQL of our own, and a folder for SQLite's files."""
    with folder_on_disk() as files, folder_on_disk() as data:
        server = start_postgresql(data)
        try:
            url = str_url(normalize_url(server.get_uri()))
            for name, wanted in DURABLE.items():
                assert query(url, f"SHOW {name}") == wanted, name
            found = Databases(files, url, Path(server.bin_path))
            found.migrate()
            yield found
        finally:
            server.cleanup()


def execute(url: str, *statements: str) -> None:
    """Run statements, each on its own, as the server's owner."""
    engine = create_engine(normalize_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def query(url: str, statement: str) -> object:
    """The one value that a statement returns."""
    with create_engine(normalize_url(url), poolclass=NullPool).connect() as connection:
        return connection.exec_driver_sql(statement).scalar_one()
