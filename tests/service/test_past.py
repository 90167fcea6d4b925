"""A status of the past equals what was answered then, whatever has happened since."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import update

from app.core.errors import BadRequestError, ChartNotFoundError, DatabaseUnavailableError, StateServiceError
from app.core.position import Claim, Evict, Goto, Pause, Release, Reset, Resume
from app.core.replay import Replay
from app.db import transaction
from app.models import checkpoints
from app.service import operate, past
from app.service.context import Service
from app.service.past import Checkpointer, get_past_status
from app.service.put import Put, apply_one, sweep
from app.service.reading import get_status
from app.service.rosters import RosterRequest, import_roster, read_lines
from app.service.upkeep import prune
from app.service.verifying import verify
from tests.service.support import (
    ANN,
    CANARY,
    REBOOT,
    ROSTERED,
    Clock,
    alter,
    drop_triggers,
    import_text,
    put,
    query,
)

CHARTS = [CANARY, REBOOT, ROSTERED, REBOOT.replace("slots: 2", "slots: [1, 2]"), CANARY.replace("value: 5", "value: 4")]

LINES = [f"m{number} tier={'lb' if number < 4 else 'app'} rack=r{number % 2}\n" for number in range(1, 7)]
TIER = """\
chart: web
current_state: lb
expect: {roster: web}
states:
  - name: lb
    func: increment
    expect: {roster: web, where: {tier: lb}}
    slots: {total: 2, per: {rack: 1}}
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: undo, when: {key: failed, value: 2}}, {name: all, when: {key: count, value: "60%"}}]
  - name: all
    func: increment
    including: [lb]
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: undo, when: {key: failed, value: 1}}, {name: done, when: {key: count, value: "100%"}}]
  - name: undo
    func: increment
    expect: {reported: [lb, all]}
    current: {key: count, value: 0}
    target: {name: done, when: {key: count, value: "100%"}}
  - name: done
