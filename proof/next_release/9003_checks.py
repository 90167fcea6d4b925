"""CHECKs on tables that have rows: on SQLite both are rebuilt, with the triggers and views that hang on them."""

from __future__ import annotations

from migrations.online import add_check

revision = "9003"
down_revision = "9002"


def upgrade() -> None:
    add_check("ck_charts_short_memo", "charts", "length(memo) <= 1000")
    add_check("ck_transition_log_counted_from_one", "transition_log", "seq >= 1")
