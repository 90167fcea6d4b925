"""`./state_service chart test`, `new`, `prove`, `simulate` and `runs`: charts are tried before they run, and compared.

They belong to the group `chart`; root.py puts them there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from app.chart_file.fields import ScalarError, to_part, to_span
from app.cli.chart import JSON
from app.cli.given import calendars_option, find_rosters, read_calendars, read_chart, read_given, rosters_option
from app.cli.remote import chart_path, find_remote
from app.cli.shared import (
    NO,
    NUMBER,
    USAGE,
    Age,
    Instant,
    config_of,
    exits_on_error,
    fail,
    open_service,
    print_json,
    print_problems,
    print_table,
    progress,
    read_file,
    read_path,
    say_program,
)
from app.core.chart import Chart
from app.core.counts import TooManyCountsError
from app.core.errors import ChartFileError
from app.core.memory import Lists, count_machines
from app.diagram.plots import draw_spread
from app.lab.play import Coverage, Result, play
from app.lab.prove import Proved, prove
from app.lab.simulate import Assumptions, Simulation, list_assumptions, list_curves, say_time, simulate
from app.lab.story import read_story
from app.lab.templates import TEMPLATES, make_files
from app.lab.world import Calendars
from app.service.runs import (
    MAX_RUNS,
    Done,
    Learned,
    Run,
    check_run,
    learn,
    learn_from_run,
    list_runs,
    list_states,
    say_ending,
    say_stays,
)
from app.service.words import say_span

# The exit code of a proof that was given up: neither a yes nor a no.
UNDECIDED = 3


@click.command("prove", epilog="Example: ./state_service chart prove charts/rolling-reboot.yaml --at-most 7")
@click.argument("chart", metavar="FILE|CHART")
@click.option("--machines", type=NUMBER, help="How many machines take part, if the chart does not say so.")
@rosters_option("The lines of a roster by which the chart goes; for a CHART those that it goes by now.")
@click.option(
    "--at-most", type=click.IntRange(0, NUMBER.max), metavar="N", help="Exit 1 if more than N may be down at an ending."
)
@click.option(
    "--stories", metavar="FILE", help="Write the stories into FILE, which chart test plays, instead of printing them."
)
@JSON
@click.pass_context
@exits_on_error
def prove_(
    context: click.Context,
    chart: str,
    machines: int | None,
    roster_files: tuple[str, ...],
    at_most: int | None,
    stories: str | None,
    as_json: bool,
) -> None:
    """Prove the worst that a chart FILE, or the CHART of that name, can do.

    Prints, for each ending, the most machines that can be down (hold a slot or stand at `failed`) and have begun (were
    given a slot) when it is reached; what can be stuck for ever; transitions that are never taken. Each with a story.
    Exit 1 if more than --at-most allows may be down, 3 if the chart is too large for a proof.
    """
    read = read_chart(context, chart)
    rosters = find_rosters(context, read, chart, roster_files)
    part = _count_for_proof(read, machines, rosters)
    try:
        proved = prove(read, part, rosters)
    except TooManyCountsError as error:
        fail(f"{error}; all that is known is that {part} machines take part", UNDECIDED)
    file = chart if Path(chart).is_file() else f"{read.name}.yaml"
    if stories is not None:
        # A story names its chart's file as seen from the folder in which the story is.
        seen = os.path.relpath(file, Path(stories).parent)
        Path(stories).write_text(proved.as_stories(seen), encoding="utf-8")
    if as_json:
        print_json(proved.as_json(file))
    else:
        click.echo(proved.as_text(with_stories=stories is None), nl=False)
    if at_most is not None and (proved.most_down is None or proved.most_down > at_most):
        fail(_say_why(proved, at_most), NO)


def _count_for_proof(chart: Chart, machines: int | None, rosters: Lists) -> int:
    expected = count_machines(chart, rosters)
    if expected is not None and machines is not None:
        fail(f"the chart says how many machines take part: expect is {expected}, so leave --machines out", USAGE)
    found = expected if machines is None else machines
    if found is None:
        fail("the chart does not say how many machines take part: say it with --machines N", USAGE)
    return found


def _say_why(proved: Proved, at_most: int) -> str:
    worst = [
        f"{item.name}: {item.down.as_text(proved.machines)}"
        for item in proved.endings
        if item.down.most is None or item.down.most > at_most
    ]
    return f"more than {at_most} machines may be down: {'; '.join(worst)}"


# Stories


@click.command("test", epilog="Example: ./state_service chart test charts/stories/*.yaml")
@click.argument("files", nargs=-1, required=True)
@rosters_option("The lines of a roster, in the place of those that the stories name.")
@calendars_option("A calendar that closes charts, in the place of those that the stories name.")
@JSON
@exits_on_error
def test(files: tuple[str, ...], roster_files: tuple[str, ...], calendar_files: tuple[str, ...], as_json: bool) -> None:
    """Play the stories in FILES, and print which states and transitions they covered.

    Exit 1 if a story differs from what it expects, 2 if a file cannot be read.
    """
    rosters, calendars = read_given(roster_files), read_calendars(calendar_files)
    played = [_Played(file, rosters, calendars) for file in files]
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

    def __init__(self, file: str, rosters: Lists, calendars: Calendars) -> None:
        self.file = file
        self.result: Result | None = None
        self.problems: tuple[Any, ...] = ()
        folder = Path() if file == "-" else Path(file).parent
        try:
            story = read_story(read_file(file), lambda name: read_path(folder / name), rosters, calendars)
            self.result = play(story)
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
    """Write the chart file NAME.yaml, and NAME.story.yaml with its stories. No file is overwritten.

    If the chart goes by a roster, NAME.txt has its lines.
    """
    made = {Path(folder) / file: text for file, text in make_files(name, template).items()}
    taken = [path for path in made if path.exists() or path.is_symlink()]
    if taken:
        fail(f"{taken[0]} exists; nothing was written", NO)
    for path, text in made.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        click.echo(str(path))
    chart, story, *roster = made
    click.echo(f"Next: change them to your needs, and try: {say_program()} chart test {story}")
    before = f"{say_program()} roster import {name} {roster[0]} && " if roster else ""
    click.echo(f"Then: {before}{say_program()} chart import {chart}")


# Runs


@click.command("runs", epilog="Example: ./state_service chart runs kernel-rollout --limit 3")
@click.argument("name")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(1, MAX_RUNS), help="How many runs.")
@click.option("--before", type=NUMBER, metavar="RUN", help="Only runs before this one.")
@JSON
@click.pass_context
@exits_on_error
def runs(context: click.Context, name: str, limit: int, before: int | None, as_json: bool) -> None:
    """Put the latest runs of the chart NAME side by side: states, how long they took, reports, failures, ending."""
    print_runs(list_runs(open_service(config_of(context)), name, limit, before), as_json=as_json)


def print_runs(found: Sequence[Run], *, as_json: bool) -> None:
    """Print runs side by side, or as JSON."""
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
    for run in found:
        if run.compared is not None:
            click.echo(f"Run {run.run} against run {run.run - 1}: {run.compared}")


# Simulations


class Percent(click.ParamType[float]):
    """A share such as `0.5%`."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, from 0 to 1. Raises click.BadParameter if the text cannot be read."""
        if isinstance(value, float):
            return value
        try:
            return float(to_part(str(value), "0.5%"))
        except ScalarError as error:
            self.fail(str(error), param, ctx)


