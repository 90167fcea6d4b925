"""`GET /charts/C?at=INSTANT` is what `GET /charts/C` answered at that instant, whatever has happened since."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.service import past
from app.service.context import Service
from app.service.past import Checkpointer
from app.service.put import sweep
from tests.service.support import CANARY, REBOOT, ROSTERED, Clock
from tests.support.examples import IS_ALL

TIERS = """\
chart: web
current_state: first
expect: {roster: fleet}
states:
- name: first
  func: increment
  expect: {roster: fleet, where: {tier: a}}
  slots: {total: 3, per: {rack: 1}}
  lease: 100s
  on_expire: fail
  windows: [{from: '11:00', to: '12:30', zone: UTC}]
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: [{name: undo, when: {key: failed, value: 2}}, {name: second, when: {key: count, value: 2}}]
- name: second
  func: increment
  including: [first]
  slots: {total: "50%", per: {rack: 1}}
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: [{name: done, when: {key: count, value: "100%"}}, {name: undo, when: {key: elapsed, value: 600s}}]
- name: undo
  func: increment
  expect: {reported: [first, second]}
  current: {key: count, value: 0}
  target: {name: undone, when: {key: count, value: "100%"}}
- name: done
- name: undone
"""
CHARTS = [CANARY, REBOOT, ROSTERED, REBOOT.replace("slots: 2", "slots: [1, 2]"), TIERS, TIERS.replace("600s", "90s")]
MACHINES = ["m1", "m2", "m3", "m4", "m5"]
ROSTERS = [
    "m1 tier=a rack=1\nm2 tier=a rack=1\nm3 tier=a rack=2\nm4 rack=1\nm5 rack=2\n",
    "m1 tier=a rack=1\nm3 tier=a rack=2\nm4 tier=a rack=3\nm5 rack=2\n",
    "m1 tier=a rack=1\nm2 rack=1\nm3 tier=a rack=1\n",
]
Answer = tuple[int, dict[str, Any] | None]


@pytest.fixture
def charts() -> Sequence[str]:
    return []


@pytest.fixture
def time_source() -> Clock | None:
    return Clock()


class Life:
    """A chart to which anything may happen over HTTP, and what it answered at each instant."""

    def __init__(self, client: FlaskClient, service: Service, clock: Clock, seed: int) -> None:
        self.client, self.service, self.clock = client, service, clock
        self.chance = random.Random(seed)
        self.answered: dict[datetime, Answer] = {}
        self.states: set[str] = set()
        self.checkpointer = Checkpointer(service)
        client.put("/rosters/fleet", data=ROSTERS[0])

    def ask(self, at: datetime | None = None) -> Answer:
        """The status now or at an instant, but for what is not told of the past.

        That is who waits for a slot, and which machines of a roster, or of those that reported before, are missing.
        """
        query = {} if at is None else {"at": at.isoformat()}
        answer = self.client.get("/charts/web", query_string=query)
        if answer.status_code != 200:
            return answer.status_code, None
        fields = answer.get_json()
        if fields["slots"] is not None:
            fields["slots"].pop("waiting")
        if fields["current_state"] in ("first", "second", "undo"):
            fields["waits_for"] = re.sub("; not heard from: [^;]*", "", fields["waits_for"])
        return 200, fields

    def live(self, instants: int) -> None:
        """Let things happen, and note what is answered at so many instants after them or between them."""
        while len(self.answered) < instants:
            self.clock.advance(self.chance.choice([1, 3, 3, 20, 20, 60, 140]) + self.chance.random())
            if self.chance.random() < 0.8:
                sweep(self.service)
            if self.chance.random() < 0.7:
                self._act()
            if self.chance.random() < 0.2:
                self.checkpointer.look()
            self.answered[self.clock.now] = found = self.ask()
            self.states.add("" if found[1] is None else found[1]["current_state"])

    def _act(self) -> None:
        chance, status = self.chance, self.ask()[1]
        if status is None:
            self.client.put("/charts/web", data=chance.choice(CHARTS))
            return
        where = {"state": status["current_state"], "machine": chance.choice(MACHINES)}
        reason = {"reason": "why"}
        match chance.choice("p" * 12 + "c" * 8 + "rreaassggotuux"):
            case "p":
                key = {} if chance.random() < 0.7 else {"key": "failed"}
                self.client.put("/charts/web/state", query_string={**where, **key})
            case "c":
                self.client.put("/charts/web/slot", query_string=where)
            case "r":
                self.client.delete("/charts/web/slot", query_string=where)
            case "e":
                self.client.post("/charts/web/evict", json={**reason, "machine": where["machine"]})
            case "a":
                self.client.post(f"/charts/web/{'resume' if status['paused'] else 'pause'}", json=reason)
            case "s":
                self.client.post("/charts/web/reset", json=reason)
            case "g":
                state = chance.choice(["first", "second", "reboot", "canary", where["state"]])
                self.client.post("/charts/web/goto", json={**reason, "state": state})
            case "o":
                until = self.clock.now.replace(microsecond=0).isoformat()
                self.client.post("/charts/web/open", json={**reason, "until": until.replace("T12", "T14")})
            case "t":
                self.client.put("/rosters/fleet?max_loss=100%25", data=chance.choice(ROSTERS))
            case "u":
                self.client.put("/charts/web", data=chance.choice(CHARTS))
            case _:
                self.client.post("/charts/web/archive", json=reason)


def check(life: Life, instants: int) -> None:
    life.live(instants)
    asked = list(life.answered)
    life.chance.shuffle(asked)
    for at in asked:
        (status, now), (status_then, then) = life.ask(at), life.answered[at]
        assert (at, status) == (at, status_then)
        differ = [name for name in then or {} if now is None or now[name] != then[name]]  # type: ignore[index]
        assert [(at, name, now and now[name], then and then[name]) for name in differ] == []
    assert sum(found is not None for _, found in life.answered.values()) > instants // 2


@pytest.fixture(autouse=True)
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints that are so close that most replays begin at one."""
    monkeypatch.setattr(past, "STRIDE", 25)


def test_past_answer_is_what_was_answered_then(client: FlaskClient, service: Service, clock: Clock) -> None:
    life = Life(client, service, clock, 1)
    check(life, 120)
    assert {"canary", "reboot", "first", ""} <= life.states


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12) if IS_ALL else [2, 5])
def test_past_answer_is_what_was_answered_then_at_many_instants(
    client: FlaskClient, service: Service, clock: Clock, seed: int
) -> None:
    # Ten lives of 200 instants are 2,000 on each database. In the fifth life a visit begins with counted machines.
    check(Life(client, service, clock, seed), 200)
