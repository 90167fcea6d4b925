"""Hostile chart files are refused quickly and raise only ChartFileError."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from app.chart_file import parse
from app.core.errors import ChartFileError, Problem
from tests.chart_file.support import SAMPLES, problems_of

MIB = 1 << 20
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{this}: &{this} {{<<: [{', '.join([f'*{last}'] * 9)}]}}\n"
    for last, this in zip("abcdefgh", "bcdefghi", strict=True)
)
LAUGHS = 'a: &a ["lol"]\n' + "".join(
    f"{this}: &{this} [{', '.join([f'*{last}'] * 9)}]\n" for last, this in zip("abcdefgh", "bcdefghi", strict=True)
)
TIME_STATE = "- {{name: s{0}, func: time, target: {{name: s{1}, when: {{key: elapsed, value: 1s}}}}}}\n"
BOMBS = {
    "merge keys": MERGE_BOMB,
    "billion laughs": LAUGHS,
    "5,000 brackets": "[" * 5000,
    "1 MiB of brackets": "[" * MIB,
    "1 MiB of braces": "{" * MIB,
    "1 MiB of dashes": "- " * (MIB // 2),
    "1 MiB of question marks": "? " * (MIB // 2),
    "unknown keys": "".join(f"k{number}: 1\n" for number in range(90_000)),
    "repeated keys": "a: 1\n" * 200_000,
    "tags": "- !!x a\n" * 130_000,
    "digits": "expect: " + "9" * (MIB - 100),
    "duplicate machines": "expect: [" + "a," * 500_000 + "]",
    "nameless states": "current_state: a\nstates:\n" + "- {}\n" * 10_000,
    "misspelt targets": "current_state: s0\nstates:\n"
    + "".join(TIME_STATE.format(number, f"0x{number}") for number in range(9000)),
    "no final state": "current_state: s0\nstates:\n"
    + "".join(TIME_STATE.format(number, (number + 1) % 9000) for number in range(9000)),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_parse_refuses_a_bomb_quickly(text: str) -> None:
    started = time.perf_counter()
    assert 1 <= len(problems_of(text)) <= 1001
    assert time.perf_counter() - started < 30  # about 1 s; the limit leaves room for a slow computer


def test_parse_reads_10_000_states_quickly() -> None:
    when = "when: {key: elapsed,value: 1s}"
    states = [f"- {{name: s{n},func: time,target: {{name: s{n + 1},{when}}}}}\n" for n in range(9_999)]
    started = time.perf_counter()
    chart = parse("chart: big\ncurrent_state: s0\nstates:\n" + "".join(states) + "- {name: s9999}\n").chart
    assert len(chart.states) == 10_000
    assert time.perf_counter() - started < 30  # about 1.3 s; the limit leaves room for a slow computer


def mutate(source: bytes, dice: random.Random) -> bytes:
    """Return the source with a few of its bytes changed, removed, doubled or moved."""
    data = bytearray(source)
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(data))
        end = min(len(data), start + dice.choice([1, 1, 1, 5, 40]))
        piece = bytes(data[start:end])
        other = dice.randrange(len(data))
        match dice.randrange(5):
            case 0:
                data[start] = dice.randrange(256)
            case 1:
                data[start:end] = b""
            case 2:
                data[start:start] = piece
            case 3:
                data[other:other] = piece
            case _:
                data[start:start] = dice.choice(INSERTS)
    return bytes(data)


INSERTS = [
    b"&a ",
    b"*a",
    b"!!str ",
    b"\n---\n",
    b"'",
    b'"',
    b"[",
    b"{",
    b"}",
    b"]",
    b": ",
    b"- ",
    b"\t",
    b"\0",
    b"%",
    b"|",
]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_parse_of_a_mutant_raises_only_chart_file_errors(path: Path) -> None:
    dice = random.Random(path.stem)
    source = path.read_bytes()
    for _ in range(400):
        found = find_problems(mutate(source, dice))
        assert found is None or found
        assert all(problem.line >= 1 and problem.column >= 1 for problem in found or ())


def find_problems(source: bytes) -> tuple[Problem, ...] | None:
    """Return the problems, or None if the source is a valid chart file."""
    try:
        parse(source, default_name="mutant")
    except ChartFileError as error:
        return error.problems
    return None
