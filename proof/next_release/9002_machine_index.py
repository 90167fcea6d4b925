"""An index on the table that grows."""

from __future__ import annotations

from migrations.online import create_index

revision = "9002"
down_revision = "9001"


def upgrade() -> None:
    create_index("ix_transition_log_machine", "transition_log", ["machine"])
