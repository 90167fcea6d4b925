"""SQLite locked, full, read-only, damaged, deleted, replaced, empty, never migrated: said plainly, and survived."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from app.db.engine import open_engine
from app.wiring import service_of
from tests.support.apps import SEED, import_text, opened_app
from tests.support.faults import (
    COUNTING,
    PATH,
    assert_away,
    assert_heals,
    assert_refuses,
    assert_still_answers,
    held_by_another_process,
    put_often,
    timed,
)

NOBODY = 65534
EXCLUSIVE = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN IMMEDIATE", "CREATE TABLE held (x)")


@pytest.fixture
def app(sqlite_url: str) -> Iterator[Flask]:
    for app in opened_app(sqlite_url):
        import_text(app, COUNTING)
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def path(app: Flask) -> Path:
    return Path(str(service_of(app).database.engine.url.database))


def close(app: Flask) -> None:
    """Close every connection, as in a process that has just begun; the write-ahead log goes with the last one."""
    service_of(app).database.engine.dispose()


def be_impatient(app: Flask) -> None:
    """Wait for locks for a moment only."""
    database = service_of(app).database
    url = database.engine.url
    database.engine.dispose()
    database.engine = open_engine(url, busy_seconds=0.2)


# Locked


def test_writer_is_told_when_another_process_writes_for_long(app: Flask, client: FlaskClient, path: Path) -> None:
    be_impatient(app)
    taken = put_often(client, 3)
    with held_by_another_process(str(path), "BEGIN IMMEDIATE"):
        assert_refuses(client, "PUT")
        assert_still_answers(client)
    assert_heals(app, taken)
    close(app)


def test_everybody_is_told_when_another_process_has_the_file_for_itself(
    app: Flask, client: FlaskClient, path: Path
) -> None:
    be_impatient(app)
    taken = put_often(client, 3)
    close(app)
    with held_by_another_process(str(path), *EXCLUSIVE):
        assert_away(client)
    assert_heals(app, taken)
    close(app)


@pytest.mark.parametrize("statements", [("BEGIN IMMEDIATE",), EXCLUSIVE], ids=["writing", "exclusive"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_crowd_is_answered_in_time_when_the_file_is_locked(
    app: Flask, client: FlaskClient, path: Path, method: str, statements: tuple[str, ...]
) -> None:
    taken = put_often(client, 1)
    close(app)
    with held_by_another_process(str(path), *statements), ThreadPoolExecutor(24) as crowd:
        asked = [crowd.submit(timed, app.test_client(), method, PATH) for _ in range(24)]
        found = {answer.result().status_code for answer in asked}
    assert found == ({200} if method == "GET" and statements != EXCLUSIVE else {503})
    assert_heals(app, taken)


# Full


def test_writer_is_told_when_the_database_is_full(app: Flask, client: FlaskClient, path: Path) -> None:
    engine, limit = service_of(app).database.engine, [0]

    @event.listens_for(engine, "checkout")
    def limit_pages(connection: sqlite3.Connection, record: object, proxy: object) -> None:
        # Zero asks and changes nothing; less than what there is means no page more.
        connection.execute(f"PRAGMA max_page_count={limit[0]}").close()

    limit[0] = 1
    taken = 0
    while client.put(f"{PATH}&machine={'m' * 200}-{taken}").status_code == 200:
        taken += 1
        assert taken < 500
    assert_refuses_long_put(client)
    assert_still_answers(client)
    limit[0] = 1_000_000
    assert_heals(app, taken + count_short_puts(client, taken))


def assert_refuses_long_put(client: FlaskClient) -> None:
    response = timed(client, "PUT", f"{PATH}&machine={'x' * 255}")
    assert (response.status_code, response.get_json()["outcome"]) == (503, "not_applied")
    assert "full" in response.get_json()["detail"]
    assert timed(client, "PUT", f"/state?state=work&machine={'x' * 255}").status_code == 500


def count_short_puts(client: FlaskClient, taken: int) -> int:
    value: int = client.get("/charts/counting").get_json()["values"]["count"]
    assert value == taken
    return value - taken


# Read-only


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be a user whom the permissions of files bind: root is not."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def open_folder(sqlite_template: Path) -> Iterator[Path]:
    """A folder that a user without privileges may reach, with a migrated database in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(sqlite_template, folder / "state.db")
        allow(folder, 0o777, 0o666)
        yield folder
        allow(folder, 0o777, 0o666)


