"""Index the rows of the log that are no machine's update, claim or release: a page reads them past millions of those.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.online import create_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ACTS = sa.text("kind NOT IN ('update', 'claim', 'release')")
NAME = "ix_transition_log_chart_seq_acts"


def upgrade() -> None:
    """Create the index beside the writers."""
    create_index(NAME, "transition_log", ["chart", "seq"], postgresql_where=ACTS, sqlite_where=ACTS)


def downgrade() -> None:
    """Drop the index."""
    op.drop_index(NAME, "transition_log")
