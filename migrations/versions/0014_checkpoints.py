"""Create the table of checkpoints, at which replays of long logs begin.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; it locks no other table."""
    op.create_table(
        "checkpoints",
        sa.Column("chart", sa.String(length=128), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("marker", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chart", "seq", name="pk_checkpoints"),
    )


def downgrade() -> None:
    """Drop the table: nothing else depends on it."""
    op.drop_table("checkpoints")
