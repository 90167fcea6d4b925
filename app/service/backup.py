"""A copy of the whole database as it is at one moment, taken while others write."""

from __future__ import annotations

import os
import shlex
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL

from app.core.errors import BadRequestError, ConflictError, DatabaseUnavailableError
from app.db.sqlite import open_sqlite
from app.service.context import Service


def backup(service: Service, file: str) -> int:
    """Write the SQLite database to `file`, which must not exist; return its size.

    It is there whole, checked and on the disk, or not at all. Raises BadRequestError for PostgreSQL, with the
    command that backs it up, ConflictError, DatabaseUnavailableError.
    """
    url = service.database.engine.url
    target = Path(file).absolute()
    if not service.database.is_sqlite:
        # Without the password: libpq has better places for it than a command line.
        told = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
        command = ["pg_dump", "--format=custom", f"--file={target}", f"--dbname={told.render_as_string()}"]
        raise BadRequestError(f"PostgreSQL has its own: {shlex.join(command)}")
    if target.exists() or target.is_symlink():
        raise ConflictError(f"{target} exists, and a backup overwrites nothing")
    try:
        # Beside the target, so that it can take its name in one step; readable by its owner alone.
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as folder:
            copy = Path(folder) / "copy.db"
            with closing(open_sqlite(url)) as connection:
                # One read transaction: writers go on, and none of what they write is half in it.
                connection.execute("VACUUM INTO ?", (str(copy),))
            _check(copy)
            _sync(copy)
            # What somebody else has put there meanwhile stays: what is replaced is this empty file of our own.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
            copy.replace(target)
        _sync(target.parent)
    except FileExistsError:
        raise ConflictError(f"{target} exists, and a backup overwrites nothing") from None
    except (OSError, sqlite3.Error) as error:
        raise DatabaseUnavailableError(f"the backup failed: {error}") from error
    return target.stat().st_size


def _check(copy: Path) -> None:
    copy.chmod(0o600)
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"the copy is damaged: {found}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
