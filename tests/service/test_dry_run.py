"""A dry run predicts exactly what the import then does, and changes nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from app.chart_file import dump
from app.core.chart import Chart
from app.core.errors import StateServiceError
from app.core.log import Author, HistoryFilter
from app.core.position import Position
from app.db import snapshot
from app.models import metadata
from app.service import operate as acts
from app.service.context import Service
from app.service.operate import ImportRequest, import_chart
from app.service.put import Put
from app.service.reading import get_status, iterate_history
from app.service.upkeep import verify
from tests.core.support import NOON
from tests.service.support import ANN, Clock, query
from tests.support import requests
from tests.support.examples import examples
from tests.support.happenings import KEYS, MACHINES, STATES, random_homes, small_charts, successors
from tests.support.requests import update


@pytest.fixture
def time_source() -> None:
    """The service goes by the database's time."""


_numbers = itertools.count(1)

texts = st.sampled_from(STATES)
lives = st.lists(
    st.tuples(st.just("put"), texts, st.sampled_from(MACHINES), st.none() | st.sampled_from(KEYS))
    | st.tuples(st.just("claim"), texts, st.sampled_from(MACHINES), st.none())
    | st.tuples(st.sampled_from(["pause", "resume", "archive", "wait"]), texts, st.none(), st.none()),
    max_size=8,
)
# In hundreds of seconds. Some clock guards come due only between the last report and the import.
waits = st.integers(0, 20)
NOWHERE = Position(version=1, run=1, visit=1, state="a", values={}, entered_at=NOON)
bad_maps = st.lists(st.tuples(texts, texts).map(":".join), max_size=2)


@given(data=st.data(), old=small_charts(), life=lives, late=waits)
@settings(
    max_examples=examples(120, few=12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_dry_run_predicts_what_the_import_does(
    service: Service, data: st.DataObject, old: Chart, life: list[Any], late: int
) -> None:
    clock = Clock()
    service.database.clock = clock
    name = f"c{next(_numbers)}"
    import_chart(service, ImportRequest(write(old, name)), ANN)
    for happening in life:
        live(service, clock, name, *happening)
    clock.advance(late * 100)
    text, homes = data.draw(imports(service, old, name))
    before = read_tables(service)

    foretold = outcome(service, ImportRequest(text, maps=homes, dry_run=True))
    assert read_tables(service) == before
    done = outcome(service, ImportRequest(text, maps=homes))

    assert foretold == done
    event(done.partition(":")[0] if isinstance(done, str) else f"{done['outcome']}, {len(done['steps'])} steps")
    if isinstance(done, str):
        assert read_tables(service) == before
        return
    check_what_was_done(service, name, done)


@st.composite
def imports(draw: st.DrawFn, service: Service, old: Chart, name: str) -> tuple[str, list[str]]:
    """A chart file and maps: mostly a version that can take over, sometimes one with a mistake."""
    here = query(service, f"SELECT state FROM charts WHERE name = '{name}'")[0][0]
    new = draw(successors(old, replace(NOWHERE, state=here)))
    homes = draw(random_homes(old, new))
    text, maps = write(new, name), [":".join(pair) for pair in homes.items()]
    match draw(st.integers(0, 9)):
        case 0:
            return text.replace("name: ", "nme: ", 1), maps
        case 1:
            return text, draw(bad_maps)
        case _:
            return text, maps


def check_what_was_done(service: Service, name: str, done: dict[str, Any]) -> None:
    status = get_status(service, name).as_json()
    # The missing machines depend on the reports, and an import does not read them.
    assert {key: done[key] for key in status.keys() - {"waits_for"}} == {
        key: value for key, value in status.items() if key != "waits_for"
    }
    logged = [
        item.row for item in iterate_history(service, name, HistoryFilter(after=done["seq"] - len(done["steps"])))
    ]
    fields = ("kind", "from_state", "to_state", "reason")
    assert [{field: getattr(row, field) for field in fields} for row in logged] == done["steps"]
    assert verify(service, name).differences == ()


def write(chart: Chart, name: str) -> str:
    chart = replace(chart, name=name)
    return dump(chart, state=chart.initial, values=chart.states[chart.initial].initial_values())


def live(
    service: Service, clock: Clock, name: str, what: str, state: str, machine: str | None, key: str | None
) -> None:
    """Apply one request or act, unless the chart refuses it."""
    clock.advance(30)
    try:
        if what == "put":
            update(service, name, Put(state, machine, key), Author())
        elif what == "claim":
            requests.claim(service, name, state, machine or "m1", Author())
        elif what != "wait":
            getattr(acts, what)(service, name, "why", ANN)
    except StateServiceError:
        pass


def outcome(service: Service, request: ImportRequest) -> dict[str, Any] | str:
    """An import's answer without `dry_run`, the only field that may differ."""
    try:
        return {**import_chart(service, request, ANN).as_json(), "dry_run": None}
    except StateServiceError as error:
        return f"{type(error).__name__}: {error}"


def read_tables(service: Service) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the database."""
    with snapshot(service.database) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
        }
