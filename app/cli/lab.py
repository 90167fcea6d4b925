"""`./state_service chart test`, `new` and `runs`: charts are tried before they run, and compared afterwards.

They belong to the group `chart`; root.py puts them there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from app.cli.chart import JSON
from app.cli.shared import (
    NO,
    USAGE,
    config_of,
    exits_on_error,
    fail,
    open_service,
    print_json,
    print_problems,
    print_table,
    read_file,
)
from app.core.errors import ChartFileError
from app.lab.play import Coverage, Result, play
from app.lab.story import read_story
from app.lab.templates import TEMPLATES, make_files
from app.service.runs import MAX_RUNS, list_runs, list_states, say_ending, say_stays
from app.service.words import say_span

# Stories


@click.command("test", epilog="Example: ./state_service chart test charts/stories/*.yaml")
@click.argument("files", nargs=-1, required=True)
@JSON
@exits_on_error
def test(files: tuple[str, ...], as_json: bool) -> None:
    """Play the stories in FILES, and print which states and transitions they covered.

    Exit 1 if a story differs from what it expects, 2 if a file cannot be read.
    """
    played = [_Played(file) for file in files]
    if as_json:
        print_json([item.as_json() for item in played])
    else:
        for item in played:
            item.print()
        _print_total(played)
    if any(item.problems for item in played):
        sys.exit(USAGE)
    if any(item.result is not None and item.result.first_difference is not None for item in played):
        sys.exit(NO)


class _Played:
    """A story file that was played: the result, or the file's problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.result: Result | None = None
        self.problems: tuple[Any, ...] = ()
        folder = Path() if file == "-" else Path(file).parent
        try:
            self.result = play(read_story(read_file(file), lambda name: (folder / name).read_bytes()))
        except ChartFileError as error:
            self.problems = error.problems

    def as_json(self) -> dict[str, Any]:
        found = {} if self.result is None else self.result.as_json()
        return {"file": self.file, "problems": [problem.as_json() for problem in self.problems], **found}

    def print(self) -> None:
        print_problems(self.file, self.problems)
        if self.result is None:
            return
        differences = [tale.difference for tale in self.result.tales if tale.difference is not None]
        for tale in self.result.tales:
            if tale.difference is not None:
                place = f"{self.file}:{tale.difference.line}:{tale.difference.column}"
                click.echo(f"{place}: differs: {tale.difference.message} (in {tale.name!r})", err=True)
        stories = _count(len(self.result.tales), "story", "stories")
        fine = "fine" if not differences else f"{len(differences)} of them not as expected"
        click.echo(f"{self.file}: {stories} of {self.result.coverage.chart.name}, {fine}")
        click.echo(self.result.coverage.as_text(), nl=False)


def _print_total(played: list[_Played]) -> None:
    """Print what the files cover together, for each chart that several of them are about."""
    by_chart: dict[int, list[Coverage]] = {}
    charts = [item.result.coverage for item in played if item.result is not None]
    for coverage in charts:
        same = next((number for number, found in by_chart.items() if found[0].chart == coverage.chart), len(by_chart))
        by_chart.setdefault(same, []).append(coverage)
    for found in by_chart.values():
        if len(found) > 1:
            together = Coverage(found[0].chart)
            for coverage in found:
                together.entered.update(coverage.entered)
                together.taken.update(coverage.taken)
            click.echo(f"{together.chart.name}, {len(found)} files together\n{together.as_text()}", nl=False)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


# New charts


@click.command("new", epilog="Example: ./state_service chart new kernel --template canary")
@click.argument("name")
@click.option(
    "--template",
    required=True,
    type=click.Choice(list(TEMPLATES)),
    help="What the chart does: " + "; ".join(f"{name}: {about}" for name, about in TEMPLATES.items()) + ".",
)
@click.option("--folder", default=".", metavar="FOLDER", help="Where the two files are written.", show_default=True)
@exits_on_error
def new(name: str, template: str, folder: str) -> None:
    """Write the chart file NAME.yaml, and NAME.story.yaml with its stories. No file is overwritten."""
    made = {Path(folder) / file: text for file, text in make_files(name, template).items()}
    taken = [path for path in made if path.exists() or path.is_symlink()]
    if taken:
        fail(f"{taken[0]} exists; nothing was written", NO)
    for path, text in made.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        click.echo(str(path))
    chart, story = made
    click.echo(f"Next: change them to your needs, and try: ./state_service chart test {story}")
    click.echo(f"Then: ./state_service chart import {chart}")


# Runs


@click.command("runs", epilog="Example: ./state_service chart runs kernel-rollout --limit 3")
@click.argument("name")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(1, MAX_RUNS), help="How many runs.")
@click.option("--before", type=click.IntRange(1), metavar="RUN", help="Only runs before this one.")
@JSON
@click.pass_context
@exits_on_error
def runs(context: click.Context, name: str, limit: int, before: int | None, as_json: bool) -> None:
    """Put the latest runs of the chart NAME side by side: states, how long they took, reports, failures, ending."""
    found = list_runs(open_service(config_of(context)), name, limit, before)
    if as_json:
        print_json([run.as_json() for run in found])
        return
    failure = {True: " (a failure)", False: ""}
    lines = [
        ("ending", *(say_ending(run) + failure[run.is_failure] for run in found)),
        ("began", *(f"{run.started_at:%Y-%m-%d %H:%M:%S}" for run in found)),
        ("took", *(say_span(run.span) for run in found)),
        ("version", *(run.version for run in found)),
        ("reports", *(run.reports for run in found)),
        ("failures", *(run.failures for run in found)),
        *((state, *(say_stays(run, state) or "-" for run in found)) for state in list_states(found)),
    ]
    print_table(("", *(f"RUN {run.run}" for run in found)), lines)


COMMANDS = (test, new, runs)
