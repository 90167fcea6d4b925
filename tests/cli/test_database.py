"""`db upgrade|check`, and a database that is not there: one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from alembic.util import CommandError
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import NoSuchTableError, ProgrammingError

from app import schema
from app.db.engine import normalize_url, str_url
from app.db.sqlite import open_sqlite
from tests.cli.conftest import Done, Run, run_command
from tests.support.processes import free_port
from tests.support.roles import as_owner

COMMANDS = {
    "upgrade": ("db", "upgrade"),
    "check": ("db", "check"),
    "list": ("chart", "list"),
    "show": ("chart", "show", "states"),
    "verify": ("chart", "verify"),
}


def assert_one_line(done: Done, code: int) -> None:
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("state_service: ")


def test_upgrade_migrates_and_check_is_content(empty_database_url: str) -> None:
    before = run_command("--database", empty_database_url, "db", "check")
    assert (before.code, "none" in before.out) == (1, True)
    for _ in range(2):
        assert run_command("--database", empty_database_url, "db", "upgrade").code == 0
    after = run_command("--database", empty_database_url, "db", "check")
    assert after.code == 0
    assert "as it should be" in after.out


def test_upgrade_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.db"
    assert run_command("--database", f"sqlite:///{path}", "db", "upgrade").code == 0
    assert path.exists()


@pytest.mark.parametrize("command", ["upgrade", "check", "list"])
def test_empty_file_is_refused_since_its_content_is_lost(tmp_path: Path, command: str) -> None:
    path = tmp_path / "state.db"
    path.touch()
    done = run_command("--database", f"sqlite:///{path}", *COMMANDS[command])
    assert_one_line(done, 1)
    assert f"{path} is empty" in done.err
    assert "backup" in done.err
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [0], "nothing hides the loss"


def test_several_may_make_the_file_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with ThreadPoolExecutor(8) as many:
        found = list(many.map(lambda _: open_sqlite(make_url(url), create=True), range(8)))
    for connection in found:
        connection.close()


def test_check_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    assert_one_line(run_command("--database", f"sqlite:///{path}", "db", "check"), 1)
    assert not path.exists()


@pytest.mark.parametrize("statement", ["DROP TABLE token_log", "DROP VIEW v_current"])
def test_check_names_what_is_missing(database_url: str, statement: str) -> None:
    engine = create_engine(normalize_url(as_owner(database_url)))
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    done = run_command("--database", database_url, "db", "check")
    assert done.code == 1
    assert statement.split()[-1] in done.out


def test_upgrade_refuses_a_database_that_is_newer(sqlite_url: str) -> None:
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    done = run_command("--database", sqlite_url, "db", "upgrade")
    assert_one_line(done, 1)
    assert "9999" in done.err


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_command_exits_1_when_postgresql_is_away(command: tuple[str, ...]) -> None:
    assert_one_line(run_command("--database", f"postgresql://x@127.0.0.1:{free_port()}/x", *command), 1)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_command_exits_1_when_the_file_is_no_database(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is no database\n" * 1000)
    assert_one_line(run_command("--database", f"sqlite:///{path}", *command), 1)
    assert path.read_text() == "this is no database\n" * 1000


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_command_exits_1_when_the_file_cannot_be_made(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(run_command("--database", f"sqlite:///{tmp_path}/file/state.db", *command), 1)


@pytest.mark.parametrize("command", [("chart", "list"), ("chart", "import", "-", "--name", "x")])
def test_command_says_so_when_the_database_was_never_migrated(
    empty_database_url: str, command: tuple[str, ...]
) -> None:
    done = run_command("--database", empty_database_url, *command, stdin="current_state: a\nstates: [{name: a}]\n")
    assert_one_line(done, 1)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "postgresql://x:y:z/a"])
def test_bad_url_exits_2(command: tuple[str, ...], url: str) -> None:
    assert_one_line(run_command("--database", url, *command), 2)


def test_url_is_never_printed_with_its_password(bare: Run) -> None:
    done = bare("--database", f"postgresql://x:s3cret@127.0.0.1:{free_port()}/x", "chart", "list")
    assert "s3cret" not in done.err + done.out


@pytest.mark.parametrize("arguments", [("db", "upgrade"), ("db", "check"), ("chart", "list"), ()], ids=" ".join)
def test_old_sqlite_is_refused_in_one_line_before_the_file_is_made(
    bare: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    done = bare("--database", f"sqlite:///{tmp_path}/new.db", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "state_service: SQLite 3.35.0 or newer is needed, and this Python uses 3.34.1:"
        " use another Python or PostgreSQL\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_old_sqlite_does_not_matter_to_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    assert normalize_url("postgresql://db.example/x").database == "x"


# SQLite's file


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run as a user whom the permissions of files bind, unlike root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


OBSTACLES: dict[str, tuple[int, int, str]] = {
    "a file that is read-only": (0o777, 0o444, "state.db: this user may not read and write it"),
    "a file that cannot be read": (0o777, 0o000, "state.db: this user may not read and write it"),
    "a folder that is read-only": (0o555, 0o666, "may not write in the folder {folder}"),
    "a folder that cannot be entered": (0o666, 0o666, "may not write in the folder {folder}"),
}


@pytest.mark.parametrize(("folder_mode", "file_mode", "message"), OBSTACLES.values(), ids=OBSTACLES)
def test_line_names_the_file_that_cannot_be_used(
    sqlite_template: Path, folder_mode: int, file_mode: int, message: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name, "data")
        folder.mkdir()
        shutil.copyfile(sqlite_template, folder / "state.db")
        (folder / "state.db").chmod(file_mode)
        folder.chmod(folder_mode)
        with without_privileges():
            chart = "current_state: a\nstates: [{name: a}]\n"
            arguments = ("chart", "import", "-", "--name", "x")
            done = run_command("--database", f"sqlite:///{folder}/state.db", *arguments, stdin=chart)
        folder.chmod(0o777)
    assert_one_line(done, 1)
    assert f"{folder}/state.db" in done.err
    assert message.format(folder=folder) in done.err


@pytest.mark.parametrize(("path", "message"), [("", " is a folder"), ("/no/x.db", "/no does not exist or cannot")])
def test_line_names_the_file_that_cannot_be_opened(tmp_path: Path, path: str, message: str) -> None:
    done = run_command("--database", f"sqlite:///{tmp_path}{path}", "db", "check")
    assert_one_line(done, 1)
    assert f"unable to open database file: {tmp_path}" in done.err
    assert message in done.err


# PostgreSQL's URL


@pytest.mark.parametrize("port", ["", ":5433"])
def test_socket_in_libpqs_form_is_read(port: str) -> None:
    for text in (f"postgresql://ss@%2Frun%2Fpg{port}/x", f"postgres://ss@%2frun%2fpg{port}/x"):
        url = normalize_url(text)
        assert normalize_url(str_url(url)) == url, "another process reads the text"
        _, options = url.get_dialect()().create_connect_args(url)
        expected = {"user": "ss", "host": "/run/pg", "dbname": "x"}
        assert options == expected | ({"port": "5433"} if port else {})


def test_command_works_over_socket_in_libpqs_form(postgresql_url: str) -> None:
    given = make_url(postgresql_url)
    host = quote(str(given.query["host"]), safe="")
    done = run_command("--database", f"postgresql://{given.username}@{host}/{given.database}", "db", "check")
    assert (done.code, done.err) == (0, "")


WRONG_URLS = {
    "an @ in the password": ("postgresql://x:s3@s3cret/word@127.0.0.1/x", "write @ as %40"),
    "an @ and a / in the password": ("postgresql://x:s3/s3cret@s3cret@127.0.0.1/x", "write @ as %40"),
    "an unknown option": ("postgresql://x@127.0.0.1/x?pool_size=3", "does not know: pool_size"),
    "an & in a password among the options": ("postgresql:///x?user=x&password=s3&s3cret=1", "does not know"),
    "a port that is not a number": ("postgresql://x:1@h:s3cret/x", "its port is not a number"),
    "a bracket that is not closed": ("postgresql://x@[::1/x", "a bracket too many"),
    "a NUL in the file": ("sqlite:////tmp/%00x.db", "it has a %00"),
    "a NUL in the password": ("postgresql://x:s3%00@127.0.0.1/x", "it has a %00"),
    "an option for SQLite": ("sqlite:///x.db?timeout=3", "sqlite takes no options"),
}


@pytest.mark.parametrize(("url", "message"), WRONG_URLS.values(), ids=WRONG_URLS)
def test_wrong_url_is_refused_in_a_line_without_the_password(url: str, message: str) -> None:
    done = run_command("--database", url, "db", "check")
    assert_one_line(done, 2)
    assert message in done.err
    assert "s3" not in done.err


WRONG_VALUES = {
    "a port that is too high": "postgresql://x@127.0.0.1:99999/x",
    "a time limit that is no number": "postgresql://x@127.0.0.1/x?connect_timeout=soon",
    "an sslmode that there is not": "postgresql://x@127.0.0.1/x?sslmode=maybe",
    "a service that there is not": "postgresql://x@/x?service=none",
    "a host name that cannot be one": "postgresql://x@a..b/x",
    "a host name that is too long": f"postgresql://x@{'a' * 70}.example/x",
}


@pytest.mark.parametrize("url", WRONG_VALUES.values(), ids=WRONG_VALUES)
@pytest.mark.parametrize("command", ["upgrade", "list"])
def test_wrong_value_in_the_url_is_one_line(url: str, command: str) -> None:
    assert_one_line(run_command("--database", url, *COMMANDS[command]), 1)


# Errors that nothing translates

UNEXPECTED: dict[str, tuple[Exception, str]] = {
    "the system": (PermissionError(13, "Permission denied", "/var/lib/x"), "/var/lib/x: Permission denied"),
    "the system, without a file": (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    "SQLAlchemy": (NoSuchTableError("charts"), "charts"),
    "the driver through SQLAlchemy": (ProgrammingError("SELECT", {}, psycopg.ProgrammingError("no\nway")), "no"),
    "psycopg": (psycopg.DataError("bad value\nDETAIL"), "bad value"),
    "sqlite3": (sqlite3.DatabaseError("file is not a database"), "file is not a database"),
    "Alembic": (CommandError("no such revision"), "no such revision"),
    "a text that is not UTF-8": (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), "an argument, or what it"),
    "a mistake of ours": (
        KeyError("x"),
        "this is a mistake in the program, please report it: KeyError at test_database.py:",
    ),
    "without a text": (sqlite3.InterfaceError(), "InterfaceError"),
}


@pytest.mark.parametrize(("error", "line"), UNEXPECTED.values(), ids=UNEXPECTED)
def test_unexpected_error_is_one_line(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(schema, "check", fail)
    done = run_command("--database", sqlite_url, "db", "check")
    assert_one_line(done, 2 if isinstance(error, UnicodeError) else 1)
    assert done.err.startswith(f"state_service: {line}")


def test_new_database_file_is_for_its_owner_alone(tmp_path: Path, bare: Run) -> None:
    path = tmp_path / "new.db"
    mask = os.umask(0o022)
    try:
        bare("--database", f"sqlite:///{path}", "db", "upgrade")
    finally:
        os.umask(mask)
    with closing(open_sqlite(normalize_url(f"sqlite:///{path}"))) as connection:
        connection.execute("CREATE TABLE more (a)")
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("new.db", "new.db-wal", "new.db-shm"), 0o600)
