"""Drop the table `slot_waiters`: each process keeps in memory which of its requests wait for a slot.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# ISO 8601 text on SQLite, as in 0001.
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(27), "sqlite")


def upgrade() -> None:
    """Drop the table; on PostgreSQL this locks `charts`, too, for a moment, because of the foreign key."""
    op.drop_table("slot_waiters")


def downgrade() -> None:
    """Create the table as it was, without rows: a row had meaning only while its request was held open."""
    op.create_table(
        "slot_waiters",
        sa.Column("chart_id", sa.BigInteger(), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["chart_id"], ["charts.id"], name="fk_slot_waiters_chart_id_charts"),
        sa.PrimaryKeyConstraint("chart_id", "machine", name="pk_slot_waiters"),
    )
