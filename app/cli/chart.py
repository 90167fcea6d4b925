"""`./state_service chart`: charts, from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from app import chart_file
from app.cli.context import (
    USAGE,
    config_of,
    current_author,
    open_service,
    print_problems,
    read_file,
    reporting,
)
from app.cli.printing import print_json, print_pieces, print_table
from app.core.errors import ChartFileError, Problem
from app.diagram import DARK, LIGHT, Form
from app.service import reading
from app.service.drawing import draw_chart
from app.service.imports import ImportRequest, import_chart

THEMES = {"light": LIGHT, "dark": DARK}
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("chart", short_help="Charts: lint, import, list, show, pause, resume, history, verify and more.")
def group() -> None:
    """Charts."""


@group.command("lint", epilog="Example: ./state_service chart lint charts/*.yaml")
@click.argument("files", nargs=-1, required=True)
@JSON
def lint(files: tuple[str, ...], as_json: bool) -> None:
    """Check chart FILES without importing them; every problem with its line and column. Exit 2 if there is one."""
    checked = [_Checked(file) for file in files]
    if as_json:
        print_json([item.as_json() for item in checked])
    else:
        for item in checked:
            item.print()
    if any(item.problems for item in checked):
        sys.exit(USAGE)


class _Checked:
    """What a chart file came to."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.parsed: chart_file.ParsedChart | None = None
        self.problems: tuple[Problem, ...] = ()
        try:
            self.parsed = chart_file.parse(read_file(file), default_name=Path(file).stem if file != "-" else "chart")
        except ChartFileError as error:
            self.problems = error.problems

    def as_json(self) -> dict[str, Any]:
        warnings = () if self.parsed is None else self.parsed.warnings
        return {
            "file": self.file,
            "chart": None if self.parsed is None else self.parsed.chart.name,
            "states": None if self.parsed is None else len(self.parsed.chart.states),
            "problems": [problem.as_json() for problem in self.problems],
            "warnings": [warning.as_json() for warning in warnings],
        }

    def print(self) -> None:
        print_problems(self.file, self.problems)
        if self.parsed is not None:
            print_problems(self.file, self.parsed.warnings, kind="warning")
            click.echo(f"{self.file}: {self.parsed.chart.name}, {len(self.parsed.chart.states)} states, fine")


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


@group.command("diagram", epilog="Example: ./state_service chart diagram states --format dot | dot -Tpng > states.png")
@click.argument("name")
@click.option("--format", "form", default="svg", show_default=True, type=click.Choice([str(form) for form in Form]))
@click.option("--theme", default="light", show_default=True, type=click.Choice(list(THEMES)), help="Of an SVG.")
@click.pass_context
@reporting
def diagram(context: click.Context, name: str, form: str, theme: str) -> None:
    """The chart NAME with its current state marked: SVG, Graphviz DOT or Mermaid."""
    print_pieces([draw_chart(open_service(config_of(context)), name, Form(form), THEMES[theme])])