class Span(click.ParamType[tuple[timedelta, timedelta]]):
    """A length of time, or two of them as in `10m..40m`."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[timedelta, timedelta]:
        """Return the shortest and the longest. Raises click.BadParameter if the text cannot be read."""
        if isinstance(value, tuple):
            return value
        try:
            return to_span(str(value))
        except ScalarError as error:
            self.fail(str(error), param, ctx)


@click.command(
    "simulate", epilog="Example: ./state_service chart simulate charts/canary.yaml --fail 0.5% --work 10m..40m"
)
@click.argument("target", metavar="FILE|CHART")
@click.option(
    "--runs", "count", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="How many runs."
)
@click.option(
    "--machines", type=click.IntRange(1, 100_000), help="How many machines; by default as many as the chart expects."
)
@click.option(
    "--fail", "failing", type=Percent(), metavar="SHARE", help="Which share of the tries fails; 1% by default."
)
@click.option("--lost", default="0%", type=Percent(), metavar="SHARE", help="Which share begins and never reports.")
@click.option(
    "--work", default="10m..40m", show_default=True, type=Span(), metavar="SPAN", help="How long a machine works."
)
@click.option("--poll", default="30m", show_default=True, type=Age(), metavar="SPAN", help="How often a machine asks.")
@rosters_option("The lines of a roster by which the chart goes.")
@click.option("--retry", is_flag=True, help="A machine that failed tries again at its next poll.")
@click.option(
    "--approve", default="1h", show_default=True, type=Age(), metavar="SPAN", help="When people approve, where they do."
)
@click.option(
    "--from-run",
    type=NUMBER,
    metavar="N",
    help="Work and failures as in run N of the CHART.",
)
@click.option("--start", type=Instant(), metavar="INSTANT", help="When the run begins; now by default.")
@click.option("--seed", default=1, show_default=True, type=int, help="Another seed, other luck.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes; by default one for each processor.")
@click.option("--svg", metavar="FILE", help="Draw into FILE which share of the runs had ended how by when.")
@JSON
@click.pass_context
@exits_on_error
def simulate_(
    context: click.Context,
    target: str,
    count: int,
    machines: int | None,
    failing: float | None,
    lost: float,
    work: tuple[timedelta, timedelta],
    poll: timedelta,
    roster_files: tuple[str, ...],
    retry: bool,
    approve: timedelta,
    from_run: int | None,
    start: datetime | None,
    seed: int,
    jobs: int | None,
    svg: str | None,
    as_json: bool,
) -> None:
    """Let fleets of machines run through a chart FILE, or the CHART of that name; print how and when they end.

    Prints for each ending when it is reached, and how many machines are down and have begun by then, and what the
    figures take for granted.
    """
    chart = read_chart(context, target)
    rosters = find_rosters(context, chart, target, roster_files)
    if not poll:
        fail("--poll must be longer than zero", USAGE)
    learned = None if from_run is None else _learn(context, chart.name, from_run)
    if failing is None:
        failing = 0.01 if learned is None else learned.fail
    assumed = Assumptions(
        start=start or datetime.now(UTC),
        machines=_count_machines(chart, machines, rosters),
        rosters=rosters,
        fail=failing,
        lost=lost,
        shortest=work[0],
        longest=work[1],
        poll=poll,
        retries=retry,
        approve=approve,
        spans=() if learned is None else learned.spans,
    )
    with progress(f"{count} runs") as show:
        found = simulate(chart, assumed, count, seed=seed, jobs=jobs or len(os.sched_getaffinity(0)), progress=show)
    if svg is not None:
        curves = list_curves(found, chart)
        Path(svg).write_text(draw_spread(curves, count, lambda seconds: say_time(timedelta(seconds=seconds))))
    if as_json:
        print_json(found.as_json())
    else:
        _print_simulation(found)


def _learn(context: click.Context, name: str, run: int) -> Learned:
    """Return what a run of the chart `name` teaches, from the log in the database or on the server."""
    remote = find_remote(context)
    if remote is None:
        return learn_from_run(open_service(config_of(context)), name, run)
    check_run(name, run, remote.json("GET", chart_path(name))["run"])
    rows = remote.rows(chart_path(name, "history"))
    return learn(name, run, (Done.of_json(row) for row in rows if row["run"] == run))


def _count_machines(chart: Chart, machines: int | None, rosters: Lists) -> int:
    if chart.rosters:
        if machines is not None:
            fail(f"chart {chart.name!r} goes by a roster: leave --machines out", USAGE)
        return len({name for roster in chart.rosters for name in rosters[roster]})
    if chart.roster is not None:
        if machines not in (None, len(chart.roster)):
            fail(f"chart {chart.name!r} has a roster of {len(chart.roster)} machines: leave --machines out", USAGE)
        return len(chart.roster)
    if machines is None and chart.expect is None:
        fail(f"chart {chart.name!r} does not say how many machines it expects: add --machines", USAGE)
    return machines or chart.expect or 1


def _print_simulation(found: Simulation) -> None:
    runs = len(found.endings)
    click.echo(f"{found.chart}: {runs:,} runs of {found.assumed.machines:,} machines, seed {found.seed}\n")
    headings = (
        "ENDING",
        "FROM",
        "RUNS",
        "P5",
        "P50",
        "P90",
        "P95",
        "DOWN P50",
        "P95",
        "MOST",
        "BEGUN P50",
        "P95",
        "MOST",
    )
    lines = []
    for group in found.list_groups():
        after = [say_time(timedelta(seconds=seconds)) for seconds in group.after.percentiles]
        counts = [
            f"{int(value):,}"
            for spread in (group.down, group.begun)
            for value in (spread.percentiles[1], spread.percentiles[3], spread.most)
        ]
        name = group.state if group.state is not None else "never ends"
        lines.append((name, group.origin, f"{len(group.endings) / runs:.1%}", *after, *counts))
    print_table(headings, lines)
    click.echo("\nAssumed:")
    for sentence in list_assumptions(found.assumed):
        click.echo(f"  {sentence}")


COMMANDS = (test, new, runs, simulate_, prove_)
