"""The queries on charts, their positions, visits and reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app import store
from app.core.errors import ChartNotFoundError
from app.db import asking, transaction
from app.models import charts
from app.service import operate
from app.service.context import Service
from app.store.charts import ChartRow
from tests.core.support import NOON, after
from tests.service.support import ANN, CANARY, Clock, get_row, import_text, opened_service, put
from tests.support.requests import Question, ask


def soak(service: Service, name: str, seconds: float) -> None:
    """Put a chart, `seconds` after noon, into a state that its clock ends 60 s later."""
    import_text(service, CANARY, name=name)
    service.database.clock = Clock(after(seconds))
    operate.goto(service, name, "soak", "there", ANN)


def due(service: Service, seconds: float, limit: int = 9) -> list[str]:
    with asking(service.database) as connection:
        return [row.name for row in store.charts.lock_due_charts(connection, after(seconds), [], limit)]


def test_due_charts_are_listed_longest_overdue_first(service: Service) -> None:
    for name, seconds in (("b", 20), ("c", 10), ("a", 30)):
        soak(service, name, seconds)
    assert due(service, 100) == ["c", "b", "a"]
    assert due(service, 100, limit=2) == ["c", "b"]


@pytest.mark.parametrize(("seconds", "found"), [(59.999999, []), (60, ["a"]), (60.000001, ["a"])])
def test_chart_is_due_from_exactly_its_instant_on(service: Service, seconds: float, found: list[str]) -> None:
    soak(service, "a", 0)
    assert due(service, seconds) == found


def test_instants_with_and_without_fractions_sort_by_time(service: Service) -> None:
    for name, seconds in (("whole", 1), ("half", 0.5), ("least", 0.000001)):
        soak(service, name, seconds)
    assert due(service, 100) == ["least", "half", "whole"]


@pytest.mark.parametrize("name", ["nowhere", "WEB"])
def test_locking_an_unknown_chart_is_an_error(service: Service, name: str) -> None:
    import_text(service, CANARY)
    with transaction(service.database) as connection, pytest.raises(ChartNotFoundError):
        store.charts.lock_chart(connection, name)


def test_archived_chart_is_locked_only_by_lock_chart_even_archived(service: Service) -> None:
    import_text(service, CANARY)
    operate.archive(service, "web", "over", ANN)
    with transaction(service.database) as connection:
        with pytest.raises(ChartNotFoundError):
            store.charts.lock_chart(connection, "web")
        row = store.charts.lock_chart_even_archived(connection, "web")
    assert row == get_row(service)


def test_every_query_for_a_chart_row_reads_the_same_row(service: Service) -> None:
    import_text(service, CANARY)
    operate.pause(service, "web", "look", ANN)
    with transaction(service.database) as connection:
        locked = store.charts.lock_chart(connection, "web")
        (with_now,) = store.charts.read_charts_and_now(connection, ["web", "none"])[0].values()
        listed = store.charts.list_charts(connection)
        assert [locked, with_now, *listed] == [store.charts.get_chart(connection, "web")] * 3


def test_chart_row_has_the_columns_of_its_table_in_their_order() -> None:
    """`ChartRow._make` takes the columns in the order in which the database returns them."""
    assert ChartRow._fields == tuple(charts.columns.keys())


def test_instant_is_read_in_utc_to_the_microsecond(service: Service) -> None:
    service.database.clock = Clock(NOON + timedelta(microseconds=123_456))
    import_text(service, CANARY)
    found = get_row(service).entered_at
    assert (found, found.utcoffset()) == (NOON + timedelta(microseconds=123_456), timedelta(0))


def test_time_of_the_database_is_the_present(service: Service) -> None:
    with asking(service.database) as connection:
        now = store.charts.read_now(connection)
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)
    assert now.utcoffset() == timedelta(0)


def test_reports_are_found_by_visit_and_machine(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1")
    put(service, "canary", "m2")
    put(service, "soak", "m1")
    with asking(service.database) as connection:
        row = store.charts.get_chart(connection, "web")
        found = store.machines.find_reports(connection, row, {1, 2}, {"m1", "m9"})
        visits = store.machines.list_latest_visits(connection, row, {"canary", "soak", "done"})
    assert {(report.visit, report.machine, report.key) for report in found} == {(1, "m1", "count"), (2, "m1", "count")}
    assert visits == {"canary": 1, "soak": 2}


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles"])
@pytest.mark.parametrize("instant", ["9999-12-31T23:59:59.999999", "0001-01-01T00:00:00"])
def test_any_instant_is_read_back_in_every_time_zone_of_the_server(
    postgresql_url: str, zone: str, instant: str
) -> None:
    with opened_service(postgresql_url) as service, service.database.engine.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER ROLE CURRENT_USER IN DATABASE {connection.engine.url.database} SET timezone = '{zone}'"
        )
    with opened_service(postgresql_url) as service:
        text = CANARY.replace("{key: elapsed, value: 60s}", f"{{key: clock, value: '{instant}'}}")
        import_text(service, text)
        operate.goto(service, "web", "soak", "there", ANN)
        expected = datetime.fromisoformat(instant).replace(tzinfo=UTC)
        assert get_row(service).due_at in (expected, None)
        assert ask(service, "web", Question("done")).is_yes is (instant < "2026")
