"""PUTs on several charts in one transaction: as if each had been sent alone, and no held lock stops the others."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import store
from app.core.errors import ChartNotFoundError, StateServiceError
from app.core.log import Author
from app.core.position import Reason
from app.db import transaction
from app.service import operate
from app.service.context import Service
from app.service.machines import ANY_CHART, CONTENDED_SECONDS
from app.service.put import Answer, Applied, Put, Sent, apply
from app.service.upkeep import verify
from tests.service.support import ANN, CANARY, NOBODY, REBOOT, Clock, import_text, opened_service, put, query, rows
from tests.support import requests
from tests.support.concurrency import PATIENCE, Hold
from tests.support.examples import examples
from tests.support.requests import update
from tests.support.servers import until

TIMED = """\
chart: web
current_state: a
states:
- {name: a, func: time, target: {name: canary, when: {key: elapsed, value: 10s}}}
- name: canary
  func: decrement
  current: [{key: left, value: 2}, {key: failed, value: 0}]
  target: {name: b, when: {key: left, value: 0}}
- {name: b}
"""
TEXTS = {"canary": CANARY, "reboot": REBOOT, "timed": TIMED, "other": CANARY}
TABLES = {
    "attribute_values": "key value",
    "reports": "run visit machine key seq reported_at",
    "visits": "run visit state entered_at left_at",
    "slots": "machine fence claimed_at expires_at",
}
STATES = ["canary", "soak", "reboot", "a", "nowhere"]
_numbers = itertools.count(1)

# A chart that there is or not, and what is said of it.
PUTS = st.tuples(
    st.sampled_from([*TEXTS, "missing"]),
    st.builds(
        Put,
        st.sampled_from(STATES),
        st.sampled_from([None, "m1", "m2", "m3"]),
        st.sampled_from([None, None, "failed", "left", "wrong"]),
    ),
    st.sampled_from([None, None, "k1", "k2"]),
)


def import_all(service: Service, prefix: str) -> None:
    for name, text in TEXTS.items():
        import_text(service, text, name=prefix + name)
    requests.claim(service, f"{prefix}reboot", "reboot", "m1", NOBODY)


def sent_to(prefix: str, asked: list[tuple[str, Put, str | None]]) -> list[Sent]:
    return [Sent(prefix + name, put, replace(NOBODY, idempotency_key=key)) for name, put, key in asked]


def told(prefix: str, found: Applied | StateServiceError) -> Any:
    """What a request came to, without the chart's prefix."""
    if isinstance(found, StateServiceError):
        return str(found).replace(prefix, "")
    return replace(found.answer, chart=found.answer.chart.removeprefix(prefix))


def state_of(service: Service, prefix: str) -> list[Any]:
    """All that the database knows of a set of charts, but for their ids and hashes."""
    found: list[Any] = []
    for name in TEXTS:
        chart = prefix + name
        assert verify(service, chart).differences == ()
        found += [replace(row, chart=name) for row in rows(service, chart)]
        for table, columns in TABLES.items():
            listed = ", ".join(f"{table}.{column}" for column in columns.split())
            sql = f"SELECT {listed} FROM {table} JOIN charts ON charts.id = chart_id WHERE name = :name"
            found.append(sorted(query(service, sql, name=chart), key=str))
        found.append(query(service, "SELECT state, run, visit, seq, fence FROM charts WHERE name = :name", name=chart))
    return found


@settings(max_examples=examples(40, few=10), deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(st.lists(PUTS, min_size=1, max_size=8), min_size=1, max_size=4), seconds=st.integers(0, 12))
def test_puts_in_one_transaction_do_what_each_does_alone(
    service: Service, batches: list[list[tuple[str, Put, str | None]]], seconds: int
) -> None:
    number = next(_numbers)
    together, alone = f"x{number}-", f"y{number}-"
    service.database.clock = clock = Clock()
    for prefix in (together, alone):
        import_all(service, prefix)
    for asked in batches:
        clock.advance(seconds)
        shared = apply(service, sent_to(together, asked))
        single = [found for sent in sent_to(alone, asked) for found in apply(service, [sent])]
        assert [told(together, found) for found in shared] == [told(alone, found) for found in single]
    assert state_of(service, together) == state_of(service, alone)


