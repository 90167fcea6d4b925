"""Let a token be for some machines and end by itself; keep sessions, and a log of what was done to tokens.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.online import add_check

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# ISO 8601 text on SQLite, as in 0001.
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(27), "sqlite")
ROLES = "role IN ('reader', 'machine', 'operator', 'admin', 'enrol', 'approver')"
CHECK = "ck_tokens_known_role"
FIRST_ROLES = "role IN ('reader', 'machine', 'operator', 'admin')"


def upgrade() -> None:
    """Add the columns, two tables, and the triggers that keep the log of tokens as it was written."""
    op.add_column("tokens", sa.Column("machine", sa.String(length=255)))
    op.add_column("tokens", sa.Column("expires_at", INSTANT))
    op.add_column("tokens", sa.Column("last_used_at", INSTANT))
    _replace_roles(ROLES)
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("token_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("used_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="fk_sessions_token_id_tokens"),
        sa.PrimaryKeyConstraint("sha256", name="pk_sessions"),
    )
    op.create_table(
        "token_log",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("token", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("pattern", sa.String(length=256), nullable=False),
        sa.Column("machine", sa.String(length=255)),
        sa.Column("expires_at", INSTANT),
        sa.Column("actor", sa.String(length=255)),
        sa.Column("remote_addr", sa.String(length=64)),
        sa.PrimaryKeyConstraint("id", name="pk_token_log"),
    )
    acts = ["UPDATE", "DELETE"] if op.get_bind().dialect.name == "sqlite" else ["UPDATE", "DELETE", "TRUNCATE"]
    for act in acts:
        op.execute(_trigger(act))


def downgrade() -> None:
    """Drop all of it, and the tokens that the older release does not know."""
    op.drop_table("token_log")
    op.drop_table("sessions")
    unknown = "role IN ('enrol', 'approver') OR machine IS NOT NULL OR expires_at IS NOT NULL"
    op.execute(f"DELETE FROM tokens WHERE {unknown}")
    _replace_roles(FIRST_ROLES)
    for column in ("last_used_at", "expires_at", "machine"):
        op.drop_column("tokens", column)


def _trigger(act: str) -> str:
    name = f"token_log_refuses_{act.lower()}"
    if op.get_bind().dialect.name == "sqlite":
        return (
            f"CREATE TRIGGER {name} BEFORE {act} ON token_log"
            f" BEGIN SELECT RAISE(ABORT, 'token_log is append-only: {act} is refused'); END"
        )
    each = "STATEMENT" if act == "TRUNCATE" else "ROW"
    refusal = f"FOR EACH {each} EXECUTE FUNCTION refuse_change('append-only')"
    return f"CREATE TRIGGER {name} BEFORE {act} ON token_log {refusal}"


def _replace_roles(condition: str) -> None:
    if op.get_bind().dialect.name != "sqlite":
        add_check(CHECK, "tokens", condition)
        return
    # By hand: Alembic's batch mode writes the constraints in an order that differs from run to run. No trigger and no
    # view is on this table.
    new = op.create_table(
        "tokens_new",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("pattern", sa.String(length=256), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.String(length=255)),
        sa.Column("revoked_at", INSTANT),
        sa.Column("machine", sa.String(length=255)),
        sa.Column("expires_at", INSTANT),
        sa.Column("last_used_at", INSTANT),
        sa.CheckConstraint(condition, name=op.f(CHECK)),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
        sa.UniqueConstraint("sha256", name="uq_tokens_sha256"),
    )
    names = ", ".join(column.name for column in new.columns)
    op.execute(f"INSERT INTO tokens_new ({names}) SELECT {names} FROM tokens")
    op.drop_table("tokens")
    op.rename_table("tokens_new", "tokens")
