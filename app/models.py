"""The tables, which are the same on SQLite and PostgreSQL. Triggers and views are in the migrations.

A version's definition (`chart_versions`, `roster`, `states`, `attributes`, `transitions`) is never changed. A chart's
position is its row in `charts`, and its live values are rows of `attribute_values`. The list that a chart file itself
has is in `roster`; rosters that are objects of their own are in `rosters`, `roster_versions` and `roster_machines`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

from app.core.log import format_instant

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An instant with a time zone: `timestamptz` on PostgreSQL; on SQLite ISO 8601 text, which sorts by time."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Return the database's own type."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(27))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Return the value for the driver."""
        if value is None or dialect.name != "sqlite":
            return value
        return format_instant(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return what the driver read, as an instant in UTC."""
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        instant: datetime = value
        return instant.astimezone(UTC)


# SQLite numbers new rows by itself only if the column's type is INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")

NAME = String(128)
MACHINE = String(255)

charts = Table(
    "charts",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("visit", Integer, nullable=False),
    Column("state", NAME, nullable=False),
    Column("entered_at", UtcDateTime, nullable=False),
    Column("paused_at", UtcDateTime),
    Column("paused_by", String(255)),
    Column("pause_reason", Text),
    # Microseconds of the pauses in this visit that have ended.
    Column("paused_for", BigInteger, nullable=False, server_default=text("0")),
    # What opens and closes the chart beside its windows, JSON: {"openings": [[from, until], ...], "calendars":
    # {"freeze": 3}, "pauses": [[from, until], ...]}; NULL if there is nothing to say.
    Column("hours", Text),
    # When the clock next has something to do here; NULL while paused, or if the clock has nothing to do.
    Column("due_at", UtcDateTime),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("seq", BigInteger, nullable=False),
    Column("last_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("archived_at", UtcDateTime),
    # JSON: the names that states of this run had before an upgrade renamed them, each with the name it has now.
    Column("renamed", Text),
    # How many machines take part in the visit; NULL if the chart file alone says it.
    Column("expected", BigInteger),
    # The version in force of each roster that the chart follows, JSON: {"web": 3}; NULL if it follows none.
    Column("rosters", Text),
    CheckConstraint("version >= 1 AND run >= 1 AND visit >= 1 AND seq >= 1", name="counted_from_one"),
    CheckConstraint("paused_for >= 0 AND fence >= 0", name="never_negative"),
    # Used by: the sweeper, to find the charts that are due.
    Index(
        "ix_charts_due_at",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
        sqlite_where=text("due_at IS NOT NULL"),
    ),
)

chart_versions = Table(
    "chart_versions",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("chart_id", BigInteger, ForeignKey("charts.id"), nullable=False),
    Column("version", Integer, nullable=False),
    # The chart file, byte for byte as it was imported (UTF-8).
    Column("text", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("initial_state", NAME, nullable=False),
    Column("expect", BigInteger),
    Column("has_roster", Boolean, nullable=False),
    Column("require_machine", Boolean, nullable=False),
    # JSON: what the chart promises with `never` and `always`; null if it promises nothing.
    Column("promises", Text),
    Column("imported_at", UtcDateTime, nullable=False),
    Column("imported_by", String(255)),
    # The windows for all states, JSON: {"windows": [...], "except": [...], "fit": true}; NULL if there are none.
    Column("schedule", Text),
    # The roster that the chart names as `expect`, JSON; NULL if it names none.
    Column("follows", Text),
    UniqueConstraint("chart_id", "version"),
)

roster = Table(
    "roster",
    metadata,
    Column("version_id", BigInteger, ForeignKey("chart_versions.id"), primary_key=True),
    Column("machine", MACHINE, primary_key=True),
    Column("position", Integer, nullable=False),
)

rosters = Table(
    "rosters",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("name", NAME, nullable=False, unique=True),
    # The newest version.
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

roster_versions = Table(
    "roster_versions",
    metadata,
    Column("roster_id", BigInteger, ForeignKey("rosters.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("machines", Integer, nullable=False),
    Column("added", Integer, nullable=False),
    Column("removed", Integer, nullable=False),
    Column("changed", Integer, nullable=False),
    # Of the lines as `GET /rosters/R` gives them.
    Column("sha256", String(64), nullable=False),
    Column("imported_at", UtcDateTime, nullable=False),
    Column("imported_by", String(255)),
)

roster_machines = Table(
    "roster_machines",
    metadata,
    Column("roster_id", BigInteger, ForeignKey("rosters.id"), primary_key=True),
    Column("machine", MACHINE, primary_key=True),
    # The line is part of the versions from `since` on and before `until`; NULL means up to now.
    Column("since", Integer, primary_key=True),
    Column("until", Integer),
    # `rack=r12 shard=7 shard=9`: sorted, one value each.
    Column("labels", Text, nullable=False),
)

states = Table(
    "states",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version_id", BigInteger, ForeignKey("chart_versions.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("name", NAME, nullable=False),
    Column("description", Text, nullable=False),
    Column("func", String(16)),
    # The slot limits, JSON: {"written": ["1", "5%"], "stages": [1, 250]}; NULL if the state has no slots. With limits
    # of groups, also "per": {"rack": "1"}. A percentage of a set that is looked up has the stage 0.
    Column("slots", Text),
    # The lease as written, and in microseconds.
    Column("lease", String(64)),
    Column("lease_us", BigInteger),
    Column("on_expire", String(8)),
    # JSON: [["count", ["m1"]]]: the machines whose reports the starting values include; NULL if the file names none.
    Column("reported", Text),
    # The windows of this state alone, JSON as in chart_versions.
    Column("schedule", Text),
    # `approvers` if people report on the state; and `importer` if the person who imported the version may not.
    Column("who", String(16)),
    Column("who_not", String(16)),
    # The state's own set of machines, JSON; NULL if it has none.
    Column("expect", Text),
    # The states whose machines are counted on entry, JSON: ["canary"]; NULL if there are none.
    Column("including", Text),
    UniqueConstraint("version_id", "name"),
    CheckConstraint("func IN ('increment', 'decrement', 'time')", name="known_func"),
    CheckConstraint("on_expire IN ('hold', 'free', 'fail')", name="known_on_expire"),
)

attributes = Table(
    "attributes",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("state_id", BigInteger, ForeignKey("states.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("key", NAME, nullable=False),
    Column("value", BigInteger, nullable=False),
    UniqueConstraint("state_id", "key"),
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("state_id", BigInteger, ForeignKey("states.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("target", NAME, nullable=False),
    Column("key", NAME, nullable=False),
    Column("op", String(2)),
    # The guard's value as written: `5`, `95%`, `30m`, an ISO 8601 instant.
    Column("value", String(64), nullable=False),
    # What the text means: a count, microseconds of the visit's age, or an instant. Exactly one of the three is set.
    # The count is 0 if the text is a percentage of a set that is looked up.
    Column("threshold", BigInteger),
    Column("age", BigInteger),
    Column("instant", UtcDateTime),
    # `open` if only the time counts in which the state is open.
    Column("of_time", String(8)),
    UniqueConstraint("state_id", "position"),
    CheckConstraint("op IN ('==', '!=', '>=', '<=', '>', '<')", name="known_op"),
    CheckConstraint(
        "(threshold IS NOT NULL AND op IS NOT NULL AND age IS NULL AND instant IS NULL)"
        " OR (key = 'elapsed' AND age IS NOT NULL AND threshold IS NULL AND instant IS NULL)"
        " OR (key = 'clock' AND instant IS NOT NULL AND threshold IS NULL AND age IS NULL)",
        name="one_meaning",
    ),
)

attribute_values = Table(
    "attribute_values",
    metadata,
    Column("chart_id", BigInteger, ForeignKey("charts.id"), primary_key=True),
    Column("key", NAME, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

visits = Table(
    "visits",
    metadata,
    Column("chart_id", BigInteger, ForeignKey("charts.id"), primary_key=True),
    Column("run", Integer, primary_key=True),
    Column("visit", Integer, primary_key=True),
    Column("state", NAME, nullable=False),
    Column("entered_at", UtcDateTime, nullable=False),
    Column("left_at", UtcDateTime),
    # Used by: `reached` and the replay check, to find the latest visit of a state in a run.
    Index("ix_visits_chart_id_run_state_visit", "chart_id", "run", "state", "visit"),
)

reports = Table(
    "reports",
    metadata,
    Column("chart_id", BigInteger, ForeignKey("charts.id"), primary_key=True),
    Column("run", Integer, primary_key=True),
    Column("visit", Integer, primary_key=True),
    Column("machine", MACHINE, primary_key=True),
    # The attribute that the report counted on; NULL once an upgrade has dropped that attribute.
    Column("key", NAME),
    Column("seq", BigInteger, nullable=False),
    Column("reported_at", UtcDateTime, nullable=False),
    # What the machine said with the report.
    Column("note", Text),
)

# Idempotency-Keys of PUTs that were answered as a machine's replay: they have no row in the log.
replayed_keys = Table(
    "replayed_keys",
    metadata,
    Column("chart_id", BigInteger, ForeignKey("charts.id"), primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", NAME, nullable=False),
    Column("machine", MACHINE),
    Column("key", NAME),
    # The chart's last log row when the PUT was answered. Used by: a prune.
    Column("seq", BigInteger, nullable=False),
)

slots = Table(
    "slots",
    metadata,
    Column("chart_id", BigInteger, ForeignKey("charts.id"), primary_key=True),
    Column("machine", MACHINE, primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("claimed_at", UtcDateTime, nullable=False),
    Column("renewed_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("expired_at", UtcDateTime),
)

transition_log = Table(
    "transition_log",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("chart", NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("visit", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("from_state", NAME, nullable=False),
    Column("to_state", NAME, nullable=False),
    Column("key", NAME),
    Column("value_before", BigInteger),
    Column("value_after", BigInteger),
    Column("machine", MACHINE),
    Column("actor", String(255)),
    Column("remote_addr", String(64)),
    Column("idempotency_key", String(255)),
    Column("reason", Text),
    Column("hash", String(64), nullable=False),
    # What the machine said with its report; of an import or an upgrade: the SHA-256 of the chart file; of an act of
    # opening: until when. Hashed only if it is not NULL, as it came later.
    Column("note", Text),
    # Used by: the reasons of a chart's condition and the history on its page, which pass over the rows of machines.
    Index(
        "ix_transition_log_chart_seq_acts",
        "chart",
        "seq",
        postgresql_where=text("kind NOT IN ('update', 'claim', 'release')"),
        sqlite_where=text("kind NOT IN ('update', 'claim', 'release')"),
    ),
    # If the row lock ever failed, this would refuse the second of two writers. Used by: history, whose cursor is `seq`,
    # and verify.
    UniqueConstraint("chart", "seq"),
    # If the replay check ever failed, this would refuse the second row with a key. Used by: the replay check. NULLs are
    # distinct on both databases.
    UniqueConstraint("chart", "idempotency_key"),
)

# A chart as it stood after a row of its log. A replay of the log to a later instant may begin there.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("chart", NAME, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    # Of the row's hash and the marker: a checkpoint counts only while both are what they were.
    Column("hash", String(64), nullable=False),
    # The row that a prune up to `seq` would leave in the log, as compressed JSON.
    Column("marker", LargeBinary, nullable=False),
)

calendar_versions = Table(
    "calendar_versions",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("calendar", NAME, nullable=False),
    Column("version", Integer, nullable=False),
    # The iCalendar text, byte for byte as it was imported (UTF-8).
    Column("text", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("events", Integer, nullable=False),
    Column("imported_at", UtcDateTime, nullable=False),
    Column("imported_by", String(255)),
    UniqueConstraint("calendar", "version"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("pattern", String(256), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String(255)),
    Column("revoked_at", UtcDateTime),
    # The machines that the token may name, with `*` and `?` as in a shell; NULL if it may name any.
    Column("machine", String(255)),
    Column("expires_at", UtcDateTime),
    # To the hour.
    Column("last_used_at", UtcDateTime),
    CheckConstraint(
        "role IN ('reader', 'machine', 'operator', 'admin', 'enrol', 'approver')",
        name="known_role",
    ),
)

# People who have signed in to the pages. A row goes when its session ends.
sessions = Table(
    "sessions",
    metadata,
    # Of the secret in the browser's cookie.
    Column("sha256", String(64), primary_key=True),
    Column("token_id", BigInteger, ForeignKey("tokens.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Of the last page that the person opened, to the minute.
    Column("used_at", UtcDateTime, nullable=False),
)

# Who made and revoked which token. Append-only, as transition_log.
token_log = Table(
    "token_log",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("token", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("pattern", String(256), nullable=False),
    Column("machine", String(255)),
    Column("expires_at", UtcDateTime),
    Column("actor", String(255)),
    Column("remote_addr", String(64)),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("url", Text, nullable=False),
    # The service signs with it, so it is kept as it is.
    Column("secret", Text, nullable=False),
    # JSON lists: patterns of charts' names; kinds of log rows and conditions.
    Column("charts", Text, nullable=False),
    Column("kinds", Text, nullable=False),
    Column("format", String(8), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String(255)),
    Column("updated_at", UtcDateTime, nullable=False),
    CheckConstraint("format IN ('event', 'text')", name="known_format"),
)

# How far a subscription has come in a chart's log, and whose turn it is to send the next row.
subscription_cursors = Table(
    "subscription_cursors",
    metadata,
    Column("subscription_id", BigInteger, ForeignKey("subscriptions.id"), primary_key=True),
    Column("chart", NAME, primary_key=True),
    # The last row that was delivered, or passed over because its kind is not wanted.
    Column("seq", BigInteger, nullable=False),
    # The condition that was last seen.
    Column("condition", String(16)),
    # How often the next row has failed, and when it is tried again.
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_at", UtcDateTime),
    # The sender that works on this chart, until when at most.
    Column("claimed_by", String(64)),
    Column("claimed_until", UtcDateTime),
    # Used by: senders, to find what is to be tried again.
    Index(
        "ix_subscription_cursors_next_at",
        "next_at",
        postgresql_where=text("next_at IS NOT NULL"),
        sqlite_where=text("next_at IS NOT NULL"),
    ),
)

# What was sent, and what came of it: the last thousand of each subscription.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("subscription_id", BigInteger, ForeignKey("subscriptions.id"), nullable=False),
    Column("webhook_id", String(200), nullable=False),
    Column("chart", NAME),
    Column("seq", BigInteger),
    Column("kind", String(32), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("attempt", Integer, nullable=False),
    # The receiver's HTTP status; NULL if it did not answer. `error` says why it was not delivered.
    Column("status", Integer),
    Column("error", Text),
    # Used by: the list of deliveries, newest first, and its pruning.
    Index("ix_deliveries_subscription_id_id", "subscription_id", "id"),
)
