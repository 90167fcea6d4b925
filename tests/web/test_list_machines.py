"""Who has reported, and who is missing: over HTTP, and in the view that people query."""

from __future__ import annotations

from tests.support.servers import JSON, TEXT, Server, chart_path

CHART = """
current_state: work
states:
  - name: work
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: again, when: {key: count, value: 3}}, {name: stop, when: {key: failed, value: 2}}]
  - {name: again, func: increment, current: {key: n, value: 0}, target: {name: work, when: {key: n, value: 1}}}
  - {name: stop}
"""
ROSTER = "expect: [m1, m2, m3, büro 4]\n" + CHART


def reported(server: Server, chart: str, **parameters: str) -> list[tuple[str, str]]:
    found = server.ask("GET", chart_path(chart, "machines", **parameters), **JSON).json()
    return [(machine["machine"], machine["key"]) for machine in found["machines"]]


def in_view(server: Server, chart: str, visit: int) -> list[tuple[str, str]]:
    query = f"SELECT machine, key FROM v_machine_reports WHERE chart = '{chart}' AND visit = {visit}"
    with server.beside() as connection:
        return sorted((row[0], row[1]) for row in connection.exec_driver_sql(query))


def test_reports_are_listed_with_key_time_and_row(server: Server, chart: str) -> None:
    server.import_chart(chart, CHART)
    server.put(chart, "work", machine="m2", key="failed")
    server.put(chart, "work", machine="m1")
    server.put(chart, "work")
    found = server.ask("GET", chart_path(chart, "machines"), **JSON).json()
    rows = {row["machine"]: row for row in server.history(chart, kind="update")}
    expected = [
        {"machine": name, "key": key, "reported_at": rows[name]["at"], "seq": rows[name]["seq"]}
        for name, key in (("m1", "count"), ("m2", "failed"))
    ]
    assert [{name: one[name] for name in expected[0]} for one in found["machines"]] == expected
    assert (found["chart"], found["run"], found["visit"], found["state"]) == (chart, 1, 1, "work")
    assert server.ask("GET", chart_path(chart, "machines"), **TEXT).body == "m1\nm2\n"
    assert in_view(server, chart, 1) == reported(server, chart)


def test_moved_report_is_listed_once_under_its_new_key(server: Server, chart: str) -> None:
    server.import_chart(chart, CHART)
    server.put(chart, "work", machine="m1")
    server.put(chart, "work", machine="m1", key="failed")
    assert reported(server, chart) == in_view(server, chart, 1) == [("m1", "failed")]


def test_latest_visit_of_a_state_is_listed(server: Server, chart: str) -> None:
    server.import_chart(chart, CHART)
    for machine in ("m1", "m2", "m3"):
        server.put(chart, "work", machine=machine)
    assert reported(server, chart) == []
    assert reported(server, chart, state="work") == [(name, "count") for name in ("m1", "m2", "m3")]
    server.put(chart, "again", machine="m1")
    assert reported(server, chart, state="work") == in_view(server, chart, 3) == []
    server.put(chart, "work", machine="m9")
    assert reported(server, chart, state="work") == in_view(server, chart, 3) == [("m9", "count")]
    assert reported(server, chart, state="again") == in_view(server, chart, 2) == [("m1", "n")]


def test_state_that_was_not_entered_has_no_reports(server: Server, chart: str) -> None:
    server.import_chart(chart, CHART)
    found = server.ask("GET", chart_path(chart, "machines", state="stop"), **JSON).json()
    assert (found["visit"], found["machines"]) == (None, [])


def test_missing_machines_are_those_of_the_roster_that_have_not_reported(server: Server, chart: str) -> None:
    server.import_chart(chart, ROSTER)
    server.put(chart, "work", machine="m2")
    server.put(chart, "work", machine="m1", key="failed")
    missing = {"is": "missing"}
    found = server.ask("GET", chart_path(chart, "machines", **missing), **JSON).json()
    assert [one["machine"] for one in found["machines"]] == ["m3", "büro 4"]
    assert server.ask("GET", chart_path(chart, "machines", **missing), **TEXT).body == "m3\nbüro 4\n"
    assert server.put(chart, "work", machine="stranger").status == 406
    assert reported(server, chart) == in_view(server, chart, 1) == [("m1", "failed"), ("m2", "count")]


def test_bad_questions_are_refused(server: Server, chart: str) -> None:
    server.import_chart(chart, CHART)
    for parameters in ({"is": "missing"}, {"is": "late"}, {"state": "nowhere"}, {"state": ""}):
        reply = server.ask("GET", chart_path(chart, "machines", **parameters))
        assert (reply.status, reply.headers["Content-Type"]) == (400, "application/problem+json"), parameters
    assert server.ask("GET", "/charts/nothing/machines").status == 404
