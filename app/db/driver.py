"""psycopg, PostgreSQL's driver: without it, or without the libpq that it loads, SQLite works all the same.

Import this before psycopg. If psycopg cannot be imported, a stand-in takes its place, whose names can be imported and
inherited from, and `MISSING` says why. No connection is ever made with it: `app.db.engine` refuses the URL.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

MISSING: str | None = None


class _Nothing(Exception):  # noqa: N818  # it stands for classes of any kind
    """What stands for a class of psycopg: no error is ever one, and no object."""

    def __class_getitem__(cls, item: object) -> type[_Nothing]:
        return cls


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


try:
    import psycopg  # noqa: F401  # to see whether it can be imported
except ImportError as error:
    # psycopg explains in several lines; the last one names what it did not find.
    MISSING = str(error).strip().splitlines()[-1].strip(" -")
    for _name in ("psycopg", "psycopg.abc", "psycopg.conninfo", "psycopg.errors", "psycopg.pq"):
        sys.modules[_name] = _StandIn(_name)
