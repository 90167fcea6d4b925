"""`./state_service db`: migrate and check the schema, back up the database, prune the log."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import timedelta

import click

from app import schema
from app.cli.shared import NO, Age, config_of, current_author, exits_on_error, open_service, print_json, progress
from app.config import Config
from app.db.engine import open_engine
from app.service.context import Service
from app.service.upkeep import Pruned, backup, count_old_rows, prune
from app.service.verifying import list_logged_charts


@click.group("db", short_help="The database: upgrade, check, backup, prune.")
def group() -> None:
    """The database."""


@group.command("upgrade", epilog="Example: ./state_service db upgrade")
@click.pass_context
@exits_on_error
def upgrade(context: click.Context) -> None:
    """Migrate the database's schema to what this version of the service needs.

    Safe at any time, and from several processes at once.
    """
    migrate(config_of(context))
    click.echo(f"the database is at revision {schema.head_revision()}")


def migrate(config: Config) -> None:
    """Bring the database of the settings to the newest revision. Raises DatabaseUnavailableError or SettingError."""
    with ExitStack() as opened:
        engine = open_engine(config.database_url, create=True, pooler=config.pooler)
        opened.callback(engine.dispose)
        if not config.pooler or engine.dialect.name == "sqlite":
            schema.upgrade(engine)
            return
        direct = None if config.listen_url is None else open_engine(config.listen_url)
        if direct is not None:
            opened.callback(direct.dispose)
        schema.upgrade_past_pooler(engine, direct)


@group.command("check", epilog="Example: ./state_service db check && echo fine")
@click.pass_context
@exits_on_error
def check(context: click.Context) -> None:
    """Compare the database's schema with what this version of the service needs; exit 1 on a difference."""
    config = config_of(context)
    engine = open_engine(config.database_url, pooler=config.pooler)
    context.call_on_close(engine.dispose)
    differences = schema.check(engine)
    for difference in differences:
        click.echo(difference)
    if differences:
        sys.exit(NO)
    click.echo(f"the database is at revision {schema.head_revision()}, as it should be")


@group.command("backup", epilog="Example: ./state_service db backup /var/backups/state_service.db")
@click.argument("file")
@click.pass_context
@exits_on_error
def backup_(context: click.Context, file: str) -> None:
    """Copy the SQLite database to FILE, which must not exist, while the service goes on writing.

    The copy is the database as it was at one moment. It is checked, and on the disk when this command ends. For
    PostgreSQL this command prints the pg_dump command that does the same, and exits 2.
    """
    size = backup(open_service(config_of(context)), file)
    click.echo(f"{file}: {size} bytes, checked")


@group.command("prune", epilog="Example: ./state_service db prune --keep 400d --dry-run")
@click.argument("charts", nargs=-1)
@click.option(
    "--keep", required=True, type=Age(), metavar="AGE", help="Keep rows that are younger than this: 400d, 26h, …"
)
@click.option("--dry-run", is_flag=True, help="Print how many rows would be deleted and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@exits_on_error
def prune_(context: click.Context, charts: tuple[str, ...], keep: timedelta, dry_run: bool, as_json: bool) -> None:
    """Delete log rows older than AGE, of CHARTS or of all charts; a marker row stays, and the log still verifies.

    A chart whose log does not verify is not changed, and the exit code is 1. An Idempotency-Key is forgotten with its
    row. Safe while the service writes.
    """
    service = open_service(config_of(context))
    results = []
    for name in charts or list_logged_charts(service):
        results.append(Pruned(name, count_old_rows(service, name, keep)) if dry_run else _prune(service, name, keep))
        if not as_json:
            click.echo(results[-1].as_text(dry_run=dry_run), nl=False)
    if as_json:
        print_json([found.as_json() for found in results])
    if any(found.differences for found in results):
        sys.exit(NO)


def _prune(service: Service, name: str, keep: timedelta) -> Pruned:
    with progress(f"{name}: reading") as reading, progress(f"{name}: pruning") as pruning:
        return prune(service, name, keep, current_author(), checking=reading, pruning=pruning)
