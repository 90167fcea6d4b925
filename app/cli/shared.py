"""What the commands share: settings, the service, errors and exit codes, printing, and types of options."""

from __future__ import annotations

import errno
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
from typing import Any, BinaryIO, NoReturn, ParamSpec, TypeVar

import click

from app.chart_file.fields import ScalarError, to_age, to_instant
from app.config import Config, read_config
from app.core import errors
from app.core.log import Author
from app.db.errors import in_one_line, library_errors
from app.logs import printable
from app.service.context import Service
from app.wiring import create_app, service_of

# What the program is called where a package has installed it.
PROGRAM = "stateservice"
# Exit codes: a refusal, and wrong usage or a bad file.
NO = 1
USAGE = 2
INTERRUPTED = 130
WRONG_USAGE = (
    errors.SettingError,
    errors.BadRequestError,
    errors.ReasonRequiredError,
    errors.InvalidSubscriptionError,
)
# In the context of a command that asks a server: the server's address, once it has answered.
ANSWERED = "stateservice.answered"
# Bytes of the largest file that is read, a roster. A device such as /dev/zero has no end.
MAX_FILE = 256 * 1024 * 1024
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


def open_standard_streams() -> None:
    """Point standard input, output and error at nothing if they are closed.

    Else the next file that is opened, such as the database, would get what is printed.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free: this one.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


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
        return read_whole(sys.stdin.buffer) if path == "-" else read_path(Path(path))
    except OSError as error:
        fail(f"{path}: {error.strerror}", USAGE)


def read_path(path: Path) -> bytes:
    """Return a file's bytes. Raises OSError, also if it is larger than whatever a command reads."""
    with path.open("rb") as file:
        return read_whole(file)


def read_whole(file: BinaryIO) -> bytes:
    """Return what is left of a file. Raises OSError if it is larger than whatever a command reads."""
    text = file.read(MAX_FILE + 1)
    if len(text) > MAX_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return text


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
        except KeyboardInterrupt:
            # As a shell counts it: 1 would be a no.
            sys.exit(INTERRUPTED)
        except library_errors() as error:
            fail(in_one_line(error), NO)
        except UnicodeError as error:
            fail(f"an argument, or what it names, is not UTF-8: {in_one_line(error)}", USAGE)
        except Exception as error:
            fail(f"{_say_whose_mistake()}: {say_where(error)}", NO)

    return run


def _say_whose_mistake() -> str:
    url = click.get_current_context().meta.get(ANSWERED)
    if url is None:
        return "this is a mistake in the program, please report it"
    return f"{url} did not answer as a StateService of this version does"


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
    """Print rows under headings, in columns as wide as they need; memory use does not grow with the rows.

    On a terminal, a text that does not fit its width goes on below itself, in its column.
    """
    lines = ([_cell(value) for value in row] for row in rows)
    if sys.stdout.isatty():
        _print_to_fit(headings, lines)
        return
    first = [list(headings), *islice(lines, MEASURED_ROWS)]
    widths = [max(len(line[column]) for line in first) for column in range(len(headings))]
    for line in chain(first, lines):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_to_fit(headings: Sequence[str], lines: Iterator[Sequence[str]]) -> None:
    # Here, because it takes 75 ms to import, and what a script reads is printed without it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(color_system=None if os.environ.get("NO_COLOR") else "auto")
    part, is_first = list(islice(lines, MEASURED_ROWS)), True
    while part or is_first:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=is_first)
        # The first column has the name, which a user may want to copy: it stays whole if it leaves room.
        name = max(len(cell) for cell in (headings[0], *(line[0] for line in part)))
        for column, heading in enumerate(headings):
            width = name if column == 0 and name <= console.width // 3 else None
            table.add_column(Text(heading), overflow="fold", width=width)
        for line in part:
            table.add_row(*map(Text, line))
        console.print(table)
        part, is_first = list(islice(lines, MEASURED_ROWS)), False


def _cell(value: Any) -> str:
    return "" if value is None else printable(str(value))


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


class Text(click.ParamType[str]):
    """A text as the HTTP interface takes it: so many characters at most, and printable unless it `may_be_empty`.

    What may be empty is a reason, which the service judges itself.
    """

    name = "text"

    def __init__(self, limit: int, *, may_be_empty: bool = False) -> None:
        self._limit = limit
        self._may_be_empty = may_be_empty

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Raises click.BadParameter if it is too long, or not allowed to be empty or unprintable."""
        if len(value) > self._limit:
            self.fail(f"is longer than {self._limit} characters", param, ctx)
        if not self._may_be_empty and not (value and value.isprintable()):
            self.fail(f"{value!r} is empty, or has characters that cannot be printed", param, ctx)
        return value


# The name of a state or an attribute, a machine's id, and a reason.
NAME = Text(128)
MACHINE = Text(255)
WORDS = Text(1000, may_be_empty=True)


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