def allow(folder: Path, folder_mode: int, file_mode: int) -> None:
    folder.chmod(folder_mode)
    for file in folder.iterdir():
        file.chmod(file_mode)


def test_writer_is_told_when_the_file_is_read_only(open_folder: Path) -> None:
    for app in opened_app(f"sqlite:///{open_folder / 'state.db'}"):
        with without_privileges():
            client = app.test_client()
            import_text(app, COUNTING)
            taken = put_often(client, 3)
            close(app)
        allow(open_folder, 0o777, 0o444)
        with without_privileges():
            assert_refuses(client, "PUT")
            assert "state.db: this user may not read and write it" in client.put(PATH).get_json()["detail"]
            assert client.get("/readyz").status_code == 503
        allow(open_folder, 0o777, 0o666)
        with without_privileges():
            assert_heals(app, taken)


def test_everybody_is_told_when_the_folder_is_read_only(open_folder: Path) -> None:
    for app in opened_app(f"sqlite:///{open_folder / 'state.db'}"):
        with without_privileges():
            client = app.test_client()
            import_text(app, COUNTING)
            taken = put_often(client, 3)
            close(app)
        allow(open_folder, 0o555, 0o444)
        with without_privileges():
            assert_away(client)
            assert f"may not write in the folder {open_folder}" in client.get(PATH).get_json()["detail"]
        allow(open_folder, 0o777, 0o666)
        with without_privileges():
            assert_heals(app, taken)


# Damaged


def spoil(path: Path, start: int, length: int | None = None) -> None:
    """Overwrite a part of a file, in place."""
    size = path.stat().st_size
    length = size - start if length is None else length
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * length)
    assert path.stat().st_size == size


@pytest.mark.parametrize(("start", "length"), [(0, 100), (0, 16), (100, None)], ids=["header", "magic", "pages"])
def test_everybody_is_told_when_the_file_is_damaged(
    app: Flask, client: FlaskClient, path: Path, start: int, length: int | None
) -> None:
    taken = put_often(client, 3)
    close(app)
    whole = path.read_bytes()
    spoil(path, start, length)
    spoilt = path.read_bytes()
    assert_away(client)
    close(app)
    assert path.read_bytes() == spoilt, "nothing was written over it"
    path.write_bytes(whole)
    assert_heals(app, taken)


def test_damage_in_the_middle_is_never_a_wrong_answer(app: Flask, client: FlaskClient, path: Path) -> None:
    taken = put_often(client, 3)
    close(app)
    whole = path.read_bytes()
    for start in range(4096, len(whole), 4096):
        spoil(path, start, 4096)
        answers = [timed(client, "GET", PATH), timed(client, "PUT", PATH), timed(client, "GET", "/charts/counting")]
        # A page that nobody needed may be damaged and a PUT be taken; what may not be is another kind of answer.
        assert {answer.status_code for answer in answers} <= {200, 503}, (start, [a.text for a in answers])
        close(app)
        path.write_bytes(whole)
    assert_heals(app, taken)


def test_damage_under_open_connections_is_no_internal_error(app: Flask, client: FlaskClient, path: Path) -> None:
    put_often(client, 3)
    spoil(path, 4096)
    for method in ("PUT", "GET", "PUT", "GET"):
        assert timed(client, method, PATH).status_code in (200, 503)
    assert timed(client, "GET", "/readyz").status_code in (200, 503)
    close(app)
    assert_refuses(client, "PUT", "GET")


