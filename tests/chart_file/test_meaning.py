"""Warnings of meaning: each fires on the mistake that it names, and is silent once the mistake is mended."""

from __future__ import annotations

import pytest

from app.chart_file import parse

CHART = """chart: x
current_state: canary
expect: 20
states:
  - name: canary
    func: increment
    slots: 2
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: halted, when: {key: failed, value: 2}}
      - {name: fleet, when: {key: count, value: 5}}
      - {name: halted, when: {key: elapsed, value: 1h}}
  - name: fleet
    func: increment
    slots: 4
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: halted, when: {key: failed, value: 2}}
      - {name: done, when: {key: count, value: "100%"}}
      - {name: halted, when: {key: elapsed, value: 1d}}
  - name: done
  - name: halted
"""
DEADLINE = "      - {name: halted, when: {key: elapsed, value: 1d}}\n"
# What to replace, by what, and how the warning begins.
MISTAKES = {
    "a count without slots": ("    slots: 2\n", "", "'count >= 5' does not keep 'canary' to 5 machines"),
    "slots that never bind": ("slots: 4", "slots: [20, 30]", "the slots of 'fleet' never bind: there are 20, and 20"),
    "a plain PUT counts a failure": (
        "slots: 4\n    current: [{key: count, value: 0}, {key: failed, value: 0}]",
        "slots: 4\n    current: [{key: failed, value: 0}, {key: count, value: 0}]",
        "a plain PUT on 'fleet' counts a failure",
    ),
    "failed that no guard reads": (
        "      - {name: halted, when: {key: failed, value: 2}}\n      - {name: done",
        "      - {name: done",
        "no guard of 'fleet' reads 'failed'",
    ),
    "100% without a way out": (DEADLINE, "", "one failure that lasts leaves no way out of 'fleet'"),
    "a guard behind another": (
        DEADLINE,
        DEADLINE + "      - {name: halted, when: {key: failed, value: 3}}\n",
        "the transition to 'halted' at 'failed >= 3' is never taken: 'failed >= 2' holds before",
    ),
    "a deadline behind another": (
        DEADLINE,
        DEADLINE + "      - {name: done, when: {key: elapsed, value: 2d}}\n",
        "the transition to 'done' at 'elapsed 2d' is never taken: a deadline that is listed before it comes first",
    ),
}


@pytest.mark.parametrize(("old", "new", "start"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_warned_of_at_its_state(old: str, new: str, start: str) -> None:
    assert CHART.count(old) == 1
    found = [warning for warning in parse(CHART.replace(old, new)).warnings if warning.message.startswith(start)]
    assert [(warning.line, warning.column) for warning in found] == [(5 if "canary" in start else 13, 11)]


def test_chart_without_mistakes_is_not_warned_of() -> None:
    assert parse(CHART).warnings == ()


BY_ROSTER = CHART.replace("expect: 20", "expect: {roster: web}")
UNBOUND = ("slots: 4", 'slots: "100%"', "the slots of 'fleet' never bind: there are as many as machines that take part")


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [mistake for name, mistake in MISTAKES.items() if name != "slots that never bind"] + [UNBOUND],
    ids=[name for name in MISTAKES if name != "slots that never bind"] + ["slots for all"],
)
def test_mistake_is_warned_of_where_a_roster_says_who_takes_part(old: str, new: str, start: str) -> None:
    assert BY_ROSTER.count(old) == 1
    found = [warning.message for warning in parse(BY_ROSTER.replace(old, new)).warnings]
    assert [message.startswith(start) for message in found].count(True) == 1, found


def test_chart_by_a_roster_without_mistakes_is_warned_only_of_work_that_is_done_twice() -> None:
    (warning,) = parse(BY_ROSTER).warnings
    assert "do the work again in 'fleet'" in warning.message
    assert parse(BY_ROSTER.replace("  - name: fleet\n", "  - name: fleet\n    including: [canary]\n")).warnings == ()


def test_set_of_a_state_says_how_many_slots_never_bind() -> None:
    (warning,) = parse(CHART.replace("    slots: 4\n", "    expect: 4\n    slots: 4\n")).warnings
    assert warning.message == "the slots of 'fleet' never bind: there are 4, and 4 machines take part"


def test_state_that_counts_failures_alone_counts_one_at_a_plain_put() -> None:
    text = CHART.replace(
        """current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: halted, when: {key: failed, value: 2}}
      - {name: done, when: {key: count, value: "100%"}}
""",
        """current: {key: failed, value: 0}
    target:
      - {name: done, when: {key: failed, value: 2}}
""",
    )
    (warning,) = parse(text).warnings
    assert warning.message == (
        "a plain PUT on 'fleet' counts a failure, because its first attribute is 'failed';"
        " put an attribute that counts success first"
    )


LISTED = CHART.replace("expect: 20", "expect: [m1, m2, m3, m4, m5, m6, m7]")
AGAIN = "machines that are done in 'canary' are asked to do the work again in 'fleet'"


@pytest.mark.parametrize(
    ("old", "new", "is_warned"),
    [
        ("", "", True),
        ("  - name: fleet\n", "  - name: fleet\n    including: [canary]\n", False),
        ("{key: count, value: 5}", "{key: count, value: 7}", False),
        ("{key: count, value: 5}", '{key: count, value: "100%"}', False),
    ],
    ids=["the first five", "including", "all seven", "all of them"],
)
def test_list_of_machines_does_the_work_twice_if_some_did_it_before(old: str, new: str, is_warned: bool) -> None:
    found = [warning.message for warning in parse(LISTED.replace(old, new, 1)).warnings]
    assert [message.startswith(AGAIN) for message in found] == [True] * is_warned


ROSTERED = """\
chart: web
current_state: lb
expect: {roster: web}
states:
  - name: lb
    func: increment
    expect: {roster: web, where: {tier: lb}}
    current: {key: count, value: 0}
    target: [{name: all, when: {key: count, value: "90%"}}, {name: late, when: {key: elapsed, value: 1d}}]
  - name: all
    func: increment
    current: {key: count, value: 0}
    target: [{name: late, when: {key: count, value: "90%"}}, {name: late, when: {key: elapsed, value: 1d}}]
  - name: late
"""
TWICE = "machines that are done in 'lb' are asked to do the work again in 'all': 'including: [lb]' counts them there"


@pytest.mark.parametrize(
    ("old", "new", "warnings"),
    [
        ("", "", [TWICE]),
        ("  - name: all\n", "  - name: all\n    including: [lb]\n", []),
        ("  - name: all\n", "  - name: all\n    expect: {roster: web, where: {tier: app}}\n", []),
        ("  - name: all\n", "  - name: all\n    expect: {reported: [lb]}\n", []),
        ("  - name: all\n", "  - name: all\n    expect: {roster: web, where: {tier: [lb, app]}}\n", [TWICE]),
    ],
    ids=["same roster", "including", "another tier", "who reported", "a tier again"],
)
def test_work_that_is_done_twice_is_warned_of(old: str, new: str, warnings: list[str]) -> None:
    assert [warning.message for warning in parse(ROSTERED.replace(old, new, 1)).warnings] == warnings
