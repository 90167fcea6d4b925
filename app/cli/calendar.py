"""`./state_service calendar`: import and read calendars, whose events close charts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from app.service import calendars

# What a server answers, and what `as_json` gives.
Fields = Mapping[str, Any]

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
    try:
        imported = calendars.import_calendar(service, name_of(file, name), read_file(file), current_author())
    except CalendarFileError as error:
        print_problems(file, error.problems)
        sys.exit(USAGE)
    print_imported(imported.as_json(), as_json=as_json)


def name_of(file: str, name: str | None) -> str:
    """Return the calendar's name: the one that was given, or that of the file."""
    return name or ("calendar" if file == "-" else Path(file).stem)


def print_imported(found: Fields, *, as_json: bool) -> None:
    """Print an import, and the charts that go by the calendar."""
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['calendar']}: {found['outcome']}, version {found['version']}, {found['events']} events")
    for one in found["charts"]:
        click.echo(f"  {one['chart']} goes by it, in {one['current_state']}")


@group.command("list", epilog="Example: ./state_service calendar list --json")
@JSON
@click.pass_context
@exits_on_error
def list_(context: click.Context, as_json: bool) -> None:
    """List every calendar and the charts that go by it."""
    found = calendars.list_calendars(open_service(config_of(context)))
    print_calendars([view.as_json() for view in found], as_json=as_json)


def print_calendars(found: Sequence[Fields], *, as_json: bool) -> None:
    """Print calendars as JSON or as a table."""
    if as_json:
        print_json(found)
        return
    rows = [(one["calendar"], one["version"], one["events"], ", ".join(one["charts"])) for one in found]
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
    else:
        print_calendar(view.as_json(), as_json=as_json)


def print_calendar(found: Fields, *, as_json: bool) -> None:
    """Print one calendar, and when it closes charts next."""
    if as_json:
        print_json(found)
        return
    charts = ", ".join(found["charts"]) or "none"
    click.echo(f"{found['calendar']}: version {found['version']}, charts: {charts}")
    print_table(("CLOSED FROM", "TO"), [(event["start"], event["end"]) for event in found["next"]])
