"""A prune replaces the old rows of a log by a marker, and the log still verifies."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from app import store
from app.core.errors import LogDamagedError
from app.core.log import HashedRow, HistoryFilter, read_marker
from app.core.position import Kind
from app.db import snapshot, transaction
from app.schema import check
from app.service import operate
from app.service.context import Service
from app.service.reading import iterate_history
from app.service.upkeep import count_old_rows, prune, verify
from app.wiring import service_of
from tests.service.support import ANN, DAY, ROLLOUT, import_text, put, query
from tests.service.support import ROSTERED as REBOOT
from tests.support import requests
from tests.support.apps import opened_app
from tests.support.commands import Commands
from tests.support.databases import administering


class Clock:
    def __init__(self, service: Service) -> None:
        with snapshot(service.database) as connection:
            self.now = store.charts.read_now(connection) - 1000 * DAY
        service.database.clock = lambda: self.now

    def pass_days(self, days: float) -> None:
        self.now += days * DAY


@pytest.fixture
def clock(service: Service) -> Clock:
    """The service's time. It begins a thousand days ago."""
    return Clock(service)


def history(service: Service) -> list[HashedRow]:
    return list(iterate_history(service, "web", HistoryFilter()))


def prune_web(owner: Service, days: float) -> int:
    found = prune(owner, "web", days * DAY, ANN)
    assert found.differences == ()
    return found.rows


