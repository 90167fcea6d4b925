"""Behind a pooler, STATE_SERVICE_POOLER holds for every command; only a migration goes past the pooler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app import schema
from app.cli import serve
from app.db.engine import open_engine
from tests.cli.conftest import Run, run_command
from tests.cli.test_database import assert_one_line
from tests.support.pooler import pooler_before
from tests.support.processes import free_port

COMMANDS = {
    "upgrade": ("db", "upgrade"),
    "check": ("db", "check"),
    "list": ("chart", "list"),
    "tokens": ("token", "list"),
}


@pytest.fixture(autouse=True)
def pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_SERVICE_POOLER", "true")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_command_works_behind_a_pooler(postgresql_url: str, command: tuple[str, ...]) -> None:
    with pooler_before(postgresql_url) as url:
        done = run_command("--database", url, *command)
    assert (done.code, done.err) == (0, "")


def test_start_with_a_chart_works_behind_a_pooler(
    postgresql_url: str, seed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(serve, "become_gunicorn", lambda config, debug: started.append(config))
    with pooler_before(postgresql_url) as url:
        done = run_command("--database", url, "--port", str(free_port()), "--chart", seed)
    assert (done.code, [config.pooler for config in started]) == (0, [True])


def test_migration_goes_past_the_pooler(empty_postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_SERVICE_LISTEN_URL", empty_postgresql_url)
    with pooler_before(empty_postgresql_url) as url:
        assert run_command("--database", url, "db", "upgrade").code == 0
    engine = open_engine(empty_postgresql_url)
    assert schema.check(engine) == []
    engine.dispose()


def test_migration_through_the_pooler_is_refused(empty_postgresql_url: str) -> None:
    with pooler_before(empty_postgresql_url) as url:
        done = run_command("--database", url, "db", "upgrade")
    assert_one_line(done, 1)
    assert "STATE_SERVICE_LISTEN_URL" in done.err


def test_migration_of_another_database_is_refused(
    empty_postgresql_url: str, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_SERVICE_LISTEN_URL", postgresql_url)
    with pooler_before(empty_postgresql_url) as url:
        done = run_command("--database", url, "db", "upgrade")
    assert_one_line(done, 1)
    assert "another database" in done.err


def test_pooler_does_not_matter_to_sqlite(bare: Run, tmp_path: Path) -> None:
    assert bare("--database", f"sqlite:///{tmp_path}/new.db", "db", "upgrade").code == 0
