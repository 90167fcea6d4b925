"""The service as people start it: `./state_service` as a process of its own, asked with the real curl."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.apps import SEED
from tests.support.databases import copied
from tests.support.processes import free_port
from tests.support.servers import ROOT, Server, environment, run_curl, running

STATE_SERVICE = (sys.executable, str(ROOT / "state_service"))


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """The seed's chart file."""
    path = tmp_path / "states.yaml"
    path.write_text(SEED)
    return path


@contextmanager
def serving(database_url: str, folder: Path, *arguments: str | Path, **settings: str) -> Iterator[Server]:
    """Run `./state_service` with these arguments until the block ends."""
    port = free_port()
    command = [*STATE_SERVICE, "--database", database_url, "--port", str(port), *map(str, arguments)]
    with running(database_url, folder, command, port, **settings) as server:
        yield server


@contextmanager
def running_seed(sqlite_template: Path, folder: Path) -> Iterator[Server]:
    """Run a server that answers about the seed's chart on /state until the block ends, without `./state_service`."""
    with copied(sqlite_template) as url, running(url, folder, default_chart="states") as server:
        server.import_chart("states", SEED)
        yield server


def run(
    command: Sequence[str], url: str, /, without: Sequence[str] = (), **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it must come to one by itself."""
    variables = environment(url, settings)
    for name in without:
        variables.pop(f"STATE_SERVICE_{name.upper()}")
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)


def curl(server: Server, path: str, *options: str) -> str:
    """What `curl -si` prints, the whole response, headers and all; its line ends are line feeds here."""
    return run_curl("-si", *options, f"{server.url}{path}").stdout


def status_and_body(response: str) -> tuple[int, str]:
    head, _, body = response.partition("\n\n")
    return int(head.split()[1]), body


def history(server: Server, chart: str) -> list[dict[str, Any]]:
    """The rows of a chart's log."""
    rows: list[dict[str, Any]] = server.ask("GET", f"/charts/{chart}/history", Accept="application/json").json()
    return rows
