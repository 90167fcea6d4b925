"""What the commands share: opening the service, printing, and exit codes."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Iterable
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
