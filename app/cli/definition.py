"""The chart that a command is about: in a file, in the database, or on a server. And the rosters by which it goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from app import chart_file
from app.chart_file.rosters import parse_labels
from app.cli.given import read_given
from app.cli.remote import Remote, chart_path, find_remote, path_of
from app.cli.shared import USAGE, config_of, fail, open_service, print_problems, read_file
from app.core.chart import Chart
from app.core.errors import ChartFileError
from app.core.expect import Labels
from app.lab.world import need_rosters
from app.service.reading import get_definition
from app.service.rosters import read_list


def is_file(target: str) -> bool:
    """True if `target` is a file, or standard input; else it is the name of a chart."""
    return target == "-" or Path(target).is_file()


def read_chart(context: click.Context, target: str) -> Chart:
    """Return the chart in the file `target`, or else the chart that the service knows by this name."""
    path, remote = Path(target), find_remote(context)
    if not is_file(target) and (path.suffix in (".yaml", ".yml") or os.sep in target):
        fail(f"{target}: no such file", USAGE)
    if not is_file(target) and remote is None:
        return get_definition(open_service(config_of(context)), target)
    try:
        text = read_file(target) if is_file(target) or remote is None else _fetch(remote, target)
        default_name = "chart" if target == "-" else path.stem if is_file(target) else target
        return chart_file.parse(text, default_name=default_name, now=datetime.now(UTC)).chart
    except ChartFileError as error:
        print_problems(target, error.problems)
        sys.exit(USAGE)


def _fetch(remote: Remote, name: str) -> bytes:
    """Return the chart file of the version in force on the server."""
    version = remote.json("GET", chart_path(name))["version"]
    return remote.ask("GET", chart_path(name, "versions", str(version)), accept="*/*").read()


def find_rosters(
    context: click.Context, chart: Chart, target: str, given: tuple[str, ...]
) -> dict[str, Mapping[str, Labels]]:
    """Return the rosters in the files that are given; those of a chart that the service knows come from there."""
    rosters: dict[str, Mapping[str, Labels]] = {**read_given(given)}
    remote = find_remote(context)
    for roster in () if is_file(target) else chart.rosters:
        if roster not in rosters and remote is None:
            rosters[roster] = read_list(open_service(config_of(context)), roster)
        elif roster not in rosters and remote is not None:
            rosters[roster] = parse_labels(remote.ask("GET", path_of("rosters", roster), accept="text/plain").read())
    need_rosters(chart, rosters)
    return rosters
