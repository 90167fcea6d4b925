"""Crash points: places in the PUT's transaction where a serving process can be made to die, as by kill -9.

They are put round the service's own functions by `proof.served`, which only this suite starts: production
runs `wsgi:app`, where there is no such code. The harness lays a file of the point's name into a folder; the first
process to come by takes it away and dies.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

import app.db
import app.service.put
import app.store

# Names the folder, in the environment of a server of this suite.
VARIABLE = "FAULTS_FOLDER"
POINTS = ("before_transaction", "after_lock", "before_commit", "after_commit")


def install(folder: Path) -> None:
    """Have the process die at a point whose file lies in `folder`."""
    dies_at = {point: _die_where(str(folder / point)) for point in POINTS}
    updating: Any = app.service.put  # overwritten here, and so untyped
    updating.transaction = _watch_transaction(updating.transaction, dies_at["before_transaction"])
    store: Any = app.store
    for name in ("lock_charts", "lock_free_charts"):
        setattr(store.charts, name, _watch_lock(getattr(store.charts, name), dies_at["after_lock"]))
    app.db._commit = _watch_commit(app.db._commit, dies_at["before_commit"], dies_at["after_commit"])


def _die_where(path: str) -> Callable[[], None]:
    def die() -> None:
        if not os.path.exists(path):
            return
        try:
            os.unlink(path)
        except FileNotFoundError:
            return  # another process took it
        os.kill(os.getpid(), signal.SIGKILL)

    return die


def _watch_transaction(original: Any, die: Callable[[], None]) -> Any:
    @contextmanager
    def transaction(database: app.db.Database) -> Iterator[Connection]:
        die()
        with original(database) as connection:
            yield connection

    return transaction


def _watch_lock(original: Any, die: Callable[[], None]) -> Any:
    def lock(connection: Connection, names: Collection[str]) -> list[app.store.charts.ChartRow]:
        rows: list[app.store.charts.ChartRow] = original(connection, names)
        die()
        return rows

    return lock


def _watch_commit(original: Any, die_before: Callable[[], None], die_after: Callable[[], None]) -> Any:
    def commit(connection: Connection, really: Callable[[], None]) -> None:
        die_before()
        original(connection, really)
        die_after()

    return commit
