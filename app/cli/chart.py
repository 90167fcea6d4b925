"""`./state_service chart`: charts, from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from app import chart_file
from app.cli.context import (
    NO,
    USAGE,
    config_of,
    current_author,
    open_service,
    print_json,
    print_problems,
    print_table,
    read_file,
    reporting,
)
from app.core.errors import ChartFileError
from app.service import reading
from app.service.authors import HistoryFilter
from app.service.imports import ImportRequest, import_chart
from app.service.verify import list_logged_charts, verify

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("chart", short_help="Charts: lint, import, list, show, export, history, verify.")
def group() -> None:
    """Charts."""


@group.command("lint", epilog="Example: ./state_service chart lint charts/*.yaml")
@click.argument("files", nargs=-1, required=True)
def lint(files: tuple[str, ...]) -> None:
    """Check chart FILES without importing them; every problem with its line and column. Exit 2 if there is one."""
    is_bad = False
    for file in files:
        try:
            parsed = chart_file.parse(read_file(file), default_name=Path(file).stem if file != "-" else "chart")
        except ChartFileError as error:
            is_bad = True
            print_problems(file, error.problems)
            continue
        print_problems(file, parsed.warnings, kind="warning")
        click.echo(f"{file}: {parsed.chart.name}, {len(parsed.chart.states)} states, fine")
    if is_bad:
        sys.exit(USAGE)


@group.command("import", epilog="Example: ./state_service chart import charts/canary.yaml --dry-run")
@click.argument("file")
@click.option("--name", help="The chart's name, instead of the file's own.")
@click.option("--map", "maps", multiple=True, metavar="OLD:NEW", help="The new home of a state that is gone.")
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
@JSON
@click.pass_context
@reporting
def import_(
    context: click.Context, file: str, name: str | None, maps: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Import a chart FILE: a new chart, or a new version of one that is running."""
    stem = None if file == "-" else Path(file).stem
    request = ImportRequest(read_file(file), name=name, default_name=stem, maps=maps, dry_run=dry_run)
    try:
        imported = import_chart(open_service(config_of(context)), request, current_author())
    except ChartFileError as error:
        print_problems(file, error.problems)
        sys.exit(USAGE)
    print_problems(file, imported.warnings, kind="warning")
    if as_json:
        print_json(imported.as_json())
        return
    click.echo(imported.as_text(), nl=False)


@group.command("list", epilog="Example: ./state_service chart list --json")
@JSON
@click.pass_context
@reporting
def list_(context: click.Context, as_json: bool) -> None:
    """Every chart and where it stands."""
    statuses = reading.list_statuses(open_service(config_of(context)))
    if as_json:
        print_json([status.as_json() for status in statuses])
        return
    print_table(
        ("CHART", "STATE", "RUN", "VERSION", "WAITS FOR"),
        [(item.chart, item.current_state, item.run, item.version, item.waits_for) for item in statuses],
    )


@group.command("show", epilog="Example: ./state_service chart show states")
@click.argument("name")
@JSON
@click.pass_context
@reporting
def show(context: click.Context, name: str, as_json: bool) -> None:
    """Where the chart NAME stands, and what it waits for."""
    status = reading.get_status(open_service(config_of(context)), name)
    if as_json:
        print_json(status.as_json())
    else:
        click.echo(status.as_text(), nl=False)


@group.command("export", epilog="Example: ./state_service chart export states > states.yaml")
@click.argument("name")
@click.pass_context
@reporting
def export(context: click.Context, name: str) -> None:
    """The chart NAME as a chart file, with its live values and current state."""
    click.echo(reading.export_chart(open_service(config_of(context)), name), nl=False)


@group.command("history", epilog="Example: ./state_service chart history states --kind transition")
@click.argument("name")
@click.option("--after", default=0, type=click.IntRange(0), metavar="SEQ", help="Only rows after this one.")
@click.option("--limit", type=click.IntRange(1), help="At most so many rows.")
@click.option("--kind", help="Only rows of this kind: update, transition, timeout, pause, …")
@click.option("--machine", help="Only rows of this machine.")
@JSON
@click.pass_context
@reporting
def history(
    context: click.Context,
    name: str,
    after: int,
    limit: int | None,
    kind: str | None,
    machine: str | None,
    as_json: bool,
) -> None:
    """The log of the chart NAME, oldest first."""
    wanted = HistoryFilter(after=after, limit=limit, kind=kind, machine=machine)
    rows = reading.iterate_history(open_service(config_of(context)), name, wanted)
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    print_table(
        ("SEQ", "AT", "KIND", "FROM", "TO", "KEY", "VALUE", "MACHINE", "ACTOR", "REASON"),
        [
            (
                row.seq,
                f"{row.at:%Y-%m-%d %H:%M:%S}",
                row.kind,
                row.from_state,
                row.to_state,
                row.key,
                row.value_after,
                row.machine,
                row.actor,
                row.reason,
            )
            for row in (item.row for item in rows)
        ],
    )


@group.command("verify", epilog="Example: ./state_service chart verify states")
@click.argument("names", nargs=-1)
@click.pass_context
@reporting
def verify_(context: click.Context, names: tuple[str, ...]) -> None:
    """Replay the log of the charts NAMES (of all without any) and check it and its chain; exit 1 if it differs."""
    service = open_service(config_of(context))
    is_bad = False
    for name in names or list_logged_charts(service):
        found = verify(service, name)
        is_bad |= bool(found.differences)
        for difference in found.differences:
            click.echo(difference)
        if not found.differences:
            click.echo(f"{name}: {found.rows} rows, chain and position as they should be")
    if is_bad:
        sys.exit(NO)
