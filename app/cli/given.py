"""The option `--roster [NAME=]FILE`: rosters that a command takes from files instead of a database."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from app.chart_file.rosters import RosterFileError, parse_roster
from app.cli.shared import USAGE, fail, print_problems, read_file
from app.core.expect import Labels, read_labels
from app.service.rosters import find_name_problem


def rosters_option(meaning: str) -> Callable[[Any], Any]:
    """Return the option `--roster`, which may be given several times."""
    return click.option("--roster", "roster_files", multiple=True, metavar="[NAME=]FILE", help=meaning)


def split_name(given: str) -> tuple[str, str]:
    """Return the roster's name and its file: a file without NAME= is called like the roster."""
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
