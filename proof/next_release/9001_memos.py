"""A nullable column on a small table that every PUT locks, and one on the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "HEAD"


def upgrade() -> None:
    op.add_column("charts", sa.Column("memo", sa.Text()))
    op.add_column("transition_log", sa.Column("memo", sa.Text()))
