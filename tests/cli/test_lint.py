"""`chart lint`: every problem at its line and column."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.apps import ROOT, SEED

BROKEN = """current_state: gren_state
states:
  - name: green_state
    func: incremnt
    current: {key: count, value: x}
    target: {name: nowhere, when: {key: cuont, value: 1}}
    colour: green
"""


def test_lint_prints_every_problem_as_file_line_column(bare: Run, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    done = bare("chart", "lint", str(path))
    assert done.code == 2
    lines = done.err.splitlines()
    assert all(re.fullmatch(rf"{re.escape(str(path))}:\d+:\d+: (error|warning): .+", line) for line in lines)
    assert [int(line.removeprefix(f"{path}:").split(":")[0]) for line in lines if ": error: " in line] == [
        1,
        4,
        5,
        6,
        6,
        7,
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("current_state: a\nstates: [\n", "3:1"),
        ("current_state: a\n\tstates: []\n", "2:1"),
        ("current_state: a\ncurrent_state: b\nstates: [{name: a}]\n", "2:1"),
        ("&x current_state: a\nstates: [{name: a}]\n", "1:1"),
        ("current_state: a\nstates: [{name: a}, {name: a}]\n", "2:28"),
        ("", "1:1"),
    ],
    ids=["not closed", "tab", "repeated key", "anchor", "duplicate state", "empty"],
)
def test_lint_prints_the_place_of_a_problem(bare: Run, tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    done = bare("chart", "lint", str(path))
    assert done.code == 2
    assert any(line.startswith(f"{path}:{place}: error: ") for line in done.err.splitlines()), done.err


def test_lint_says_that_a_good_file_is_fine(bare: Run, seed: str) -> None:
    done = bare("chart", "lint", seed)
    assert (done.code, done.out) == (0, f"{seed}: states, 3 states, fine\n")


def test_lint_warns_and_exits_0(bare: Run, seed: str) -> None:
    done = bare("chart", "lint", seed)
    assert re.search(rf"^{re.escape(seed)}:\d+:\d+: warning: ", done.err, re.MULTILINE)
    assert done.code == 0


def test_lint_goes_on_after_a_bad_file(bare: Run, tmp_path: Path, seed: str) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("[")
    done = bare("chart", "lint", str(bad), seed)
    assert done.code == 2
    assert "fine" in done.out
    assert str(bad) in done.err


def test_lint_prints_json(bare: Run, tmp_path: Path, seed: str) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("chart: x\nnonsense: 1\n")
    done = bare("chart", "lint", "--json", str(bad), seed)
    first, second = json.loads(done.out)
    assert (done.code, done.err) == (2, "")
    assert (first["file"], first["chart"], first["warnings"]) == (str(bad), None, [])
    assert {"line": 2, "column": 1} in [{key: item[key] for key in ("line", "column")} for item in first["problems"]]
    assert (second["chart"], second["states"], second["problems"]) == ("states", 3, [])
    assert [warning["message"] for warning in second["warnings"]] != []


def test_lint_accepts_every_sample_chart(bare: Run) -> None:
    files = sorted(str(path) for path in (ROOT / "charts").glob("*.yaml"))
    assert bare("chart", "lint", *files).code == 0


@pytest.mark.parametrize("text", [SEED, SEED.encode()], ids=["text", "bytes"])
def test_lint_reads_standard_input(bare: Run, text: str | bytes) -> None:
    done = bare("chart", "lint", "-", stdin=text)
    assert (done.code, done.out) == (0, "-: chart, 3 states, fine\n")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00", b"states: \xc3\x28"], ids=["not text", "NUL", "not UTF-8"])
def test_lint_refuses_a_file_that_is_not_text(bare: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bytes.yaml"
    path.write_bytes(content)
    done = bare("chart", "lint", str(path))
    assert done.code == 2
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+: error: ", done.err)


@pytest.mark.parametrize("file", ["missing.yaml", "."])
def test_lint_exits_2_when_a_file_cannot_be_read(bare: Run, file: str) -> None:
    done = bare("chart", "lint", file)
    assert done.code == 2
    assert done.err.startswith(f"state_service: {file}: ")


def test_lint_needs_a_file(bare: Run) -> None:
    assert bare("chart", "lint").code == 2


def test_lint_touches_no_database(bare: Run, seed: str, tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    assert bare("--database", f"sqlite:///{file}", "chart", "lint", seed).code == 0
    assert not file.exists()
