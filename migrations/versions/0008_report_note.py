"""Give reports a note, and show it in the view `v_machine_reports`.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column that may be null, and make the view anew."""
    op.add_column("reports", sa.Column("note", sa.Text()))
    op.execute("DROP VIEW v_machine_reports")
    op.execute(VIEW.format(note=", r.note"))


def downgrade() -> None:
    """Make the view as it was, and drop the column."""
    op.execute("DROP VIEW v_machine_reports")
    op.drop_column("reports", "note")
    op.execute(VIEW.format(note=""))


VIEW = """\
CREATE VIEW v_machine_reports AS
SELECT c.name AS chart, r.run, r.visit, v.state, r.machine, r.key, r.reported_at, r.seq{note}
FROM reports r
JOIN charts c ON c.id = r.chart_id
LEFT JOIN visits v ON v.chart_id = r.chart_id AND v.run = r.run AND v.visit = r.visit"""
