"""Give a row of the log a note.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the rows that there are keep NULL in it, and so their hashes."""
    op.add_column("transition_log", sa.Column("note", sa.Text()))


def downgrade() -> None:
    """Drop the column, and with it the notes: the hashes of rows with a note do not fit them any more."""
    op.drop_column("transition_log", "note")
