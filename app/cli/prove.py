"""`./state_service chart prove`: the worst that can happen to a chart, before the first machine starts.

It belongs to the group `chart`; root.py puts it there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import click

from app import chart_file
from app.chart_file.roster_lines import parse_labels
from app.cli.chart import JSON
from app.cli.given import read_given, rosters_option
from app.cli.remote import Remote, chart_path, find_remote
from app.cli.shared import (
    NO,
    NUMBER,
    USAGE,
    config_of,
    exits_on_error,
    fail,
    open_service,
    print_json,
    print_problems,
)
from app.core.chart import Chart
from app.core.crowd import count_machines
from app.core.errors import ChartFileError
from app.core.expect import Labels
from app.core.memory import Lists
from app.lab.prove import Proved, prove
from app.lab.world import need_rosters
from app.service.reading import get_definition
from app.service.rosters import read_list


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
    read = _read(context, chart)
    rosters = _find_rosters(context, read, chart, roster_files)
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


def _read(context: click.Context, name: str) -> Chart:
    """Return the chart in the file `name`, or else the chart that the service knows by this name."""
    path = Path(name)
    if not path.is_file() and (path.suffix in (".yaml", ".yml") or os.sep in name):
        fail(f"{name}: no such file", USAGE)
    remote = find_remote(context)
    if not path.is_file() and remote is None:
        return get_definition(open_service(config_of(context)), name)
    try:
        text = path.read_bytes() if path.is_file() or remote is None else _fetch(remote, name)
        return chart_file.parse(text, default_name=path.stem, now=datetime.now(UTC)).chart
    except ChartFileError as error:
        print_problems(name, error.problems)
        sys.exit(USAGE)


def _fetch(remote: Remote, name: str) -> bytes:
    """Return the chart file of the version in force on the server."""
    version = remote.json("GET", chart_path(name))["version"]
    return remote.ask("GET", chart_path(name, "versions", str(version)), accept="*/*").read()


def _find_rosters(
    context: click.Context, chart: Chart, name: str, given: tuple[str, ...]
) -> dict[str, Mapping[str, Labels]]:
    """Return the rosters in the files that are given; those of a chart that the service knows come from there."""
    rosters: dict[str, Mapping[str, Labels]] = {**read_given(given)}
    remote = find_remote(context)
    for roster in () if Path(name).is_file() else chart.rosters:
        if roster not in rosters and remote is None:
            rosters[roster] = read_list(open_service(config_of(context)), roster)
        elif roster not in rosters and remote is not None:
            rosters[roster] = parse_labels(remote.ask("GET", f"/rosters/{quote(roster)}", accept="text/plain").read())
    need_rosters(chart, rosters)
    return rosters


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
