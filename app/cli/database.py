"""`./state_service db`: the database's schema."""

from __future__ import annotations

import sys

import click

from app import schema
from app.cli.context import NO, config_of, reporting
from app.db import open_engine


@click.group("db", short_help="The database: upgrade, check.")
def group() -> None:
    """The database."""


@group.command("upgrade", epilog="Example: ./state_service db upgrade")
@click.pass_context
@reporting
def upgrade(context: click.Context) -> None:
    """Bring the database's schema to what this version of the service needs. Safe to run at any time, by several."""
    engine = open_engine(config_of(context).database_url, create=True)
    schema.upgrade(engine)
    click.echo(f"the database is at revision {schema.head_revision()}")


@group.command("check", epilog="Example: ./state_service db check && echo fine")
@click.pass_context
@reporting
def check(context: click.Context) -> None:
    """Compare the database's schema with what this version of the service needs; exit 1 on a difference."""
    differences = schema.check(open_engine(config_of(context).database_url))
    for difference in differences:
        click.echo(difference)
    if differences:
        sys.exit(NO)
    click.echo(f"the database is at revision {schema.head_revision()}, as it should be")
