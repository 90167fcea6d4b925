"""Importing a chart file: new charts, upgrades with maps, archived charts, and dry runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.errors import BadRequestError, ChartFileError, ConflictError
from app.core.position import Reason
from app.service import operate
from app.service.context import Service
from app.service.operate import Outcome
from app.service.reading import export_chart, list_versions
from app.service.upkeep import verify
from tests.service.support import (
    ANN,
    CANARY,
    NOBODY,
    REBOOT,
    Clock,
    get_row,
    import_text,
    kinds,
    put,
    query,
    rows,
)
from tests.support import requests
from tests.support.requests import Question, ask

WIDER = CANARY.replace("value: 2", "value: 3")
NARROWER = CANARY.replace("value: 2", "value: 1")
RENAMED = CANARY.replace("canary", "first")
TABLES = [
    *("charts", "chart_versions", "states", "attributes", "transitions", "roster"),
    *("attribute_values", "visits", "reports", "slots", "transition_log"),
]


def counts(service: Service) -> dict[str, int]:
    return {table: query(service, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}


# New


def test_import_creates_a_chart_in_its_initial_state(service: Service) -> None:
    imported = import_text(service, CANARY)
    status = imported.status
    assert (imported.outcome, status.version, status.run, status.visit) == (Outcome.CREATED, 1, 1, 1)
    assert (status.current_state, status.values) == ("canary", {"count": 0, "failed": 0})


def test_import_is_one_log_row_with_its_author(service: Service, clock: Clock) -> None:
    import_text(service, CANARY)
    (row,) = rows(service)
    assert (row.kind, row.seq, row.at, row.actor) == ("import", 1, clock.now, "ann")
    assert (row.from_state, row.to_state) == ("canary", "canary")


def test_import_returns_the_warnings(service: Service) -> None:
    assert "may wait for ever" in import_text(service, CANARY).warnings[0].message


def test_import_takes_clock_guards_that_are_due_at_once(service: Service) -> None:
    imported = import_text(service, CANARY.replace("{key: count, value: 2}", "{key: elapsed, value: 0s}"))
    assert (imported.status.current_state, kinds(service)) == ("soak", ["import", "timeout"])
    assert query(service, "SELECT visit, state FROM visits ORDER BY visit") == [(1, "canary"), (2, "soak")]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        pytest.param({"name": "given"}, "given", id="the name given"),
        pytest.param({}, "web", id="the file's own"),
    ],
)
def test_import_names_the_chart(service: Service, options: dict[str, Any], name: str) -> None:
    assert import_text(service, CANARY, **options).status.chart == name


def test_import_of_a_file_without_a_name_takes_the_default(service: Service) -> None:
    assert import_text(service, CANARY.replace("chart: web\n", "")).status.chart == "web"


@pytest.mark.parametrize("dry_run", [False, True])
def test_import_with_a_problem_changes_nothing(service: Service, dry_run: bool) -> None:
    with pytest.raises(ChartFileError, match="is not a state of this chart"):
        import_text(service, CANARY.replace("name: soak, when", "name: sook, when"), dry_run=dry_run)
    assert set(counts(service).values()) == {0}


# The same file again


def test_same_file_again_changes_nothing(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary")
    before = counts(service)
    imported = import_text(service, CANARY)
    assert (imported.outcome, imported.entries, counts(service)) == (Outcome.UNCHANGED, (), before)
    assert imported.status.values["count"] == 1


def test_same_text_under_another_name_is_another_chart(service: Service) -> None:
    import_text(service, CANARY)
    assert import_text(service, CANARY, name="other").outcome is Outcome.CREATED


# Upgrades


def test_changed_file_upgrades_the_chart_and_keeps_its_position(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1")
    imported = import_text(service, WIDER)
    status = imported.status
    assert (imported.outcome, status.version, status.run, status.visit) == (Outcome.UPGRADED, 2, 1, 1)
    assert (status.values, kinds(service)[-1]) == ({"count": 1, "failed": 0}, "upgrade")


def test_upgrade_keeps_reports(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1")
    import_text(service, WIDER)
    put(service, "canary", "m1")
    assert get_row(service).seq == 3


def test_upgrade_takes_a_guard_that_now_holds_in_the_same_transaction(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary")
    imported = import_text(service, NARROWER)
    assert (imported.status.current_state, kinds(service)[-2:]) == ("soak", ["upgrade", "transition"])
    assert [row.version for row in rows(service)] == [1, 1, 2, 2]


def test_upgrade_without_the_current_state_is_a_conflict_that_changes_nothing(service: Service) -> None:
    import_text(service, CANARY)
    before = counts(service)
    with pytest.raises(ConflictError, match="name its new home"):
        import_text(service, RENAMED)
    assert counts(service) == before


def test_upgrade_takes_a_mapped_state_to_its_new_home(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1")
    status = import_text(service, RENAMED, maps=("canary:first",)).status
    assert (status.current_state, status.visit, status.values["count"]) == ("first", 1, 1)
    put(service, "first", "m1")
    assert (get_row(service).seq, verify(service, "web").differences) == (3, ())


def test_upgrade_drops_an_attribute_and_keeps_its_reports_without_a_key(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1")
    text = CANARY.replace("[{key: count, value: 0}, {key: failed, value: 0}]", "{key: failed, value: 0}", 1)
    import_text(service, text.replace("{name: soak, when: {key: count,", "{name: soak, when: {key: failed,"))
    assert query(service, "SELECT machine, key FROM reports") == [("m1", None)]
    assert query(service, "SELECT key, value FROM attribute_values") == [("failed", 0)]
    assert verify(service, "web").differences == ()


def test_rolling_back_is_importing_the_old_text(service: Service) -> None:
    for text in (CANARY, WIDER, CANARY):
        import_text(service, text)
    assert [(found.version, found.text) for found in list_versions(service, "web")] == [
        (1, CANARY),
        (2, WIDER),
        (3, CANARY),
    ]


def test_reset_after_an_upgrade_starts_in_the_new_initial_state(service: Service) -> None:
    import_text(service, CANARY)
    import_text(service, CANARY.replace("current_state: canary", "current_state: soak").replace(*SOAK_LEADS_BACK))
    assert get_row(service).state == "canary"
    assert operate.reset(service, "web", "again", ANN).current_state == "soak"


SOAK_LEADS_BACK = (
    "[{name: done, when: {key: count",
    "[{name: canary, when: {key: count, value: 9}}, {name: done, when: {key: count",
)


def test_upgrade_while_paused_waits_for_resume(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary")
    operate.pause(service, "web", "look", ANN)
    assert import_text(service, NARROWER).status.current_state == "canary"
    assert operate.resume(service, "web", "on", ANN).current_state == "soak"
    assert verify(service, "web").differences == ()


# Maps: a state's name may itself contain colons

COLONS = """\
current_state: "a:b"
states:
- {name: "a:b", func: increment, current: {key: count, value: 0}, target: {name: "a", when: {key: count, value: 9}}}
- {name: "a", func: increment, current: {key: count, value: 0}, target: {name: end, when: {key: count, value: 9}}}
- {name: end}
"""

HOMES = [
    pytest.param("x", "a:b:x", id="a new name without colons"),
    pytest.param("x:y", "a:b:x:y", id="a new name with one"),
    pytest.param("b:c", "a:b:b:c", id="a name that could be cut in two ways"),
]


@pytest.mark.parametrize(("home", "text"), HOMES)
def test_map_finds_the_names(service: Service, home: str, text: str) -> None:
    import_text(service, COLONS)
    imported = import_text(service, COLONS.replace('"a:b"', f'"{home}"'), maps=(text,))
    assert imported.status.current_state == home


def test_map_is_cut_after_the_old_state_that_is_gone(service: Service) -> None:
    """`a:b:c` could also mean that `a` goes to `b:c`, but `a` is still there."""
    import_text(service, COLONS)
    new = COLONS.replace('"a:b"', '"c"').replace("name: end", 'name: "b:c"')
    assert import_text(service, new, maps=("a:b:c", "end:b:c")).status.current_state == "c"


WRONG_MAPS = [
    pytest.param(("nowhere:first",), "is not OLD:NEW", id="an old state that does not exist"),
    pytest.param(("canary:nowhere",), "is not OLD:NEW", id="a new state that does not exist"),
    pytest.param(("canary",), "is not OLD:NEW", id="no colon"),
    pytest.param(
        ("soak:first",), "the new version still has the state 'soak'", id="an old state that the new version keeps"
    ),
    pytest.param(("canary:first", "canary:soak"), "is given two new homes", id="two homes"),
]


@pytest.mark.parametrize(("maps", "problem"), WRONG_MAPS)
def test_wrong_map_is_an_error_that_changes_nothing(service: Service, maps: tuple[str, ...], problem: str) -> None:
    import_text(service, CANARY)
    before = counts(service)
    with pytest.raises(BadRequestError, match=problem):
        import_text(service, RENAMED, maps=maps)
    assert counts(service) == before


@pytest.mark.parametrize("text", ["", "canary", "canary:", ":first", ":"])
def test_map_that_maps_nothing_is_an_error_although_there_is_nothing_to_map(service: Service, text: str) -> None:
    for _ in ("a new chart", "the same text again"):
        with pytest.raises(BadRequestError, match="is not OLD:NEW"):
            import_text(service, CANARY, maps=(text,))
        import_text(service, CANARY, maps=("canary:first",))
    assert kinds(service) == ["import"]


# Archived charts


def test_import_after_an_archive_continues_version_run_and_seq(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1", idempotency_key="k1")
    operate.archive(service, "web", "over", ANN)
    imported = import_text(service, CANARY)
    assert (imported.outcome, imported.status.version, imported.status.run) == (Outcome.CREATED, 2, 2)
    assert [(row.seq, row.kind, row.run) for row in rows(service)][-2:] == [(3, "archive", 1), (4, "import", 2)]
    assert verify(service, "web").differences == ()


def test_import_after_an_archive_has_no_pause_and_no_slots(service: Service) -> None:
    import_text(service, REBOOT)
    requests.claim(service, "web", "reboot", "m1", NOBODY)
    operate.pause(service, "web", "look", ANN)
    operate.archive(service, "web", "over", ANN)
    status = import_text(service, REBOOT).status
    assert (status.paused, status.paused_by, get_row(service).archived_at) == (False, None, None)
    assert query(service, "SELECT machine FROM slots") == []
    assert verify(service, "web").differences == ()


def test_fence_rises_across_an_archive(service: Service) -> None:
    import_text(service, REBOOT)
    requests.claim(service, "web", "reboot", "m1", NOBODY)
    operate.archive(service, "web", "over", ANN)
    import_text(service, REBOOT)
    requests.claim(service, "web", "reboot", "m1", NOBODY)
    assert (get_row(service).fence, verify(service, "web").differences) == (2, ())


def test_idempotency_key_from_before_an_archive_still_replays(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", idempotency_key="k1")
    operate.archive(service, "web", "over", ANN)
    import_text(service, CANARY)
    put(service, "canary", idempotency_key="k1")
    assert get_row(service).seq == 4


def test_import_of_another_chart_after_an_archive_answers_for_its_states(service: Service) -> None:
    import_text(service, CANARY)
    operate.archive(service, "web", "over", ANN)
    import_text(service, REBOOT)
    assert ask(service, "web", Question("reboot")).is_yes
    assert verify(service, "web").differences == ()


# Dry runs

SITUATIONS: dict[str, Any] = {
    "new": ([], CANARY, {}),
    "unchanged": ([CANARY], CANARY, {}),
    "upgraded": ([CANARY], WIDER, {}),
    "upgraded, and a guard holds": ([CANARY], NARROWER, {}),
    "mapped": ([CANARY], RENAMED, {"maps": ("canary:first",)}),
    "archived": ([CANARY, "archive"], CANARY, {}),
    "archived, then another chart": ([CANARY, "archive"], REBOOT, {}),
}


@pytest.mark.parametrize(("past", "text", "options"), SITUATIONS.values(), ids=SITUATIONS)
def test_dry_run_answers_as_the_import_does_and_changes_nothing(
    service: Service, past: list[str], text: str, options: dict[str, Any]
) -> None:
    for step in past:
        if step == "archive":
            operate.archive(service, "web", "over", ANN)
        else:
            import_text(service, step)
            put(service, "canary", "m1")
    before = counts(service)
    dry = import_text(service, text, dry_run=True, **options)
    assert counts(service) == before
    assert replace(dry, dry_run=False) == import_text(service, text, **options)


def test_dry_run_does_not_stay_in_the_cache_of_definitions(service: Service) -> None:
    import_text(service, CANARY)
    import_text(service, NARROWER, dry_run=True)
    put(service, "canary")
    import_text(service, WIDER)
    assert put(service, "canary").current_state == "canary"
    assert put(service, "canary").current_state == "soak"


# A roster that loses machines

ROSTER = "expect: [a, b, c]\n" + CANARY.replace("value: 2", "value: 3").replace("value: 5", "value: 3")


def test_upgrade_deletes_the_report_of_a_machine_that_left_the_roster(service: Service) -> None:
    import_text(service, ROSTER)
    put(service, "canary", "a")
    put(service, "canary", "b")
    imported = import_text(service, ROSTER.replace("a, b, c", "b, c, d"))
    assert [str(entry.kind) for entry in imported.entries] == ["upgrade", "withdraw"]
    assert query(service, "SELECT machine, key FROM reports") == [("b", "count")]
    assert imported.status.values == {"count": 1, "failed": 0}
    assert rows(service)[-1].actor == "ann"
    assert verify(service, "web").differences == ()


def test_dry_run_of_an_upgrade_shows_the_reports_that_it_would_withdraw(service: Service) -> None:
    import_text(service, ROSTER)
    put(service, "canary", "a")
    imported = import_text(service, ROSTER.replace("a, b, c", "b, c, d"), dry_run=True)
    assert imported.as_json()["steps"][1]["reason"] == "a is not on the roster"
    assert query(service, "SELECT machine FROM reports") == [("a",)]


def test_import_warns_about_an_instant_that_is_past(service: Service, clock: Clock) -> None:
    past = CANARY.replace("{key: elapsed, value: 60s}", "{key: clock, value: '2001-01-01'}")
    assert [warning.message for warning in import_text(service, past).warnings if "is past" in warning.message] == [
        "'2001-01-01' is past: the transition is taken as soon as its state is entered"
    ]


# The old names of states that an upgrade renamed


@pytest.fixture
def renamed(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1")
    import_text(service, RENAMED, maps=["canary:first"])


@pytest.mark.usefixtures("renamed")
def test_old_name_of_a_state_answers_the_replay_of_a_report(service: Service) -> None:
    again, other = put(service, "canary", "m1"), put(service, "canary", "m1", "failed")
    assert (again.is_yes, again.reason, again.seq) == (True, Reason.REPLAY, 2 + 1)
    assert (other.is_yes, other.reason) == (False, Reason.UNKNOWN_STATE)
    assert put(service, "canary", "m2").reason is Reason.UNKNOWN_STATE


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(("state", "reason"), [("canary", Reason.REACHED), ("nowhere", Reason.UNKNOWN_STATE)])
def test_old_name_of_a_state_answers_whether_it_was_reached(service: Service, state: str, reason: Reason) -> None:
    assert ask(service, "web", Question(state, reached=True)).reason is reason
    assert ask(service, "web", Question("canary")).reason is Reason.UNKNOWN_STATE


@pytest.mark.usefixtures("renamed")
def test_old_name_of_a_state_is_known_after_a_second_upgrade_and_until_the_run_ends(service: Service) -> None:
    import_text(service, RENAMED.replace("first", "second"), maps=["first:second"])
    assert [put(service, name, "m1").reason for name in ("canary", "first", "second")] == [Reason.REPLAY] * 3
    assert verify(service, "web").differences == ()
    operate.reset(service, "web", "again", ANN)
    assert [put(service, name, "m1").reason for name in ("canary", "first")] == [Reason.UNKNOWN_STATE] * 2
    assert verify(service, "web").differences == ()


def test_old_name_of_a_state_gives_a_slot_back(service: Service) -> None:
    import_text(service, REBOOT)
    requests.claim(service, "web", "reboot", "m1")
    import_text(service, REBOOT.replace("reboot", "restart"), maps=["reboot:restart"])
    assert requests.release(service, "web", "reboot", "m1").reason is Reason.UPDATED
    assert query(service, "SELECT count(*) FROM slots") == [(0,)]


# Exports


def test_export_names_who_made_the_counts_and_a_copy_counts_nobody_twice(service: Service) -> None:
    import_text(service, CANARY.replace("failed, value: 1", "failed, value: 3"))
    put(service, "canary", "m1")
    put(service, "canary", "m2", "failed")
    text = export_chart(service, "web")
    assert "reported: {count: [m1], failed: [m2]}" in text
    import_text(service, text, name="copy")
    reasons = [put(service, "canary", name, key, chart="copy").reason for name, key in [("m1", None), ("m2", "failed")]]
    assert reasons == [Reason.REPLAY, Reason.REPLAY]
    moved = put(service, "canary", "m2", chart="copy")
    assert (moved.reason, verify(service, "copy").differences) == (Reason.TRANSITIONED, ())


def test_reset_of_a_copy_starts_without_reports(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1")
    import_text(service, export_chart(service, "web"), name="copy")
    operate.reset(service, "copy", "again", ANN)
    assert put(service, "canary", "m1", chart="copy").reason is Reason.TRANSITIONED
    assert verify(service, "copy").differences == ()


def test_copy_that_is_brought_back_from_the_archive_knows_its_reports_again(service: Service) -> None:
    import_text(service, CANARY)
    put(service, "canary", "m1")
    text = export_chart(service, "web")
    for _ in range(2):
        import_text(service, text, name="copy")
        assert put(service, "canary", "m1", chart="copy").reason is Reason.REPLAY
        operate.archive(service, "copy", "over", ANN)
    assert verify(service, "copy").differences == ()
