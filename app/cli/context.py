"""What the commands share: opening the service, printing, and exit codes."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from app import create_app, service_of
from app.config import Config, read_config
from app.core import errors
from app.service.authors import Author
from app.service.context import Service

NO = 1
USAGE = 2

P = ParamSpec("P")
R = TypeVar("R")


def open_service(config: Config) -> Service:
    """The service on the database that `config` names."""
    return service_of(create_app(config))


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
    return Author(actor=f"{getpass.getuser()} (command line)")


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


def print_json(value: Any) -> None:
    """A value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under headings, in columns as wide as they need."""
    lines = [list(headings), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)