def test_file_that_was_mended_is_served_by_the_connections_that_saw_it_damaged(
    app: Flask, client: FlaskClient, path: Path
) -> None:
    taken = put_often(client, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        # What another one wrote makes the service read anew. As long as that one reads the file, nobody writes to it.
        other.execute("PRAGMA user_version=1")
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM charts").fetchall()
        whole = path.read_bytes()
        spoil(path, 4096)
        assert_refuses(client, "GET", "PUT")
        with path.open("r+b") as file:
            file.write(whole)
        assert_heals(app, taken)


# Deleted, moved, replaced, empty


def test_nothing_is_taken_into_a_deleted_file(app: Flask, client: FlaskClient, path: Path) -> None:
    put_often(client, 3)
    path.unlink()
    assert_away(client)
    assert not path.exists(), "an empty database would hide the loss"


def test_file_that_comes_back_has_everything(app: Flask, client: FlaskClient, path: Path) -> None:
    taken = put_often(client, 3)
    away = path.with_suffix(".away")
    path.rename(away)
    assert_away(client)
    away.rename(path)
    assert_heals(app, taken)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("comes", [None, "another"], ids=["away", "replaced"])
def test_file_that_is_moved_while_it_is_opened_is_not_used(
    app: Flask, client: FlaskClient, path: Path, monkeypatch: pytest.MonkeyPatch, comes: str | None, method: str
) -> None:
    taken = put_often(client, 3)
    close(app)
    away, other, connect = path.with_suffix(".away"), path.with_suffix(".other"), sqlite3.connect
    shutil.copy(path, other)

    def connect_and_move(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **options)
        path.rename(away)
        if comes is not None:
            other.rename(path)
        monkeypatch.undo()
        return connection

    monkeypatch.setattr("app.db.sqlite.sqlite3.connect", connect_and_move)
    response = client.open(PATH, method=method)
    assert (response.status_code, "moved while it was opened" in response.text) == (503, True)
    away.rename(path)
    assert_heals(app, taken)


def test_restored_backup_is_served_at_once(app: Flask, client: FlaskClient, path: Path) -> None:
    taken = put_often(client, 3)
    backup = path.with_suffix(".backup")
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("VACUUM INTO ?", (str(backup),))
    put_often(client, 2)
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink()
    assert_away(client)
    backup.rename(path)
    assert_heals(app, taken)


def test_file_put_beside_the_write_ahead_log_of_another_is_refused(
    app: Flask, client: FlaskClient, path: Path, sqlite_template: Path
) -> None:
    put_often(client, 3)
    other = path.with_suffix(".other")
    shutil.copyfile(sqlite_template, other)
    other.rename(path)
    assert_away(client)
    assert "-wal" in client.get(PATH).get_json()["detail"]
    close(app)
    assert path.read_bytes() == sqlite_template.read_bytes(), "no page of the other one was written into it"


def test_file_put_in_place_is_served_once_the_old_write_ahead_log_is_gone(
    app: Flask, client: FlaskClient, path: Path, sqlite_template: Path
) -> None:
    put_often(client, 3)
    other = path.with_suffix(".other")
    shutil.copyfile(sqlite_template, other)
    for another in opened_app(f"sqlite:///{other}"):
        import_text(another, COUNTING)
        taken = put_often(another.test_client(), 7)
    other.rename(path)
    assert_away(client)
    for leftover in (Path(f"{path}-wal"), Path(f"{path}-shm")):
        leftover.unlink()
    assert_heals(app, taken)


def test_definitions_of_a_replaced_file_are_its_own(
    app: Flask, client: FlaskClient, path: Path, sqlite_template: Path
) -> None:
    put_often(client, 1)
    other = path.with_suffix(".other")
    shutil.copyfile(sqlite_template, other)
    for another in opened_app(f"sqlite:///{other}"):
        # The same name, number and version, and another definition.
        import_text(another, SEED, name="counting")
    close(app)
    other.rename(path)
    assert client.put("/charts/counting/state?state=green_state").status_code == 200
    assert client.get("/charts/counting/state?state=red_state").status_code == 200


def test_everybody_is_told_when_the_file_is_empty(app: Flask, client: FlaskClient, path: Path) -> None:
    close(app)
    path.write_bytes(b"")
    assert_away(client)
    assert "empty" in client.get("/readyz").get_json()["detail"]
    assert path.stat().st_size == 0, "nothing hides the loss"


def test_file_emptied_under_open_connections_is_no_internal_error(app: Flask, client: FlaskClient, path: Path) -> None:
    put_often(client, 3)
    whole = path.read_bytes()
    os.truncate(path, 0)
    for method in ("PUT", "GET", "PUT", "GET"):
        assert timed(client, method, PATH).status_code in (200, 503)
    path.write_bytes(whole)
    assert timed(client, "GET", PATH).status_code in (200, 503)


@pytest.mark.parametrize("kind", ["never migrated", "no database", "a folder", "no folder"])
def test_everybody_is_told_when_there_is_no_database_of_ours(tmp_path: Path, empty_sqlite_url: str, kind: str) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is no database\n" * 1000)
    urls = {
        "never migrated": empty_sqlite_url,
        "no database": f"sqlite:///{text}",
        "a folder": f"sqlite:///{tmp_path}",
        "no folder": f"sqlite:///{tmp_path}/none/state.db",
    }
    for app in opened_app(urls[kind]):
        assert_away(app.test_client())
    assert not (tmp_path / "none").exists()
    assert text.read_text() == "this is no database\n" * 1000
