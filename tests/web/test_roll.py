"""Which machines did what: `GET /charts/C/machines` with its filters, and `GET /machines/M`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.service import operate
from app.service.context import Service
from app.service.tokens import Role, create_token
from app.wiring import service_of
from tests.service.support import ANN
from tests.support.apps import import_text, opened_app

CHART = """
current_state: work
states:
  - name: work
    func: increment
    slots: 9
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: stop, when: {key: failed, value: 2}}, {name: done, when: {key: count, value: 5}}]
  - {name: stop, func: increment, current: {key: n, value: 0}, target: {name: stopped, when: {key: n, value: 9}}}
  - {name: stopped}
  - {name: done}
"""


ROSTER = "expect: [m3, m1, m2, m4, m5, m6, m7, m8, m9]\n" + CHART


@pytest.fixture
def charts() -> Sequence[str]:
    return []


@pytest.fixture
def moved_on(app: Flask, client: FlaskClient) -> FlaskClient:
    """A chart that stopped at its second failure: m1 did it, m2 and m3 failed, m4 and m5 were at work, m6 gave up."""
    import_text(app, CHART, "web")
    for number in (1, 2, 3, 4, 5, 6):
        assert client.put(f"/charts/web/slot?state=work&machine=m{number}").status_code == 200
    client.delete("/charts/web/slot?state=work&machine=m6")
    client.put("/charts/web/state?state=work&machine=m1")
    for number in (2, 3):
        client.put(f"/charts/web/state?state=work&machine=m{number}&key=failed")
    return client


def ids(client: FlaskClient, query: str) -> list[str]:
    response = client.get(f"/charts/web/machines?{query}")
    assert response.status_code == 200, response.text
    return [entry["machine"] for entry in response.json["machines"]]


@pytest.mark.parametrize(
    ("query", "machines"),
    [
        ("", []),
        ("state=work", ["m1", "m2", "m3"]),
        ("state=work&is=failed", ["m2", "m3"]),
        ("state=work&key=failed", ["m2", "m3"]),
        ("state=work&is=done", ["m1"]),
        ("state=work&is=working", ["m4", "m5"]),
        ("visit=1", ["m1", "m2", "m3"]),
        ("run=1&visit=1&after=m1", ["m2", "m3"]),
        ("run=1&visit=1&after=m1&limit=1", ["m2"]),
        ("state=work&is=working&after=m4", ["m5"]),
        ("state=done", []),
    ],
)
def test_machines_of_a_visit_are_filtered(moved_on: FlaskClient, query: str, machines: list[str]) -> None:
    assert ids(moved_on, query) == machines


def test_machines_of_an_earlier_run_are_listed(moved_on: FlaskClient, service: Service) -> None:
    operate.reset(service, "web", "again", ANN)
    assert ids(moved_on, "") == ids(moved_on, "is=working") == []
    assert ids(moved_on, "run=1&state=work&is=failed") == ["m2", "m3"]
    assert ids(moved_on, "run=1&state=work&is=working") == ["m4", "m5"]
    assert moved_on.get("/charts/web/machines?run=1").json["state"] == "stop"


def test_machines_at_work_now_hold_slots(app: Flask, client: FlaskClient) -> None:
    import_text(app, CHART, "web")
    client.put("/charts/web/slot?state=work&machine=m1")
    (entry,) = client.get("/charts/web/machines?is=working").json["machines"]
    assert (entry["machine"], entry["fence"], entry["expires_at"]) == ("m1", 1, None)


def test_who_is_at_work_without_slots_is_said_to_be_unknown(app: Flask, client: FlaskClient) -> None:
    import_text(app, ROSTER.replace("    slots: 9\n", ""), "web")
    assert client.get("/charts/web/state?state=work&machine=m1").status_code == 200
    client.put("/charts/web/state?state=work&machine=m2")
    client.put("/charts/web/state?state=work&machine=m3&key=failed")
    answer = client.get("/charts/web/machines?is=working").json
    assert answer["machines"] == []
    assert answer["hint"] == (
        "which machines are at work in work is not known, because the state has no slots: a question leaves no trace."
        " Give the state `slots:`, and each machine claims one before it works. 2 of 9 have reported in this visit;"
        " 7 have not: m1, m4, m5, m6, m7, m8, m9."
    )


@pytest.mark.parametrize("query", ["", "state=work&is=working", "state=done&is=working", "state=work&is=failed"])
def test_list_of_what_is_known_has_no_hint(moved_on: FlaskClient, query: str) -> None:
    assert "hint" not in moved_on.get(f"/charts/web/machines?{query}").json


def test_csv_has_a_heading_and_no_formula(app: Flask, client: FlaskClient) -> None:
    import_text(app, CHART.replace("    slots: 9\n", ""), "web")
    client.put("/charts/web/state?state=work&machine==m1")
    response = client.get("/charts/web/machines?format=csv")
    assert response.mimetype == "text/csv"
    heading, line = response.text.splitlines()
    assert heading.startswith("machine,key,reported_at,seq")
    assert line.startswith("'=m1,count,2")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("stat=work", "unknown parameter 'stat' (did you mean 'state'?)"),
        ("run=2", "run=2: chart 'web' has the runs 1 to 1"),
        ("visit=3", "visit=3: run 1 of chart 'web' has no such visit"),
        ("state=stop&visit=1", "no such visit of state 'stop'"),
        ("state=work&key=faild", "state 'work' has no attribute 'faild'"),
        ("state=work&key=count&is=failed", "contradict"),
        ("state=work&key=count&is=working", "machines that are working have no report"),
        ("is=gone", "is not one of reported, missing, failed, working, done"),
        ("limit=0", "limit=0 is not a whole number"),
        ("format=xml", "is not one of json, text, csv"),
    ],
)
def test_bad_filters_name_the_culprit(moved_on: FlaskClient, query: str, says: str) -> None:
    response = moved_on.get(f"/charts/web/machines?{query}")
    assert (response.status_code, says in response.json["detail"]) == (400, True), response.text


def test_missing_machines_come_a_page_at_a_time(app: Flask, client: FlaskClient) -> None:
    import_text(app, ROSTER.replace("    slots: 9\n", ""), "web")
    client.put("/charts/web/state?state=work&machine=m1")
    assert ids(client, "is=missing") == ["m3", "m2", "m4", "m5", "m6", "m7", "m8", "m9"]
    assert ids(client, "is=missing&after=m1&limit=1") == ["m2"]
    assert client.get("/charts/web/machines?is=missing&after=x1").status_code == 400


def test_machine_has_its_charts_reports_and_slots(moved_on: FlaskClient, app: Flask) -> None:
    import_text(app, ROSTER, "other")
    moved_on.put("/charts/other/slot?state=work&machine=m4")
    found: dict[str, Any] = moved_on.get("/machines/m4").json
    (other,) = found["charts"]
    assert (other["chart"], other["expected"], other["slot"]["fence"], other["reports"]) == ("other", True, 1, [])
    _, web = moved_on.get("/machines/m2").json["charts"]
    assert (web["chart"], web["condition"], web["slot"]) == ("web", "backing_out", None)
    assert [(one["run"], one["visit"], one["state"], one["key"]) for one in web["reports"]] == [
        (1, 1, "work", "failed")
    ]
    assert "failed in work, run 1" in moved_on.get("/machines/m2", headers={"Accept": "text/plain"}).text
    assert moved_on.get("/machines/rack%2F7").json == {"machine": "rack/7", "charts": []}
    assert moved_on.get("/machines/%01").status_code == 400


def test_machine_shows_only_charts_of_the_pattern(database_url: str) -> None:
    for app in opened_app(database_url, auth="tokens"):
        for name in ("web", "other"):
            import_text(app, ROSTER, name)
        secret = create_token(service_of(app), "reader", Role.READER, "web*", ANN)
        response = app.test_client().get("/machines/m1", headers={"Authorization": f"Bearer {secret}"})
        assert [part["chart"] for part in response.json["charts"]] == ["web"]


@pytest.mark.parametrize(
    "path", ["/charts", "/charts/web", "/charts/web/versions", "/machines/m1", "/healthz", "/metrics", "/openapi.json"]
)
def test_unknown_parameter_is_refused(moved_on: FlaskClient, path: str) -> None:
    response = moved_on.get(path + "?colour=red")
    assert (response.status_code, response.json["detail"]) == (400, "unknown parameter 'colour'")


# Acts that end a visit


@pytest.mark.parametrize(("act", "body"), [("reset", {}), ("goto", {"state": "done"}), ("archive", {})])
def test_dry_run_says_what_would_be_lost_and_changes_nothing(
    app: Flask, client: FlaskClient, act: str, body: dict[str, str]
) -> None:
    import_text(app, CHART, "web")
    for number in (1, 2, 3):
        client.put(f"/charts/web/slot?state=work&machine=m{number}")
    client.put("/charts/web/state?state=work&machine=m1")
    before = client.get("/charts/web").json["seq"]
    response = client.post(f"/charts/web/{act}?dry_run=1", json=body)
    assert response.status_code == 200, response.text
    assert response.json["dry_run"] is True
    assert response.json["lost"] == {
        "state": "work",
        "counts": {"count": 1},
        "reports": 1,
        "slots": 2,
        "machines": ["m2", "m3"],
    }
    assert response.json["steps"][0]["kind"] == act
    assert response.json["current_state"] == {"reset": "work", "goto": "done", "archive": "work"}[act]
    assert client.get("/charts/web").json["seq"] == before


def test_dry_run_is_refused_as_the_act_would_be(app: Flask, client: FlaskClient) -> None:
    import_text(app, CHART, "web")
    assert client.post("/charts/web/goto?dry_run=1", json={"state": "nowhere"}).status_code == 400
    assert client.post("/charts/web/goto?dry_run=1", json={}).status_code == 400
    assert client.post("/charts/web/goto?dry_run=2", json={"state": "done"}).status_code == 400
    assert client.post("/charts/gone/reset?dry_run=1").status_code == 404
    assert client.post("/charts/web/reset?dry_run=0").status_code == 422
    assert client.post("/charts/web/reset?dry_run=1").status_code == 200
