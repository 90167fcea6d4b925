"""A status of the past equals what was answered then, whatever has happened since."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.core.errors import BadRequestError, ChartNotFoundError, StateServiceError
from app.core.position import Claim, Evict, Goto, Pause, Release, Reset, Resume
from app.service import operate, past
from app.service.context import Service
from app.service.past import Checkpoints, get_past_status
from app.service.put import Put, apply_one, sweep
from app.service.reading import get_status
from app.service.upkeep import prune
from tests.service.support import ANN, CANARY, REBOOT, ROSTERED, Clock, import_text, put

CHARTS = [CANARY, REBOOT, ROSTERED, REBOOT.replace("slots: 2", "slots: [1, 2]"), CANARY.replace("value: 5", "value: 4")]


def told(status: Any) -> dict[str, Any]:
    """What a status says, without the machines that wait for a slot: the log does not know them."""
    fields: dict[str, Any] = status.as_json()
    if fields["slots"] is not None:
        fields["slots"].pop("waiting")
    return fields


def live(service: Service, chance: random.Random) -> None:
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
                import_text(service, chance.choice(CHARTS))
            case _:
                operate.archive(service, "web", "gone", ANN)
    except ChartNotFoundError:
        import_text(service, chance.choice(CHARTS))
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
    monkeypatch.setattr(past, "CHECKPOINTS", Checkpoints())
    chance = random.Random(seed)
    answered: dict[datetime, dict[str, Any] | None] = {clock.now: None}
    for _ in range(60):
        clock.advance(chance.choice([1, 5, 30, 120]))
        sweep(service)
        live(service, chance)
        answered[clock.now] = answer(service)
    instants = list(answered)
    chance.shuffle(instants)
    for at in instants:
        assert answer_at(service, at) == answered[at]
    assert sum(found is not None for found in answered.values()) > 20


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


def test_status_older_than_a_pruned_log_is_refused(service: Service, clock: Clock, moved: datetime) -> None:
    prune(service, "web", timedelta(seconds=50), ANN)
    with pytest.raises(BadRequestError, match="was pruned: it goes back to 2026-01-31T12:00:10"):
        get_past_status(service, "web", moved)
    assert get_past_status(service, "web", moved + timedelta(seconds=10)).current_state == "soak"


def test_checkpoint_of_a_replaced_log_is_not_used(
    service: Service, clock: Clock, moved: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoints()
    monkeypatch.setattr(past, "STRIDE", 2)
    monkeypatch.setattr(past, "CHECKPOINTS", kept)
    get_past_status(service, "web", clock.now)
    (seq,) = kept.list_seqs("web", 99)
    checkpoint = kept.find("web", seq)
    assert checkpoint is not None
    kept.add("web", seq, past.Checkpoint("0" * 64, checkpoint.marker))
    assert get_past_status(service, "web", clock.now).current_state == "soak"
