"""How the counts of a visit grew: what the plot on a chart's page shows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.service import forecast
from app.service.context import Service
from app.service.forecast import Growth
from app.service.pages import MachineQuery, get_detail
from app.service.reading import HistoryQuery
from tests.core.support import NOON
from tests.service.support import Clock, import_text, put
from tests.service.test_condition import FLEET
from tests.support.requests import claim

MINUTE = timedelta(minutes=1)


@pytest.fixture
def fleet(service: Service) -> Service:
    import_text(service, FLEET)
    return service


def find(service: Service, **wanted: int) -> Growth | None:
    return get_detail(service, "web", MachineQuery(**wanted), HistoryQuery()).growth  # type: ignore[arg-type]


def points(found: Growth | None, number: int) -> list[tuple[float, float]]:
    """The points of a count, as minutes since noon and the value."""
    assert found is not None
    return [((at - NOON) / MINUTE, value) for at, value in found.counts[number].points]


def test_reports_and_failures_grow_to_their_thresholds(fleet: Service, clock: Clock) -> None:
    for number in range(3):
        clock.advance(60)
        put(fleet, "fleet", f"m{number}", "failed" if number == 1 else None)
    clock.advance(60)
    found = find(fleet)
    assert points(found, 0) == [(0, 0), (1, 1), (3, 2), (4, 2)]
    assert points(found, 1) == [(0, 0), (2, 0), (2, 1), (4, 1)]
    assert found is not None
    assert [(count.says, count.threshold, count.target) for count in found.counts] == [
        ("2 of 30 on count", 30, "soak"),
        ("1 of 3 failed", 3, "backout"),
    ]
    assert found.deadline == (NOON + timedelta(hours=10), "overdue")


def test_claims_are_no_reports(service: Service, clock: Clock) -> None:
    import_text(service, FLEET.replace("    func: increment\n", "    func: increment\n    slots: 50\n", 1))
    for number in range(3):
        claim(service, "web", "fleet", f"m{number}")
    clock.advance(60)
    put(service, "fleet", "m0")
    assert points(find(service), 0) == [(0, 0), (1, 1), (1, 1)]


def test_failures_without_a_machine_are_seen(fleet: Service, clock: Clock) -> None:
    clock.advance(60)
    put(fleet, "fleet", None, "failed")
    assert points(find(fleet), 1) == [(0, 0), (1, 1), (1, 1)]


def test_long_visit_is_sampled(fleet: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "POINTS", 4)
    for number in range(20):
        clock.advance(60)
        put(fleet, "fleet", f"m{number}")
    assert points(find(fleet), 0) == [(0, 0), (5, 5), (10, 10), (15, 15), (20, 20), (20, 20)]


def test_chart_that_has_ended_shows_the_last_visit_with_reports(fleet: Service, clock: Clock) -> None:
    for number in range(30):
        put(fleet, "fleet", f"m{number}")
    clock.advance(7200)
    assert (found := find(fleet)) is None, found  # in soak, which counts nothing
    put(fleet, "soak", None)  # the clock's transition is taken before the answer
    ended = find(fleet)
    assert ended is not None
    assert (ended.visit.state, ended.counts[0].says, ended.forecast, ended.deadline) == (
        "fleet",
        "30 of 30 on count",
        None,
        None,
    )


def test_earlier_visit_grew_until_it_was_left(fleet: Service, clock: Clock) -> None:
    for number in range(30):
        clock.advance(1)
        put(fleet, "fleet", f"m{number}")
    clock.advance(60)
    found = find(fleet, visit=1)
    assert found is not None
    assert (found.until, found.counts[0].value) == (NOON + timedelta(seconds=30), 30)


def test_state_that_is_moved_by_the_clock_alone_has_no_plot(fleet: Service) -> None:
    for number in range(30):
        put(fleet, "fleet", f"m{number}")
    assert find(fleet) is None
