"""A backup copies the whole database at one moment, while others write, and does not overwrite a file."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import DatabaseUnavailableError
from app.service.context import Service
from app.service.upkeep import backup, verify
from app.wiring import service_of
from tests.service.support import ROLLOUT, import_text, put
from tests.support.apps import opened_app
from tests.support.commands import Commands


@pytest.fixture
def time_source() -> None:
    """The service goes by the database's time."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "backups with 'quotes' & spaces"
    folder.mkdir()
    return folder / "state_service.db"


def opened_copy(target: Path) -> Iterator[Service]:
    for app in opened_app(f"sqlite:///{target}"):
        yield service_of(app)


def test_backup_can_be_served_as_a_database(service: Service, run: Commands, target: Path) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    output = run("db", "backup", str(target)).stdout
    assert output == f"{target}: {target.stat().st_size} bytes, checked\n"
    put(service, "canary", "m2")
    for copy in opened_copy(target):
        assert verify(copy, "web").rows == 2
        assert put(copy, "canary", "m2").reason == "transitioned"
        assert verify(copy, "web").differences == ()


def test_only_the_owner_may_read_a_backup_and_no_other_file_is_left(service: Service, target: Path) -> None:
    backup(service, str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("content", ["", "a backup of yesterday"])
def test_backup_does_not_overwrite_a_file(service: Service, run: Commands, target: Path, content: str) -> None:
    target.write_text(content)
    assert "does not overwrite a file" in run("db", "backup", str(target), code=1).stderr
    assert target.read_text() == content
    assert list(target.parent.iterdir()) == [target]


def test_backup_does_not_follow_a_link(service: Service, run: Commands, target: Path) -> None:
    target.symlink_to(target.parent / "elsewhere")
    run("db", "backup", str(target), code=1)
    assert not (target.parent / "elsewhere").exists()


def test_file_created_during_a_backup_stays(service: Service, monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    monkeypatch.setattr("app.service.upkeep._check", lambda copy: target.write_text("somebody's"))
    with pytest.raises(Exception, match="does not overwrite a file"):
        backup(service, str(target))
    assert target.read_text() == "somebody's"
    assert list(target.parent.iterdir()) == [target]


def test_backup_into_a_missing_folder_is_an_error(run: Commands, target: Path) -> None:
    assert "No such file" in run("db", "backup", str(target / "deeper"), code=1).stderr


def test_damaged_copy_is_not_kept(service: Service, monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    def fail(copy: Path) -> None:
        raise sqlite3.DatabaseError("the copy is damaged")

    monkeypatch.setattr("app.service.upkeep._check", fail)
    with pytest.raises(DatabaseUnavailableError, match="damaged"):
        backup(service, str(target))
    assert list(target.parent.iterdir()) == []


def test_backups_taken_while_others_write_are_complete(service: Service, target: Path) -> None:
    import_text(service, ROLLOUT.replace("value: 2}}", "value: 1000000}}"))
    stop = threading.Event()
    counted: list[bool] = []

    def write() -> None:
        while not stop.is_set():
            counted.append(put(service, "canary").is_yes)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    copies = [target.with_name(f"{number}.db") for number in range(5)]
    for copy in copies:
        backup(service, str(copy))
    stop.set()
    for thread in threads:
        thread.join(30)

    assert all(counted)
    found = [verify(copied, "web") for copy in copies for copied in opened_copy(copy)]
    assert [item.differences for item in found] == [()] * 5
    assert [item.rows for item in found] == sorted(item.rows for item in found)
    assert verify(service, "web").rows == len(counted) + 1


def test_backup_of_postgresql_prints_the_pg_dump_command(postgresql_url: str, target: Path) -> None:
    stderr = Commands(postgresql_url)("db", "backup", str(target), code=2).stderr
    command = shlex.split(stderr.partition("own backup: ")[2])
    assert command[:3] == ["pg_dump", "--format=custom", f"--file={target}"]
    assert command[3].startswith("--dbname=postgresql://")
    assert not target.exists()


@pytest.mark.parametrize("password", ["secret", "p%40ss"])
def test_password_is_not_printed(password: str) -> None:
    run = Commands(f"postgresql://state:{password}@127.0.0.1:9/state")
    stderr = run("db", "backup", "x.db", code=2).stderr
    assert "postgresql://state@127.0.0.1:9/state" in stderr
    assert password not in stderr


def test_printed_pg_dump_command_works(postgresql_url: str, target: Path) -> None:
    stderr = Commands(postgresql_url)("db", "backup", str(target), code=2).stderr
    command = shlex.split(stderr.partition("own backup: ")[2])
    if shutil.which("pg_dump") is None:
        return
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    # A pg_dump older than the server refuses to run, and says so; then its arguments were right.
    assert done.returncode == 0 or "server version mismatch" in done.stderr, done.stderr
