"""`verify` finds what was changed outside the service, after the triggers that forbid changes were dropped."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from app.core.errors import ChartNotFoundError
from app.core.log import chain_hash
from app.db import transaction
from app.service import operate
from app.service.context import Service
from app.service.put import sweep
from app.service.verifying import Head, list_logged_charts, verify
from tests.service.support import (
    ANN,
    CANARY,
    NOBODY,
    REBOOT,
    Clock,
    alter,
    drop_triggers,
    get_row,
    import_text,
    put,
    query,
    rows,
)
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
def test_verify_finds_a_row_with_an_edited_column(service: Service, owner: Service, column: str) -> None:
    drop_triggers(owner)
    alter(owner, f"UPDATE transition_log SET {column} = {COLUMNS[column]} WHERE seq = 2")
    assert "seq 2: the hash does not fit" in differences(service)[0]


@pytest.mark.parametrize("seq", [1, 2, 6])
def test_verify_finds_a_deleted_row(service: Service, owner: Service, seq: int) -> None:
    drop_triggers(owner)
    alter(owner, f"DELETE FROM transition_log WHERE seq = {seq}")
    assert f"seq {seq + 1}: the hash does not fit" in differences(service)[0]


def test_verify_finds_that_the_last_row_is_missing(service: Service, owner: Service) -> None:
    drop_triggers(owner)
    alter(owner, "DELETE FROM transition_log WHERE seq = 7")
    assert "seq: the log gives 6, the tables have 7" in differences(service)[0]


def test_verify_finds_that_all_rows_are_missing(service: Service, owner: Service) -> None:
    drop_triggers(owner)
    alter(owner, "DELETE FROM transition_log")
    assert differences(service) == ("web: the log is empty",)


def test_verify_finds_an_inserted_row(service: Service, owner: Service) -> None:
    drop_triggers(owner)
    copied = ROW_COLUMNS.replace("seq", "seq + 1", 1)
    alter(
        owner,
        "UPDATE transition_log SET seq = seq + 1000 WHERE seq > 3",
        f"INSERT INTO transition_log ({ROW_COLUMNS}) SELECT {copied} FROM transition_log WHERE seq = 3",
        "UPDATE transition_log SET seq = seq - 999 WHERE seq > 1000",
    )
    assert "seq 4: the hash does not fit" in differences(service)[0]


def test_verify_finds_a_row_added_at_the_end(service: Service) -> None:
    copied = ROW_COLUMNS.replace("seq", "seq + 1", 1)
    alter(service, f"INSERT INTO transition_log ({ROW_COLUMNS}) SELECT {copied} FROM transition_log WHERE seq = 7")
    assert "seq 8: the hash does not fit" in differences(service)[0]


def test_verify_finds_two_rows_that_were_swapped(service: Service, owner: Service) -> None:
    drop_triggers(owner)
    alter(
        owner,
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
    "reports: run 1, visit 2: 'm1'": "UPDATE reports SET key = NULL WHERE machine = 'm1' AND visit = 2",
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


def test_verify_finds_a_changed_definition(service: Service, owner: Service) -> None:
    """A definition has no hash, but the replay of the log does not fit a changed one."""
    alter_definition = "UPDATE attributes SET value = 5 WHERE key = 'count'"
    with transaction(owner.database) as connection:
        if owner.database.is_sqlite:
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


def forbidding_nothing(owner: Service, *statements: str) -> None:
    """Change rows of any table, also those that the database's triggers guard."""
    drop_triggers(owner)
    if not owner.database.is_sqlite:
        tables = ("chart_versions", "states", "attributes", "transitions", "roster")
        alter(owner, *(f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in tables))
    alter(owner, *statements)


SHA256_OF_X = hashlib.sha256(b"x").hexdigest()
EDITS = {
    "a threshold": ("UPDATE transitions SET threshold = 7 WHERE threshold = 5", "its rows are not what its text says"),
    "a target": ("UPDATE transitions SET target = 'rollback' WHERE threshold = 5", "in the state 'soak'"),
    "a text": ("UPDATE chart_versions SET text = replace(text, 'value: 5', 'value: 7')", "text's SHA-256"),
    "a text and its hash": (f"UPDATE chart_versions SET text = 'x', sha256 = '{SHA256_OF_X}'", "the log has"),
    "who imported it": ("UPDATE chart_versions SET imported_by = 'eve'", "the log says that ann imported it"),
    "a later version": (
        (
            "INSERT INTO chart_versions (chart_id, version, text, sha256, description, initial_state, has_roster,"
            " require_machine, imported_at) SELECT chart_id, 2, text, sha256, description, initial_state, has_roster,"
            " require_machine, imported_at FROM chart_versions"
        ),
        "versions: the log gives [1], the tables have [1, 2]",
    ),
    "a visit's state": (
        "UPDATE visits SET state = 'done' WHERE visit = 1",
        "visits: run 1, visit 1: the log gives 'canary'",
    ),
    "the time of a visit": ("UPDATE visits SET left_at = NULL", "visits: run 1, visit 1"),
    "a visit that was not": (
        "INSERT INTO visits SELECT chart_id, 1, 9, state, entered_at, left_at FROM visits WHERE visit = 1",
        "visits: the tables have run 1, visit 9",
    ),
    "a visit that was": ("DELETE FROM visits WHERE visit = 1", "visits: the tables lack run 1, visit 1 of 'canary'"),
    "a run that was not": (
        "INSERT INTO visits SELECT chart_id, 7, visit, state, entered_at, left_at FROM visits WHERE visit = 1",
        "the tables have run 7",
    ),
    "an old report": (
        "UPDATE reports SET key = 'failed' WHERE machine = 'm1' AND visit = 1",
        "run 1, visit 1: 'm1': the log gives 'count', the tables have 'failed'",
    ),
    "the row of a report": ("UPDATE reports SET seq = 1 WHERE machine = 'm1' AND visit = 1", "the log gives seq 2"),
    "a report that was not": (
        (
            "INSERT INTO reports SELECT chart_id, run, visit, 'eve', key, seq, reported_at, note FROM reports"
            " WHERE machine = 'm1' AND visit = 1"
        ),
        "'eve': the log gives none",
    ),
    "what a machine said": (
        "UPDATE reports SET note = 'fine' WHERE visit = 1",
        "the note is not that of the log's row",
    ),
    "a report that was": ("DELETE FROM reports WHERE visit = 1", "run 1, visit 1: 'm1': the tables have none"),
}


