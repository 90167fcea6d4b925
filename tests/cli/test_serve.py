"""`./state_service` up to the moment at which it becomes gunicorn: what stops a start, and what a start does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.cli import serve
from app.config import Config
from tests.cli.conftest import Done, Run, run_command
from tests.cli.test_database import assert_one_line
from tests.support.apps import SEED, opened_app
from tests.support.faults import COUNTING
from tests.support.processes import free_port

REFUSAL = "state_service: STATE_SERVICE_AUTH must say tokens or open\n"


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The settings of each gunicorn that a test has started. None runs."""
    configs: list[Config] = []
    monkeypatch.setattr(serve, "become_gunicorn", lambda config, debug: configs.append(config))
    return configs


@pytest.fixture
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start sets up logging for its process, which here is the one of all tests."""
    monkeypatch.setattr(serve, "configure_logging", lambda logger: None)


Start = Callable[..., Done]


@pytest.fixture
def start(own_log: None) -> Start:
    def start_with(url: str, *arguments: str, **environment: str) -> Done:
        return run_command("--database", url, "--port", str(free_port()), *arguments, **environment)

    return start_with


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def ask(url: str, started: list[Config], path: str) -> int:
    """The status of a question to the last service that was started."""
    for app in opened_app(url, default_chart=started[-1].default_chart):
        status = app.test_client().get(path).status_code
    return status


# Who may do what


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_start_on_a_public_address_requires_auth(
    start: Start, started: list[Config], sqlite_url: str, host: str
) -> None:
    done = start(sqlite_url, "--host", host)
    assert (done.code, done.err, started) == (2, REFUSAL, [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_start_on_loopback_is_open(start: Start, started: list[Config], sqlite_url: str, host: str) -> None:
    assert start(sqlite_url, "--host", host, STATE_SERVICE_AUTH="").code == 0
    assert [config.auth for config in started] == ["open"]


def test_start_on_loopback_asks_for_tokens_if_it_is_told_to(
    start: Start, started: list[Config], sqlite_url: str
) -> None:
    assert start(sqlite_url, STATE_SERVICE_AUTH="tokens").code == 0
    assert [config.auth for config in started] == ["tokens"]


# What stops it


def test_start_changes_no_database_if_the_port_is_in_use(
    start: Start, tmp_path: Path, seed: str, taken_port: int
) -> None:
    done = start(f"sqlite:///{tmp_path}/new.db", "--port", str(taken_port), "--chart", seed)
    assert done.code == 1
    assert (
        done.err
        == f"state_service: cannot listen on 127.0.0.1:{taken_port}: Address already in use; --port takes another one\n"
    )
    assert not (tmp_path / "new.db").exists()


def test_start_changes_no_database_if_a_chart_is_bad(
    start: Start, started: list[Config], tmp_path: Path, seed: str
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(SEED.replace("increment", "incremnt"))
    done = start(f"sqlite:///{tmp_path}/new.db", "--chart", seed, "--chart", str(bad))
    assert (done.code, started) == (2, [])
    assert f"{bad}:6:11: error: " in done.err
    assert not (tmp_path / "new.db").exists()


def test_start_imports_nothing_if_one_import_would_be_refused(
    start: Start, started: list[Config], bare: Run, sqlite_url: str, tmp_path: Path, seed: str
) -> None:
    """The second chart drops the state that is current; the second roster loses its machines."""
    other = tmp_path / "other.yaml"
    other.write_text(SEED)
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.write_text("web-01\n")
    empty.write_text("# nobody\n")
    for arguments in (["chart", "import", str(other)], ["roster", "import", "lost", str(full)]):
        assert bare("--database", sqlite_url, *arguments).code == 0
    other.write_text(SEED.replace("green_state", "lime_state"))
    for more in (["--chart", seed, "--chart", str(other)], ["--roster", f"lost={empty}", "--chart", seed]):
        done = start(sqlite_url, "--roster", f"new={full}", *more)
        assert (done.code, started) == (1, []), done.err
    assert "new" not in bare("--database", sqlite_url, "roster", "list").out
    assert "states" not in bare("--database", sqlite_url, "chart", "list").out


def test_start_is_refused_when_the_database_is_away(start: Start, seed: str) -> None:
    assert_one_line(start(f"postgresql://x@127.0.0.1:{free_port()}/x", "--chart", seed), 1)


def test_start_is_refused_when_the_file_is_empty(start: Start, tmp_path: Path, seed: str) -> None:
    path = tmp_path / "state.db"
    path.touch()
    done = start(f"sqlite:///{path}", "--chart", seed)
    assert done.code == 1
    assert f"{path} is empty" in done.err
    assert "backup" in done.err
    assert path.stat().st_size == 0, "nothing hides the loss"


def test_start_is_refused_when_the_database_is_of_no_known_kind(start: Start) -> None:
    done = start("mysql://x/y")
    assert_one_line(done, 2)
    assert "STATE_SERVICE_DATABASE_URL" in done.err


# A class that does not exist is read later than the rest: see tests/serving/test_start.py.
@pytest.mark.parametrize("text", [None, "[", "version: 9", "x"])
def test_bad_logger_file_stops_the_start(
    started: list[Config], bare: Run, sqlite_url: str, tmp_path: Path, text: str | None
) -> None:
    config = tmp_path / "logger.yaml"
    if text is not None:
        config.write_text(text)
    done = bare("--database", sqlite_url, "--logger", str(config))
    assert (done.code, started) == (2, [])
    assert f"logger file {config}" in done.err


# What it does


def test_start_imports_a_roster_and_the_chart_that_follows_it(
    start: Start, bare: Run, sqlite_url: str, tmp_path: Path, seed: str
) -> None:
    lines = tmp_path / "web"
    lines.write_text("web-01\n")
    Path(seed).write_text("expect: {roster: web}\n" + SEED)
    assert start(sqlite_url, "--roster", str(lines), "--chart", seed).code == 0
    assert bare("--database", sqlite_url, "chart", "show", "states", "--json").json()["expect"] == 1


def test_first_of_two_charts_is_the_default(
    start: Start, started: list[Config], sqlite_url: str, tmp_path: Path, seed: str
) -> None:
    counting = tmp_path / "counting.yaml"
    counting.write_text(COUNTING)
    assert start(sqlite_url, "--chart", str(counting), "--chart", seed).code == 0
    assert ask(sqlite_url, started, "/state?state=work") == 200
    assert ask(sqlite_url, started, "/state?state=green_state") == 406
    assert ask(sqlite_url, started, "/charts/states/state?state=green_state") == 200
    assert serve.environment_of(started[0])["STATE_SERVICE_DEFAULT_CHART"] == "counting"


def test_start_without_charts_serves_those_there_are(
    start: Start, started: list[Config], sqlite_url: str, seed: str
) -> None:
    assert [start(sqlite_url, "--chart", seed).code, start(sqlite_url).code] == [0, 0]
    assert ask(sqlite_url, started, "/state?state=green_state") == 200


def test_changed_file_is_an_upgrade(start: Start, started: list[Config], sqlite_url: str, seed: str) -> None:
    start(sqlite_url, "--chart", seed)
    Path(seed).write_text(SEED.replace("blue_state", "purple_state"))
    assert "states: upgraded, version 2, in green_state" in start(sqlite_url, "--chart", seed).err
    assert ask(sqlite_url, started, "/state?state=green_state") == 200


def test_file_that_drops_the_current_state_is_refused(
    start: Start, started: list[Config], sqlite_url: str, seed: str
) -> None:
    start(sqlite_url, "--chart", seed)
    Path(seed).write_text(SEED.replace("green_state", "lime_state"))
    done = start(sqlite_url, "--chart", seed)
    assert (done.code, len(started)) == (1, 1)
    assert "green_state" in done.err.splitlines()[-1]
    Path(seed).write_text(SEED)
    assert "states: unchanged, version 1, in green_state" in start(sqlite_url, "--chart", seed).err


def test_relative_paths_are_those_of_the_folder_it_is_started_in(
    own_log: None, started: list[Config], bare: Run, tmp_path: Path, seed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gunicorn runs in the service's own folder."""
    monkeypatch.chdir(tmp_path)
    arguments = ("--chart", Path(seed).name, "--logger", "logger.yaml", "--port", str(free_port()))
    assert bare("--database", "sqlite:///here.db", *arguments).code == 0
    assert (tmp_path / "here.db").exists()
    assert (started[0].database_url, started[0].logger) == (
        f"sqlite:///{tmp_path}/here.db",
        str(tmp_path / "logger.yaml"),
    )
