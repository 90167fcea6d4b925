"""`./state_service calendar`: import and read calendars, whose events close charts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from app.cli.shared import (
    USAGE,
    config_of,
    current_author,
    exits_on_error,
    open_service,
    print_json,
    print_pieces,
    print_problems,
    print_table,
    read_file,
)
from app.core.errors import CalendarFileError
from app.core.log import format_instant
from app.service import calendars

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("calendar", short_help="Calendars: import, list, show.", epilog="Example: ./state_service calendar list")
def group() -> None:
    """Calendars: iCalendar texts whose events close the charts that name them."""


@group.command("import", epilog="Example: ./state_service calendar import freeze.ics")
@click.argument("file")
@click.option("--name", help="The calendar's name, instead of the file's name without its extension.")
@JSON
@click.pass_context
@exits_on_error
def import_(context: click.Context, file: str, name: str | None, as_json: bool) -> None:
    """Import an iCalendar FILE: a new calendar, or a new version of one. Charts that name it go by it at once."""
    service = open_service(config_of(context))
    named = name or ("calendar" if file == "-" else Path(file).stem)
    try:
        imported = calendars.import_calendar(service, named, read_file(file), current_author())
    except CalendarFileError as error:
        print_problems(file, error.problems)
        sys.exit(USAGE)
    if as_json:
        print_json(imported.as_json())
        return
    version = imported.version
    click.echo(f"{version.calendar}: {imported.outcome}, version {version.version}, {version.events} events")
    for chart, state in imported.charts.items():
        click.echo(f"  {chart} goes by it, in {state}")


@group.command("list", epilog="Example: ./state_service calendar list --json")
@JSON
@click.pass_context
@exits_on_error
def list_(context: click.Context, as_json: bool) -> None:
    """List every calendar and the charts that go by it."""
    found = calendars.list_calendars(open_service(config_of(context)))
    if as_json:
        print_json([view.as_json() for view in found])
        return
    newest = [(item.version, ", ".join(item.charts)) for item in found]
    rows = [(version.calendar, version.version, version.events, charts) for version, charts in newest]
    print_table(("CALENDAR", "VERSION", "EVENTS", "CHARTS"), rows)


@group.command("show", epilog="Example: ./state_service calendar show freeze --text > freeze.ics")
@click.argument("name")
@click.option("--text", "as_text", is_flag=True, help="Print the iCalendar text as it was imported.")
@JSON
@click.pass_context
@exits_on_error
def show(context: click.Context, name: str, as_text: bool, as_json: bool) -> None:
    """Show the calendar NAME: its version, the charts that go by it, and when it closes them next."""
    view = calendars.get_calendar(open_service(config_of(context)), name)
    if as_text:
        print_pieces([view.version.text])
    elif as_json:
        print_json(view.as_json())
    else:
        click.echo(f"{name}: version {view.version.version}, charts: {', '.join(view.charts) or 'none'}")
        rows = [(format_instant(item.start), format_instant(item.end)) for item in view.events]
        print_table(("CLOSED FROM", "TO"), rows)
