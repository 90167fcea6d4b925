"""The command line in this process, on a database of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli.root import main
from tests.support.apps import SEED


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


def run_command(*arguments: str, stdin: str | bytes | None = None, **environment: str) -> Done:
    """Run `./state_service` with these arguments; an error that it does not catch is the test's."""
    result = CliRunner().invoke(main, arguments, input=stdin, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def bare() -> Run:
    """The command line without a database."""
    return run_command


@pytest.fixture
def run(database_url: str) -> Run:
    """The command line on a migrated database."""

    def run_on_database(*arguments: str, **more: Any) -> Done:
        return run_command("--database", database_url, *arguments, **more)

    return run_on_database


@pytest.fixture
def seed(tmp_path: Path) -> str:
    """The path of the seed's chart file."""
    path = tmp_path / "states.yaml"
    path.write_text(SEED)
    return str(path)
