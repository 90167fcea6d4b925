"""PUT on a chart and the operator's acts over HTTP: each status, and what is written with it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.service.context import Service
from app.service.upkeep import verify
from app.wiring import service_of
from tests.service.support import ROLLOUT, import_text, put, query
from tests.service.support import ROSTERED as REBOOT
from tests.support.databases import ON_ONE_DATABASE


@pytest.fixture
def charts() -> Sequence[str]:
    return []


MEBIBYTE = 1024 * 1024
RENAMED = ROLLOUT.replace("canary", "first five").replace("chart: web\n", "")
BAD = """\
current_state: a
states:
  - name: a
    fnc: increment
    current: {key: count, value: many}
    target: {name: nowhere, when: {key: count, value: 1}}
  - name: b
"""


@pytest.fixture
def chart(service: Service) -> None:
    import_text(service, ROLLOUT)


def send(client: FlaskClient, text: str | bytes, query_string: str = "", **given: Any) -> Any:
    return client.put("/charts/web", data=text, query_string=query_string, **given)


def rows(service: Service) -> int:
    return int(query(service, "SELECT count(*) FROM transition_log")[0][0])


# PUT /charts/C


def test_put_creates_a_chart_keeps_it_and_upgrades_it(client: FlaskClient) -> None:
    created, kept, upgraded = send(client, ROLLOUT), send(client, ROLLOUT), send(client, ROLLOUT + "# more\n")
    assert [(answer.status_code, answer.get_json()["outcome"]) for answer in (created, kept, upgraded)] == [
        (201, "created"),
        (200, "unchanged"),
        (200, "upgraded"),
    ]
    assert [answer.get_json()["version"] for answer in (created, kept, upgraded)] == [1, 1, 2]
    assert [step["kind"] for step in upgraded.get_json()["steps"]] == ["upgrade"]


def test_put_lists_every_problem_and_changes_nothing(client: FlaskClient, service: Service) -> None:
    response = send(client, BAD)
    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    problems = response.get_json()["problems"]
    assert [(item["line"], item["column"]) for item in problems] == sorted(
        (item["line"], item["column"]) for item in problems
    )
    told = " ".join(item["message"] for item in problems)
    assert "did you mean 'func'" in told
    assert "many" in told
    assert "nowhere" in told
    assert rows(service) == 0


@pytest.mark.parametrize(
    "content_type",
    [None, "application/yaml", "text/plain", "application/json", "application/x-www-form-urlencoded", "x"],
)
def test_content_type_does_not_matter(client: FlaskClient, content_type: str | None) -> None:
    assert send(client, ROLLOUT, content_type=content_type).status_code == 201


def test_name_in_the_path_wins_and_a_warning_says_so(client: FlaskClient) -> None:
    response = client.put("/charts/other", data=ROLLOUT)
    assert response.get_json()["chart"] == "other"
    assert len([warning for warning in response.get_json()["warnings"] if "web" in warning["message"]]) == 1


@pytest.mark.usefixtures("chart")
def test_put_that_drops_the_current_state_is_409(client: FlaskClient, service: Service) -> None:
    for options in ("", "dry_run=1"):
        response = send(client, RENAMED, options)
        assert response.status_code == 409
        assert "'canary' is current" in response.get_json()["detail"]
    assert rows(service) == 1


@pytest.mark.usefixtures("chart")
def test_map_keeps_values_and_reports_in_the_new_state(client: FlaskClient, service: Service) -> None:
    put(service, "canary", "m1")
    dry = send(client, RENAMED, "dry_run=1&map=canary:first%20five").get_json()
    assert (dry["dry_run"], dry["outcome"], dry["current_state"]) == (True, "upgraded", "first five")
    assert rows(service) == 2

    answer = send(client, RENAMED, "map=canary:first%20five").get_json()
    assert (answer["current_state"], answer["values"]) == ("first five", {"count": 1, "failed": 0})
    assert put(service, "first five", "m1").reason == "replay"
    assert verify(service, "web").differences == ()


@pytest.mark.parametrize(("old", "new"), [("a:b", "c"), ("a", "b:c"), ("a:b", "c:d"), (":", "::"), ("a:", ":b")])
def test_map_takes_names_with_colons(client: FlaskClient, service: Service, old: str, new: str) -> None:
    text = ROLLOUT.replace("canary", f'"{old}"')
    assert import_text(service, text).status.current_state == old
    response = send(client, ROLLOUT.replace("canary", f'"{new}"'), f"map={old}:{new}")
    assert (response.status_code, response.get_json()["current_state"]) == (200, new)


@ON_ONE_DATABASE
@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize(
    "options",
    [
        "map=canary",
        "map=",
        "map=canary:gone",
        "map=gone:rollout",
        "map=done:rollout",
        "map=canary:rollout&map=canary:done",
        "dry_run=2",
        "dry_run=yes",
        "dry_run=",
        "dry_run=1&dry_run=1",
    ],
)
def test_malformed_parameter_is_400(client: FlaskClient, service: Service, options: str) -> None:
    response = send(client, RENAMED, options)
    assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    assert rows(service) == 1


@pytest.mark.parametrize("body", [b"", None])
def test_put_without_a_body_is_400(client: FlaskClient, body: bytes | None) -> None:
    assert "body is empty" in client.put("/charts/web", data=body).get_json()["detail"]


@pytest.mark.parametrize("body", [b"\xff\xfe", b"\x00", b"[" * 5000, b"a: &x b\nc: *x", b"---\n---\n", b"{}", b"- a"])
def test_body_that_is_not_a_chart_file_is_422(client: FlaskClient, body: bytes) -> None:
    response = send(client, body)
    assert response.status_code == 422
    assert response.get_json()["problems"]


def padded(size: int) -> bytes:
    return ROLLOUT.encode() + b"#" * (size - len(ROLLOUT))


@pytest.mark.parametrize(
    ("size", "status"), [(MEBIBYTE, 201), (MEBIBYTE + 1, 413), (MEBIBYTE + 2000, 413), (3 * MEBIBYTE, 413)]
)
def test_body_is_at_most_a_mebibyte(client: FlaskClient, size: int, status: int) -> None:
    assert send(client, padded(size)).status_code == status


@pytest.mark.parametrize(("size", "status"), [(MEBIBYTE, 201), (MEBIBYTE + 1, 413), (3 * MEBIBYTE, 413)])
def test_chunked_body_is_at_most_a_mebibyte(client: FlaskClient, service: Service, size: int, status: int) -> None:
    # This is what gunicorn passes on for Transfer-Encoding: chunked.
    chunked = {
        "wsgi.input_terminated": True,
        "wsgi.input": io.BytesIO(padded(size)),
        "HTTP_TRANSFER_ENCODING": "chunked",
    }
    assert client.put("/charts/web", environ_overrides=chunked).status_code == status
    assert rows(service) == (1 if status == 201 else 0)


@pytest.mark.usefixtures("chart")
def test_rolling_back_is_importing_an_old_version(client: FlaskClient, service: Service) -> None:
    put(service, "canary", "m1")
    send(client, RENAMED, "map=canary:first%20five")
    old = client.get("/charts/web/versions/1")
    assert send(client, old.data).status_code == 409
    back = send(client, old.data, "map=first%20five:canary").get_json()
    assert (back["version"], back["current_state"], back["values"]["count"]) == (3, "canary", 1)
    assert client.get("/charts/web/versions/3").data == old.data
    digests = [version["sha256"] for version in client.get("/charts/web/versions").get_json()]
    assert digests[0] == digests[2] != digests[1]


# Acts

ACTS = ["pause", "resume", "reset", "goto", "archive", "evict"]
GOOD = {"reason": "because", "state": "done", "machine": "m1"}


@ON_ONE_DATABASE
@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{}", 422),
        (b'{"reason": null}', 422),
        (b'{"reason": ""}', 422),
        (b'{"reason": " \\u00a0"}', 400),
        (b'{"reason": "   "}', 422),
        (b'{"reason": 7}', 400),
        (b'{"reason": ["x"]}', 400),
        (b'{"reason": "two\\nlines"}', 400),
        (b'{"reason": "\\ud800"}', 400),
        (b'{"reason": "\\u0000"}', 400),
        (json.dumps({"reason": "x" * 1001}).encode(), 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"reason"', 400),
        (b"reason=because", 400),
        (b'{"reason": "x"', 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"reason": ' + b"9" * 5000 + b"}", 400),
    ],
    ids=lambda value: value[:20].decode(errors="replace") if isinstance(value, bytes) else None,
)
def test_act_with_a_bad_body_changes_nothing(
    client: FlaskClient, service: Service, act: str, body: bytes, status: int
) -> None:
    response = client.post(f"/charts/web/{act}", data=body)
    assert response.status_code == status, response.text
    assert response.mimetype == "application/problem+json"
    assert rows(service) == 1


@ON_ONE_DATABASE
@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize("act", ["pause", "reset", "goto", "archive"])
def test_act_takes_its_reason_whatever_the_content_type(client: FlaskClient, service: Service, act: str) -> None:
    reason = "because ü " + "x" * 990
    body = json.dumps(GOOD | {"reason": reason})
    response = client.post(f"/charts/web/{act}", data=body, content_type="application/x-www-form-urlencoded")
    assert response.status_code == 200
    assert response.get_json()["chart"] == "web"
    assert query(service, "SELECT kind, reason FROM transition_log WHERE seq = 2") == [(act, reason)]


@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize(("act", "status"), [("pause", 200), ("resume", 409), ("evict", 409)])
def test_act_that_does_not_fit_the_position_is_409(
    client: FlaskClient, service: Service, act: str, status: int
) -> None:
    assert client.post(f"/charts/web/{act}", json=GOOD).status_code == status
    if act == "pause":
        assert client.post("/charts/web/pause", json=GOOD).status_code == 409
    assert rows(service) == (2 if act == "pause" else 1)


@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize("body", [{}, {"state": ""}, {"state": 7}, {"state": "gone"}, {"state": "x" * 129}])
def test_goto_needs_a_state_of_the_chart(client: FlaskClient, body: dict[str, Any]) -> None:
    response = client.post("/charts/web/goto", json={"reason": "x"} | body)
    assert response.status_code == 400
    assert "state" in response.get_json()["detail"]


@pytest.mark.parametrize("act", ACTS)
def test_act_on_an_unknown_chart_is_404(client: FlaskClient, act: str) -> None:
    assert client.post(f"/charts/gone/{act}", json=GOOD).status_code == 404


@pytest.mark.usefixtures("chart")
def test_archived_chart_is_404_and_its_log_is_200(client: FlaskClient) -> None:
    client.post("/charts/web/archive", json=GOOD)
    for path in ("", "/versions", "/state?state=canary", "/machines", "/reached?state=canary"):
        assert client.get(f"/charts/web{path}").status_code == 404, path
    assert client.post("/charts/web/pause", json=GOOD).status_code == 404
    assert [row["kind"] for row in client.get("/charts/web/history").get_json()] == ["import", "archive"]
    back = send(client, ROLLOUT)
    assert (back.status_code, back.get_json()["run"], back.get_json()["version"]) == (201, 2, 2)


# What a chart waits for


def text_of(client: FlaskClient) -> str:
    response = client.get("/charts/web", headers={"Accept": "text/plain"})
    assert response.mimetype == "text/plain"
    return str(response.text)


def test_text_names_the_missing_machines_of_the_roster(client: FlaskClient, service: Service) -> None:
    import_text(service, REBOOT.replace("    slots: 2\n    lease: 1h\n", ""))
    put(service, "reboot", "m2")
    (line,) = [line for line in text_of(client).splitlines() if line.startswith("waits for")]
    assert line == "waits for done when count >= 3 (now 1, 2 more); not heard from: m1, m3"


def test_text_names_ten_missing_machines_and_counts_the_others(client: FlaskClient, app: Flask) -> None:
    roster = ", ".join(f"m{number:03}" for number in range(250))
    chart = REBOOT.replace("m1, m2, m3", roster).replace("    slots: 2\n    lease: 1h\n", "")
    import_text(service_of(app), chart)
    assert "not heard from: m000, m001, m002, m003, m004, m005, m006, m007, m008, m009 and 240 more" in text_of(client)


@pytest.mark.usefixtures("chart")
def test_text_says_who_paused_it_and_why(client: FlaskClient) -> None:
    client.post("/charts/web/pause", json={"reason": "disks"})
    assert "paused by 127.0.0.1 0 s ago: disks" in text_of(client)


def test_text_says_how_long_until_the_deadline(client: FlaskClient, service: Service) -> None:
    import_text(
        service,
        ROLLOUT.replace(
            "      - {name: rollback,",
            "      - {name: done, when: {key: elapsed, value: 30m}}\n      - {name: rollback,",
        ),
    )
    assert "done in 29 min, by the clock" in text_of(client)
