"""A definition that is read back from its rows is the same as the one that was written."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import store
from app.core import machine
from app.core.chart import Chart
from app.core.errors import VersionNotFoundError
from app.core.log import Author
from app.db import Database, asking, transaction
from app.service.context import Service
from tests.core.support import NOON, rolling
from tests.service.support import CANARY, get_row, import_text
from tests.strategies import charts
from tests.support.examples import examples


class UndoneError(Exception):
    """Ends a transaction so that it leaves no rows."""


def written_and_read(database: Database, chart: Chart) -> Chart | None:
    found = None
    with suppress(UndoneError), transaction(database) as connection:
        first = store.record.DecidedStep(machine.start(chart, 1, 1, NOON), Author())
        row = store.record.create_chart(connection, chart.name, first, NOON)
        store.definitions.add_version(connection, row.id, 1, chart, text="text", now=NOON, actor=None)
        found = store.definitions.load_chart(connection, row.id, chart.name, 1)
        raise UndoneError
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100, few=10))
@given(data=st.data())
def test_definition_read_back_is_the_one_written(service: Service, data: st.DataObject) -> None:
    chart = data.draw(charts())
    found = written_and_read(service.database, chart)
    assert found == chart
    assert found is not None
    assert list(found.states) == list(chart.states)


@pytest.mark.parametrize("stages", [(1,), (1, 5, 20)])
def test_slots_read_back_have_all_their_stages(service: Service, stages: tuple[int, ...]) -> None:
    chart = rolling(*stages, lease=90)
    assert written_and_read(service.database, chart) == chart


def test_empty_roster_differs_from_a_missing_roster(service: Service) -> None:
    chart = replace(rolling(), roster=(), expect=0)
    found = written_and_read(service.database, chart)
    assert found is not None
    assert (found.roster, found.is_on_roster("m1")) == ((), False)


def test_loading_a_missing_version_is_an_error(service: Service) -> None:
    import_text(service, CANARY)
    with asking(service.database) as connection, pytest.raises(VersionNotFoundError):
        store.definitions.load_chart(connection, get_row(service).id, "web", 2)


def test_text_is_stored_with_its_hash(service: Service) -> None:
    import_text(service, CANARY)
    with asking(service.database) as connection:
        version = store.definitions.get_version(connection, get_row(service).id, 1)
    assert (version.version, version.text) == (1, CANARY)
    assert version.sha256 == hashlib.sha256(CANARY.encode()).hexdigest()
