"""A PUT on a real database: the answer, the rows it writes, and that a refusal writes none."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import BadRequestError, ChartNotFoundError, KeyReusedError, StateServiceError
from app.core.log import Author
from app.core.position import Reason
from app.service import operate
from app.service.context import Service
from app.service.put import Answer, Applied, Put, Sent, apply
from app.service.upkeep import verify
from tests.service.support import (
    ANN,
    CANARY,
    NOBODY,
    REBOOT,
    SEED,
    Clock,
    get_row,
    import_text,
    kinds,
    put,
    query,
    rows,
)
from tests.support import requests
from tests.support.requests import update


@pytest.fixture(autouse=True)
def canary(service: Service) -> None:
    import_text(service, CANARY)


def test_put_answers_with_its_own_row(service: Service) -> None:
    answer = put(service, "canary", "m1")
    assert (answer.is_yes, answer.reason, answer.key, answer.value) == (True, Reason.UPDATED, "count", 1)
    assert (answer.run, answer.visit, answer.seq, answer.current_state) == (1, 1, 2, "canary")


def test_put_writes_one_log_row(service: Service, clock: Clock) -> None:
    update(service, "web", Put("canary", "m1"), ANN)
    row = rows(service)[-1]
    assert (row.kind, row.seq, row.at, row.version) == ("update", 2, clock.now, 1)
    assert (row.key, row.value_before, row.value_after, row.machine) == ("count", 0, 1, "m1")
    assert (row.actor, row.remote_addr) == ("ann", "192.0.2.7")


def test_put_that_moves_answers_with_the_visit_it_was_judged_in(service: Service) -> None:
    put(service, "canary", "m1")
    answer = put(service, "canary", "m2")
    assert (answer.reason, answer.visit, answer.seq, answer.value) == (Reason.TRANSITIONED, 1, 3, 2)
    assert answer.current_state == "soak"


def test_put_that_moves_writes_position_values_and_visits(service: Service) -> None:
    put(service, "canary")
    put(service, "canary")
    found = get_row(service)
    assert (found.state, found.visit, found.seq) == ("soak", 2, 3)
    assert query(service, "SELECT key, value FROM attribute_values") == [("count", 0)]
    visits = query(service, "SELECT visit, state, left_at IS NULL FROM visits ORDER BY visit")
    assert [(visit, state, bool(is_open)) for visit, state, is_open in visits] == [
        (1, "canary", False),
        (2, "soak", True),
    ]


def test_put_writes_the_report(service: Service) -> None:
    put(service, "canary", "m1")
    put(service, "canary", "m1", key="failed")
    found = query(service, "SELECT run, visit, machine, key, seq FROM reports")
    assert found == [(1, 1, "m1", "failed", 3)]


REFUSED = [
    pytest.param({"state": "soak"}, Reason.NOT_CURRENT, id="not current"),
    pytest.param({"state": "nowhere"}, Reason.UNKNOWN_STATE, id="unknown"),
    pytest.param({"state": "done"}, Reason.NOT_CURRENT, id="final, elsewhere"),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED)
def test_refused_put_changes_nothing(service: Service, fields: dict[str, Any], reason: Reason) -> None:
    before = get_row(service)
    answer = put(service, **fields)
    assert (answer.is_yes, answer.reason, answer.seq) == (False, reason, 1)
    assert get_row(service) == before


def test_put_on_a_paused_chart_is_counted(service: Service) -> None:
    operate.pause(service, "web", "look", ANN)
    assert put(service, "canary").reason is Reason.UPDATED
    assert (kinds(service), verify(service, "web").differences) == (["import", "pause", "update"], ())


def test_replay_is_yes_and_writes_nothing(service: Service) -> None:
    put(service, "canary", "m1")
    answer = put(service, "canary", "m1")
    assert (answer.is_yes, answer.reason, answer.seq, answer.value) == (True, Reason.REPLAY, 2, 1)
    assert kinds(service) == ["import", "update"]


def test_replay_of_the_put_that_closed_the_state_is_yes(service: Service) -> None:
    put(service, "canary", "m1")
    put(service, "canary", "m2")
    answer = put(service, "canary", "m2")
    assert (answer.is_yes, answer.reason, answer.current_state) == (True, Reason.REPLAY, "soak")


def test_machine_that_never_counted_is_late(service: Service) -> None:
    put(service, "canary", "m1")
    put(service, "canary", "m2")
    assert put(service, "canary", "m3").reason is Reason.LATE


def test_key_repeats_the_answer_of_an_anonymous_put(service: Service) -> None:
    put(service, "canary", idempotency_key="k1")
    assert put(service, "canary", idempotency_key="k1").reason is Reason.REPLAY
    assert put(service, "canary", idempotency_key="k2").reason is Reason.TRANSITIONED
    assert [row.idempotency_key for row in rows(service)] == [None, "k1", "k2"]


def test_repeated_key_answers_what_its_row_says(service: Service) -> None:
    counted = put(service, "canary", "m1", idempotency_key="k1")
    put(service, "canary", "m2")
    again = put(service, "canary", "m1", idempotency_key="k1")
    operate.reset(service, "web", "again", NOBODY)
    in_next_run = put(service, "canary", "m1", idempotency_key="k1")
    for answer in (again, in_next_run):
        assert answer.reason is Reason.REPLAY
        assert _row_of(answer) == _row_of(counted) == (1, 1, 2, "count", 1)
    assert (again.current_state, in_next_run.current_state) == ("soak", "canary")


def test_key_repeated_in_one_transaction_answers_what_its_row_says(service: Service) -> None:
    author = Author(idempotency_key="k1")
    sent = [Sent("web", Put("canary"), by) for by in (author, NOBODY, author)]
    first, _, again = (_take(found) for found in apply(service, sent))
    assert (first.reason, again.reason) == (Reason.UPDATED, Reason.REPLAY)
    assert _row_of(again) == _row_of(first) == (1, 1, 2, "count", 1)


def _take(found: Applied | StateServiceError) -> Answer:
    assert isinstance(found, Applied)
    return found.answer


def _row_of(answer: Answer) -> tuple[int, int, int, str | None, int | None]:
    return answer.run, answer.visit, answer.seq, answer.key, answer.value


def test_key_of_a_refused_put_is_free(service: Service) -> None:
    put(service, "soak", idempotency_key="k1")
    assert put(service, "canary", idempotency_key="k1").reason is Reason.UPDATED


@pytest.mark.parametrize("fields", [{"state": "soak"}, {"state": "canary", "machine": "m1"}])
def test_key_with_another_request_is_an_error_that_changes_nothing(service: Service, fields: dict[str, Any]) -> None:
    put(service, "canary", idempotency_key="k1")
    with pytest.raises(KeyReusedError):
        put(service, idempotency_key="k1", **fields)
    assert kinds(service) == ["import", "update"]


def test_keys_are_per_chart(service: Service) -> None:
    import_text(service, CANARY, name="other")
    put(service, "canary", idempotency_key="k1")
    assert put(service, "canary", chart="other", idempotency_key="k1").reason is Reason.UPDATED


def test_key_outlives_an_upgrade_that_changes_the_default_attribute(service: Service) -> None:
    put(service, "canary", idempotency_key="k1")
    import_text(service, CANARY.replace("[{key: count, value: 0}, {key: failed, value: 0}]", SWAPPED, 1))
    assert put(service, "canary", idempotency_key="k1").reason is Reason.REPLAY


SWAPPED = "[{key: failed, value: 0}, {key: count, value: 0}]"


def test_put_on_an_unknown_attribute_is_an_error_that_changes_nothing(service: Service) -> None:
    with pytest.raises(BadRequestError, match="no attribute 'cuont'"):
        put(service, "canary", key="cuont")
    assert kinds(service) == ["import"]


@pytest.mark.parametrize("name", ["nowhere", "WEB", "web "])
def test_put_on_an_unknown_chart_is_an_error(service: Service, name: str) -> None:
    with pytest.raises(ChartNotFoundError, match="no chart named"):
        put(service, "canary", chart=name)


def test_put_on_an_archived_chart_is_an_error(service: Service) -> None:
    operate.archive(service, "web", "over", ANN)
    with pytest.raises(ChartNotFoundError):
        put(service, "canary")


def test_due_clock_guard_goes_first_and_has_no_author(service: Service, clock: Clock) -> None:
    put(service, "canary")
    put(service, "canary")
    clock.advance(60)
    answer = update(service, "web", Put("soak", "m1"), ANN)
    assert (answer.reason, answer.seq, answer.current_state) == (Reason.LATE, 4, "done")
    assert [(row.kind, row.actor, row.machine) for row in rows(service)[-1:]] == [("timeout", None, None)]


def test_accepted_put_after_the_clock_answers_with_its_own_row(service: Service, clock: Clock) -> None:
    text = CANARY.replace(
        "- {name: rollback, when", "- {name: soak, when: {key: elapsed, value: 10s}}\n  - {name: rollback, when"
    )
    import_text(service, text, name="timed")
    clock.advance(10)
    answer = put(service, "soak", "m1", chart="timed")
    assert (answer.reason, answer.visit, answer.seq) == (Reason.UPDATED, 2, 3)


def test_seed_chart_runs_to_its_end(service: Service) -> None:
    import_text(service, SEED, name="seed")
    answers = [put(service, state, chart="seed").is_yes for state in ("green_state", "red_state", "blue_state")]
    assert (answers, get_row(service, "seed").state) == ([True, True, False], "blue_state")


def test_names_of_any_kind_go_through(service: Service) -> None:
    text = CANARY.replace("canary", "'017'").replace("soak", "off").replace("failed", "a b:c")
    import_text(service, text, name="odd")
    assert put(service, "017", "wëb-01 ☃", chart="odd", key="a b:c").current_state == "rollback"
    assert verify(service, "odd").differences == ()


def test_slot_is_given_back_by_the_report(service: Service) -> None:
    import_text(service, REBOOT, name="reboot")
    requests.claim(service, "reboot", "reboot", "m1", NOBODY)
    assert put(service, "reboot", "m2", chart="reboot").reason is Reason.NO_SLOT
    assert put(service, "reboot", "m1", chart="reboot").is_yes
    assert query(service, "SELECT machine FROM slots") == []


def test_log_key_makes_the_hashes_hmacs(service: Service) -> None:
    service.database.log_key = b"secret"
    import_text(service, CANARY, name="keyed")
    put(service, "canary", chart="keyed")
    assert verify(service, "keyed").differences == ()
    service.database.log_key = None
    assert "the hash does not fit" in verify(service, "keyed").differences[0]
