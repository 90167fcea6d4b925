"""Create the tables of rosters, and the columns that say who takes part in a state.

This migration is frozen: it says what the schema was at this revision, and imports nothing of the service.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# As in 0001.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.String(27), "sqlite")

COLUMNS = (
    ("charts", sa.Column("expected", sa.BigInteger())),
    ("charts", sa.Column("rosters", sa.Text())),
    ("chart_versions", sa.Column("follows", sa.Text())),
    ("states", sa.Column("expect", sa.Text())),
    ("states", sa.Column("including", sa.Text())),
)


def upgrade() -> None:
    """Add nullable columns, which locks their tables for a moment only, and three new tables."""
    for table, column in COLUMNS:
        op.add_column(table, column)
    op.create_table(
        "rosters",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rosters"),
        sa.UniqueConstraint("name", name="uq_rosters_name"),
    )
    op.create_table(
        "roster_versions",
        sa.Column("roster_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("machines", sa.Integer(), nullable=False),
        sa.Column("added", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("imported_at", INSTANT, nullable=False),
        sa.Column("imported_by", sa.String(length=255)),
        sa.ForeignKeyConstraint(["roster_id"], ["rosters.id"], name="fk_roster_versions_roster_id_rosters"),
        sa.PrimaryKeyConstraint("roster_id", "version", name="pk_roster_versions"),
    )
    op.create_table(
        "roster_machines",
        sa.Column("roster_id", sa.BigInteger(), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("since", sa.Integer(), nullable=False),
        sa.Column("until", sa.Integer()),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["roster_id"], ["rosters.id"], name="fk_roster_machines_roster_id_rosters"),
        sa.PrimaryKeyConstraint("roster_id", "machine", "since", name="pk_roster_machines"),
    )
    for statement in _triggers(op.get_bind().dialect.name):
        op.execute(sa.text(statement))


def _triggers(dialect: str) -> list[str]:
    """Return the triggers that refuse every change of a roster's version."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER roster_versions_refuses_{act.lower()} BEFORE {act} ON roster_versions"
            f" BEGIN SELECT RAISE(ABORT, 'roster_versions is immutable: {act} is refused'); END"
            for act in ("UPDATE", "DELETE")
        ]
    return [
        f"CREATE TRIGGER roster_versions_refuses_{act.lower()} BEFORE {act} ON roster_versions"
        f" FOR EACH {'STATEMENT' if act == 'TRUNCATE' else 'ROW'} EXECUTE FUNCTION refuse_change('immutable')"
        for act in ("UPDATE", "DELETE", "TRUNCATE")
    ]


def downgrade() -> None:
    """Drop the tables and the columns, with what they say."""
    for table in ("roster_machines", "roster_versions", "rosters"):
        op.drop_table(table)
    for table, column in reversed(COLUMNS):
        op.drop_column(table, column.name)
