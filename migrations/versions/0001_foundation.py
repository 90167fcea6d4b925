"""Create every table, the triggers that refuse changes of the log and of definitions, and the views for people.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers new rows by itself only if the column's type is INTEGER.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# On SQLite, ISO 8601 text that is always like `2026-01-31T12:00:00.000000Z`, so it sorts by time.
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(27), "sqlite")

# op.f() below marks a name as complete; without it, the models' naming convention would add its prefix a second time.
DEFINITIONS = ("chart_versions", "roster", "states", "attributes", "transitions")
TABLES = (
    "tokens",
    "transition_log",
    "transitions",
    "attributes",
    "states",
    "roster",
    "chart_versions",
    "slot_waiters",
    "slots",
    "reports",
    "visits",
    "attribute_values",
    "charts",
)
# The reason in the message when a change is refused, such as `transition_log is append-only`.
REFUSALS = {"transition_log": "append-only"} | dict.fromkeys(DEFINITIONS, "immutable")


def upgrade() -> None:
    """Create the whole schema."""
    create_charts()
    create_definitions()
    create_log_and_tokens()
    dialect = op.get_bind().dialect.name
    statements = sqlite_triggers() if dialect == "sqlite" else postgresql_triggers()
    for statement in (*statements, *views(dialect)):
        op.execute(sa.text(statement.replace(":", r"\:")))


def downgrade() -> None:
    """Drop the whole schema, with all its rows."""
    for view in ("v_machine_reports", "v_state_durations", "v_current"):
        op.execute(f"DROP VIEW {view}")
    # DROP TABLE drops the table's triggers, too.
    for table in TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
        op.execute("DROP FUNCTION check_log_insert()")


def create_charts() -> None:
    """Create the tables of charts' positions and values, and of what machines did in them."""
    op.create_table(
        "charts",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("entered_at", INSTANT, nullable=False),
        sa.Column("paused_at", INSTANT),
        sa.Column("paused_by", sa.String(length=255)),
        sa.Column("pause_reason", sa.Text()),
        sa.Column("paused_for", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", INSTANT),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("last_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("archived_at", INSTANT),
        sa.CheckConstraint("paused_for >= 0 AND fence >= 0", name=op.f("ck_charts_never_negative")),
        sa.CheckConstraint(
            "version >= 1 AND run >= 1 AND visit >= 1 AND seq >= 1", name=op.f("ck_charts_counted_from_one")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_charts"),
        sa.UniqueConstraint("name", name="uq_charts_name"),
    )
    op.create_index(
        "ix_charts_due_at",
        "charts",
        ["due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )

    op.create_table(
        "attribute_values",
        sa.Column("chart_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["chart_id"], ["charts.id"], name="fk_attribute_values_chart_id_charts"),
        sa.PrimaryKeyConstraint("chart_id", "key", name="pk_attribute_values"),
    )

    op.create_table(
        "visits",
        sa.Column("chart_id", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("entered_at", INSTANT, nullable=False),
        sa.Column("left_at", INSTANT),
        sa.ForeignKeyConstraint(["chart_id"], ["charts.id"], name="fk_visits_chart_id_charts"),
        sa.PrimaryKeyConstraint("chart_id", "run", "visit", name="pk_visits"),
    )
    op.create_index("ix_visits_chart_id_run_state_visit", "visits", ["chart_id", "run", "state", "visit"])

    op.create_table(
        "reports",
        sa.Column("chart_id", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=128)),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("reported_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["chart_id"], ["charts.id"], name="fk_reports_chart_id_charts"),
        sa.PrimaryKeyConstraint("chart_id", "run", "visit", "machine", name="pk_reports"),
    )

    op.create_table(
        "slots",
        sa.Column("chart_id", sa.BigInteger(), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("claimed_at", INSTANT, nullable=False),
        sa.Column("renewed_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("expired_at", INSTANT),
        sa.ForeignKeyConstraint(["chart_id"], ["charts.id"], name="fk_slots_chart_id_charts"),
        sa.PrimaryKeyConstraint("chart_id", "machine", name="pk_slots"),
    )

    op.create_table(
        "slot_waiters",
        sa.Column("chart_id", sa.BigInteger(), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["chart_id"], ["charts.id"], name="fk_slot_waiters_chart_id_charts"),
        sa.PrimaryKeyConstraint("chart_id", "machine", name="pk_slot_waiters"),
    )


def create_definitions() -> None:
    """Create the tables of the imported definitions."""
    op.create_table(
        "chart_versions",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("chart_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("initial_state", sa.String(length=128), nullable=False),
        sa.Column("expect", sa.BigInteger()),
        sa.Column("has_roster", sa.Boolean(), nullable=False),
        sa.Column("require_machine", sa.Boolean(), nullable=False),
        sa.Column("imported_at", INSTANT, nullable=False),
        sa.Column("imported_by", sa.String(length=255)),
        sa.ForeignKeyConstraint(["chart_id"], ["charts.id"], name="fk_chart_versions_chart_id_charts"),
        sa.PrimaryKeyConstraint("id", name="pk_chart_versions"),
        sa.UniqueConstraint("chart_id", "version", name="uq_chart_versions_chart_id_version"),
    )

    op.create_table(
        "roster",
        sa.Column("version_id", sa.BigInteger(), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["chart_versions.id"], name="fk_roster_version_id_chart_versions"),
        sa.PrimaryKeyConstraint("version_id", "machine", name="pk_roster"),
    )

    op.create_table(
        "states",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("version_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("func", sa.String(length=16)),
        sa.Column("slots", sa.Text()),
        sa.Column("lease", sa.String(length=64)),
        sa.Column("lease_us", sa.BigInteger()),
        sa.Column("on_expire", sa.String(length=8)),
        sa.CheckConstraint("func IN ('increment', 'decrement', 'time')", name=op.f("ck_states_known_func")),
        sa.CheckConstraint("on_expire IN ('hold', 'free', 'fail')", name=op.f("ck_states_known_on_expire")),
        sa.ForeignKeyConstraint(["version_id"], ["chart_versions.id"], name="fk_states_version_id_chart_versions"),
        sa.PrimaryKeyConstraint("id", name="pk_states"),
        sa.UniqueConstraint("version_id", "name", name="uq_states_version_id_name"),
    )

    op.create_table(
        "attributes",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("state_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["state_id"], ["states.id"], name="fk_attributes_state_id_states"),
        sa.PrimaryKeyConstraint("id", name="pk_attributes"),
        sa.UniqueConstraint("state_id", "key", name="uq_attributes_state_id_key"),
    )

    op.create_table(
        "transitions",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("state_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("op", sa.String(length=2)),
        sa.Column("value", sa.String(length=64), nullable=False),
        sa.Column("threshold", sa.BigInteger()),
        sa.Column("age", sa.BigInteger()),
        sa.Column("instant", INSTANT),
        sa.CheckConstraint(
            "(threshold IS NOT NULL AND op IS NOT NULL AND age IS NULL AND instant IS NULL)"
            " OR (key = 'elapsed' AND age IS NOT NULL AND threshold IS NULL AND instant IS NULL)"
            " OR (key = 'clock' AND instant IS NOT NULL AND threshold IS NULL AND age IS NULL)",
            name=op.f("ck_transitions_one_meaning"),
        ),
        sa.CheckConstraint("op IN ('==', '!=', '>=', '<=', '>', '<')", name=op.f("ck_transitions_known_op")),
        sa.ForeignKeyConstraint(["state_id"], ["states.id"], name="fk_transitions_state_id_states"),
        sa.PrimaryKeyConstraint("id", name="pk_transitions"),
        sa.UniqueConstraint("state_id", "position", name="uq_transitions_state_id_position"),
    )


def create_log_and_tokens() -> None:
    """Create the transition log and the tokens."""
    op.create_table(
        "transition_log",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("chart", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("from_state", sa.String(length=128), nullable=False),
        sa.Column("to_state", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=128)),
        sa.Column("value_before", sa.BigInteger()),
        sa.Column("value_after", sa.BigInteger()),
        sa.Column("machine", sa.String(length=255)),
        sa.Column("actor", sa.String(length=255)),
        sa.Column("remote_addr", sa.String(length=64)),
        sa.Column("idempotency_key", sa.String(length=255)),
        sa.Column("reason", sa.Text()),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_transition_log"),
        sa.UniqueConstraint("chart", "idempotency_key", name="uq_transition_log_chart_idempotency_key"),
        sa.UniqueConstraint("chart", "seq", name="uq_transition_log_chart_seq"),
    )

    op.create_table(
        "tokens",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("pattern", sa.String(length=256), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.String(length=255)),
        sa.Column("revoked_at", INSTANT),
        sa.CheckConstraint("role IN ('reader', 'machine', 'operator', 'admin')", name=op.f("ck_tokens_known_role")),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
        sa.UniqueConstraint("sha256", name="uq_tokens_sha256"),
    )


def sqlite_triggers() -> Iterator[str]:
    """Yield the triggers that refuse changes on SQLite.

    INSERT OR REPLACE deletes a row without a DELETE trigger unless `recursive_triggers` is on, so the trigger on INSERT
    looks for the row that would be replaced.
    """
    for table, why in REFUSALS.items():
        for act in ("UPDATE", "DELETE"):
            yield (
                f"CREATE TRIGGER {table}_refuses_{act.lower()} BEFORE {act} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} is {why}: {act} is refused'); END"
            )
    yield """\
CREATE TRIGGER transition_log_checks_insert BEFORE INSERT ON transition_log
BEGIN
    SELECT RAISE(ABORT, 'transition_log is append-only: seq must be the next one of its chart')
    WHERE NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM transition_log WHERE chart = NEW.chart);
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: transition_log.id (transition_log is append-only)')
    WHERE EXISTS (SELECT 1 FROM transition_log WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: transition_log.idempotency_key (transition_log is append-only)')
    WHERE EXISTS (
        SELECT 1 FROM transition_log WHERE chart = NEW.chart AND idempotency_key = NEW.idempotency_key
    );
END"""


def postgresql_triggers() -> Iterator[str]:
    """Yield the triggers that refuse changes on PostgreSQL; as on SQLite, the error is that of a broken constraint."""
    yield """\
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is %: % is refused', TG_TABLE_NAME, TG_ARGV[0], TG_OP USING ERRCODE = 'restrict_violation';
END
$$"""
    yield """\
CREATE FUNCTION check_log_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM transition_log WHERE chart = NEW.chart) THEN
        RAISE EXCEPTION 'transition_log is append-only: seq must be the next one of its chart'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$"""
    for table, why in REFUSALS.items():
        for act in ("UPDATE", "DELETE", "TRUNCATE"):
            each = "STATEMENT" if act == "TRUNCATE" else "ROW"
            yield (
                f"CREATE TRIGGER {table}_refuses_{act.lower()} BEFORE {act} ON {table}"
                f" FOR EACH {each} EXECUTE FUNCTION refuse_change('{why}')"
            )
    yield (
        "CREATE TRIGGER transition_log_checks_insert BEFORE INSERT ON transition_log"
        " FOR EACH ROW EXECUTE FUNCTION check_log_insert()"
    )


def views(dialect: str) -> Iterator[str]:
    """Yield the views. Only the calculation of seconds differs between the databases."""
    yield """\
CREATE VIEW v_current AS
SELECT c.name AS chart, c.version, c.run, c.visit, c.state AS current_state,
    s.id IS NOT NULL AND s.func IS NULL AS is_final,
    c.entered_at, c.paused_at, c.paused_by, c.pause_reason,
    a.key, coalesce(av.value, a.value) AS value,
    (
        SELECT t.threshold FROM transitions t
        WHERE t.state_id = s.id AND t.key = a.key AND t.threshold IS NOT NULL
        ORDER BY t.position LIMIT 1
    ) AS needed,
    (
        SELECT count(*) FROM reports r WHERE r.chart_id = c.id AND r.run = c.run AND r.visit = c.visit
    ) AS reported,
    c.due_at, c.seq, c.updated_at
FROM charts c
LEFT JOIN chart_versions cv ON cv.chart_id = c.id AND cv.version = c.version
LEFT JOIN states s ON s.version_id = cv.id AND s.name = c.state
LEFT JOIN attributes a
    ON a.state_id = s.id AND a.position = (SELECT min(f.position) FROM attributes f WHERE f.state_id = s.id)
LEFT JOIN attribute_values av ON av.chart_id = c.id AND av.key = a.key
WHERE c.archived_at IS NULL"""
    seconds = SQLITE_SECONDS if dialect == "sqlite" else POSTGRESQL_SECONDS
    yield f"""\
CREATE VIEW v_state_durations AS
SELECT c.name AS chart, v.run, v.visit, v.state, v.entered_at, v.left_at,
    {seconds} AS seconds
FROM visits v
JOIN charts c ON c.id = v.chart_id"""
    yield """\
CREATE VIEW v_machine_reports AS
SELECT c.name AS chart, r.run, r.visit, v.state, r.machine, r.key, r.reported_at, r.seq
FROM reports r
JOIN charts c ON c.id = r.chart_id
LEFT JOIN visits v ON v.chart_id = r.chart_id AND v.run = r.run AND v.visit = r.visit"""


POSTGRESQL_SECONDS = "greatest(extract(epoch FROM coalesce(v.left_at, clock_timestamp()) - v.entered_at), 0)"
# SQLite's own arithmetic with instants rounds to milliseconds, so seconds and microseconds are calculated separately.
_LEFT = "coalesce(v.left_at, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))"
SQLITE_SECONDS = f"""\
max(
        strftime('%s', substr({_LEFT}, 1, 19)) - strftime('%s', substr(v.entered_at, 1, 19))
        + (substr({_LEFT}, 21, 6) - substr(v.entered_at, 21, 6)) / 1000000.0,
        0
    )"""
