"""Starts as real processes: what stops gunicorn, and what a server that runs has been told.

What `./state_service` does before it becomes gunicorn is tested in tests/cli/test_serve.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import STATE_SERVICE, run, serving
from tests.support.apps import SEED
from tests.support.charts import THREE
from tests.support.processes import children_of, end_group, free_port, is_open, until
from tests.support.servers import GUNICORN, START_SECONDS, Server, environment, patched, run_curl, running

REFUSAL = "STATE_SERVICE_AUTH must say tokens or open"


# What stops gunicorn. Which settings are refused is tested in tests/cli/test_usage.py.


def test_gunicorn_refuses_to_start_without_auth(sqlite_url: str) -> None:
    done = run(GUNICORN, sqlite_url, without=["auth"])
    assert done.returncode != 0
    assert done.stderr.strip() == REFUSAL


SECRET = "only-thirty-one-characters-long"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("log_key", SECRET, "STATE_SERVICE_LOG_KEY must have 32 characters"),
        ("database_url", "mysql://x/y", "STATE_SERVICE_DATABASE_URL"),
    ],
)
def test_gunicorn_exits_2_for_a_setting_that_cannot_be(sqlite_url: str, name: str, value: str, message: str) -> None:
    done = run(GUNICORN, sqlite_url, **{name: value})
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


def test_gunicorn_exits_2_for_a_logger_file_with_a_class_that_does_not_exist(sqlite_url: str, tmp_path: Path) -> None:
    config = tmp_path / "logger.yaml"
    config.write_text("version: 1\nhandlers: {a: {class: no.such}}")
    done = run(GUNICORN, sqlite_url, logger=str(config))
    assert done.returncode == 2
    assert f"logger file {config}" in done.stderr
    assert "Traceback" not in done.stderr


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


# What a server has been told


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose options say otherwise than its environment."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "states.yaml").write_text(SEED)
    options = ("--chart", folder / "states.yaml", "--debug", "--workers", "3")
    with serving(f"sqlite:///{folder / 'state.db'}", folder, *options, auth="", workers="1", wokers="3") as server:
        yield server


def test_unknown_setting_is_warned_of(told: Server) -> None:
    assert "warning: unknown setting STATE_SERVICE_WOKERS" in told.log.read_text()


def test_workers_are_as_many_as_told(told: Server) -> None:
    until(lambda: len(told.workers()) == 3, "three workers")


def test_debug_logs_more(told: Server) -> None:
    assert told.ask("GET", "/state?state=green_state").status == 200
    assert '"level": "debug"' in told.log.read_text()


def test_log_lines_are_json(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(sqlite_url, tmp_path, "--chart", seed, workers="1") as server:
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


def test_logger_file_decides_where_the_log_goes(sqlite_url: str, tmp_path: Path, seed: Path) -> None:
    log, config = tmp_path / "service.log", tmp_path / "logger.yaml"
    config.write_text(
        "version: 1\ndisable_existing_loggers: false\n"
        "formatters: {short: {format: 'MINE %(name)s %(levelname)s'}}\n"
        f"handlers: {{file: {{class: logging.FileHandler, filename: '{log}', formatter: short}}}}\n"
        "loggers: {stateservice: {level: DEBUG, handlers: [file]}}\n"
    )
    with serving(sqlite_url, tmp_path, "--chart", seed, "--logger", config, workers="1") as server:
        server.ask("GET", "/state?state=green_state")
        until(lambda: "MINE stateservice." in log.read_text(), "the log has a line")


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
        assert held.result(30).answer == (200, "second")
        assert server.ask("GET", "/metrics").status == 200
        assert server.workers() == workers
    assert "counts none for /metrics" in server.log.read_text()


def test_server_ends_with_the_terminal_that_it_was_started_on(sqlite_url: str, tmp_path: Path) -> None:
    master, slave = os.openpty()
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            GUNICORN,
            env=environment(sqlite_url, {"bind": "127.0.0.1:0", "workers": "1"}),
            stdin=slave,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # The terminal's end is told to those whose controlling terminal it is.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(slave)
    try:
        until(lambda: len(children_of(process.pid)) == 1, "its worker runs", START_SECONDS)
        process.send_signal(signal.SIGHUP)
        until(lambda: "Handling signal: hup" in log.read_text(), "a hang-up is a reload", START_SECONDS)
        os.close(master)
        assert process.wait(20) == 0
    finally:
        end_group(process, 10)


def test_start_on_a_terminal_writes_short_lines(sqlite_url: str) -> None:
    master, slave = os.openpty()
    settings = environment(sqlite_url, {"bind": "127.0.0.1:0"})
    with subprocess.Popen(GUNICORN, env=settings, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)
        try:
            text = ""
            while "Booting worker" not in text:
                text += os.read(master, 4096).decode()
        finally:
            end_group(process, 10)
            os.close(master)
    lines = [line for line in text.splitlines() if line]
    assert [line for line in lines if "{" in line] == []
    assert any(re.search(r"^\d\d:\d\d:\d\d Listening at: http://127\.0\.0\.1:\d+", line) for line in lines)


def test_command_uses_its_own_libraries_when_another_virtual_environment_is_active(tmp_path: Path) -> None:
    other = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    variables = {"PATH": f"{other}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(other)}
    done = subprocess.run(
        [STATE_SERVICE[1], "--help"], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")


def test_gunicorn_listens_on_a_socket_and_a_port(sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "own.sock"
    with running(sqlite_url, tmp_path, bind=f"127.0.0.1:0, unix:{path}", workers="1") as server:
        assert server.ask("GET", "/healthz").status == 200
        done = run_curl("-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", str(path), "http://x/healthz")
        assert done.stdout == "200"


def test_gunicorn_starts_without_its_database_and_heals(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "late.db"
    command, log = list(GUNICORN), tmp_path / "log"
    port = free_port()
    variables = environment(f"sqlite:///{path}", {"bind": f"127.0.0.1:{port}", "workers": "1"})
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=GUNICORN_HOME, env=variables, stdout=output, stderr=output)
    server = Server(process, port, log, f"sqlite:///{path}")
    try:
        until(lambda: is_open(port), "it listens", START_SECONDS)
        assert server.ask("GET", "/readyz").status == 503
        assert server.ask("GET", "/charts/states/state?state=x").status == 503
        path.write_bytes(sqlite_template.read_bytes())
        until(lambda: server.ask("GET", "/readyz").status == 200, "it is ready")
    finally:
        server.stop()
        server.callers.shutdown()


GUNICORN_HOME = Path(GUNICORN[4]).parent
