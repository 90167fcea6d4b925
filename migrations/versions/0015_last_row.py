"""Have the log's trigger find a chart's last row at the end of the index, whatever PostgreSQL knows of the table.

The trigger asked for `max(seq)`. PostgreSQL keeps the plan of such a question, and where it took a chart to have a row
or two, the plan read all rows of the chart: each new row cost more than the one before. Nothing changes on SQLite.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

LAST_ROW = "coalesce((SELECT seq FROM transition_log WHERE chart = NEW.chart ORDER BY seq DESC LIMIT 1), 0) + 1"
LARGEST = "(SELECT coalesce(max(seq), 0) + 1 FROM transition_log WHERE chart = NEW.chart)"


def upgrade() -> None:
    """Replace the function; it locks no table."""
    _replace(LAST_ROW, " SET enable_sort = off")


def downgrade() -> None:
    """Bring the function of before back."""
    _replace(LARGEST, "")


def _replace(next_seq: str, settings: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    op.execute(f"""\
CREATE OR REPLACE FUNCTION check_log_insert() RETURNS trigger LANGUAGE plpgsql{settings} AS $$
BEGIN
    IF NEW.seq <> {next_seq} THEN
        RAISE EXCEPTION 'transition_log is append-only: seq must be the next one of its chart'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$""")
