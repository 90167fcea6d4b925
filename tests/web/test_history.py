"""The log over HTTP: filters, the cursor, waiting, three formats, and any number of rows."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import insert

from app.core.log import COLUMNS, HistoryFilter, LogRow
from app.db import transaction
from app.models import transition_log
from app.service import operate
from app.service.context import Service
from app.service.reading import as_csv, as_ndjson, iterate_history
from app.wiring import service_of
from tests.service.support import ANN, ROLLOUT, import_text, put
from tests.support.apps import ROOT
from tests.support.databases import ON_ONE_DATABASE
from tests.support.processes import PATIENCE


@pytest.fixture
def charts() -> Sequence[str]:
    return []


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def lived(service: Service) -> None:
    """Five rows, an hour apart, the first at noon."""
    now = NOON

    def clock() -> datetime:
        return now

    service.database.clock = clock
    import_text(service, ROLLOUT)
    for act in (
        lambda: put(service, "canary", "m1"),
        lambda: operate.pause(service, "web", "look", ANN),
        lambda: operate.resume(service, "web", "on", ANN),
        lambda: put(service, "canary", "m2"),
    ):
        now += timedelta(hours=1)
        act()


def get(client: FlaskClient, query: str = "", **headers: str) -> Any:
    return client.get(f"/charts/web/history?{query}", headers=headers)


def seqs(client: FlaskClient, query: str) -> list[int]:
    response = get(client, query)
    assert response.status_code == 200, response.text
    return [row["seq"] for row in response.get_json()]


@pytest.mark.usefixtures("lived")
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("after=3", [4, 5]),
        ("after=5", []),
        ("after=9223372036854775807", []),
        ("limit=2", [1, 2]),
        ("after=1&limit=2", [2, 3]),
        ("kind=pause", [3]),
        ("kind=prune", []),
        ("machine=m2", [5]),
        ("machine=m1&kind=transition", []),
        ("since=2026-01-31T14:00:00Z", [3, 4, 5]),
        ("since=2026-01-31T14:00:00", [3, 4, 5]),
        ("since=2026-01-31T15:00:00%2B01:00", [3, 4, 5]),
        ("since=2026-01-31T15:00:00+01:00", [3, 4, 5]),
        ("since=2026-01-31T14:00:00.000001Z", [4, 5]),
        ("since=2026-02-01", []),
        ("until=2026-01-31T14:00:00Z", [1, 2]),
        ("until=2026-01-31T14:00:00.000001Z", [1, 2, 3]),
        ("since=2026-01-31T13:00:00Z&until=2026-01-31T15:00:00Z", [2, 3]),
        ("since=0001-01-01&until=9999-12-31", [1, 2, 3, 4, 5]),
    ],
)
def test_history_has_the_rows_that_pass_the_filter(client: FlaskClient, query: str, wanted: list[int]) -> None:
    assert seqs(client, query) == wanted


@ON_ONE_DATABASE
@pytest.mark.usefixtures("lived")
@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=x",
        "after=9223372036854775808",
        "after=1&after=2",
        "limit=0",
        "limit=1001",
        "limit=",
        "kind=nonsense",
        "kind=",
        "machine=",
        "since=yesterday",
        "since=0001-01-01T00:00:00%2B01:00",
        "since=2026-13-01",
        "until=",
        "wait=56",
        "wait=-1",
        "format=xml",
        "machine=%00",
    ],
)
def test_malformed_parameter_is_400(client: FlaskClient, query: str) -> None:
    response = get(client, query)
    assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    assert query.partition("=")[0] in response.get_json()["detail"]


def test_history_of_an_unknown_chart_is_404(client: FlaskClient) -> None:
    assert get(client).status_code == 404


@ON_ONE_DATABASE
@pytest.mark.usefixtures("lived")
@pytest.mark.parametrize(
    ("query", "accept", "mimetype"),
    [
        ("", "*/*", "application/json"),
        ("", "text/html", "application/json"),
        ("", "text/csv", "text/csv"),
        ("", "application/x-ndjson", "application/x-ndjson"),
        ("", "text/csv;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("format=csv", "application/json", "text/csv"),
        ("format=json", "text/csv", "application/json"),
        ("format=ndjson", "*/*", "application/x-ndjson"),
    ],
)
def test_format_is_chosen_by_parameter_then_by_accept(
    client: FlaskClient, query: str, accept: str, mimetype: str
) -> None:
    response = get(client, query, Accept=accept)
    assert (response.status_code, response.mimetype) == (200, mimetype)


@pytest.mark.usefixtures("lived")
def test_all_formats_have_the_same_rows(client: FlaskClient) -> None:
    rows = get(client).get_json()
    assert list(rows[0]) == [*COLUMNS, "hash"]
    assert [json.loads(line) for line in get(client, "format=ndjson").text.splitlines()] == rows
    found = list(csv.reader(io.StringIO(get(client, "format=csv").text)))
    assert found[0] == list(rows[0])
    assert found[1:] == [["" if value is None else str(value) for value in row.values()] for row in rows]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x")'])
def test_csv_has_no_formula(client: FlaskClient, service: Service, text: str) -> None:
    import_text(service, ROLLOUT.replace("value: 0}, {key: f", "value: -5}, {key: f"))
    put(service, "canary", text)
    operate.pause(service, "web", text, ANN)
    found = list(csv.DictReader(io.StringIO(get(client, "format=csv").text)))
    shown = f"'{text}"
    assert (found[1]["machine"], found[2]["reason"]) == (shown, shown)
    # A negative number stays a number.
    assert found[1]["value_before"] == "-5"
    assert get(client).get_json()[1]["machine"] == text


def test_csv_quotes_commas_and_quotes(client: FlaskClient, service: Service) -> None:
    import_text(service, ROLLOUT)
    operate.pause(service, "web", 'a "b", c; d', ANN)
    assert '"a ""b"", c; d"' in get(client, "format=csv").text
    assert get(client, "format=csv").text.count("\r\n") == 3


# Waiting


def test_wait_ends_with_the_first_row_that_passes_the_filter(client: FlaskClient, service: Service) -> None:
    import_text(service, ROLLOUT)
    service.hub.start()
    timer = threading.Timer(0.3, lambda: operate.pause(service, "web", "look", ANN))
    timer.start()
    started = time.monotonic()
    assert seqs(client, "after=1&wait=50") == [2]
    assert time.monotonic() - started < PATIENCE
    timer.join()
    service.hub.close()


def test_wait_goes_on_after_a_row_that_does_not_pass_the_filter(client: FlaskClient, service: Service) -> None:
    import_text(service, ROLLOUT)
    service.hub.start()
    timer = threading.Timer(0.1, lambda: put(service, "canary", "m1"))
    timer.start()
    assert seqs(client, "after=1&wait=1&kind=pause") == []
    timer.join()
    service.hub.close()


def test_wait_ends_at_once_if_there_are_rows(client: FlaskClient, service: Service) -> None:
    import_text(service, ROLLOUT)
    started = time.monotonic()
    assert seqs(client, "wait=50") == [1]
    assert time.monotonic() - started < PATIENCE


OTHER_PROCESS = """
import sys, time
from app.config import Config
from app.core.log import Author
from app.service.put import Put, apply_one
from app.wiring import create_app, service_of
service = service_of(create_app(Config(database_url=sys.argv[1])))
sys.stdin.readline()
apply_one(service, "web", Put("canary", "m1"), Author())
print(time.time(), flush=True)
service.database.engine.dispose()
"""


def test_wait_ends_after_another_process_wrote_a_row(client: FlaskClient, service: Service, database_url: str) -> None:
    import_text(service, ROLLOUT)
    service.hub.start()
    command = [sys.executable, "-c", OTHER_PROCESS, database_url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        answered: list[float] = []

        def ask() -> None:
            assert seqs(client, "after=1&wait=50") == [2]
            answered.append(time.time())

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(1.5)
        other.stdin.write("go\n")
        other.stdin.flush()
        committed = float(other.stdout.readline())
        asking.join(60)
    service.hub.close()
    assert answered[0] - committed < PATIENCE


# Many rows


@pytest.fixture
def long_history(service: Service) -> int:
    """A log of 30,000 rows, written without the service because they are only read."""
    import_text(service, ROLLOUT)
    rows = 30_000
    filler = LogRow(
        chart="web",
        version=1,
        run=1,
        visit=1,
        seq=0,
        at=NOON,
        kind="update",
        from_state="canary",
        to_state="canary",
        key="count",
        value_before=1,
        value_after=2,
        machine="m1",
        actor="ann",
        remote_addr="192.0.2.1",
    )
    values = {name: getattr(filler, name) for name in COLUMNS} | {"hash": "0" * 64}
    with transaction(service.database, is_long=True) as connection:
        for first in range(2, rows + 1, 1000):
            batch = [values | {"seq": seq} for seq in range(first, min(first + 1000, rows + 1))]
            connection.execute(insert(transition_log), batch)
    return rows


def test_json_is_at_most_a_thousand_rows(client: FlaskClient, long_history: int) -> None:
    assert seqs(client, "") == list(range(1, 1001))
    assert seqs(client, "after=1000&limit=1000") == list(range(1001, 2001))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_export_has_every_row(client: FlaskClient, long_history: int, form: str) -> None:
    lines = get(client, f"format={form}").text.splitlines()
    assert len(lines) == long_history + (form == "csv")


@pytest.mark.slow
@pytest.mark.parametrize("write", [as_csv, as_ndjson])
def test_export_takes_little_memory(service: Service, long_history: int, write: Any) -> None:
    def pieces() -> Iterator[str]:
        return iter(write(iterate_history(service, "web", HistoryFilter())))

    next(pieces())
    tracemalloc.start()
    size = sum(len(piece) for piece in pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All rows together would take about 40 MB.
    assert size > 4_000_000
    assert peak < 8_000_000


@pytest.mark.slow
def test_export_begins_before_the_whole_log_is_read(app: Flask, long_history: int) -> None:
    service_of(app)
    response = app.test_client().get("/charts/web/history?format=ndjson", buffered=False)
    first = next(response.iter_encoded())
    assert 10_000 < len(first) < 200_000
    response.close()


def test_machine_filter_takes_names_with_special_characters(client: FlaskClient, service: Service) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m ü+&=1")
    assert seqs(client, f"machine={quote('m ü+&=1')}") == [2]
