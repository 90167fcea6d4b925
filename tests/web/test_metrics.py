"""What /metrics says, in one process and in several."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.core.log import Author
from app.service.tokens import Role, create_token
from app.wiring import service_of
from tests.support.apps import SEED, import_text, opened_app
from tests.support.processes import until
from tests.support.servers import GUNICORN, Server, running

COUNTED = """\
current_state: work
expect: 400
states:
  - name: work
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: done, when: {key: count, value: "50%"}}, {name: late, when: {key: elapsed, value: 30m}}]
  - name: done
  - name: late
"""
APPROVED = """\
current_state: review
states:
  - name: review
    func: increment
    who: approvers
    current: [{key: approved, value: 0}, {key: rejected, value: 0}]
    target: [{name: refused, when: {key: rejected, value: 1}}, {name: work, when: {key: approved, value: 2}}]
  - name: refused
  - name: work
"""
ENDED = "current_state: over\nstates: [{name: over}]\n"


def read(client: FlaskClient) -> dict[str, float]:
    return parse(client.get("/metrics").get_data(as_text=True))


def parse(text: str) -> dict[str, float]:
    """Each series with its value."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}


def requests(series: dict[str, float], method: str, route: str, status: int) -> float:
    return series.get(f'stateservice_requests_total{{method="{method}",route="{route}",status="{status}"}}', 0)


def test_metrics_are_prometheus_text(client: FlaskClient) -> None:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_requests_are_counted_by_route_and_status(client: FlaskClient) -> None:
    before = read(client)
    client.get("/charts/states/state?state=green_state")
    client.get("/charts/states/state?state=blue_state")
    client.get("/charts/gone/state?state=blue_state")
    after = read(client)
    route = "/charts/<chart:name>/state"
    for status in (200, 406, 404):
        assert requests(after, "GET", route, status) - requests(before, "GET", route, status) == 1


def test_words_of_callers_make_no_series(client: FlaskClient) -> None:
    for path in ("/forged", "/charts/states/forged"):
        client.open(path, method="FORGED")
        client.get(path)
    assert "orged" not in client.get("/metrics").get_data(as_text=True).lower()
    assert requests(read(client), "other", "other", 404) >= 2


def test_puts_are_timed_and_so_is_their_lock(client: FlaskClient) -> None:
    before = read(client)
    client.put("/charts/states/state?state=green_state")
    client.put("/charts/states/state?state=green_state")
    client.get("/charts/states/state?state=green_state")
    after = read(client)
    for name in ("stateservice_put_seconds_count", "stateservice_lock_wait_seconds_count"):
        assert after[name] - before.get(name, 0) == 2


def test_chart_shows_where_it_stands(app: Flask, client: FlaskClient) -> None:
    import_text(app, COUNTED, name="rollout")
    client.put("/charts/rollout/state?state=work&machine=a")
    client.put("/charts/rollout/state?state=work&machine=b&key=failed")
    series = read(client)
    for name, value in {"counted": 1, "needed": 200, "failed": 1}.items():
        assert series[f'stateservice_chart_{name}{{chart="rollout"}}'] == value
    assert series['stateservice_chart_state{chart="rollout",state="work"}'] == 1
    assert series['stateservice_chart_final{chart="rollout"}'] == 0
    assert 0 <= series['stateservice_chart_state_seconds{chart="rollout"}'] < 60


def test_chart_says_whether_its_window_is_open_and_whether_people_decide(app: Flask, client: FlaskClient) -> None:
    begin, end = (datetime.now(UTC) + timedelta(hours=hours) for hours in (2, 3))
    window = f'windows: [{{from: "{begin:%H:%M}", to: "{end:%H:%M}", zone: UTC}}]\n'
    import_text(app, window + COUNTED, name="nightly")
    import_text(app, APPROVED, name="change")
    series = read(client)
    assert series['stateservice_chart_window_open{chart="nightly"}'] == 0
    assert 'stateservice_chart_window_open{chart="change"}' not in series
    assert series['stateservice_chart_awaits_approval{chart="change"}'] == 1
    assert series['stateservice_chart_awaits_approval{chart="nightly"}'] == 0
    client.post("/charts/nightly/open", json={"reason": "test", "until": f"{begin:%Y-%m-%dT%H:%M:%SZ}"})
    assert read(client)['stateservice_chart_window_open{chart="nightly"}'] == 1


def test_paused_and_ended_charts_say_so(app: Flask, client: FlaskClient) -> None:
    import_text(app, ENDED, name="ended")
    client.post("/charts/states/pause", json={"reason": "test"})
    series = read(client)
    assert series['stateservice_chart_paused{chart="states"}'] == 1
    assert series['stateservice_chart_paused{chart="ended"}'] == 0
    assert series['stateservice_chart_final{chart="ended"}'] == 1
    assert 'stateservice_chart_counted{chart="ended"}' not in series


