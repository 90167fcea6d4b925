"""A PostgreSQL database that one test after another uses: to empty it takes far less time than to make another.

A test may do anything to its database. The next test gets it only if the definitions in it are those that it was made
with; otherwise it is dropped, and the next test gets a new one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

# Emptying leaves dead rows in PostgreSQL's catalog.
USES = 100

# Tables with the sequence of their identity column, if they have one.
TABLES = """
SELECT quote_ident(one.relname), quote_ident(sequence.relname)
FROM pg_class AS one
LEFT JOIN (pg_depend JOIN pg_class AS sequence ON sequence.oid = objid AND sequence.relkind = 'S')
    ON refobjid = one.oid AND refclassid = 'pg_class'::regclass AND classid = 'pg_class'::regclass
WHERE one.relkind = 'r' AND one.relnamespace = 'public'::regnamespace AND one.relname <> 'alembic_version'
ORDER BY one.relname
"""
# One text for everything that a test may have defined or changed. `xmin` changes with each change of a row. TRUNCATE
# changes the rows of pg_class, so their columns are compared. The numbers below 16384 are PostgreSQL's own.
DEFINITIONS = """
SELECT concat_ws(
    ' ',
    (SELECT string_agg(concat_ws(',', oid, relname, relkind, relowner, relacl, reloptions), ' ' ORDER BY oid)
        FROM pg_class WHERE oid >= 16384),
    (SELECT string_agg(concat_ws(',', attrelid, attnum, xmin), ' ' ORDER BY attrelid, attnum)
        FROM pg_attribute WHERE attrelid >= 16384),
    (SELECT string_agg(concat_ws(',', oid, xmin), ' ' ORDER BY oid) FROM pg_constraint WHERE oid >= 16384),
    (SELECT string_agg(concat_ws(',', oid, xmin), ' ' ORDER BY oid) FROM pg_trigger),
    (SELECT string_agg(concat_ws(',', oid, xmin), ' ' ORDER BY oid) FROM pg_proc WHERE oid >= 16384),
    (SELECT string_agg(concat_ws(',', oid, xmin), ' ' ORDER BY oid) FROM pg_namespace WHERE nspname !~ '^pg_t'),
    (SELECT string_agg(concat_ws(',', ev_class, xmin), ' ' ORDER BY oid) FROM pg_rewrite WHERE oid >= 16384),
    (SELECT string_agg(setconfig::text, ' ' ORDER BY setrole) FROM pg_db_role_setting
        JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = current_database()),
    (SELECT concat_ws(',', datdba, datacl, datallowconn, datconnlimit) FROM pg_database
        WHERE datname = current_database()),
    (SELECT string_agg(version_num, ' ') FROM alembic_version)
)
"""
END_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Emptied:
    """Migrated, empty databases on a server, made from a template."""

    def __init__(self, server: Engine, template: str) -> None:
        self._server = server
        self._template = template
        self._spare: str | None = None
        # It keeps no connection, but what SQLAlchemy otherwise asks the server at each first one.
        self._engine: Engine | None = None
        self._uses = 0
        self._definitions = ""

    def use(self) -> Iterator[str]:
        """Yield the name of a database that is empty, and empty or drop it afterwards."""
        name = self._spare if self._spare is not None else self._make()
        self._spare, self._uses = None, self._uses + 1
        yield name
        if self._uses < USES and self._empty(name):
            self._spare = name
        else:
            drop(self._server, name)

    def end(self) -> None:
        """Drop the database that no test asked for any more."""
        if self._spare is not None:
            drop(self._server, self._spare)

    def _make(self) -> str:
        name = create(self._server, f"TEMPLATE {self._template}")
        self._uses = 0
        with self._opened(name).connect() as connection:
            self._definitions = connection.exec_driver_sql(DEFINITIONS).scalar_one()
        return name

    def _empty(self, name: str) -> bool:
        """True if the database has no rows left, no session, and the definitions that it was made with."""
        try:
            with self._opened(name).connect() as connection:
                connection.exec_driver_sql(END_OTHERS)
                if connection.exec_driver_sql(DEFINITIONS).scalar_one() != self._definitions:
                    return False
                delete_rows(connection)
        except DBAPIError:
            # The test has dropped or renamed it, or nobody may connect any longer.
            return False
        return True

    def _opened(self, name: str) -> Engine:
        if self._engine is None or self._engine.url.database != name:
            url = self._server.url.set(database=name)
            self._engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        return self._engine


def delete_rows(connection: Connection) -> None:
    """Empty every table that has rows, or whose rows have been numbered; the numbers begin again."""
    has_rows = [
        f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})"
        + (f" OR (SELECT is_called FROM {sequence})" if sequence else "")
        for table, sequence in connection.exec_driver_sql(TABLES)
    ]
    used = list(connection.exec_driver_sql(" UNION ALL ".join(has_rows)).scalars())
    if used:
        # Without the triggers by which the logs refuse it.
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.exec_driver_sql(f"TRUNCATE {', '.join(used)} RESTART IDENTITY CASCADE")


def create(server: Engine, options: str = "") -> str:
    """Create a database, and return its name."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} {options}")
    return name


def drop(server: Engine, name: str) -> None:
    """Drop a database, also if a session is still connected."""
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
