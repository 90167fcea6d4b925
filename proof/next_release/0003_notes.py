"""A nullable column on a small table that every PUT locks, and one on the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("charts", sa.Column("note", sa.Text()))
    op.add_column("transition_log", sa.Column("note", sa.Text()))
