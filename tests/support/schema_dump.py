"""A database's whole schema as text: alike for the same schema, whichever version of the server it is asked of."""

from __future__ import annotations

import re

from sqlalchemy import Connection, text

SQLITE_OBJECTS = """
SELECT type, name, sql FROM sqlite_master
WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND tbl_name <> 'alembic_version'
ORDER BY CASE type WHEN 'table' THEN 1 WHEN 'index' THEN 2 WHEN 'trigger' THEN 3 ELSE 4 END, name
"""

# Each yields one text a row, in order. Ours are the objects of the current schema; NOT NULL is shown with its column,
# because PostgreSQL 18 lists it as a constraint and 16 does not.
POSTGRESQL_OBJECTS = {
    "columns": """
        SELECT format('%s.%s %s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
            CASE WHEN d.oid IS NULL THEN '' ELSE ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END)
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v')
            AND c.relname <> 'alembic_version'
        ORDER BY c.relname COLLATE "C", a.attnum
    """,
    "constraints": """
        SELECT format('%s.%s %s', c.relname, k.conname, pg_get_constraintdef(k.oid))
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND k.contype <> 'n' AND c.relname <> 'alembic_version'
        ORDER BY c.relname COLLATE "C", k.conname COLLATE "C"
    """,
    "indexes": """
        SELECT pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relname <> 'alembic_version'
        ORDER BY x.relname COLLATE "C"
    """,
    "sequences": """
        SELECT format('%s %s start %s step %s from %s to %s', sequencename, data_type, start_value, increment_by,
            min_value, max_value)
        FROM pg_sequences WHERE schemaname = current_schema() ORDER BY sequencename COLLATE "C"
    """,
    "functions": """
        SELECT pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace ORDER BY proname COLLATE "C"
    """,
    "triggers": """
        SELECT pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'D' THEN ' DISABLED' ELSE '' END
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal
        ORDER BY t.tgname COLLATE "C"
    """,
    "views": """
        SELECT format('%s AS %s', relname, pg_get_viewdef(oid, true)) FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v' ORDER BY relname COLLATE "C"
    """,
}


def dump_schema(connection: Connection) -> str:
    """Return tables, constraints, indexes, triggers, functions and views, sorted, Alembic's own table left out."""
    return dump_sqlite(connection) if connection.dialect.name == "sqlite" else dump_postgresql(connection)


def dump_sqlite(connection: Connection) -> str:
    rows = connection.exec_driver_sql(SQLITE_OBJECTS)
    return "\n".join(f"-- {kind} {name}\n{tidy(sql)};\n" for kind, name, sql in rows)


def dump_postgresql(connection: Connection) -> str:
    parts = []
    for title, query in POSTGRESQL_OBJECTS.items():
        lines = [tidy(line) for line in connection.scalars(text(query.replace(":", r"\:")))]
        parts.append(f"-- {title}\n" + "".join(f"{line}\n" for line in lines))
    return "\n".join(parts)


def tidy(sql: str) -> str:
    """Return `sql` without blank lines, trailing blanks, tabs and a trailing semicolon."""
    lines = (re.sub(r"\s+$", "", line.expandtabs(4)) for line in sql.strip().rstrip(";").splitlines())
    return "\n".join(line for line in lines if line)
