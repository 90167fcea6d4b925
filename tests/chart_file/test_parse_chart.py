"""Reading a valid chart file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chart_file import parse
from app.core.chart import (
    Attribute,
    ClockGuard,
    CountGuard,
    ElapsedGuard,
    Func,
    OnExpire,
    Op,
    SlotRule,
    Transition,
    compare,
    round_share,
)
from tests.chart_file.support import SAMPLES, SEED, counted, read, timed


def test_parse_reads_the_seed() -> None:
    chart = read(SEED)
    green = chart.states["green_state"]
    assert (chart.name, chart.initial, list(chart.states)) == (
        "test",
        "green_state",
        ["green_state", "red_state", "blue_state"],
    )
    assert green.func is Func.INCREMENT
    assert green.attributes == (Attribute("count", 0),)
    assert green.transitions == (Transition("red_state", CountGuard("count", Op.GE, 1, "1")),)
    assert chart.states["blue_state"].is_final


@pytest.mark.parametrize("source", [SEED, SEED.encode(), "\ufeff" + SEED, SEED.replace("\n", "\r\n")])
@pytest.mark.parametrize("heading", ["", "--- states.yaml ---\n", "---\n"], ids=["none", "named", "document"])
def test_parse_reads_the_seed_in_any_encoding_and_with_any_heading(source: str | bytes, heading: str) -> None:
    dressed = heading + source if isinstance(source, str) else heading.encode() + source
    if heading and isinstance(source, str) and source.startswith("\ufeff"):
        dressed = "\ufeff" + heading + source[1:]
    assert read(dressed) == read(SEED)


def test_parse_returns_the_text_as_it_was_given() -> None:
    text = "\ufeff--- states.yaml ---\r\n" + SEED
    assert parse(text.encode(), default_name="x").text == text


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_parse_reads_a_sample(path: Path) -> None:
    assert parse(path.read_bytes(), default_name=path.stem).chart.name == path.stem


@pytest.mark.parametrize("path", [one for one in SAMPLES if one.stem != "states"], ids=lambda path: path.stem)
def test_parse_does_not_warn_about_a_sample(path: Path) -> None:
    assert parse(path.read_bytes()).warnings == ()


@pytest.mark.parametrize("name", ["off", "12:30", "017", "2024-01-01", "null", "1e3", "yes", "a b", ".", "x" * 128])
def test_parse_keeps_the_name_of_a_state(name: str) -> None:
    assert list(read(f"current_state: {name}\nstates: [{{name: {name}}}]").states) == [name]


def test_parse_reads_the_keys_of_the_chart() -> None:
    chart = read(SEED + "chart: c:1\ndescription: some words\nexpect: 007\nrequire_machine: Yes\n")
    assert (chart.name, chart.description, chart.expect, chart.require_machine) == ("c:1", "some words", 7, True)


def test_parse_reads_a_roster() -> None:
    chart = read(SEED + "expect: [web-01, 'off', 017, 'a: b']\n")
    assert (chart.expect, chart.roster) == (4, ("web-01", "off", "017", "a: b"))


@pytest.mark.parametrize("word", ["true", "TRUE", "yes", "On"])
def test_parse_reads_a_true_word(word: str) -> None:
    assert read(SEED + f"require_machine: {word}").require_machine


@pytest.mark.parametrize("word", ["false", "No", "OFF"])
def test_parse_reads_a_false_word(word: str) -> None:
    assert not read(SEED + f"require_machine: {word}").require_machine


@pytest.mark.parametrize(
    ("func", "written", "op"),
    [
        ("increment", "", Op.GE),
        ("decrement", "", Op.LE),
        ("increment", "op: '!=', ", Op.NE),
        ("decrement", "op: >, ", Op.GT),
    ],
)
def test_parse_reads_an_op_or_takes_the_default(func: str, written: str, op: Op) -> None:
    written = written.replace(">,", "'>',")
    guard = read(counted(f"{{key: count, {written}value: 3}}", func=func)).states["a"].transitions[0].guard
    assert guard == CountGuard("count", op, 3, "3")


@pytest.mark.parametrize(
    ("written", "expect", "threshold"),
    [
        ("95%", 5000, 4750),
        ("1%", 50, 1),
        ("1%", 101, 2),
        ("0%", 9, 1),
        ("0.1%", 3000, 3),
        ("0.1%", 3001, 4),
        ("33.3%", 1000, 333),
        ("100%", 2**63 - 1, 2**63 - 1),
    ],
)
def test_parse_rounds_a_percentage_up_for_at_least(written: str, expect: int, threshold: int) -> None:
    chart = read(counted(f'{{key: count, value: "{written}"}}', head=f"expect: {expect}"))
    assert chart.states["a"].transitions[0].guard == CountGuard("count", Op.GE, threshold, written)


@pytest.mark.parametrize(
    ("op", "written", "threshold"),
    [
        (">", "10%", 1),
        (">", "0%", 0),
        (">", "50%", 7),
        (">=", "95%", 14),
        (">=", "0%", 1),
        ("<", "10%", 2),
        ("<", "50%", 7),
        ("<=", "10%", 1),
        ("<=", "5%", 0),
        ("==", "50%", 7),
        ("!=", "0%", 0),
    ],
)
def test_parse_compares_a_percentage_as_the_exact_share(op: str, written: str, threshold: int) -> None:
    guard = f'{{key: count, op: "{op}", value: "{written}"}}'
    found = read(counted(guard, head="expect: 14")).states["a"].transitions[0].guard
    assert found == CountGuard("count", Op(op), threshold, written)


def test_parse_rounds_a_percentage_down_for_a_guard_without_op_in_a_decrement_state() -> None:
    guard = '{key: count, value: "10%"}'
    found = read(counted(guard, head="expect: 14", func="decrement")).states["a"].transitions[0].guard
    assert found == CountGuard("count", Op.LE, 1, "10%")


@given(op=st.sampled_from([Op.GE, Op.GT, Op.LE, Op.LT]), expect=st.integers(1, 60), tenths=st.integers(0, 1000))
def test_rounded_share_compares_as_the_exact_share(op: Op, expect: int, tenths: int) -> None:
    exact = Fraction(expect * tenths, 1000)
    rounded = round_share(exact, op)
    # `>=` is never below 1, so a count of 0 does not hold.
    for count in range(1 if op is Op.GE else -1, expect + 2):
        assert compare(op, count, rounded) == compare(op, count, exact)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "written", ["9223372036854775807", "-9223372036854775808", "+5", "-0", "0000000000000000000012"]
)
def test_parse_reads_an_integer(written: str) -> None:
    guard = read(counted(f"{{key: count, value: {written}}}")).states["a"].transitions[0].guard
    assert guard == CountGuard("count", Op.GE, int(written), written)


@pytest.mark.parametrize(
    ("written", "age"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("6h", timedelta(hours=6)),
        ("2d", timedelta(days=2)),
        ("0s", timedelta(0)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("PT30M", timedelta(minutes=30)),
        ("P1DT2H", timedelta(days=1, hours=2)),
        ("PT1.5S", timedelta(seconds=1.5)),
        ("P2W", timedelta(weeks=2)),
        ("36525d", timedelta(days=36525)),
    ],
)
def test_parse_reads_an_elapsed_guard(written: str, age: timedelta) -> None:
    guard = read(timed(f"{{key: elapsed, value: {written}}}")).states["a"].transitions[0].guard
    assert guard == ElapsedGuard(age, written)


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("3000-01-01T12:00:00", datetime(3000, 1, 1, 12, tzinfo=UTC)),
        ("3000-01-01T12:00:00Z", datetime(3000, 1, 1, 12, tzinfo=UTC)),
        ("3000-01-01T12:00:00+02:00", datetime(3000, 1, 1, 10, tzinfo=UTC)),
        ("3000-01-01", datetime(3000, 1, 1, tzinfo=UTC)),
    ],
)
def test_parse_reads_a_clock_guard_in_utc(written: str, instant: datetime) -> None:
    guard = read(timed(f"{{key: clock, value: '{written}', op: '>='}}")).states["a"].transitions[0].guard
    assert guard == ClockGuard(instant, written)
    assert guard.instant.tzinfo is UTC


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("slots: 10", SlotRule(stages=(10,), written=("10",))),
        ("slots: 5%", SlotRule(stages=(2,), written=("5%",))),
        ("slots: [1, 10, 5%]", SlotRule(stages=(1, 10, 2), written=("1", "10", "5%"))),
        (
            "slots: 3, lease: 45m",
            SlotRule(stages=(3,), written=("3",), lease=timedelta(minutes=45), lease_written="45m"),
        ),
        (
            "slots: 3, lease: PT1H, on_expire: fail",
            SlotRule(
                stages=(3,), written=("3",), lease=timedelta(hours=1), lease_written="PT1H", on_expire=OnExpire.FAIL
            ),
        ),
        ("slots: 3, on_expire: hold", SlotRule(stages=(3,), written=("3",))),
    ],
    ids=["number", "share", "stages", "lease", "fail", "hold"],
)
def test_parse_reads_slots(written: str, rule: SlotRule) -> None:
    chart = read(counted("{key: count, value: 1}", head="expect: 40", more=", " + written))
    assert chart.states["a"].slots == rule


def test_parse_accepts_a_final_state_with_attributes() -> None:
    chart = read("current_state: a\nstates: [{name: a, current: {key: count, value: 3}}]")
    assert chart.states["a"].is_final
    assert chart.states["a"].attributes == (Attribute("count", 3),)


def test_parse_treats_empty_lists_as_missing() -> None:
    assert read("current_state: a\nstates: [{name: a, current: [], target: []}]").states["a"].is_final


def test_parse_accepts_a_current_state_in_the_middle_of_the_path() -> None:
    assert read(SEED.replace("current_state: green_state", "current_state: blue_state")).initial == "blue_state"


@pytest.mark.parametrize(
    ("written", "given", "fallback", "name"),
    [
        (None, None, "stem", "stem"),
        ("own", None, "stem", "own"),
        ("own", "given", "stem", "given"),
        (None, "given", "bad stem", "given"),
        ("own", None, "bad stem", "own"),
    ],
)
def test_parse_finds_the_name(written: str | None, given: str | None, fallback: str, name: str) -> None:
    text = SEED if written is None else f"chart: {written}\n{SEED}"
    assert parse(text, name=given, default_name=fallback).chart.name == name
