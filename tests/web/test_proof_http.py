"""What a proof finds happens to a running service, too: each of its stories, told over HTTP, ends as the proof says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.chart_file import parse
from app.chart_file.rosters import parse_labels
from app.core.expect import Labels
from app.lab.prove import prove
from app.lab.story import Expecting, Passing, Saying, StoryStep, read_story
from app.service.context import Service
from app.service.put import sweep
from tests.service.support import Clock
from tests.support.apps import ROOT

REBOOT = (ROOT / "tests" / "lab" / "charts" / "rolling-reboot.yaml").read_text()
RACKS = "".join(f"m{number} rack=r{number % 3} tier={'a' if number < 5 else 'b'}\n" for number in range(1, 9))
TIERS = """\
chart: tiers
current_state: first
expect: {roster: web}
states:
  - name: first
    func: increment
    expect: {roster: web, where: {tier: a}}
    slots: {total: 3, per: {rack: 1}}
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: undo, when: {key: failed, value: 2}}
      - {name: rest, when: {key: count, value: "50%"}}
      - {name: late, when: {key: elapsed, value: 2h}}
  - name: rest
    func: increment
    including: [first]
    slots: {total: "50%", per: {rack: 2}}
    lease: 1h
    on_expire: fail
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: undo, when: {key: failed, op: ">", value: "20%"}}
      - {name: done, when: {key: count, value: "75%"}}
      - {name: late, when: {key: elapsed, value: 1d}}
  - name: undo
    func: increment
    expect: {reported: [first, rest]}
    slots: 2
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: undone, when: {key: count, value: "100%"}}
      - {name: late, when: {key: elapsed, value: 1d}}
  - name: done
  - name: undone
  - name: late
"""


@pytest.fixture
def charts() -> Sequence[str]:
    return []


@pytest.fixture
def time_source() -> Clock:
    """The service's time, which a story moves."""
    return Clock()


def status(client: FlaskClient, chart: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/charts/{chart}", headers={"Accept": "application/json"}).get_json()
    return found


def say(client: FlaskClient, chart: str, saying: Saying) -> None:
    """Let each machine claim or report on the current state; it must be answered with a yes."""
    for machine in saying.machines:
        words = {"state": status(client, chart)["current_state"], "machine": machine, "key": saying.key}
        words |= {"again": "1"} if saying.again else {}
        place = "slot" if saying.verb == "claim" else "state"
        reply = client.put(
            f"/charts/{chart}/{place}", query_string={name: text for name, text in words.items() if text is not None}
        )
        assert reply.status_code == 200, (saying, reply.text)


def follow(client: FlaskClient, service: Service, clock: Clock, chart: str, step: StoryStep) -> None:
    match step.doing:
        case Saying():
            say(client, chart, step.doing)
        case Passing(span):
            clock.advance(span.total_seconds())
            sweep(service)
        case Expecting(wanted):
            here = status(client, chart)
            found = {"state": here["current_state"], "values": here["values"]}
            found["held"] = None if here["slots"] is None else here["slots"]["held"]
            assert {word: found[word] for word in wanted} == {word: value for word, (_, value) in wanted.items()}


@pytest.mark.parametrize(
    ("text", "lines", "stories"), [(REBOOT, "", 6), (TIERS, RACKS, 7)], ids=["one state", "a roster, racks and tiers"]
)
def test_every_story_of_a_proof_happens_over_http(
    client: FlaskClient, service: Service, clock: Clock, text: str, lines: str, stories: int
) -> None:
    rosters: dict[str, Mapping[str, Labels]] = {"web": parse_labels(lines.encode())} if lines else {}
    if lines:
        assert client.put("/rosters/web", data=lines).status_code == 201
    chart = parse(text).chart
    proved = prove(chart, 8 if lines else 20, rosters)
    story = read_story(proved.as_stories("x.yaml"), lambda name: text.encode(), rosters)
    assert len(story.tales) >= stories
    for number, tale in enumerate(story.tales):
        assert client.put(f"/charts/{chart.name}-{number}", data=text).status_code == 201
        for step in tale.steps:
            follow(client, service, clock, f"{chart.name}-{number}", step)