def test_chart_that_is_not_there_fails_no_other(service: Service) -> None:
    import_all(service, "")
    operate.archive(service, "other", "over", ANN)
    asked = [("canary", Put("canary"), None), ("missing", Put("a"), None), ("other", Put("canary"), None)]
    found, missing, archived = apply(service, sent_to("", asked))
    assert isinstance(found, Applied)
    assert found.answer.reason is Reason.UPDATED
    assert isinstance(missing, ChartNotFoundError)
    assert isinstance(archived, ChartNotFoundError)


# Joining


def test_what_is_sent_while_another_writer_is_waited_for_shares_the_transaction(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.database.clock = None
    with opened_service(database_url) as other_worker, requests.opened_machines(service) as machines:
        import_text(service, CANARY.replace("value: 2}", "value: 9}"), name="canary")
        hold = Hold(monkeypatch)
        with ThreadPoolExecutor(5) as pool:
            holder = pool.submit(hold.stopping(lambda: put(other_worker, "canary", chart="canary")))
            assert hold.is_held.wait(PATIENCE)
            key = ANY_CHART if service.database.is_sqlite else "canary"

            def send(number: int) -> Future[Answer]:
                author = Author(idempotency_key=str(number))
                sent = pool.submit(lambda: machines.call(machines.put("canary", Put("canary"), author)))
                if number:
                    until(lambda: len(machines._changes._queues[key]) == number, "the PUT gathers")
                else:
                    until(lambda: machines._changes.is_busy(key), "the PUT waits for its chart")
                    until(lambda: not machines._changes._queues[key], "its batch has begun")
                return sent

            waiting = [send(number) for number in range(3)]
            hold.released.set()
            assert [future.result().value for future in (holder, *waiting)] == [1, 2, 3, 4]
    # Each transaction has one time.
    held, *others = [row.at for row in rows(service, "canary") if row.key is not None]
    assert len(set(others)) == 1
    assert others[0] > held


# On PostgreSQL alone: a chart's row is its lock


@pytest.fixture
def held(postgresql_url: str) -> Iterator[Service]:
    """A service whose chart `canary` another session has locked."""
    with opened_service(postgresql_url) as opened, opened_service(postgresql_url) as somebody:
        import_all(opened, "")
        with transaction(somebody.database) as connection:
            store.charts.lock_chart(connection, "canary")
            yield opened


def test_locked_charts_are_left_out(held: Service) -> None:
    with transaction(held.database) as connection:
        free_rows = store.charts.lock_free_charts(connection, ["canary", "other", "timed", "missing"])
    assert sorted(row.name for row in free_rows) == ["other", "timed"]


def test_put_on_a_locked_chart_keeps_no_other_waiting(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        opened_service(postgresql_url) as service,
        opened_service(postgresql_url) as other_worker,
        requests.opened_machines(service) as machines,
    ):
        import_all(service, "")
        hold = Hold(monkeypatch)
        with ThreadPoolExecutor(2) as pool:
            holder = pool.submit(hold.stopping(lambda: put(other_worker, "canary", chart="canary")))
            assert hold.is_held.wait(PATIENCE)
            waiting = pool.submit(lambda: machines.call(machines.put("canary", Put("canary"), NOBODY)))
            until(lambda: machines._changes.is_busy("canary"), "the PUT waits for its chart alone")
            assert machines.call(machines.put("other", Put("canary"), NOBODY)).reason is Reason.UPDATED
            assert not waiting.done()
            hold.released.set()
        assert [future.result().value for future in (holder, waiting)] == [1, 2]
        assert list(machines._contended) == ["canary"]


@pytest.mark.parametrize(
    ("ago", "keys", "left"), [(0, ["canary"], ["canary"]), (CONTENDED_SECONDS, [ANY_CHART], [])], ids=["is", "was"]
)
def test_chart_that_was_found_locked_is_left_to_itself_for_a_moment(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, ago: float, keys: list[str], left: list[str]
) -> None:
    with opened_service(postgresql_url) as service, requests.opened_machines(service) as machines:
        import_all(service, "")
        found: list[str] = []
        ask = machines._changes.ask

        async def watch(key: str, sent: Sent) -> Applied:
            found.append(key)
            return await ask(key, sent)

        monkeypatch.setattr(machines._changes, "ask", watch)
        machines._contended["canary"] = time.monotonic() - ago
        assert machines.call(machines.put("canary", Put("canary"), NOBODY)).reason is Reason.UPDATED
        assert (found, list(machines._contended)) == (keys, left)


def test_put_on_an_unknown_chart_is_an_error(service: Service) -> None:
    with pytest.raises(ChartNotFoundError):
        update(service, "missing", Put("a"), NOBODY)
