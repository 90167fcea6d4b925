"""`./state_service roster`: import rosters from an inventory, and read them back."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

import click

from app.chart_file.expect import join_conditions, to_condition
from app.chart_file.fields import ScalarError, to_part
from app.chart_file.rosters import RosterFileError
from app.cli.shared import (
    NUMBER,
    USAGE,
    config_of,
    current_author,
    exits_on_error,
    fail,
    open_service,
    print_json,
    print_pieces,
    print_problems,
    print_table,
    read_file,
)
from app.core.errors import ChartFileError
from app.service import rosters
from app.service.rosters import RosterRequest, import_roster, read_lines

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("roster", short_help="Rosters: import, list, show, diff.", epilog="Example: ./state_service roster list")
def group() -> None:
    """Rosters: which machines there are, with their labels."""


class Share(click.ParamType[Fraction]):
    """A percentage."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Return the share as a fraction. Raises click.BadParameter."""
        try:
            return to_part(str(value), "10%")
        except ScalarError as error:
            self.fail(str(error), param, ctx)


class Condition(click.ParamType[tuple[str, tuple[str, ...]]]):
    """A label and values, of which a machine must have one."""

    name = "label:value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[str, ...]]:
        """Return the label and its values. Raises click.BadParameter."""
        if isinstance(value, tuple):
            return value
        try:
            return to_condition(str(value))
        except ScalarError as error:
            self.fail(str(error), param, ctx)


@group.command("import", epilog="Example: ./state_service roster import web machines.txt --dry-run")
@click.argument("name")
@click.argument("file")
@click.option("--max-loss", type=Share(), default="10%", show_default=True, help="The share that may vanish at most.")
@click.option("--dry-run", is_flag=True, help="Print what would happen and change nothing.")
@JSON
@click.pass_context
@exits_on_error
def import_(context: click.Context, name: str, file: str, *, max_loss: Fraction, dry_run: bool, as_json: bool) -> None:
    """Import the roster NAME from FILE (`-` is standard input): a machine a line, then label=value[,value]..."""
    check_name(name)
    try:
        lines = _read_lines(file)
    except RosterFileError as error:
        print_problems(file, error.problems)
        sys.exit(USAGE)
    request = RosterRequest(name, lines, max_loss, dry_run)
    try:
        imported = import_roster(open_service(config_of(context)), request, current_author())
    except ChartFileError as error:
        # A chart could break a promise with these lines: the story says how.
        print_problems(file, error.problems)
        sys.exit(USAGE)
    print_imported(imported.as_json(), as_json=as_json)


def check_name(name: str) -> None:
    """Exit 2 if no roster can have this name."""
    problem = rosters.find_name_problem(name)
    if problem is not None:
        fail(f"roster {name!r}: {problem}", USAGE)


def print_imported(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an import, as `as_json` gives it."""
    if as_json:
        print_json(found)
    else:
        click.echo(rosters.say_imported(found), nl=False)


def _read_lines(file: str) -> dict[str, str]:
    return read_lines(BytesIO(read_file(file)))


@group.command("list", epilog="Example: ./state_service roster list --json")
@JSON
@click.pass_context
@exits_on_error
def list_(context: click.Context, as_json: bool) -> None:
    """List the rosters with their newest versions, and the charts that follow them."""
    found = [roster.as_json() for roster in rosters.list_rosters(open_service(config_of(context)))]
    print_rosters(found, as_json=as_json)


def print_rosters(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rosters, as `as_json` gives them, as JSON or as a table."""
    if as_json:
        print_json(found)
        return
    headings = ("ROSTER", "VERSION", "MACHINES", "UPDATED", "CHARTS")
    rows = [
        (one["roster"], one["version"], one["machines"], one["updated_at"], ", ".join(one["charts"])) for one in found
    ]
    print_table(headings, rows)


@group.command("show", epilog="Example: ./state_service roster show web --where zone:a,b --where tier:lb")
@click.argument("name")
@click.option("--version", type=NUMBER, help="An older version.")
@click.option("--where", "where", multiple=True, type=Condition(), help="Only machines with one of these values.")
@JSON
@click.pass_context
@exits_on_error
def show(
    context: click.Context,
    name: str,
    *,
    version: int | None,
    where: Iterable[tuple[str, tuple[str, ...]]],
    as_json: bool,
) -> None:
    """Print the lines of the roster NAME."""
    view = rosters.read_roster(open_service(config_of(context)), name, version, join_conditions(where))
    if as_json:
        machines = [{"machine": machine, "labels": labels} for chunk in view.chunks() for machine, labels in chunk]
        print_json({"roster": name, "version": view.version, "machines": machines})
    else:
        print_pieces(view.as_text())


@group.command("diff", epilog="Example: ./state_service roster diff web 3 4")
@click.argument("name")
@click.argument("before", type=NUMBER, required=False)
@click.argument("after", type=NUMBER, required=False)
@JSON
@click.pass_context
@exits_on_error
def diff(context: click.Context, name: str, before: int | None, after: int | None, *, as_json: bool) -> None:
    """Print what differs between the versions BEFORE and AFTER of the roster NAME, by default the newest two."""
    found = rosters.diff_roster(open_service(config_of(context)), name, before, after)
    if as_json:
        print_json(found.as_json())
    else:
        click.echo(found.as_text(), nl=False)
