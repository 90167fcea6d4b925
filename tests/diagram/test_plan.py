"""What a chart is meant to do, as its guards show."""

from __future__ import annotations

from app.core.plan import find_main_path, list_failed_endings
from tests.diagram.support import ROLLOUT, parsed

LOOP = """\
current_state: load
states:
  - name: load
    func: increment
    current: {key: count, value: 0}
    target: {name: publish, when: {key: count, value: 3}}
  - name: publish
    func: increment
    current: {key: count, value: 0}
    target: [{name: load, when: {key: count, value: 1}}, {name: stopped, when: {key: elapsed, value: 2d}}]
  - name: stopped
"""
VOTE = """\
current_state: vote
states:
  - name: vote
    func: increment
    current: [{key: "yes", value: 0}, {key: "no", value: 0}]
    target: [{name: accepted, when: {key: "yes", value: 5}}, {name: rejected, when: {key: "no", value: 3}}]
  - name: accepted
  - name: rejected
"""


def test_main_path_follows_first_attributes_and_planned_clocks() -> None:
    assert find_main_path(parsed(ROLLOUT)) == ["canary", "fleet", "freeze", "done"]


def test_main_path_ends_before_a_state_repeats() -> None:
    assert find_main_path(parsed(LOOP)) == ["load", "publish"]


def test_failed_endings_are_not_reached_by_planned_transitions() -> None:
    assert list_failed_endings(parsed(ROLLOUT)) == {"rolled_back", "overdue"}


def test_ending_by_deadline_is_failed() -> None:
    assert list_failed_endings(parsed(LOOP)) == {"stopped"}


def test_ending_by_another_attribute_is_failed() -> None:
    assert list_failed_endings(parsed(VOTE)) == {"rejected"}


def test_final_initial_state_is_a_good_ending() -> None:
    assert list_failed_endings(parsed("current_state: end\nstates: [{name: end}]\n")) == frozenset()
