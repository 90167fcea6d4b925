"""The tables of the commands: on a terminal they fit its width, elsewhere they are plain."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import run_command
from tests.service.support import CANARY
from tests.support.servers import ROOT
from tests.support.terminal import run_on_terminal

NAME = "kernel-rollout-of-the-whole-fleet-in-all-zones"
HEADINGS = ["CHART", "CONDITION", "STATE", "RUN", "VERSION", "BECAUSE"]


@pytest.fixture
def url(sqlite_url: str, tmp_path: Path) -> str:
    """A database with a chart whose line in the list is longer than a terminal."""
    file = tmp_path / "chart.yaml"
    file.write_text(CANARY.replace("chart: web", f"chart: {NAME}"))
    assert run_command("--database", sqlite_url, "chart", "import", str(file)).code == 0
    return sqlite_url


def list_charts(url: str, columns: int, **settings: str) -> str:
    command = [sys.executable, str(ROOT / "state_service"), "--database", url, "chart", "list"]
    return run_on_terminal(command, ROOT, columns, settings)


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_table_fits_the_terminal_and_loses_nothing(url: str, columns: int) -> None:
    lines = without_colours(list_charts(url, columns)).splitlines()
    plain = run_command("--database", url, "chart", "list").out.splitlines()

    assert max(len(line) for line in lines) <= columns
    # Each word of each cell is there, in its column; a word that does not fit is cut into pieces.
    assert sorted("".join(lines).replace(" ", "")) == sorted("".join(plain).replace(" ", ""))
    assert (len(lines) > len(plain)) == (columns < 200)


def test_name_stays_whole_if_it_leaves_room_for_the_rest(sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "chart.yaml"
    file.write_text(CANARY.replace("chart: web", "chart: maintenance-window"))
    assert run_command("--database", sqlite_url, "chart", "import", str(file)).code == 0

    assert "maintenance-window" in list_charts(sqlite_url, 60)


def test_headings_are_bold_but_with_no_color(url: str) -> None:
    assert "\x1b[1m" in list_charts(url, 200)
    assert "\x1b" not in list_charts(url, 200, NO_COLOR="1")


@pytest.mark.parametrize("columns", [30, 80])
def test_watch_fits_the_terminal_and_loses_nothing(url: str, columns: int) -> None:
    goto = ("chart", "goto", NAME, "rollback", "--reason", "it panics on every host that has the old disks")
    assert run_command("--database", url, *goto).code == 0
    command = [sys.executable, str(ROOT / "state_service"), "--database", url, "chart", "watch", NAME]

    shown = run_on_terminal(command, ROOT, columns, {})
    plain = run_on_terminal(command, ROOT, columns, {"NO_COLOR": "1"})

    lines = without_colours(shown).splitlines()
    assert max(len(line) for line in lines) <= columns
    assert "it panics on every host that has the old disks" in " ".join(lines)
    # Clearing the screen is no colour.
    assert ("\x1b[31m\x1b[1m" in shown, "\x1b[31m" in plain) == (True, False)


def test_table_is_plain_if_it_is_no_terminal(url: str) -> None:
    headings, line = run_command("--database", url, "chart", "list", COLUMNS="50").out.splitlines()

    assert (headings.split(), line.split()[0]) == (HEADINGS, NAME)


def test_what_a_script_reads_is_printed_without_the_library_for_terminals(url: str) -> None:
    program = (
        "import sys; from app.cli.root import main; main(standalone_mode=False);"
        "sys.exit(any(name.split('.')[0] == 'rich' for name in sys.modules))"
    )
    command = [sys.executable, "-c", program, "--database", url, "chart", "list"]

    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode == 0


def test_closed_output_is_no_mistake_and_not_the_database(url: str) -> None:
    """A file that is opened while descriptor 1 is free would get what is printed."""
    command = ["sh", "-c", 'exec "$@" >&- <&-', "sh", sys.executable, "-m", "app.cli", "--database", url]
    listed = subprocess.run([*command, "chart", "list"], cwd=ROOT, stderr=subprocess.PIPE, timeout=60, check=False)

    assert (listed.returncode, listed.stderr) == (0, b"")
    assert run_command("--database", url, "db", "check").code == 0