"""
TIERS = [TIER, TIER.replace('"60%"', '"90%"'), TIER.replace("    including: [lb]\n", "")]


def told(status: Any) -> dict[str, Any]:
    """What a status says, without the machines that wait for a slot: the log does not know them."""
    fields: dict[str, Any] = status.as_json()
    if fields["slots"] is not None:
        fields["slots"].pop("waiting")
    return fields


def live(service: Service, chance: random.Random, charts: Sequence[str] = CHARTS) -> None:
    """Let one random thing happen; whatever the chart refuses has no effect."""
    machine = chance.choice(["m1", "m2", "m3", "m4"])
    try:
        state = get_status(service, "web").current_state
        match chance.choice("pppppcccreasgux"):
            case "p":
                key = chance.choice([None, None, "failed"])
                apply_one(service, "web", Put(state, machine, key), ANN)
            case "c":
                apply_one(service, "web", Claim(state, machine), ANN)
            case "r":
                apply_one(service, "web", Release(state, machine), ANN)
            case "e":
                operate.act(service, "web", Evict(machine, "scrap"), ANN)
            case "a":
                happening = chance.choice([Pause("disk"), Resume("fine")])
                operate.act(service, "web", happening, ANN)
            case "s":
                operate.act(service, "web", Reset("again"), ANN)
            case "g":
                operate.act(service, "web", Goto(state, "why"), ANN)
            case "u":
                import_text(service, chance.choice(charts))
            case _:
                operate.archive(service, "web", "gone", ANN)
    except ChartNotFoundError:
        import_text(service, chance.choice(charts))
    except StateServiceError:
        pass


def answer(service: Service) -> dict[str, Any] | None:
    try:
        return told(get_status(service, "web"))
    except ChartNotFoundError:
        return None


def answer_at(service: Service, at: datetime) -> dict[str, Any] | None:
    try:
        return told(get_past_status(service, "web", at))
    except ChartNotFoundError:
        return None


@pytest.mark.parametrize("seed", range(4))
def test_past_status_is_what_was_answered_then(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(past, "STRIDE", 10)
    checkpointer = Checkpointer(service)
    chance = random.Random(seed)
    answered: dict[datetime, dict[str, Any] | None] = {clock.now: None}
    for _ in range(60):
        clock.advance(chance.choice([1, 5, 30, 120]))
        sweep(service)
        live(service, chance)
        checkpointer.look()
        answered[clock.now] = answer(service)
    instants = list(answered)
    chance.shuffle(instants)
    for at in instants:
        assert answer_at(service, at) == answered[at]
    assert sum(found is not None for found in answered.values()) > 20


def put_roster(service: Service, lines: Sequence[str]) -> None:
    request = RosterRequest("web", read_lines([line.encode() for line in lines]), max_loss=Fraction(1))
    import_roster(service, request, ANN)


def live_by_roster(service: Service, chance: random.Random) -> None:
    """Let one random thing happen to a chart by a roster, or to the roster."""
    if chance.random() < 0.15:
        put_roster(service, chance.sample(LINES, k=5))
    else:
        live(service, chance, TIERS)


@pytest.mark.parametrize("seed", range(3))
def test_past_status_of_a_chart_by_a_roster_is_what_was_answered_then(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(past, "STRIDE", 10)
    put_roster(service, LINES)
    chance, checkpointer = random.Random(seed), Checkpointer(service)
    answered: dict[datetime, dict[str, Any] | None] = {}
    for _ in range(60):
        clock.advance(chance.choice([1, 5, 30, 120]))
        live_by_roster(service, chance)
        checkpointer.look()
        answered[clock.now] = answer(service)
    for at, then in answered.items():
        assert answer_at(service, at) == then
    names = [then["waits_for"] for then in answered.values() if then is not None]
    assert sum("not heard from: m" in text for text in names) > 10


@pytest.fixture
def moved(service: Service, clock: Clock) -> datetime:
    """A chart that moved ten seconds after this instant."""
    import_text(service, CANARY)
    put(service, "canary", "m1")
    clock.advance(10)
    put(service, "canary", "m2")
    clock.advance(100)
    return clock.now - timedelta(seconds=110)


def test_status_before_the_first_row_is_not_found(service: Service, moved: datetime) -> None:
    with pytest.raises(ChartNotFoundError):
        get_past_status(service, "web", moved - timedelta(microseconds=1))
    assert get_past_status(service, "web", moved).values == {"count": 1, "failed": 0}
    with pytest.raises(ChartNotFoundError):
        get_past_status(service, "none", moved)


def test_status_to_come_is_refused(service: Service, clock: Clock, moved: datetime) -> None:
    with pytest.raises(BadRequestError, match="is still to come"):
        get_past_status(service, "web", clock.now + timedelta(seconds=1))


def test_status_older_than_a_pruned_log_is_refused(
    service: Service, owner: Service, clock: Clock, moved: datetime
) -> None:
    prune(owner, "web", timedelta(seconds=50), ANN)
    with pytest.raises(BadRequestError, match="was pruned: it goes back to 2026-01-31T12:00:10"):
        get_past_status(service, "web", moved)
    assert get_past_status(service, "web", moved + timedelta(seconds=10)).current_state == "soak"


def checkpoints_of(service: Service) -> list[int]:
    """The seqs of the checkpoints, of all charts."""
    return [seq for (seq,) in query(service, "SELECT seq FROM checkpoints ORDER BY seq")]


@pytest.fixture
def marked(service: Service, clock: Clock, moved: datetime, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """A chart of three rows that moved with the last one, and a checkpoint after the second; the instant of that."""
    monkeypatch.setattr(past, "STRIDE", 2)
    Checkpointer(service).look()
    assert checkpoints_of(service) == [2]
    return moved


def count_replayed(service: Service, at: datetime) -> int:
    """How many rows the replay to an instant reads, the row of a checkpoint among them."""
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        apply = Replay.apply
        patch.setattr(Replay, "apply", lambda self, row: (seen.append(row.seq), apply(self, row)))
        get_past_status(service, "web", at)
    return len(seen)


def test_replay_begins_at_the_latest_checkpoint(service: Service, clock: Clock, marked: datetime) -> None:
    assert count_replayed(service, marked) == 1
    assert count_replayed(service, clock.now) == 2
    assert get_past_status(service, "web", marked).values == {"count": 1, "failed": 0}
    assert get_past_status(service, "web", clock.now).current_state == "soak"


def test_checkpoints_follow_a_log_that_grows(service: Service, clock: Clock, marked: datetime) -> None:
    checkpointer = Checkpointer(service)
    checkpointer.look()
    assert checkpoints_of(service) == [2]
    for reason in ("one", "two", "three"):
        operate.act(service, "web", Goto("soak", reason), ANN)
    checkpointer.look()
    assert checkpoints_of(service) == [2, 4, 6]
    assert count_replayed(service, clock.now) <= 2


def test_charts_take_turns_until_the_time_of_a_look_is_up(
    service: Service, marked: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_text(service, CANARY.replace("chart: web", "chart: zoo"))
    for chart in ("web", "zoo"):
        for reason in ("one", "two", "three", "four", "five", "six"):
            operate.act(service, chart, Goto("soak", reason), ANN)
    left: list[str] = []
    leave = past.leave_checkpoint
    monkeypatch.setattr(past, "leave_checkpoint", lambda service, name: (left.append(name), leave(service, name))[1])
    checkpointer = Checkpointer(service)
    checkpointer.look(0)
    assert left == []
    checkpointer.look()
    assert left[:4] == ["web", "zoo", "web", "zoo"]


@pytest.fixture
def unread(service: Service, clock: Clock, moved: datetime, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """A log of eight rows, and no server that has left checkpoints; the instant after its last row."""
    for reason in ("one", "two", "three", "four"):
        operate.act(service, "web", Goto("soak", reason), ANN)
    monkeypatch.setattr(past, "STRIDE", 2)
    return clock.now


def test_question_about_a_log_that_no_server_has_read_leaves_checkpoints(service: Service, unread: datetime) -> None:
    then = answer_at(service, unread)
    assert checkpoints_of(service) == [2, 4, 6, 8]
    assert count_replayed(service, unread) == 1
    assert answer_at(service, unread) == then == answer(service)
    assert verify(service, "web").differences == ()


def test_question_is_answered_where_no_checkpoint_can_be_left(
    service: Service, unread: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise DatabaseUnavailableError("attempt to write a readonly database")

    monkeypatch.setattr(past, "_keep", refuse)
    assert answer_at(service, unread) == answer(service)
    assert checkpoints_of(service) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE checkpoints SET hash = 'f' WHERE seq = 2",
        "UPDATE checkpoints SET seq = 3 WHERE seq = 2",
        "UPDATE checkpoints SET marker = (SELECT marker FROM checkpoints WHERE seq = 4) WHERE seq = 2",
    ],
    ids=["hash", "row", "marker"],
)
def test_checkpoint_that_was_changed_is_not_used(service: Service, clock: Clock, marked: datetime, damage: str) -> None:
    operate.act(service, "web", Goto("soak", "again"), ANN)
    Checkpointer(service).look()
    operate.act(service, "web", Goto("soak", "again"), ANN)
    alter(service, damage)
    at = marked + timedelta(seconds=10)
    assert count_replayed(service, at) == 3
    assert get_past_status(service, "web", at).current_state == "soak"


def test_checkpoint_that_cannot_be_unpacked_is_not_used(service: Service, clock: Clock, marked: datetime) -> None:
    with transaction(service.database) as connection:
        connection.execute(update(checkpoints).values(marker=b"no"))
    assert count_replayed(service, marked) == 2


def test_verify_reads_every_row_in_spite_of_a_checkpoint(service: Service, owner: Service, marked: datetime) -> None:
    drop_triggers(owner)
    alter(owner, "UPDATE transition_log SET machine = 'm9' WHERE seq = 2")
    assert verify(service, "web").differences


def test_prune_drops_the_checkpoints_of_its_rows(
    service: Service, owner: Service, clock: Clock, marked: datetime
) -> None:
    operate.act(service, "web", Goto("soak", "again"), ANN)
    Checkpointer(service).look()
    prune(owner, "web", timedelta(seconds=50), ANN)
    assert checkpoints_of(service) == [4]
    assert count_replayed(service, clock.now) <= 2
    Checkpointer(service).look()
    assert checkpoints_of(service) == [4]
    assert verify(service, "web").differences == ()


def test_log_that_cannot_be_replayed_has_no_checkpoints(
    service: Service, owner: Service, moved: datetime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(past, "STRIDE", 2)
    drop_triggers(owner)
    alter(owner, "UPDATE transition_log SET value_before = 7 WHERE seq = 2")
    checkpointer = Checkpointer(service)
    checkpointer.look()
    checkpointer.look()
    assert checkpoints_of(service) == []
    (record,) = [record for record in caplog.records if record.name == "stateservice.past"]
    assert "no checkpoints for a log that cannot be replayed, verify it: web: seq 2 found count at 7" in record.message
