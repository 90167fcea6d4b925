"""Give a version the promises of its chart file.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the versions that there are promise nothing."""
    op.add_column("chart_versions", sa.Column("promises", sa.Text()))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("chart_versions", "promises")
