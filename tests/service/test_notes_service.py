"""What a machine says with its report, what it says after the chart has moved on, and the keys of its replays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.core.errors import KeyReusedError
from app.core.position import Reason
from app.service import operate
from app.service.context import Service
from app.service.put import Put
from app.service.roll import RollQuery, list_roll
from app.service.upkeep import prune, verify
from tests.service.support import ANN, CANARY, Clock, get_row, import_text, kinds, put, query, rows
from tests.support.requests import update


@pytest.fixture(autouse=True)
def canary(service: Service) -> None:
    import_text(service, CANARY)


def say(
    service: Service, machine: str | None, note: str | None, key: str | None = None, state: str = "canary"
) -> Reason:
    return update(service, "web", Put(state, machine, key, note=note)).reason


def reports(service: Service) -> list[Any]:
    return list(list_roll(service, "web", RollQuery(state="canary")).machines)


def notes(service: Service) -> dict[str, str | None]:
    return {item.machine: item.note for item in reports(service)}


def test_note_is_kept_with_the_report_and_its_row(service: Service) -> None:
    say(service, "m1", "two\nlines ✓")
    say(service, None, "nobody's")
    assert notes(service) == {"m1": "two\nlines ✓"}
    assert [row.note for row in rows(service)][1:] == ["two\nlines ✓", "nobody's"]
    assert verify(service, "web").differences == ()


def test_note_of_a_replay_is_dropped_and_a_moved_report_brings_its_own(service: Service) -> None:
    import_text(service, CANARY.replace("{key: failed, value: 1}}", "{key: failed, value: 9}}"))
    say(service, "m1", "first")
    say(service, "m1", "again")
    assert notes(service) == {"m1": "first"}
    say(service, "m1", "disk full", "failed")
    assert notes(service) == {"m1": "disk full"}
    say(service, "m1", None)
    assert notes(service) == {"m1": None}


def test_row_that_moves_the_chart_has_the_note(service: Service) -> None:
    say(service, "m1", "no boot", "failed")
    assert [(row.kind, row.note) for row in rows(service)][-1] == ("transition", "no boot")


# Late reports


def test_late_report_is_one_row_that_moves_nothing(service: Service) -> None:
    put(service, "canary", machine="m1")
    put(service, "canary", machine="m2")
    before = get_row(service)
    answer = update(service, "web", Put("canary", "m1", "failed", note="it died after all"), ANN)
    assert (answer.is_yes, answer.reason, answer.seq, answer.visit) == (True, Reason.RECORDED, 4, 1)
    row = rows(service)[-1]
    assert (row.kind, row.from_state, row.to_state, row.visit) == ("late", "canary", "canary", 1)
    assert (row.machine, row.key, row.note, row.actor) == ("m1", "failed", "it died after all", ANN.actor)
    after = get_row(service)
    assert (after.state, after.visit, after.entered_at) == (before.state, before.visit, before.entered_at)
    assert [(item.machine, item.key) for item in reports(service)] == [
        ("m1", "failed"),
        ("m2", "count"),
    ]
    assert verify(service, "web").differences == ()


def test_late_report_sent_again_is_a_replay(service: Service) -> None:
    put(service, "canary", machine="m1", key="failed")
    assert say(service, "m1", "fine now", "count") is Reason.RECORDED
    assert say(service, "m1", "fine now", "count") is Reason.REPLAY
    assert kinds(service).count("late") == 1


def test_machine_that_never_counted_is_late_still(service: Service) -> None:
    put(service, "canary", machine="m1", key="failed")
    assert say(service, "m2", "me too", "failed") is Reason.LATE


def test_late_report_of_an_earlier_run_is_refused(service: Service) -> None:
    put(service, "canary", machine="m1", key="failed")
    operate.reset(service, "web", "again", ANN)
    operate.goto(service, "web", "done", "on", ANN)
    assert say(service, "m1", "fine now", "count") is Reason.LATE


# Keys of replays


def send(service: Service, idempotency_key: str, machine: str = "m1", key: str | None = None) -> Reason:
    return put(service, "canary", machine=machine, key=key, idempotency_key=idempotency_key).reason


def test_key_answered_as_a_replay_is_remembered(service: Service) -> None:
    put(service, "canary", machine="m1")
    assert send(service, "k") is Reason.REPLAY
    before = rows(service)
    assert send(service, "k") is Reason.REPLAY
    for machine, key in (("m2", None), ("m1", "failed")):
        with pytest.raises(KeyReusedError):
            send(service, "k", machine, key)
    assert rows(service) == before


def test_remembered_key_repeats_its_answer_in_a_later_run(service: Service) -> None:
    put(service, "canary", machine="m1")
    send(service, "k")
    operate.reset(service, "web", "again", ANN)
    assert send(service, "k") is Reason.REPLAY


def test_key_of_a_late_report_is_remembered(service: Service) -> None:
    put(service, "canary", machine="m1", key="failed")
    assert send(service, "k", "m1", "count") is Reason.RECORDED
    with pytest.raises(KeyReusedError):
        send(service, "k", "m1", "failed")


FINAL = """\
chart: web
current_state: rest
states:
- {name: rest, func: increment, current: {key: count, value: 0}, target: {name: canary, when: {key: count, value: 9}}}
- name: canary
"""


@pytest.mark.parametrize("key", [None, "count"])
def test_key_of_a_replay_in_a_state_that_became_final_is_remembered(service: Service, key: str | None) -> None:
    put(service, "canary", machine="m1")
    import_text(service, FINAL)
    operate.goto(service, "web", "rest", "on", ANN)
    assert [send(service, "k", "m1", key), send(service, "k", "m1", key)] == [Reason.REPLAY] * 2


def test_prune_forgets_keys_with_the_rows_they_repeat(service: Service, owner: Service, clock: Clock) -> None:
    put(service, "canary", machine="m1")
    send(service, "k")
    clock.advance(100)
    put(service, "canary", machine="m2")
    prune(owner, "web", timedelta(seconds=50), ANN)
    assert query(service, "SELECT idempotency_key FROM replayed_keys") == []
    assert verify(service, "web").differences == ()
