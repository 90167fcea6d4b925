"""Keep the Idempotency-Keys of PUTs that were answered as a machine's replay.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; on PostgreSQL this locks `charts`, too, for a moment, because of the foreign key."""
    op.create_table(
        "replayed_keys",
        sa.Column("chart_id", sa.BigInteger(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("machine", sa.String(length=255)),
        sa.Column("key", sa.String(length=128)),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["chart_id"], ["charts.id"], name="fk_replayed_keys_chart_id_charts"),
        sa.PrimaryKeyConstraint("chart_id", "idempotency_key", name="pk_replayed_keys"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("replayed_keys")
