"""`never` and `always` in a chart file: what can be broken is refused, with the story that breaks it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.chart_file import dump, parse
from app.core.errors import ChartFileError, Problem
from app.lab.play import play
from app.lab.story import read_story

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CHART = """chart: promised
current_state: canary
expect: 100
require_machine: true
PROMISES
states:
  - name: canary
    func: increment
    slots: 2
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: rollback, when: {key: failed, value: 1}}
      - {name: fleet, when: {key: count, value: 4}}
      - {name: overdue, when: {key: elapsed, value: 1h}}
  - name: fleet
    func: increment
    slots: [5, "10%"]
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: rollback, when: {key: failed, value: 3}}
      - {name: done, when: {key: count, value: "95%"}}
      - {name: overdue, when: {key: elapsed, value: 2d}}
  - name: rollback
  - name: overdue
  - name: done
"""


def with_promises(text: str) -> str:
    return CHART.replace("PROMISES", text)


def find_problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ChartFileError) as caught:
        parse(with_promises(text), now=NOW)
    return caught.value.problems


@pytest.mark.parametrize(
    "promise",
    [
        'never: {down: ">12", at: rollback}',
        'never: {down: ">12%", at: rollback}',
        'never: [{down: ">2", while: canary}, {begun: ">5", while: canary}]',
        'never: {begun: ">=6", at: fleet}',
        "always: {ends: [done, rollback, overdue], within: 3d}",
        "always: {ends: [done, rollback, overdue]}",
    ],
)
def test_promise_that_the_chart_keeps_is_accepted(promise: str) -> None:
    assert parse(with_promises(promise), now=NOW).chart.promises


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        ('never: {down: ">11", at: rollback}', "never down >11 at rollback can be broken: 12 machines can be down"),
        ('never: {down: ">=12%", at: rollback}', "never down >=12% at rollback can be broken: 12 machines can be down"),
        ('never: {down: ">1", while: canary}', "never down >1 while canary can be broken: 2 machines can be down"),
        ('never: {begun: ">4", while: canary}', "never begun >4 while canary can be broken: 5 machines can have begun"),
        ('never: {begun: ">4", at: fleet}', "never begun >4 at fleet can be broken: 5 machines can have begun"),
        (
            "always: {ends: [done, rollback]}",
            "always ends in done or rollback can be broken: it can end in 'overdue'",
        ),
        (
            "always: {ends: [done, rollback, overdue], within: 2d}",
            "always ends in done or rollback or overdue within 2d can be broken: it can take 2d 1h",
        ),
    ],
)
def test_promise_that_can_be_broken_is_refused_with_a_story_that_plays(promise: str, message: str) -> None:
    (problem,) = find_problems(promise)
    assert (problem.line, problem.message) == (5, message)
    result = play(read_story(problem.story, lambda name: CHART.replace("PROMISES", "").encode()))
    assert result.first_difference is None


def test_promise_about_a_state_without_slots_is_refused() -> None:
    text = with_promises('never: {begun: ">5", while: canary}').replace("    slots: 2\n", "")
    with pytest.raises(ChartFileError, match="state 'canary' has no slots"):
        parse(text, now=NOW)


def test_state_that_no_deadline_ends_breaks_a_promise_to_end() -> None:
    text = with_promises("always: {ends: [done, rollback, overdue]}")
    text = text.replace("      - {name: overdue, when: {key: elapsed, value: 2d}}\n", "")
    with pytest.raises(ChartFileError, match="no deadline ends 'fleet', so it can be there for ever"):
        parse(text, now=NOW)


def test_promise_that_a_slot_given_back_would_break_is_a_warning() -> None:
    warnings = parse(with_promises('never: {begun: ">5", while: canary}'), now=NOW).warnings
    assert any("if machines give slots back with DELETE" in warning.message for warning in warnings)


@pytest.mark.parametrize(
    ("promise", "column", "message"),
    [
        ('never: {begun: "<5", while: canary}', 16, "begun: '<5' is not a limit such as '>5', '>=6' or '>2%'"),
        (
            'never: {begun: ">5", while: cnary}',
            29,
            "while 'cnary' is not a state of this chart (did you mean 'canary'?)",
        ),
        ('never: {begun: ">5", down: ">5", at: done}', 8, "a promise of 'never' needs 'down' or 'begun', not both"),
        ('never: {begun: ">5"}', 8, "a promise of 'never' needs 'while' or 'at'"),
        ('never: {begun: ">5", while: done}', 29, "while: 'done' is final, so nothing happens in it; say 'at'"),
        ("never: often", 8, "a promise of 'never' must be a mapping, not 'often'"),
        ('never: {begn: ">5", at: done}', 9, "unknown key 'begn' (did you mean 'begun'?)"),
        ("always: {ends: fleet}", 16, "ends: 'fleet' is not a final state"),
        ("always: {within: 3d}", 9, "a promise of 'always' lacks the key 'ends'"),
        (
            "always: {ends: done, within: soon}",
            30,
            "within: 'soon' is not a length of time such as 90s, 30m, 6h, 2d or PT30M",
        ),
    ],
)
def test_problem_in_a_promise_has_its_place(promise: str, column: int, message: str) -> None:
    assert Problem(5, column, message) in find_problems(promise)


def test_export_has_the_promises() -> None:
    text = with_promises('never: [{down: ">12%", at: rollback}]\nalways: {ends: [done, rollback, overdue], within: 3d}')
    chart = parse(text, now=NOW).chart
    again = parse(dump(chart, state="canary", values={"count": 0, "failed": 0}), now=NOW).chart
    assert again.promises == chart.promises


def test_too_large_a_chart_is_refused_because_it_could_not_be_proved() -> None:
    limits = ", ".join(["1"] * 3000)
    text = (
        with_promises('never: {down: ">90", at: rollback}').replace('[5, "10%"]', f"[{limits}]").replace("100", "9999")
    )
    with pytest.raises(ChartFileError, match="not proved: over 500000 combinations"):
        parse(text, now=NOW)
