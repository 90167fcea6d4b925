"""`verify` finds what was changed outside the service, after the triggers that forbid changes were dropped."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.core.errors import ChartNotFoundError
from app.db import transaction
from app.service import operate
from app.service.context import Definitions, Service
from app.service.upkeep import list_logged_charts, verify
from tests.service.support import ANN, CANARY, NOBODY, REBOOT, Clock, alter, import_text, put
from tests.support import requests

ROW_COLUMNS = (
    "chart, version, run, visit, seq, at, kind, from_state, to_state, key, value_before, value_after, machine,"
    " actor, remote_addr, idempotency_key, reason, hash"
)


@pytest.fixture(autouse=True)
def lived(service: Service, clock: Clock) -> None:
    """A chart with a log of seven rows."""
    import_text(service, CANARY)
    put(service, "canary", "m1")
    operate.pause(service, "web", "look", ANN)
    clock.advance(5)
    operate.resume(service, "web", "on", ANN)
    put(service, "canary", "m2")
    put(service, "soak", "m1")
    put(service, "soak", "m2")


def drop_triggers(service: Service) -> None:
    with transaction(service.database) as connection:
        if service.database.is_sqlite:
            found = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
            statements = [f"DROP TRIGGER {name}" for name in found]
        else:
            statements = ["ALTER TABLE transition_log DISABLE TRIGGER USER"]
        for statement in statements:
            connection.exec_driver_sql(statement)


def differences(service: Service) -> tuple[str, ...]:
    return verify(service, "web").differences


def test_verify_finds_no_difference_in_what_the_service_wrote(service: Service) -> None:
    found = verify(service, "web")
    assert (found.chart, found.rows, found.differences) == ("web", 7, ())


def test_verify_reads_an_archived_chart(service: Service) -> None:
    operate.archive(service, "web", "over", ANN)
    assert (verify(service, "web").rows, differences(service)) == (8, ())
    assert list_logged_charts(service) == ["web"]


def test_verify_of_an_unknown_chart_is_an_error(service: Service) -> None:
    with pytest.raises(ChartNotFoundError):
        verify(service, "nowhere")


COLUMNS = {
    "version": "2",
    "run": "2",
    "visit": "2",
    "kind": "'goto'",
    "from_state": "'soak'",
    "to_state": "'soak'",
    "key": "'failed'",
    "value_before": "7",
    "value_after": "7",
    "machine": "'m9'",
    "actor": "'eve'",
    "remote_addr": "'192.0.2.66'",
    "idempotency_key": "'k9'",
    "reason": "'because'",
    "at": "'2026-01-31T12:00:01.000000Z'",
    "hash": f"'{'0' * 64}'",
}


@pytest.mark.parametrize("column", COLUMNS)
def test_verify_finds_a_row_with_an_edited_column(service: Service, column: str) -> None:
    drop_triggers(service)
    alter(service, f"UPDATE transition_log SET {column} = {COLUMNS[column]} WHERE seq = 2")
    assert "seq 2: the hash does not fit" in differences(service)[0]


@pytest.mark.parametrize("seq", [1, 2, 6])
def test_verify_finds_a_deleted_row(service: Service, seq: int) -> None:
    drop_triggers(service)
    alter(service, f"DELETE FROM transition_log WHERE seq = {seq}")
    assert f"seq {seq + 1}: the hash does not fit" in differences(service)[0]


def test_verify_finds_that_the_last_row_is_missing(service: Service) -> None:
    drop_triggers(service)
    alter(service, "DELETE FROM transition_log WHERE seq = 7")
    assert "seq: the log gives 6, the tables have 7" in differences(service)[0]


def test_verify_finds_that_all_rows_are_missing(service: Service) -> None:
    drop_triggers(service)
    alter(service, "DELETE FROM transition_log")
    assert differences(service) == ("web: the log is empty",)


def test_verify_finds_an_inserted_row(service: Service) -> None:
    drop_triggers(service)
    copied = ROW_COLUMNS.replace("seq", "seq + 1", 1)
    alter(
        service,
        "UPDATE transition_log SET seq = seq + 1000 WHERE seq > 3",
        f"INSERT INTO transition_log ({ROW_COLUMNS}) SELECT {copied} FROM transition_log WHERE seq = 3",
        "UPDATE transition_log SET seq = seq - 999 WHERE seq > 1000",
    )
    assert "seq 4: the hash does not fit" in differences(service)[0]


def test_verify_finds_a_row_added_at_the_end(service: Service) -> None:
    copied = ROW_COLUMNS.replace("seq", "seq + 1", 1)
    alter(service, f"INSERT INTO transition_log ({ROW_COLUMNS}) SELECT {copied} FROM transition_log WHERE seq = 7")
    assert "seq 8: the hash does not fit" in differences(service)[0]


def test_verify_finds_two_rows_that_were_swapped(service: Service) -> None:
    drop_triggers(service)
    alter(
        service,
        "UPDATE transition_log SET seq = 1006 WHERE seq = 6",
        "UPDATE transition_log SET seq = 6 WHERE seq = 7",
        "UPDATE transition_log SET seq = 7 WHERE seq = 1006",
    )
    assert "seq 6: the hash does not fit" in differences(service)[0]


LIVE = {
    "values": "UPDATE attribute_values SET value = value + 1",
    "visit": "UPDATE charts SET visit = visit + 1",
    "state": "UPDATE charts SET state = 'canary'",
    "run": "UPDATE charts SET run = 2",
    "version": "UPDATE charts SET version = 2",
    "entered_at": "UPDATE charts SET entered_at = created_at",
    "paused_at": "UPDATE charts SET paused_at = created_at",
    "paused_for": "UPDATE charts SET paused_for = paused_for + 1",
    "due_at": "UPDATE charts SET due_at = NULL",
    "fence": "UPDATE charts SET fence = 5",
    "seq": "UPDATE charts SET seq = seq + 1",
    "hash of the last row": f"UPDATE charts SET last_hash = '{'0' * 64}'",
    "archived": "UPDATE charts SET archived_at = updated_at, due_at = NULL",
    "reports": "UPDATE reports SET key = NULL WHERE machine = 'm1' AND visit = 2",
}


@pytest.mark.parametrize("name", LIVE)
def test_verify_finds_a_difference_between_log_and_tables(service: Service, name: str) -> None:
    alter(service, LIVE[name])
    assert f"web: {name}: the log gives" in " ".join(differences(service))


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM attribute_values", "DELETE FROM reports WHERE visit = 2", "UPDATE attribute_values SET key = 'x'"],
)
def test_verify_finds_missing_values_and_reports(service: Service, statement: str) -> None:
    alter(service, statement)
    assert differences(service) != ()


def test_verify_finds_a_slot_that_its_holder_did_not_claim(service: Service) -> None:
    import_text(service, REBOOT, name="reboot")
    requests.claim(service, "reboot", "reboot", "m1", NOBODY)
    assert verify(service, "reboot").differences == ()
    alter(service, "UPDATE slots SET machine = 'm2'")
    assert "reboot: slots: the log gives" in verify(service, "reboot").differences[0]


def test_verify_finds_a_changed_definition(service: Service) -> None:
    """A definition has no hash, but the replay of the log does not fit a changed one."""
    service.definitions = Definitions()
    alter_definition = "UPDATE attributes SET value = 5 WHERE key = 'count'"
    with transaction(service.database) as connection:
        if service.database.is_sqlite:
            connection.exec_driver_sql("DROP TRIGGER attributes_refuses_update")
        else:
            connection.exec_driver_sql("ALTER TABLE attributes DISABLE TRIGGER USER")
        connection.exec_driver_sql(alter_definition)
    assert "found count at 0, the log before it gives 5" in differences(service)[0]


def test_verify_reads_only_its_chart(service: Service) -> None:
    import_text(service, CANARY, name="other")
    alter(service, "UPDATE charts SET visit = 9 WHERE name = 'other'")
    assert differences(service) == ()


def test_verify_reports_its_progress(service: Service) -> None:
    told: list[int] = []
    verify(service, "web", lambda read, of: told.append(read))
    assert told[-1] == 7
