"""What is released: the wheel in a fresh virtual environment, and the single file with Python alone."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.config import VERSION
from release import share
from tests.support.processes import end_group, free_port, until
from tests.support.servers import ROOT, Server, environment
from tests.support.terminal import run_on_terminal

sys.path.insert(0, str(ROOT / "release"))
import backend
import single


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `stateservice`, installed from the wheel into a virtual environment; the libraries are this one's."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = folder / backend.build_wheel(str(folder))
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        str(wheel),
    )
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.with_name("stateservice")


@pytest.fixture(scope="module")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("single") / "stateservice.pyz"
    single.build(file)
    return file


@pytest.fixture(params=["wheel", "single file"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """How the released program is run, with nothing of this checkout in the way."""
    if request.param == "wheel":
        return [str(request.getfixturevalue("program"))]
    # -S: without the libraries of this virtual environment. The processes that serve find theirs by PYTHONPATH.
    return [sys._base_executable, "-S", str(request.getfixturevalue("single_file"))]  # type: ignore[attr-defined]


def run(*command: str, **settings: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=settings or None)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(command: list[str], folder: Path, port: int) -> Iterator[Server]:
    """Run a released program that serves; what it needs it finds in its own files, from any folder."""
    own = environment("", {"auth": ""}) | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    own = {name: value for name, value in own.items() if not name.startswith("STATE_SERVICE_") and name != "PYTHONPATH"}
    log = folder / "log"
    with log.open("w") as written:
        output: dict[str, Any] = {"stdout": written, "stderr": written, "text": True}
        process = subprocess.Popen(command, cwd=folder, env=own, start_new_session=True, **output)
    server = Server(process, port, log, "")
    try:
        until(lambda: process.poll() is not None or is_ready(server), f"no start: {log.read_text()}", 60)
        assert process.poll() is None, log.read_text()
        yield server
    finally:
        end_group(process, 40)


def is_ready(server: Server) -> bool:
    try:
        return server.ask("GET", "/readyz").status == 200
    except OSError:
        return False


def test_released_program_serves_a_chart(command: list[str], tmp_path: Path) -> None:
    chart, port = ROOT / "charts" / "states.yaml", free_port()

    with serving([*command, "serve", "--chart", str(chart), "--port", str(port)], tmp_path, port) as server:
        answer = server.ask("GET", "/state?state=green_state")
        pages = [server.ask("GET", path).status for path in ("/", "/charts/states", "/static/app.css", "/openapi.json")]

    assert (answer.status, answer.body.strip()) == (200, "green_state")
    assert pages == [200] * 4
    # The database is the user's: the program's own files may be another's.
    assert (tmp_path / ".local" / "share" / "stateservice" / "state_service.db").exists()


def test_demo_moves_its_charts(program: Path, tmp_path: Path) -> None:
    port = free_port()

    with serving([str(program), "demo", "--port", str(port)], tmp_path, port) as server:
        until(lambda: server.history("kernel-demo", kind="update"), "no machine of the demo has reported", 60)
        charts = {chart["chart"] for chart in server.ask("GET", "/charts", Accept="application/json").json()}

    assert charts == {"kernel-demo", "reboot-demo", "approved-change"}


def test_released_program_has_one_version_and_its_own_name(program: Path) -> None:
    assert run(str(program), "--version") == f"stateservice, version {VERSION}\n"
    assert "stateservice chart lint" in run(str(program), "chart", "lint", "--help")
    assert "./state_service" not in run(str(program), "--help")
    refused = subprocess.run([program, "chart", "lint", "none.yaml"], capture_output=True, text=True, check=False)
    assert refused.stderr.startswith("stateservice: none.yaml")


def test_wheel_carries_the_man_page_completion_charts_and_migrations(program: Path) -> None:
    venv = program.parent.parent
    (home,) = venv.glob("lib/python*/site-packages/stateservice/home")

    assert (venv / "share/man/man1/stateservice.1").read_bytes() == (ROOT / "release/share/stateservice.1").read_bytes()
    assert (venv / "share/bash-completion/completions/stateservice").exists()
    for part in ("charts/canary.yaml", "charts/stories/canary.story.yaml", "alembic.ini", "app/static/app.css"):
        assert (home / part).read_bytes() == (ROOT / part).read_bytes()
    names = [{path.name for path in (top / "migrations" / "versions").glob("*.py")} for top in (home, ROOT)]
    assert names[0] == names[1]
    # Nothing beside the package is put where every program would import it.
    beside = {path.name for path in home.parent.parent.iterdir()} - {"__pycache__"}
    assert beside == {"stateservice", f"stateservice-{VERSION}.dist-info", "libraries.pth"}


def test_two_builds_of_the_wheel_are_the_same(tmp_path: Path) -> None:
    built = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        built.append((tmp_path / name / backend.build_wheel(str(tmp_path / name))).read_bytes())

    assert built[0] == built[1]


def test_released_program_prints_tables_that_fit_a_terminal(command: list[str], tmp_path: Path) -> None:
    file = ROOT / "charts" / "states.yaml"
    own = {"HOME": str(tmp_path), "STATE_SERVICE_DATABASE_URL": f"sqlite:///{tmp_path / 'x.db'}", "NO_COLOR": "1"}
    for words in (["db", "upgrade"], ["chart", "import", str(file), "--name", "n" * 60]):
        run(*command, *words, **own)

    lines = run_on_terminal([*command, "chart", "list"], tmp_path, 60, own).splitlines()

    assert (lines[0].split()[:2], max(map(len, lines)) <= 60) == (["CHART", "CONDITION"], True)


def test_single_file_has_no_compiled_part(single_file: Path) -> None:
    with zipfile.ZipFile(single_file) as archive:
        names = archive.namelist()

    assert not [name for name in names if name.endswith((".so", ".pyd"))]
    assert "site/stateservice/home/app/web/openapi.yaml" in names


def test_single_file_is_built_without_the_tools_of_developers() -> None:
    """`make dist` comes after `make run`, which installs what the service needs alone."""
    run(sys.executable, "-S", "-c", "import single", PYTHONPATH=str(ROOT / "release"))


@pytest.mark.parametrize("name", list(share.list_texts()))
def test_man_page_and_completion_are_those_of_the_commands(name: str) -> None:
    """Otherwise: `make share`."""
    assert (ROOT / "release" / "share" / name).read_text() == share.list_texts()[name]
