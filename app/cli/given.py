"""The chart that a command is about, in a file, in the database or on a server; and the rosters by which it goes.

The options `--roster [NAME=]FILE` and `--calendar [NAME=]FILE` take rosters and calendars from files instead of a
database.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from app import chart_file
from app.chart_file.rosters import RosterFileError, parse_labels, parse_roster
from app.chart_file.windows import ParsedCalendar, parse_calendar
from app.cli.remote import Remote, chart_path, find_remote, path_of
from app.cli.shared import USAGE, config_of, fail, open_service, print_problems, read_file
from app.core.chart import Chart
from app.core.errors import BadRequestError, CalendarFileError, ChartFileError
from app.core.expect import Labels, read_labels
from app.core.window import HORIZON, Interval
from app.lab.world import need_rosters
from app.service.calendars import check_name
from app.service.reading import get_definition
from app.service.rosters import find_name_problem, read_list


def rosters_option(meaning: str) -> Callable[[Any], Any]:
    """Return the option `--roster`, which may be given several times."""
    return click.option("--roster", "roster_files", multiple=True, metavar="[NAME=]FILE", help=meaning)


def split_name(given: str) -> tuple[str, str]:
    """Return the name of a roster or a calendar, and its file: without NAME= it is called like the file."""
    name, sign, file = given.partition("=")
    return (name, file) if sign else (Path(given).stem, given)


def read_lines(given: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the machines of each roster that the option names, with their labels as text.

    Exits 2 with each problem of a bad file.
    """
    found: dict[str, dict[str, str]] = {}
    for name, file in map(split_name, given):
        problem = find_name_problem(name)
        if name in found or problem is not None:
            fail(f"--roster: {problem or f'the roster {name!r} is given twice'}", USAGE)
        try:
            found[name] = parse_roster(read_file(file).splitlines())
        except RosterFileError as error:
            print_problems(file, error.problems)
            sys.exit(USAGE)
    return found


def read_given(given: Iterable[str]) -> dict[str, dict[str, Labels]]:
    """Return the machines of each roster that the option names, with their labels."""
    return {
        name: {machine: read_labels(text) for machine, text in lines.items()}
        for name, lines in read_lines(given).items()
    }


def calendars_option(meaning: str) -> Callable[[Any], Any]:
    """Return the option `--calendar`, which may be given several times."""
    return click.option("--calendar", "calendar_files", multiple=True, metavar="[NAME=]FILE", help=meaning)


def read_calendars(given: Iterable[str]) -> dict[str, ParsedCalendar]:
    """Return each calendar that the option names. Exits 2 with each problem of a bad file."""
    found: dict[str, ParsedCalendar] = {}
    now = datetime.now(UTC)
    for name, file in map(split_name, given):
        try:
            check_name(name)
            if name in found:
                fail(f"--calendar: the calendar {name!r} is given twice", USAGE)
            found[name] = parse_calendar(read_file(file), Interval(now, now + HORIZON))
        except BadRequestError as error:
            fail(f"--calendar: {error}", USAGE)
        except CalendarFileError as error:
            print_problems(file, error.problems)
            sys.exit(USAGE)
    return found


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