def test_prune_removes_old_rows_and_leaves_a_marker(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    clock.pass_days(100)
    before = put(service, "canary", "m2")
    last = history(service)[1]

    assert count_old_rows(service, "web", 50 * DAY) == 1
    assert prune_web(owner, 50) == 1

    marker, kept = (item.row for item in history(service))
    assert (marker.kind, marker.seq, marker.at, marker.actor) == (Kind.PRUNE, 2, last.row.at, "ann")
    assert (kept.seq, kept.kind) == (before.seq, Kind.TRANSITION)
    told = json.loads(marker.reason or "")
    assert (told["hash"], told["values"], told["reports"]) == (last.hash, {"count": 1, "failed": 0}, {"m1": "count"})
    assert verify(service, "web").differences == ()


def test_pruned_chart_accepts_updates(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    clock.pass_days(100)
    assert prune_web(owner, 50) == 1

    assert put(service, "canary", "m1").reason == "replay"
    assert put(service, "canary", "m2").reason == "transitioned"
    assert verify(service, "web").differences == ()


def test_second_prune_moves_the_marker(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    for machine in ("m1", "m2"):
        put(service, "canary", machine)
        clock.pass_days(100)
    assert prune_web(owner, 150) == 1
    assert prune_web(owner, 150) == 0
    put(service, "rollout", "m1")
    assert prune_web(owner, 50) == 1
    assert [(item.row.seq, item.row.kind) for item in history(service)] == [(3, "prune"), (4, "update")]
    assert verify(service, "web").differences == ()


def test_prune_keeps_a_log_without_old_rows(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    before = history(service)
    assert prune_web(owner, 1) == 0
    assert history(service) == before


def test_prune_does_not_replace_a_single_row(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    clock.pass_days(500)
    assert prune_web(owner, 400) == 0
    assert [item.row.kind for item in history(service)] == ["import"]


def test_row_of_exactly_the_age_to_keep_stays(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    put(service, "canary", "m1", "failed")
    clock.pass_days(10)
    assert prune_web(owner, 10) == 0
    clock.now += timedelta(microseconds=1)
    assert prune_web(owner, 10) == 2


def live_a_life(service: Service, clock: Clock) -> None:
    """A log with all that a position can hold: pauses, slots and leases, reports, an upgrade, several runs."""
    import_text(service, REBOOT)
    clock.pass_days(1)
    requests.claim(service, "web", "reboot", "m1", ANN)
    put(service, "reboot", "m1")
    requests.claim(service, "web", "reboot", "m2", ANN)
    operate.pause(service, "web", "look", ANN)
    clock.pass_days(1)
    operate.resume(service, "web", "on", ANN)
    requests.claim(service, "web", "reboot", "m3", ANN)
    clock.pass_days(1)
    put(service, "reboot", "m2")
    import_text(service, REBOOT.replace("slots: 2", "slots: 3"))
    operate.goto(service, "web", "reboot", "once more", ANN)
    clock.pass_days(1)
    requests.claim(service, "web", "reboot", "m1", ANN)
    operate.pause(service, "web", "again", ANN)
    clock.pass_days(1)
    operate.reset(service, "web", "next", ANN)
    operate.resume(service, "web", "on", ANN)
    requests.claim(service, "web", "reboot", "m2", ANN)
    operate.archive(service, "web", "over", ANN)
    clock.pass_days(1)
    import_text(service, REBOOT)
    requests.claim(service, "web", "reboot", "m1", ANN)
    clock.pass_days(1)


def test_log_verifies_after_each_chunk(
    service: Service, owner: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.upkeep.CHUNK", 2)
    live_a_life(service, clock)
    total = len(history(service))
    assert verify(service, "web").differences == ()
    for days in (6.5, 5.5, 4.5, 3.5, 2.5, 1.5, 0.5):
        prune_web(owner, days)
        assert verify(service, "web").differences == (), days
    assert len(history(service)) < total / 3
    put(service, "reboot", "m1")
    assert verify(service, "web").differences == ()


def test_pruned_chain_with_a_log_key_verifies(service: Service, owner: Service, clock: Clock) -> None:
    service.database.log_key = b"a secret"
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    clock.pass_days(100)
    assert prune_web(owner, 50) == 1
    assert verify(service, "web").differences == ()
    service.database.log_key = b"another"
    assert verify(service, "web").differences == ("web: seq 2: the hash does not fit the row and its chain",)


def test_idempotency_key_is_forgotten_with_its_row(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", idempotency_key="k")
    clock.pass_days(100)
    assert put(service, "canary", idempotency_key="k").reason == "replay"
    prune_web(owner, 50)
    assert put(service, "canary", idempotency_key="k").reason == "transitioned"


def test_pruned_chart_is_shown_as_before(service: Service, owner: Service, clock: Clock, client: FlaskClient) -> None:
    import_text(service, ROLLOUT.replace("value: 2}}", "value: 1000}}"))
    operate.reset(service, "web", "again", ANN)
    for number in range(40):
        put(service, "canary", f"m{number}")
        clock.pass_days(1)
    assert prune_web(owner, 20) > 10
    paths = ("/", "/ui/charts/web", "/charts/web", "/charts/web/diagram", "/charts", "/metrics")
    assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)


# What a prune must not do


def test_log_is_append_only_after_a_prune(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    clock.pass_days(100)
    prune_web(owner, 50)
    assert check(service.database.engine) == []
    for statement in ("DELETE FROM transition_log", "UPDATE transition_log SET reason = 'x'"):
        with pytest.raises(DBAPIError, match="append-only"), transaction(owner.database) as connection:
            connection.execute(text(statement))


def test_log_that_does_not_verify_is_not_pruned(
    service: Service, owner: Service, clock: Clock, run_as_owner: Commands
) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    clock.pass_days(100)
    with transaction(service.database) as connection:
        connection.execute(text("UPDATE charts SET fence = 7"))

    found = prune(owner, "web", 50 * DAY, ANN)

    assert (found.rows, len(history(service))) == (0, 2)
    assert found.differences == ("web: fence: the log gives 0, the tables have 7",)
    output = run_as_owner("db", "prune", "--keep", "400d", code=1).output
    assert "nothing was pruned" in output
    assert "fence" in output


@pytest.mark.parametrize("where", ["store.log.delete", "store.log.update", "service.upkeep.chain_hash"])
def test_failed_prune_changes_nothing(
    service: Service, owner: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    clock.pass_days(100)
    before = history(service)

    def fail(*arguments: object) -> None:
        raise RuntimeError("the plug")

    with monkeypatch.context() as patched:
        patched.setattr(f"app.{where}", fail)
        with pytest.raises(RuntimeError, match="the plug"):
            prune(owner, "web", 50 * DAY, ANN)

    assert history(service) == before
    assert check(service.database.engine) == []
    assert prune_web(owner, 50) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda told: told.pop("values"), "the prune's marker cannot be read"),
        (lambda told: told.update(entered_at="yesterday"), "the prune's marker cannot be read"),
        (lambda told: told.update(slots=[{}]), "the prune's marker cannot be read"),
    ],
    ids=["no values", "no instant", "no slot"],
)
def test_verify_finds_a_damaged_marker(
    service: Service, owner: Service, clock: Clock, damage: Callable[[dict[str, object]], object], message: str
) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    clock.pass_days(100)
    prune_web(owner, 50)
    row = history(service)[0].row
    told = json.loads(row.reason or "")
    damage(told)
    with pytest.raises(LogDamagedError, match=message):
        read_marker(replace(row, reason=json.dumps(told)))


# While others write


def test_writers_continue_during_a_prune(
    service: Service, owner: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.upkeep.CHUNK", 5)
    monkeypatch.setattr("app.service.upkeep.BREATH_SECONDS", 0.005)
    forever = ROLLOUT.replace("value: 2}}", "value: 1000000}}")
    import_text(service, forever)
    import_text(service, forever, name="other")
    for _ in range(150):
        put(service, "canary")
    clock.pass_days(100)
    stop = threading.Event()
    counted, failures = [], []

    def write() -> None:
        while not stop.is_set():
            try:
                counted.append(put(service, "canary").is_yes)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    gone = prune_web(owner, 50)
    stop.set()
    for thread in threads:
        thread.join(30)

    assert failures == []
    assert gone == 150
    assert counted
    assert all(counted)
    assert verify(service, "web").differences == ()
    assert query(service, "SELECT value FROM attribute_values WHERE key = 'count' ORDER BY value DESC")[0] == (
        150 + len(counted),
    )


def test_two_prunes_at_once_share_the_work(
    service: Service, owner: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.upkeep.CHUNK", 5)
    import_text(service, ROLLOUT.replace("value: 2}}", "value: 1000000}}"))
    for _ in range(60):
        put(service, "canary")
    clock.pass_days(100)
    gone: list[int] = []
    threads = [threading.Thread(target=lambda: gone.append(prune_web(owner, 50))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(gone) == 60
    assert [item.row.kind for item in history(service)] == ["prune"]
    assert verify(service, "web").differences == ()


# The command


def test_command_prunes_every_chart(service: Service, clock: Clock, run: Commands, run_as_owner: Commands) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "m1")
    clock.pass_days(990)
    import_text(service, ROLLOUT, name="young")

    assert (
        run("db", "prune", "--keep", "400d", "--dry-run").stdout
        == "web: 1 rows would be pruned\nyoung: 0 rows would be pruned\n"
    )
    assert len(history(service)) == 2
    pruned = json.loads(run_as_owner("db", "prune", "--keep", "400d", "--json").stdout)
    assert pruned == [{"chart": "web", "rows": 1, "differences": []}, {"chart": "young", "rows": 0, "differences": []}]
    assert run_as_owner("db", "prune", "--keep", "400d", "web").stdout == "web: 0 rows pruned\n"
    run("chart", "verify")


def test_command_refuses_a_malformed_length_of_time(run: Commands) -> None:
    run("db", "prune", "--keep", "400", code=2)
    run("db", "prune", code=2)
    run("db", "prune", "gone", "--keep", "400d", code=1)


def test_prune_by_a_database_role_that_does_not_own_the_log_is_an_error(
    postgresql_url: str, postgresql_server: Engine
) -> None:
    for app in opened_app(postgresql_url):
        service = service_of(app)
        clock = Clock(service)
        import_text(service, ROLLOUT)
        put(service, "canary", "m1")
        clock.pass_days(1000)
        role = f"role_{uuid.uuid4().hex[:8]}"
        with administering(postgresql_server, postgresql_url) as connection:
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
            connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        try:
            url = make_url(postgresql_url).set(username=role).render_as_string(hide_password=False)
            assert "must be owner" in Commands(url)("db", "prune", "--keep", "400d", code=1).stderr
        finally:
            with administering(postgresql_server, postgresql_url) as connection:
                connection.exec_driver_sql(f"DROP OWNED BY {role}")
                connection.exec_driver_sql(f"DROP ROLE {role}")
        assert len(history(service)) == 2
