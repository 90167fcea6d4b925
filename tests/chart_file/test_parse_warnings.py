"""Warnings about charts that are valid but may be a mistake."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.chart_file import parse
from app.core.errors import Problem
from tests.chart_file.support import SEED

CYCLE = """\
current_state: day
states:
  - {name: day, func: time, target: {name: night, when: {key: elapsed, value: 12h}}}
  - name: night
    func: time
    target:
      - {name: end, when: {key: clock, value: "3000-01-01"}}
      - {name: day, when: {key: elapsed, value: 12h}}
  - name: end
"""


def test_parse_warns_about_a_counting_state_without_a_deadline() -> None:
    warnings = parse(SEED, name="x").warnings
    assert [(warning.line, warning.column) for warning in warnings] == [(3, 11), (9, 11)]
    assert warnings[0].message == "state 'green_state' has no transition by the clock: it may wait for ever"


def test_parse_warns_about_a_cycle_of_clock_transitions() -> None:
    message = "a cycle of clock transitions alone, which repeats by itself: 'day', 'night'"
    assert parse(CYCLE, name="x").warnings == (Problem(3, 12, message),)


def test_parse_does_not_warn_about_a_cycle_that_needs_a_report() -> None:
    text = CYCLE.replace("name: day, func: time", "name: day, func: increment, current: {key: c, value: 0}")
    text = text.replace("night, when: {key: elapsed, value: 12h}", "night, when: {key: c, value: 1}")
    assert [warning.message for warning in parse(text, name="x").warnings] == [
        "state 'day' has no transition by the clock: it may wait for ever"
    ]


def test_parse_warns_about_another_name() -> None:
    warnings = parse("chart: own\n" + CYCLE, name="given").warnings
    assert Problem(1, 8, "the file calls the chart 'own'; it is imported as 'given'") in warnings


def test_parse_does_not_warn_about_the_same_name() -> None:
    assert len(parse("chart: own\n" + CYCLE, name="own").warnings) == 1


@pytest.mark.parametrize("other", ["WEB-01", "web-01.", "Web-01."])
def test_parse_warns_about_two_spellings_of_a_machine(other: str) -> None:
    warnings = parse(f"expect: [web-01, {other}, web-02]\n" + CYCLE, name="x").warnings
    message = f"the machines 'web-01' and '{other}' may be one: the ids are compared exactly"
    assert Problem(1, 18, message) in warnings


@pytest.mark.parametrize(("year", "is_past"), [("2999", False), ("3000", True), ("3001", True)])
def test_parse_warns_about_an_instant_that_is_past(year: str, is_past: bool) -> None:
    warnings = parse(CYCLE, name="x", now=datetime(int(year), 1, 1, tzinfo=UTC)).warnings
    message = "'3000-01-01' is past: the transition is taken as soon as its state is entered"
    assert (Problem(7, 47, message) in warnings) is is_past
