"""What the commands share: settings, the service, errors and exit codes, printing, and types of options."""

from __future__ import annotations

import getpass
import json
import os
import sys
import traceback
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
from app.db.errors import in_one_line, library_errors
from app.service.context import Service
from app.wiring import create_app, service_of

# What the program is called where a package has installed it.
PROGRAM = "stateservice"
# Exit codes: a refusal, and wrong usage or a bad file.
NO = 1
USAGE = 2
WRONG_USAGE = (
    errors.SettingError,
    errors.BadRequestError,
    errors.ReasonRequiredError,
    errors.InvalidSubscriptionError,
)
# A table's columns are as wide as its first rows need; a later cell that is wider pushes its line to the right.
MEASURED_ROWS = 1000

# A number that both databases hold: of a row of the log, and of a run, a visit or a version.
SEQ = click.IntRange(1, 2**63 - 1)
NUMBER = click.IntRange(1, 2**31 - 1)

P = ParamSpec("P")
R = TypeVar("R")


# Settings and the service


def open_service(config: Config) -> Service:
    """Return the service on the database that `config` names; its connections are closed when the command ends."""
    service = service_of(create_app(config))
    click.get_current_context().call_on_close(service.database.engine.dispose)
    return service


def config_of(context: click.Context) -> Config:
    """Return the settings that the root command read from the environment and from its own options."""
    config: Config = context.find_root().obj
    return config


def load_config(**options: Any) -> Config:
    """Read the settings from the environment; options that are not None win. Exits 2 if a value cannot be used."""
    try:
        return read_config(os.environ, **options)
    except errors.SettingError as error:
        fail(str(error), USAGE)


def current_author() -> Author:
    """Return the author under whom the log records what this command does."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user often has a number but no name.
        user = f"user {os.getuid()}"
    return Author(actor=f"{user} (command line)")


def read_file(path: str) -> bytes:
    """Return a file's bytes, or those of standard input for `-`. Exits 2 if the file cannot be read."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}", USAGE)


# Errors and exit codes


def say_program() -> str:
    """Return how this program is called: `./state_service`, or by the name under which a package has installed it."""
    context = click.get_current_context(silent=True)
    return PROGRAM if context is not None and context.find_root().info_name == PROGRAM else "./state_service"


def fail(message: str, code: int) -> NoReturn:
    """Print `message` on standard error and exit with `code`."""
    click.echo(f"{say_program().removeprefix('./')}: {message}", err=True)
    sys.exit(code)


def say_where(error: Exception) -> str:
    """Return an unexpected error in one line, with the place in the program where it was raised."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {in_one_line(error)}"


def exits_on_error(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: an error of the service, the database or the system becomes one line and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except WRONG_USAGE as error:
            fail(str(error), USAGE)
        except errors.StateServiceError as error:
            fail(str(error), NO)
        except (BrokenPipeError, click.ClickException, click.exceptions.Exit, click.Abort):
            # click ends the command. Of a BrokenPipeError it says nothing: the reader of the output has gone.
            raise
        except library_errors() as error:
            fail(in_one_line(error), NO)
        except UnicodeError as error:
            fail(f"an argument, or what it names, is not UTF-8: {in_one_line(error)}", USAGE)
        except Exception as error:
            fail(f"this is a mistake in the program, please report it: {say_where(error)}", NO)

    return run


# Printing


def print_problems(file: str, problems: Iterable[errors.Problem], *, kind: str = "error") -> None:
    """Print one line for each problem on standard error, in the form that editors can jump to."""
    for problem in problems:
        click.echo(f"{file}:{problem.line}:{problem.column}: {kind}: {problem.message}", err=True)
        for line in problem.story.splitlines():
            click.echo(f"    {line}", err=True)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_pieces(pieces: Iterable[str]) -> None:
    """Print a text that comes in pieces, as bytes, so that line ends are not translated."""
    for piece in pieces:
        sys.stdout.buffer.write(piece.encode())
    sys.stdout.buffer.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under headings, in columns as wide as they need; memory use does not grow with the rows."""
    lines = ([_cell(value) for value in row] for row in rows)
    first = [list(headings), *islice(lines, MEASURED_ROWS)]
    widths = [max(len(line[column]) for line in first) for column in range(len(headings))]
    for line in chain(first, lines):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes the work done and the whole work, and draws a bar if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def show(done: int, of: int) -> None:
            bar.length = max(of, 1)
            bar.update(done - bar.pos)

        yield show


# Types of options


class Age(click.ParamType[timedelta]):
    """A length of time, written as in a chart file."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the length of time. Raises click.BadParameter if the text cannot be read."""
        try:
            return to_age(str(value))
        except ScalarError as error:
            self.fail(str(error), param, ctx)


class Instant(click.ParamType[datetime]):
    """An ISO 8601 instant; without an offset it is UTC."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant. Raises click.BadParameter if the text cannot be read."""
        try:
            return to_instant(str(value))
        except ScalarError as error:
            self.fail(str(error), param, ctx)
