"""The statements of one GET and of one PUT, for programs that run them without the service: pgbench, and the profile.

Parameters are written `:name`, as SQLite and pgbench take them.
"""

from __future__ import annotations

import re

from app.models import charts
from bench.charts import HOT

READ = f"SELECT {', '.join(charts.columns.keys())} FROM charts WHERE name = '{HOT}'"
LOCK = {"sqlite": READ, "postgresql": f"{READ} FOR NO KEY UPDATE"}
VALUES = {
    "sqlite": "SELECT key, value FROM attribute_values WHERE chart_id = :id",
    "postgresql": "SELECT clock_timestamp() AS now, key, value FROM attribute_values WHERE chart_id = :id",
}
WRITE_VALUE = "UPDATE attribute_values SET value = :next_value WHERE chart_id = :id AND key = :key"
WRITE_CHART = (
    "UPDATE charts SET version = :version, run = :run, visit = :visit, state = :state, entered_at = :entered_at,"
    " paused_at = NULL, paused_for = :paused_for, due_at = NULL, fence = :fence, seq = :next_seq,"
    " last_hash = :last_hash, updated_at = :now WHERE id = :id"
)
WRITE_LOG = (
    "INSERT INTO transition_log (chart, version, run, visit, seq, at, kind, from_state, to_state, key, value_before,"
    " value_after, machine, actor, remote_addr, idempotency_key, reason, hash)"
    f" VALUES ('{HOT}', :version, :run, :visit, :next_seq, :now, 'update', :state, :state, :key, :value,"
    " :next_value, NULL, NULL, '127.0.0.1', NULL, NULL, :last_hash)"
)
WRITES = (WRITE_VALUE, WRITE_CHART, WRITE_LOG)


def pgbench_script() -> str:
    """One PUT on the hot chart: lock its row, read its values, write the value, the row, and the log's row."""
    lines = [
        "BEGIN;",
        f"{LOCK['postgresql']} \\gset",
        f"{VALUES['postgresql']} \\gset",
        "\\set next_seq :seq + 1",
        "\\set next_value :value + 1",
        *(f"{text};" for text in WRITES),
        "COMMIT;",
    ]
    return "\n".join(lines) + "\n"


def for_psycopg(text: str) -> str:
    """A statement with its parameters as psycopg takes them."""
    return re.sub(r":(\w+)", r"%(\1)s", text)
