"""What stops a start, with which message and exit code; and what the options do."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import STATE_SERVICE, run, serving
from tests.support.charts import THREE
from tests.support.processes import children_of, end_group, free_port, until
from tests.support.servers import GUNICORN, START_SECONDS, Server, environment, patched, run_curl, running

REFUSAL = "STATE_SERVICE_AUTH must say tokens or open"


def start(database_url: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run([*STATE_SERVICE, "--database", database_url, *arguments], database_url, **settings)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


# Who may do what


def test_gunicorn_refuses_to_start_without_auth(sqlite_url: str) -> None:
    done = run(GUNICORN, sqlite_url, without=["auth"])
    assert done.returncode != 0
    assert done.stderr.strip() == REFUSAL


@pytest.mark.parametrize("value", ["", "maybe", "Open", "none"])
def test_gunicorn_refuses_to_start_with_another_auth(sqlite_url: str, value: str) -> None:
    done = run(GUNICORN, sqlite_url, auth=value)
    assert done.returncode != 0
    assert "STATE_SERVICE_AUTH" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_start_on_a_public_address_requires_auth(sqlite_url: str, host: str) -> None:
    command = [*STATE_SERVICE, "--database", sqlite_url, "--host", host, "--port", str(free_port())]
    done = run(command, sqlite_url, without=["auth"])
    assert done.returncode == 2
    assert done.stderr == f"state_service: {REFUSAL}\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_start_on_loopback_is_open(sqlite_url: str, tmp_path: Path, seed: Path, host: str) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed, "--host", host, auth="") as server:
        assert server.ask("PUT", "/state?state=green_state").status == 200


def test_start_with_tokens_asks_for_one(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed, auth="tokens") as server:
        assert server.ask("GET", "/state?state=green_state").status == 401


# Settings


@pytest.mark.parametrize("command", [GUNICORN, STATE_SERVICE], ids=["gunicorn", "state_service"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", "many"), ("threads", "0"), ("pool_size", "x"), ("pooler", "perhaps"), ("database_url", "mysql://x/y")],
)
def test_bad_setting_stops_the_start(sqlite_url: str, command: tuple[str, ...], name: str, value: str) -> None:
    done = run(command, sqlite_url, **{name: value})
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert f"STATE_SERVICE_{name.upper()}" in done.stderr


def test_unknown_setting_is_warned_of(sqlite_url: str, tmp_path: Path) -> None:
    with running(sqlite_url, tmp_path, wokers="3") as server:
        assert "warning: unknown setting STATE_SERVICE_WOKERS" in server.log.read_text()


@pytest.fixture
def no_temporary_folder(tmp_path: Path) -> str:
    """A PYTHONPATH under which Python finds no folder for temporary files, as on a read-only root without /tmp."""
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/nonexistent']\n"
    )
    return str(tmp_path)


def test_start_without_a_temporary_folder_is_refused_in_one_line(sqlite_url: str, no_temporary_folder: str) -> None:
    variables = environment(sqlite_url, {}) | {"PYTHONPATH": no_temporary_folder}
    done = subprocess.run(GUNICORN, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "set TMPDIR" in done.stderr


FULL = """\
import os
def _full(*arguments):
    raise OSError(28, "No space left on device")
