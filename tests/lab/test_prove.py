"""What is proved about real charts, and that `chart test` plays every story of a proof."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from app.chart_file import parse
from app.core import telling
from app.core.chart import Chart
from app.core.errors import BadRequestError
from app.core.position import Verdict
from app.lab.play import play
from app.lab.prove import Proved, prove
from app.lab.story import read_story
from app.lab.world import World
from tests.core.support import NOON
from tests.support.apps import ROOT

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


INCLUDING = """  - name: done
    func: increment
    including: [go]
    current: {key: count, value: 0}
    target: {name: later, when: {key: count, op: '==', value: 4}}"""


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
def test_samples_keep_the_canary_to_the_numbers_that_their_comments_state(file: str) -> None:
    text = (ROOT / "charts" / file).read_text()
    assert "`./state_service chart prove` says that at\n# most 3 of them are down, and 5 have begun" in text
    canary, *others = prove_text(text).within
    assert canary.as_text() == "canary: at most 3 down, 5 begun"
    assert canary.as_json()["begun"] == {"most": 5, "unbounded": False, "because": None}
    assert {item.begun.most for item in others} == {None}
    assert "unbounded: state" in others[0].as_text()


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
        ("expect: 5", "expect: {roster: web}", "it goes by the roster 'web', and its lines are not known here"),
        (
            "  - {name: done}",
            INCLUDING,
            "it counts machines on entry to 'done' \\('including'\\), where a guard waits for a number they may skip",
        ),
    ],
)
def test_what_no_proof_covers_is_said(old: str, new: str, why: str) -> None:
    chart = parse(SMALL.replace(old, new, 1)).chart
    with pytest.raises(BadRequestError, match=why):
        prove(chart, 5)


ROSTER = {
    **{f"a{number}": {"tier": ("a",), "rack": (f"r{number % 3}",)} for number in range(6)},
    **{f"b{number}": {"tier": ("b",), "rack": (f"r{number % 2}", "r9")} for number in range(4)},
}
TIERS = """
chart: tiers
current_state: a
expect: {roster: web}
states:
  - name: a
    func: increment
    expect: {roster: web, where: {tier: a}}
    slots: {total: 4, per: {rack: 1}}
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: undo, when: {key: failed, value: 2}}, {name: b, when: {key: count, value: "60%"}}]
  - name: b
    func: increment
    including: [a]
    slots: {total: "30%", per: {rack: 2}}
    lease: 1h
    on_expire: fail
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: undo, when: {key: failed, op: ">", value: "20%"}}, {name: done, when: {key: count, value: "80%"}}]
  - name: undo
    func: increment
    expect: {reported: [a, b]}
    slots: {total: "50%"}
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: undone, when: {key: count, value: "100%"}}, {name: late, when: {key: elapsed, value: 1d}}]
  - {name: done}
  - {name: undone}
  - {name: late}
"""


def random_ending(chart: Chart, chance: Random) -> tuple[str, int, int]:
    """How a random life ends: the ending, and how many machines are down and have begun when it is reached."""
    world, begun, names = World(chart, NOON, {"web": ROSTER}), set[str](), list(ROSTER)
    down = 0
    while not chart.states[world.position.state].is_final:
        here, name = world.position, chance.choice(names)
        failed = {one for one, key in world.reports.items() if key == "failed"}
        before, visit = failed | set(here.slots), here.visit
        verb = chance.choice(["claim", "claim", "put", "fail", "pass"])
        if verb == "claim" and world.claim(here.state, name, again=chance.random() < 0.3).verdict is Verdict.ACCEPTED:
            begun.add(name)
        elif verb == "pass":
            world.pass_until(world.now + timedelta(minutes=chance.choice([1, 30, 700])))
        elif verb in ("put", "fail"):
            key = "count" if verb == "put" else "failed"
            step = world.put(here.state, name, key)
            if step.verdict is Verdict.ACCEPTED:
                before = before - {name} | ({name} if verb == "fail" else set())
        if world.position.visit != visit:
            down = len(before)
    return world.position.state, down, len(begun)


def test_no_random_life_by_a_roster_is_worse_than_the_proof() -> None:
    chart = parse(TIERS).chart
    proved = prove(chart, 10, {"web": ROSTER})
    bounds = limits(proved)
    worst: dict[str, int] = {}
    for seed in range(400):
        ending, down, begun = random_ending(chart, Random(seed))
        most, begun_most = bounds[ending]
        assert most is not None
        assert begun_most is not None
        assert (down <= most, begun <= begun_most) == (True, True), (seed, ending, down, begun)
        worst[ending] = max(worst.get(ending, 0), down)
    assert set(worst) == {"done", "undone", "late"}
    # The limits of groups are seen, and the numbers are not far from what happens.
    assert bounds == {"done": (4, 10), "undone": (4, 10), "late": (10, 10)}


def test_every_finding_of_a_chart_by_a_roster_has_a_story_that_plays() -> None:
    proved = prove(parse(TIERS).chart, 10, {"web": ROSTER})
    found = [limit for item in proved.endings for limit in (item.down, item.begun)]
    assert [(limit.story is None, limit.shown) for limit in found] == [(False, None)] * 6
    assert [finding.because for finding in proved.findings if finding.story is None] == []
    # Four slots, but one for each of three racks.
    assert "the 3 machines with its first slots never come back" in proved.findings[1].because
    result = play(read_story(proved.as_stories("x.yaml"), lambda name: TIERS.encode(), {"web": ROSTER}))
    assert result.first_difference is None
    assert len(result.tales) == 9


def test_story_that_shows_fewer_machines_than_the_limit_says_so() -> None:
    # The label rack alone would let two be down, the label row one; the proof takes the lower of the two.
    roster = {"m1": {"rack": ("a", "b")}, "m2": {"rack": ("a",)}, "m3": {"rack": ("b",)}}
    text = TIERS.replace("{tier: a}", "{rack: [a, b]}").replace("total: 4", "total: 3")
    chart = parse(text[: text.index("  - name: b")] + "  - {name: b}\n  - {name: undo}\n").chart
    (first, _) = prove(chart, 3, {"web": roster}).endings
    assert (first.name, first.down.most, first.down.shown) == ("b", 2, 1)
    assert "at most 2 of 3; the story that was found shows 1" in first.down.as_text(3)
    assert first.down.as_json("x.yaml")["shown"] == 1
    assert "no story was found that shows so many" in first.down.because


def test_proof_ends_although_its_stories_would_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told = prove(parse(TIERS).chart, 10, {"web": ROSTER})
    monkeypatch.setattr(telling, "MAX_TRIES_IN_ALL", 5)
    found = prove(parse(TIERS).chart, 10, {"web": ROSTER})
    assert limits(found) == limits(told)
    stories = [limit.story is None for item in found.endings for limit in (item.down, item.begun)]
    assert stories == [True] * 6
