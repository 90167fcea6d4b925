"""Keep calendars: iCalendar texts whose events close charts, in versions that never change.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# ISO 8601 text on SQLite, as in 0001.
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(27), "sqlite")
TABLE = "calendar_versions"


def upgrade() -> None:
    """Create the table, and the triggers that refuse every change of its rows."""
    op.create_table(
        TABLE,
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("calendar", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("imported_at", INSTANT, nullable=False),
        sa.Column("imported_by", sa.String(length=255)),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
        sa.UniqueConstraint("calendar", "version", name=f"uq_{TABLE}_calendar_version"),
    )
    if op.get_bind().dialect.name == "sqlite":
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {TABLE}_refuses_{act.lower()} BEFORE {act} ON {TABLE}"
                f" BEGIN SELECT RAISE(ABORT, '{TABLE} is immutable: {act} is refused'); END"
            )
        return
    for act in ("UPDATE", "DELETE", "TRUNCATE"):
        each = "STATEMENT" if act == "TRUNCATE" else "ROW"
        op.execute(
            f"CREATE TRIGGER {TABLE}_refuses_{act.lower()} BEFORE {act} ON {TABLE}"
            f" FOR EACH {each} EXECUTE FUNCTION refuse_change('immutable')"
        )


def downgrade() -> None:
    """Drop the table with all calendars."""
    op.drop_table(TABLE)
