"""docs/lab.md, run from top to end: its YAML blocks become files, and each command prints what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli.root import main
from tests.support.docs import read_page

PAGE = read_page("docs/lab.md")
# A block of YAML that begins with `# FILE`, or a command with what it prints.
PART = re.compile(
    r"```yaml\n# (?P<file>\S+)\n(?P<text>.*?)```|```sh\n(?P<command>[^\n]+)\n```\n\n```text\n(?P<shown>.*?)```", re.S
)


def run(command: str) -> str:
    program, *words = shlex.split(command)
    assert program == "./state_service"
    return CliRunner().invoke(main, words).output


def test_page_shows_what_the_commands_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = 0
    for part in PART.finditer(PAGE):
        if part["file"]:
            Path(part["file"]).write_text(f"# {part['file']}\n{part['text']}")
        else:
            commands += 1
            assert run(part["command"]) == part["shown"], part["command"]
    assert commands == len(re.findall(r"```text\n", PAGE)) > 3