def test_archived_chart_has_no_series(client: FlaskClient) -> None:
    client.post("/charts/states/archive", json={"reason": "test"})
    assert [name for name in read(client) if 'chart="states"' in name] == []


def test_charts_are_cut_and_it_says_so_those_that_have_ended_first(database_url: str) -> None:
    for app in opened_app(database_url, metrics_charts=2):
        for name, text in (("a-ended", ENDED), ("b", SEED), ("c", SEED)):
            import_text(app, text, name=name)
        series = read(app.test_client())
        shown = [name for name in series if name.startswith("stateservice_chart_state{")]
        assert shown == [f'stateservice_chart_state{{chart="{name}",state="green_state"}}' for name in ("b", "c")]
        assert (series["stateservice_charts"], series["stateservice_charts_left_out"]) == (3, 1)


def test_lag_is_how_overdue_the_clock_is(app: Flask, client: FlaskClient) -> None:
    import_text(app, COUNTED, name="rollout")
    assert read(client)["stateservice_sweeper_lag_seconds"] == 0
    service_of(app).database.clock = lambda: datetime.now(UTC) + timedelta(minutes=40)
    assert 590 < read(client)["stateservice_sweeper_lag_seconds"] < 610


def test_rest_is_there_when_the_database_is_not(empty_database_url: str) -> None:
    for app in opened_app(empty_database_url):
        series = read(app.test_client())
        assert series["stateservice_database_up"] == 0
        assert series["stateservice_waiters"] == 0
        assert "stateservice_charts" not in series


def test_reader_sees_the_charts_of_its_pattern_and_nobody_else_any(database_url: str) -> None:
    for app in opened_app(database_url, auth="tokens"):
        import_text(app, SEED, name="web-1")
        import_text(app, SEED, name="db-1")
        token = create_token(service_of(app), "prometheus", Role.READER, "web-*", Author())
        client = app.test_client()
        assert client.get("/metrics").status_code == 401
        text = client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).get_data(as_text=True)
        assert 'chart="web-1"' in text
        assert "db-1" not in text


# Several workers


@pytest.fixture
def server(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    with running(sqlite_url, tmp_path, GUNICORN, workers="3") as found:
        found.import_chart("states", SEED.replace("value: 1", "value: 1000"))
        yield found


def counted(server: Server) -> float:
    series = parse(server.ask("GET", "/metrics").body)
    return requests(series, "PUT", "/charts/<chart:name>/state", 200)


def test_every_worker_answers_for_all_even_after_one_was_killed(server: Server) -> None:
    for number in range(40):
        assert server.put("states", "green_state", machine=f"m{number}").status == 200
    assert {counted(server) for _ in range(12)} == {40}
    killed = server.workers()[0]
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in server.workers() and len(server.workers()) == 3, "another worker runs")
    until(lambda: server.ask("GET", "/readyz").status == 200, "it is ready")
    assert server.put("states", "green_state", machine="last").status == 200
    assert {counted(server) for _ in range(12)} == {41}


def test_waiters_of_all_workers_are_counted_and_those_of_a_killed_one_are_not(server: Server) -> None:
    server.hold("states", "red_state", count=12)
    assert parse(server.ask("GET", "/metrics").body)["stateservice_waiters"] == 12
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    until(lambda: server.waiters() == 0, "they are forgotten")
    until(lambda: server.ask("GET", "/readyz").status == 200, "it is ready")
    assert parse(server.ask("GET", "/metrics").body)["stateservice_waiters"] == 0


def test_server_leaves_no_files_behind(server: Server) -> None:
    opened = Path(f"/proc/{server.workers()[0]}/maps").read_text()
    found = re.search(r"\S*/stateservice-metrics-\S*?(?=/)", opened)
    assert found is not None
    folder = Path(found.group())
    assert folder.is_dir()
    server.stop()
    assert not folder.exists()


def test_roster_has_its_size_and_its_age(client: FlaskClient) -> None:
    before = datetime.now(UTC).timestamp()
    assert client.put("/rosters/web", data="a zone=a\nb\n").status_code == 201
    assert client.put("/rosters/web", data="a zone=a\nb\nc\n").status_code == 200
    found = read(client)
    assert found['stateservice_roster_machines{roster="web"}'] == 3
    assert found['stateservice_roster_version{roster="web"}'] == 2
    assert abs(found['stateservice_roster_imported_timestamp_seconds{roster="web"}'] - before) < 120
