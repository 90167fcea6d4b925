"""Many at once: every acknowledged PUT counts, none counts twice, and the log has no gap."""

from __future__ import annotations

from collections import Counter

import pytest

from app.core.position import Reason
from app.service.context import Service
from app.service.put import sweep
from app.service.upkeep import verify
from tests.service.support import CANARY, Clock, get_row, import_text, kinds, put, query, rows
from tests.support.concurrency import at_once, counting_chart, import_at_once, in_processes, put_many


@pytest.fixture
def time_source() -> None:
    """The service goes by the database's time."""


# A worker has five threads that may wait for one chart: see LOCKED_CHART_THREADS.
TARGET, PUTS, PROCESSES, THREADS = 2000, 2400, 4, 5


@pytest.mark.slow
def test_crowd_of_processes_counts_exactly_to_the_target(service: Service, database_url: str) -> None:
    import_text(service, counting_chart(TARGET))
    counted = in_processes(PROCESSES, put_many, database_url, PUTS // PROCESSES, THREADS)
    answers = sum(counted, Counter[str]())
    assert answers == {"updated": TARGET - 1, "transitioned": 1, "not_current": PUTS - TARGET}
    found = rows(service)
    assert [row.seq for row in found] == list(range(1, TARGET + 2))
    assert Counter(row.kind for row in found) == {"import": 1, "update": TARGET - 1, "transition": 1}
    assert [row.value_after for row in found[1:]] == list(range(1, TARGET + 1))
    assert (get_row(service).state, verify(service, "web").differences) == ("b", ())


@pytest.mark.slow
def test_processes_that_import_the_same_new_chart_create_it_once(service: Service, database_url: str) -> None:
    outcomes = in_processes(4, import_at_once, database_url, CANARY)
    assert Counter(outcomes) == {"created": 1, "unchanged": 3}
    assert (kinds(service), query(service, "SELECT count(*) FROM chart_versions")) == (["import"], [(1,)])
    assert verify(service, "web").differences == ()


def test_threads_that_import_the_same_new_chart_create_it_once(service: Service) -> None:
    outcomes = at_once(4, lambda number: str(import_text(service, CANARY).outcome))
    assert Counter(outcomes) == {"created": 1, "unchanged": 3}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"machine": "m1"}, id="one machine"),
        pytest.param({"idempotency_key": "k1"}, id="one key"),
        pytest.param({"machine": "m1", "idempotency_key": "k1"}, id="both"),
    ],
)
def test_same_put_from_many_threads_counts_once(service: Service, other: Service, fields: dict[str, str]) -> None:
    import_text(service, counting_chart(5))
    answers = at_once(16, lambda number: put([service, other][number % 2], "a", **fields))
    assert Counter(answer.reason for answer in answers) == {Reason.UPDATED: 1, Reason.REPLAY: 15}
    assert kinds(service) == ["import", "update"]


def test_every_machine_of_many_counts_once(service: Service, other: Service) -> None:
    import_text(service, counting_chart(99))
    answers = at_once(24, lambda number: put([service, other][number % 2], "a", f"m{number % 8}"))
    assert Counter(answer.reason for answer in answers) == {Reason.UPDATED: 8, Reason.REPLAY: 16}
    assert sorted(row.machine or "" for row in rows(service)[1:]) == [f"m{number}" for number in range(8)]
    assert verify(service, "web").differences == ()


def test_every_answer_names_its_own_row(service: Service, other: Service) -> None:
    import_text(service, counting_chart(99))
    answers = at_once(24, lambda number: (f"m{number}", put([service, other][number % 2], "a", f"m{number}")))
    by_seq = {row.seq: (row.machine, row.value_after) for row in rows(service)}
    assert {answer.seq: (machine, answer.value) for machine, answer in answers} == {
        seq: row for seq, row in by_seq.items() if seq > 1
    }


def test_error_of_one_put_is_not_that_of_others(service: Service) -> None:
    import_text(service, counting_chart(99))

    def send(number: int) -> str:
        try:
            return str(put(service, "a", f"m{number}", key="x" if number % 4 == 0 else None).reason)
        except Exception as error:
            return type(error).__name__

    assert Counter(at_once(16, send)) == {"BadRequestError": 4, "updated": 12}


def test_due_clock_guard_is_taken_once_by_sweepers_and_puts_together(service: Service, other: Service) -> None:
    clock = Clock()
    service.database.clock = other.database.clock = clock
    import_text(service, counting_chart(99).replace("{key: count, value: 99}", "{key: elapsed, value: 60s}"))
    clock.advance(60)

    def act(number: int) -> None:
        each = [service, other][number % 2]
        if number < 4:
            sweep(each)
        else:
            put(each, "a", f"m{number}")

    at_once(8, act)
    assert (kinds(service), get_row(service).visit) == (["import", "timeout"], 2)
    assert verify(service, "web").differences == ()
