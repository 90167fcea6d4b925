"""What is proved about real charts, and that `chart test` plays every story of a proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.chart_file import parse
from app.core.errors import BadRequestError
from app.lab.play import play
from app.lab.prove import Proved, prove
from app.lab.story import read_story

OLD = Path(__file__).parent / "charts"
STAGES = """
chart: stages
current_state: go
expect: 200
require_machine: true
states:
  - name: go
    func: increment
    slots: [1, 2, 5]
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: stop, when: {key: failed, value: 3}}
      - {name: done, when: {key: count, value: "95%"}}
  - name: stop
  - name: done
"""


def prove_text(text: str | bytes) -> Proved:
    chart = parse(text, default_name="x").chart
    return prove(chart, chart.expect or 0)


def limits(proved: Proved) -> dict[str, tuple[int | None, int | None]]:
    return {item.name: (item.down.most, item.begun.most) for item in proved.endings}


def test_stages_of_slots_limit_who_is_down_when_failures_stop_the_chart() -> None:
    # Two have failed and five are at work; one of these fails: three failed, four are at work.
    assert limits(prove_text(STAGES)) == {"stop": (7, 196), "done": (6, 196)}


def test_rolling_reboot_has_at_most_seven_of_twenty_down() -> None:
    proved = prove_text((OLD / "rolling-reboot.yaml").read_bytes())
    assert proved.most_down == 7
    lasting = [finding.because for finding in proved.list_findings("lasting")]
    assert lasting == ["with 1 or 2 lasting failures in reboot it can only end overdue"]


@pytest.mark.parametrize("file", ["canary.yaml", "kernel-rollout.yaml"])
def test_state_without_slots_is_unbounded(file: str) -> None:
    proved = prove_text((OLD / file).read_bytes())
    assert proved.most_down is None
    assert "has no slots" in proved.endings[0].down.because


@pytest.mark.parametrize("text", [STAGES.encode(), (OLD / "rolling-reboot.yaml").read_bytes()])
def test_every_story_of_a_proof_plays(text: bytes) -> None:
    stories = prove_text(text).as_stories("x.yaml")
    result = play(read_story(stories, lambda name: text))
    assert result.first_difference is None
    assert len(result.tales) > 4


SMALL = """
chart: small
current_state: go
expect: 5
require_machine: true
states:
  - name: go
    func: increment
    slots: 2
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: done, when: {key: count, value: 3}}
      - {name: far, when: {key: count, value: 5}}
      - {name: soon, when: {key: elapsed, value: 1h}}
      - {name: later, when: {key: elapsed, value: 2h}}
  - {name: done}
  - {name: far}
  - {name: soon}
  - {name: later}
"""


def test_transition_that_is_never_taken_is_named_with_its_reason() -> None:
    assert [finding.because for finding in prove_text(SMALL).list_findings("never")] == [
        "go -> far (count ≥ 5): count ≥ 3 ends the visit before, and leads to done",
        "go -> later (after 2h): a deadline that is listed before it always comes first",
        "far is never entered",
        "later is never entered",
    ]


def test_slots_that_nothing_frees_may_stop_a_state_for_ever() -> None:
    text = SMALL.replace("      - {name: soon, when: {key: elapsed, value: 1h}}\n", "").replace(
        "  - {name: soon}\n", ""
    )
    text = text.replace("      - {name: later, when: {key: elapsed, value: 2h}}\n", "").replace(
        "  - {name: later}\n", ""
    )
    stuck = [finding.because for finding in prove_text(text).list_findings("stuck")]
    assert stuck == [
        "with 3 to 5 lasting failures in go it never leaves go",
        "go is never left if the 2 machines with its first slots never come back: nothing frees a held slot",
    ]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("    slots: 2", "    slots: 2\n    expect: 9", "it has states with machines of their own"),
        ("expect: 5", "expect: {roster: web}", "it goes by rosters or by who reported before"),
    ],
)
def test_what_no_proof_covers_is_said(old: str, new: str, why: str) -> None:
    chart = parse(SMALL.replace(old, new, 1)).chart
    with pytest.raises(BadRequestError, match=why):
        prove(chart, 5)
