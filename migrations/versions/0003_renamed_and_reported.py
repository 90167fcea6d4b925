"""Keep the old names of states in a chart's position, and in a definition the machines that its values include.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns that may be null: on both databases that takes a moment and rewrites no row."""
    op.add_column("charts", sa.Column("renamed", sa.Text()))
    op.add_column("states", sa.Column("reported", sa.Text()))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("states", "reported")
    op.drop_column("charts", "renamed")
