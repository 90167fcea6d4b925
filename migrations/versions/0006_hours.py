"""Give charts windows, people who approve, and what opens or closes a chart beside its windows.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = (
    ("charts", "hours", sa.Text()),
    ("chart_versions", "schedule", sa.Text()),
    ("states", "schedule", sa.Text()),
    ("states", "who", sa.String(16)),
    ("states", "who_not", sa.String(16)),
    ("transitions", "of_time", sa.String(8)),
)


def upgrade() -> None:
    """Add the columns; NULL in each of them means what there was before: always open, and machines report."""
    for table, name, kind in COLUMNS:
        op.add_column(table, sa.Column(name, kind))


def downgrade() -> None:
    """Drop the columns: every chart is always open again."""
    for table, name, _ in reversed(COLUMNS):
        op.drop_column(table, name)
