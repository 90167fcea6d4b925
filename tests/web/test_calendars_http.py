"""Calendars and windows over HTTP and on the command line."""

from __future__ import annotations

from flask.testing import FlaskClient

from tests.service.test_calendars import CHART, FREEZE, NOTHING, calendar


def test_calendar_is_imported_read_and_changed(client: FlaskClient) -> None:
    created = client.put("/calendars/freeze", data=FREEZE)
    assert (created.status_code, created.get_json()["outcome"]) == (201, "created")
    assert client.put("/charts/web", data=CHART).status_code == 201
    again = client.put("/calendars/freeze", data=FREEZE)
    assert (again.status_code, again.get_json()["outcome"]) == (200, "unchanged")
    changed = client.put("/calendars/freeze", data=NOTHING).get_json()
    assert (changed["outcome"], changed["version"]) == ("changed", 2)
    assert changed["charts"] == [{"chart": "web", "current_state": "patch"}]
    found = client.get("/calendars/freeze").get_json()
    assert (found["version"], found["charts"], found["next"]) == (2, ["web"], [])
    assert client.get("/calendars").get_json()[0]["calendar"] == "freeze"
    assert client.get("/calendars/freeze", headers={"Accept": "text/calendar"}).text == NOTHING
    assert [item["version"] for item in client.get("/calendars/freeze/versions").get_json()] == [1, 2]
    assert client.get("/calendars/freeze/versions/1").text == FREEZE
    assert client.get("/calendars/nothing").status_code == 404
    assert client.get("/calendars/freeze/versions/3").status_code == 404


def test_bad_calendar_is_422_with_its_line(client: FlaskClient) -> None:
    refused = client.put("/calendars/freeze", data=calendar("BEGIN:VTODO", "END:VTODO"))
    assert refused.status_code == 422
    assert refused.get_json()["problems"][0]["line"] == 3
    assert client.put("/calendars/freeze", data="").status_code == 400
    assert client.get("/calendars").get_json() == []


def test_chart_is_opened_by_hand(client: FlaskClient) -> None:
    chart = CHART.replace("except: [freeze]", "windows: {days: mon, from: '0:00', to: '0:01'}")
    assert client.put("/charts/web", data=chart).status_code == 201
    url = "/charts/web/open"
    assert client.post(url, json={"reason": "x"}).status_code == 400
    assert client.post(url, json={"until": "2001-01-01", "reason": "x"}).status_code == 400
    assert client.post(url, json={"until": "2101-01-01"}).status_code == 422
    opened = client.post(url, json={"until": "2101-01-01", "reason": "x"})
    assert opened.get_json()["window"]["opened_until"] == "2101-01-01T00:00:00.000000Z"
    assert client.get("/charts/web/state?state=patch").status_code == 200
