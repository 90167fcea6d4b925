"""CHECKs on tables that have rows: on SQLite both are rebuilt, with the triggers and views that hang on them."""

from __future__ import annotations

from migrations.online import add_check

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    add_check("ck_charts_short_note", "charts", "length(note) <= 1000")
    add_check("ck_transition_log_counted_from_one", "transition_log", "seq >= 1")