os.posix_fallocate = _full"""


def test_server_goes_on_without_room_for_its_counters(sqlite_url: str, tmp_path: Path) -> None:
    """A page of a mapped file that the disk has no room for would kill the worker that writes to it, and the master."""
    with running(sqlite_url, tmp_path, patched(tmp_path, FULL), workers="2") as server:
        server.import_chart("web", THREE)
        (held,) = server.hold("web", "second")
        workers = server.workers()
        assert server.put("web", "first").answer == (200, "first")
        assert held.result(10).answer == (200, "second")
        assert server.ask("GET", "/metrics").status == 200
        assert server.workers() == workers
    assert "counts none for /metrics" in server.log.read_text()


def test_server_ends_with_the_terminal_that_it_was_started_on(sqlite_url: str, tmp_path: Path) -> None:
    master, slave = os.openpty()
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            GUNICORN,
            env=environment(sqlite_url, {"bind": "127.0.0.1:0"}),
            stdin=slave,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # The terminal's end is told to those whose controlling terminal it is.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(slave)
    try:
        until(lambda: len(children_of(process.pid)) == 2, "its workers run", START_SECONDS)
        process.send_signal(signal.SIGHUP)
        until(lambda: "Handling signal: hup" in log.read_text(), "a hang-up is a reload", START_SECONDS)
        os.close(master)
        assert process.wait(20) == 0
    finally:
        end_group(process, 10)


def test_command_uses_its_own_libraries_when_another_virtual_environment_is_active(tmp_path: Path) -> None:
    other = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    variables = {"PATH": f"{other}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(other)}
    done = subprocess.run(
        [STATE_SERVICE[1], "--help"], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")


# The port


def test_start_changes_no_database_if_the_port_is_in_use(tmp_path: Path, seed: Path, taken_port: int) -> None:
    done = start(f"sqlite:///{tmp_path}/new.db", "--port", str(taken_port), "--chart", str(seed))
    assert done.returncode == 1
    assert done.stderr == f"state_service: cannot listen on 127.0.0.1:{taken_port}: Address already in use\n"
    assert not (tmp_path / "new.db").exists()


def test_start_changes_no_database_if_a_chart_is_bad(tmp_path: Path, seed: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("states: []\n")
    done = start(f"sqlite:///{tmp_path}/new.db", "--port", str(free_port()), "--chart", str(seed), "--chart", str(bad))
    assert done.returncode == 2
    assert f"{bad}:1:" in done.stderr
    assert not (tmp_path / "new.db").exists()


def test_start_imports_nothing_if_one_import_would_be_refused(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    """The second chart drops the state that is current; the second roster loses its machines."""
    other = tmp_path / "other.yaml"
    other.write_text(seed.read_text())
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.write_text("web-01\n")
    empty.write_text("# nobody\n")
    for arguments in (["chart", "import", str(other)], ["roster", "import", "lost", str(full)]):
        assert start(sqlite_url, *arguments).returncode == 0
    other.write_text(seed.read_text().replace("green_state", "lime_state"))
    port = ("--port", str(free_port()))
    for more in (["--chart", str(seed), "--chart", str(other)], ["--roster", f"lost={empty}", "--chart", str(seed)]):
        done = start(sqlite_url, *port, "--roster", f"new={full}", *more)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "new" not in start(sqlite_url, "roster", "list").stdout
    assert "states" not in start(sqlite_url, "chart", "list").stdout


def test_start_imports_a_roster_and_the_chart_that_follows_it(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    lines = tmp_path / "web"
    lines.write_text("web-01\n")
    seed.write_text("expect: {roster: web}\n" + seed.read_text())
    with serving(sqlite_url, tmp_path, "--roster", lines, "--chart", seed) as server:
        assert server.status("states")["expect"] == 1


def test_gunicorn_listens_on_a_socket_and_a_port(sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "own.sock"
    with running(sqlite_url, tmp_path, bind=f"127.0.0.1:0, unix:{path}") as server:
        assert server.ask("GET", "/healthz").status == 200
        done = run_curl("-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", str(path), "http://x/healthz")
        assert done.stdout == "200"


# The database


def test_start_is_refused_when_the_database_is_away(sqlite_url: str, seed: Path) -> None:
    done = start(f"postgresql://x@127.0.0.1:{free_port()}/x", "--chart", str(seed))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("state_service: ")


def test_start_is_refused_when_the_file_is_empty(tmp_path: Path, seed: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    done = start(f"sqlite:///{path}", "--chart", seed)
    assert done.returncode == 1
    assert f"{path} is empty" in done.stderr
    assert "backup" in done.stderr
    assert path.stat().st_size == 0, "nothing hides the loss"


def test_gunicorn_starts_without_its_database_and_heals(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "late.db"
    command, log = list(GUNICORN), tmp_path / "log"
    port = free_port()
    variables = environment(f"sqlite:///{path}", {"bind": f"127.0.0.1:{port}"})
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=GUNICORN_HOME, env=variables, stdout=output, stderr=output)
    server = Server(process, port, log, f"sqlite:///{path}")
    try:
        until(lambda: is_listening(port), "it listens", START_SECONDS)
        assert server.ask("GET", "/readyz").status == 503
        assert server.ask("GET", "/charts/states/state?state=x").status == 503
        path.write_bytes(sqlite_template.read_bytes())
        until(lambda: server.ask("GET", "/readyz").status == 200, "it is ready", 2)
    finally:
        server.stop()
        server.callers.shutdown()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


GUNICORN_HOME = Path(GUNICORN[4]).parent


# Options


@pytest.mark.parametrize("workers", ["1", "3"])
def test_workers_are_as_many_as_told(sqlite_url: str, tmp_path: Path, workers: str) -> None:
    with serving(sqlite_url, tmp_path, "--workers", workers, workers="1") as server:
        until(lambda: len(server.workers()) == int(workers), f"{workers} workers")


def test_debug_starts_and_logs_more(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed, "--debug") as server:
        assert server.ask("GET", "/state?state=green_state").status == 200
        assert '"level": "debug"' in server.log.read_text()


def test_logger_file_decides_where_the_log_goes(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    log, config = tmp_path / "service.log", tmp_path / "logger.yaml"
    config.write_text(
        "version: 1\ndisable_existing_loggers: false\n"
        "formatters: {short: {format: 'MINE %(name)s %(levelname)s'}}\n"
        f"handlers: {{file: {{class: logging.FileHandler, filename: '{log}', formatter: short}}}}\n"
        "loggers: {stateservice: {level: DEBUG, handlers: [file]}}\n"
    )
    with serving(sqlite_url, tmp_path, "--chart", seed, "--logger", config) as server:
        server.ask("GET", "/state?state=green_state")
        until(lambda: "MINE stateservice." in log.read_text(), "the log has a line")


@pytest.mark.parametrize("text", [None, "[", "version: 9", "x", "version: 1\nhandlers: {a: {class: no.such}}"])
def test_bad_logger_file_stops_the_start(sqlite_url: str, tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "logger.yaml"
    if text is not None:
        config.write_text(text)
    done = start(sqlite_url, "--logger", str(config))
    assert done.returncode == 2
    assert f"logger file {config}" in done.stderr
    assert "Traceback" not in done.stderr


def test_log_lines_are_json(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed) as server:
        server.ask("PUT", "/state?state=green_state&machine=web%22-01")
        server.ask("GET", "/state?state=a%0ab")
        server.ask("GET", "/charts/states/state?state=%ff")
        server.stop()
        lines = server.log.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("{"))
    records = [json.loads(line) for line in lines[first:]]
    assert all({"at", "level", "logger"} <= set(record) for record in records)
    # The lines before are the command's own messages on the terminal.
    assert all(line.startswith((str(seed), "states: ", "serving on ")) for line in lines[:first])


def test_relative_paths_are_those_of_the_folder_it_is_started_in(tmp_path: Path, seed: Path) -> None:
    port = free_port()
    command = [*STATE_SERVICE, "--chart", seed.name, "--port", str(port), "--database", "sqlite:///here.db"]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment("", {}), stdout=output, stderr=output)
    server = Server(process, port, log, "")
    try:
        until(lambda: is_listening(port), "it listens", START_SECONDS)
        assert server.ask("GET", "/state?state=green_state").status == 200
        assert (tmp_path / "here.db").exists()
    finally:
        server.stop()
        server.callers.shutdown()


def test_gunicorn_exits_2_for_a_short_secret_and_does_not_print_it(tmp_path: Path) -> None:
    secret = "only-thirty-one-characters-long"
    variables = environment(f"sqlite:///{tmp_path}/x.db", {"log_key": secret})
    done = subprocess.run(GUNICORN, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "STATE_SERVICE_LOG_KEY must have 32 characters" in done.stderr
    assert secret not in done.stderr
