"""A machine without libpq: SQLite works, and a URL of PostgreSQL's is refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT

# As psycopg says it on such a machine.
ATTEMPT = "couldn't import psycopg 'python' implementation: libpq library not found"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where psycopg cannot be imported."""
    package = tmp_path / "psycopg"
    package.mkdir()
    (package / "__init__.py").write_text(
        f'raise ImportError("""no pq wrapper available.\nAttempts made:\n- {ATTEMPT}""")\n'
    )
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def run(environment: dict[str, str], url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "state_service", *words],
        cwd=ROOT,
        env={**environment, "STATE_SERVICE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_sqlite_works_without_libpq(environment: dict[str, str], sqlite_url: str) -> None:
    imported = run(environment, sqlite_url, "chart", "import", "charts/states.yaml")
    assert (imported.returncode, imported.stdout.splitlines()[0]) == (0, "states: created, version 1")


def test_url_of_postgresql_is_refused_in_one_line_without_libpq(environment: dict[str, str]) -> None:
    refused = run(environment, "postgresql://stateservice@db.example/stateservice", "chart", "list")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert f"libpq cannot be loaded ({ATTEMPT})" in refused.stderr
