"""What an option's text may say, beyond what click knows."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import wraps
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from app.chart_file.fields import ScalarError, to_age, to_instant
from app.config import Config, read_config
from app.core import errors
from app.core.log import Author
from app.service.context import Service
from app.wiring import create_app, service_of

NO = 1
USAGE = 2
P = ParamSpec("P")
R = TypeVar("R")


def open_service(config: Config) -> Service:
    """The service on the database that `config` names; its connections are closed when the command ends."""
    service = service_of(create_app(config))
    click.get_current_context().call_on_close(service.database.engine.dispose)
    return service


def config_of(context: click.Context) -> Config:
    """The settings: those of the environment under what the options before the command say."""
    config: Config = context.find_root().obj
    return config


def load_config(**options: Any) -> Config:
    """The settings of the environment, overridden by options; exits 2 where one cannot be used."""
    try:
        return read_config(os.environ, **options)
    except errors.SettingError as error:
        fail(str(error), USAGE)


def current_author() -> Author:
    """Who runs this command, as the log will have it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user often has a number and no name.
        user = f"user {os.getuid()}"
    return Author(actor=f"{user} (command line)")


def fail(message: str, code: int) -> NoReturn:
    """Say on standard error what is wrong, and exit."""
    click.echo(f"state_service: {message}", err=True)
    sys.exit(code)


def reporting(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the service's errors into one line on standard error and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (errors.SettingError, errors.BadRequestError, errors.ReasonRequiredError) as error:
            fail(str(error), USAGE)
        except errors.StateServiceError as error:
            fail(str(error), NO)

    return run


def print_problems(file: str, problems: Iterable[errors.Problem], *, kind: str = "error") -> None:
    """One line a problem, on standard error, in the form that editors can jump to."""
    for problem in problems:
        click.echo(f"{file}:{problem.line}:{problem.column}: {kind}: {problem.message}", err=True)


def read_file(path: str) -> bytes:
    """A file's bytes, standard input for `-`; exits 2 where it cannot be read."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}", USAGE)


# Rows that a table's columns are made wide enough for; a later cell that is wider pushes its line to the right.
MEASURED = 1000


def print_json(value: Any) -> None:
    """A value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_pieces(pieces: Iterable[str]) -> None:
    """A text in pieces, as it is; bytes, so that no line end is translated."""
    for piece in pieces:
        sys.stdout.buffer.write(piece.encode())
    sys.stdout.buffer.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under headings, in columns as wide as they need; any number of rows takes little memory."""
    lines = ([_cell(value) for value in row] for row in rows)
    first = [list(headings), *islice(lines, MEASURED)]
    widths = [max(len(line[column]) for line in first) for column in range(len(headings))]
    for line in chain(first, lines):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what to call with how much is done, and of how much; a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def show(done: int, of: int) -> None:
            bar.length = max(of, 1)
            bar.update(done - bar.pos)

        yield show


class Age(click.ParamType[timedelta]):
    """A length of time, written as in a chart file."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the length of time. Fails as click wants it."""
        try:
            return to_age(str(value))
        except ScalarError as error:
            self.fail(str(error), param, ctx)


class Instant(click.ParamType[datetime]):
    """An ISO 8601 instant; without an offset it is UTC."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant. Fails as click wants it."""
        try:
            return to_instant(str(value))
        except ScalarError as error:
            self.fail(str(error), param, ctx)