@pytest.mark.parametrize("what", EDITS)
def test_verify_finds_an_edit_of(service: Service, owner: Service, what: str) -> None:
    statement, told = EDITS[what]
    forbidding_nothing(owner, statement)
    assert told in " ".join(differences(service))


@pytest.mark.parametrize("column", ["pause_reason", "paused_by"])
def test_verify_finds_another_pause(service: Service, column: str) -> None:
    operate.pause(service, "web", "look", ANN)
    assert differences(service) == ()
    alter(service, f"UPDATE charts SET {column} = 'eve'")
    assert f"web: {column}: the log gives" in differences(service)[0]


def test_verify_finds_a_log_without_its_chart(service: Service, owner: Service) -> None:
    forbidding_nothing(
        owner,
        "DELETE FROM transitions",
        "DELETE FROM attributes",
        "DELETE FROM states",
        *(f"DELETE FROM {table}" for table in ("chart_versions", "attribute_values", "visits", "reports", "charts")),
    )
    assert list_logged_charts(service) == ["web"]
    assert differences(service) == ("web: the log has 7 rows, but there is no such chart",)


def test_verify_expects_a_row_that_the_log_once_had(service: Service) -> None:
    row = get_row(service)
    put(service, "soak", "m3")
    assert verify(service, "web", expected=Head(row.seq, row.last_hash)).differences == ()
    assert "seq 7 has the hash" in verify(service, "web", expected=Head(7, "0" * 64)).differences[0]
    told = verify(service, "web", expected=Head(9, "0" * 64)).differences
    assert told == ("web: the log ends at seq 8, but it once had seq 9: its newest rows are gone",)


def test_verify_expects_a_row_of_a_log_that_was_cut_short_with_its_chart(service: Service, owner: Service) -> None:
    """An attacker who has the database's password, and the key, can make a shorter log that fits the tables."""
    before, head = get_row(service), query(service, "SELECT seq, hash FROM transition_log WHERE seq = 6")[0]
    forbidding_nothing(
        owner,
        "DELETE FROM transition_log WHERE seq = 7",
        f"UPDATE charts SET seq = 6, last_hash = '{head[1]}'",
        "UPDATE attribute_values SET value = value - 1",
        "DELETE FROM reports WHERE seq = 7",
        "UPDATE charts SET updated_at = entered_at",
    )
    assert differences(service) == ()
    assert (
        "its newest rows are gone" in verify(service, "web", expected=Head(before.seq, before.last_hash)).differences[0]
    )


MOVES = {
    "a report that moved too early": ("UPDATE transitions SET threshold = 3 WHERE threshold = 2", "no guard allowed"),
    "a report that did not move": (
        "UPDATE transitions SET threshold = 1 WHERE threshold = 2",
        "although count >= 2 held",
    ),
    "a move to another state": ("UPDATE transitions SET target = 'done' WHERE threshold = 2", "no guard allowed"),
}


@pytest.mark.parametrize("what", MOVES)
def test_verify_judges_each_transition_by_its_guards(service: Service, owner: Service, what: str) -> None:
    statement, told = MOVES[what]
    forbidding_nothing(owner, statement)
    assert told in differences(service)[0]


def test_verify_judges_each_transition_of_the_clock(service: Service, owner: Service, clock: Clock) -> None:
    clock.advance(100)
    sweep(service)
    assert (get_row(service).state, differences(service)) == ("done", ())
    forbidding_nothing(owner, "UPDATE transitions SET age = age * 2 WHERE key = 'elapsed'")
    assert "seq 8 (timeout) moves from 'soak' to 'done', which no guard allowed" in differences(service)[0]


def test_verify_of_a_version_that_an_earlier_release_imported(service: Service, owner: Service) -> None:
    """Earlier releases wrote no hash of the text, and rounded shares in another way."""
    text = CANARY.replace("chart: web", "chart: old\nexpect: 14").replace(
        "{key: failed, value: 1}", "{key: failed, op: '>', value: '10%'}"
    )
    import_text(service, text)
    forbidding_nothing(owner, "UPDATE transitions SET threshold = 2 WHERE op = '>'")
    assert "its rows are not what its text says" in verify(service, "old").differences[0]
    row = rows(service, "old")[0]
    old_hash = chain_hash("", replace(row, note=None))
    alter(
        owner,
        f"UPDATE transition_log SET note = NULL, hash = '{old_hash}' WHERE chart = 'old'",
        f"UPDATE charts SET last_hash = '{old_hash}' WHERE name = 'old'",
    )
    assert verify(service, "old").differences == ()
