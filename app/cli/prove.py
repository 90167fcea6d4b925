"""`./state_service chart prove`: the worst that can happen to a chart, before the first machine starts.

It belongs to the group `chart`; root.py puts it there.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from app.cli.chart import JSON
from app.cli.definition import find_rosters, read_chart
from app.cli.given import rosters_option
from app.cli.shared import (
    NO,
    NUMBER,
    USAGE,
    exits_on_error,
    fail,
    print_json,
)
from app.core.chart import Chart
from app.core.memory import Lists, count_machines
from app.lab.prove import Proved, prove


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
def command(
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
    """
    read = read_chart(context, chart)
    rosters = find_rosters(context, read, chart, roster_files)
    proved = prove(read, _count_machines(read, machines, rosters), rosters)
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


def _count_machines(chart: Chart, machines: int | None, rosters: Lists) -> int:
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
