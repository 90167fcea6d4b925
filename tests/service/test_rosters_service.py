"""Rosters on a real database: imported, taken over by the charts that follow them, and verified from the log."""

from __future__ import annotations

import itertools
from datetime import timedelta
from fractions import Fraction

import pytest
from flask.testing import FlaskClient

from app.chart_file import chart as chart_file
from app.chart_file.rosters import RosterFileError
from app.core.errors import ChartFileError, ConflictError
from app.core.position import Reason
from app.service import reading
from app.service.context import Service
from app.service.operate import reset
from app.service.past import get_past_status
from app.service.put import Answer, Put, Sent, apply, tick
from app.service.reading import get_status
from app.service.roll import RollQuery, Which, list_roll
from app.service.rosters import (
    RosterImported,
    RosterRequest,
    diff_roster,
    find_earlier,
    import_roster,
    list_rosters,
    list_versions,
    read_lines,
    read_roster,
)
from app.service.upkeep import prune
from app.service.verifying import verify
from tests.service.support import NOBODY, Clock, import_text, rows
from tests.support import requests
from tests.support.commands import Commands
from tests.support.requests import Question, ask, claim

WEB = """\
# made by a test
web-01 zone=a rack=r1 shard=7,9
web-02 zone=a rack=r1
web-03 zone=b rack=r2   # beside it
web-04 zone=b rack=r2
lb-01 tier=lb
"""

TIERS = """\
chart: web
current_state: canary
expect: {roster: web, where: {zone: [a, b]}}
states:
- name: canary
  func: increment
  expect: {roster: web, where: {tier: lb}}
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: [{name: back, when: {key: failed, value: 1}}, {name: fleet, when: {key: count, value: "100%"}}]
- name: fleet
  func: increment
  slots: {total: 3, per: {rack: 1}}
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: [{name: back, when: {key: failed, op: ">", value: "50%"}}, {name: done, when: {key: count, value: "75%"}}]
- name: back
  func: increment
  expect: {reported: [canary, fleet]}
  current: {key: count, value: 0}
  target: {name: backed_out, when: {key: count, value: "100%"}}
- name: done
- name: backed_out
"""


def put_roster(service: Service, lines: str, *, max_loss: str = "10", dry_run: bool = False) -> RosterImported:
    share = Fraction(max_loss) / 100
    request = RosterRequest("web", read_lines(lines.encode().splitlines()), max_loss=share, dry_run=dry_run)
    return import_roster(service, request, NOBODY)


def without(*machines: str) -> str:
    return "".join(f"{line}\n" for line in WEB.splitlines() if line.split(" ")[0] not in machines)


def update(service: Service, name: str, state: str, machine: str, key: str | None = None) -> Answer:
    return requests.update(service, name, Put(state, machine, key))


@pytest.fixture
def tiers(service: Service) -> Service:
    put_roster(service, WEB)
    import_text(service, TIERS)
    return service


def test_roster_is_new_then_unchanged_then_another_version(service: Service) -> None:
    assert put_roster(service, WEB).outcome == "created"
    assert put_roster(service, "\n" + WEB).outcome == "unchanged"
    changed = put_roster(service, WEB.replace("web-04 zone=b", "web-04 zone=c") + "web-05\n")
    assert (changed.outcome, changed.version.added, changed.version.removed, changed.version.changed) == (
        "updated",
        1,
        0,
        1,
    )
    assert [version.machines for version in list_versions(service, "web")] == [5, 6]
    assert diff_roster(service, "web").as_text() == "-web-04 rack=r2 zone=b\n+web-04 rack=r2 zone=c\n+web-05\n"


def test_roster_is_read_as_it_was_in_each_version(service: Service) -> None:
    put_roster(service, WEB)
    put_roster(service, without("web-01"), max_loss="50")
    names = [[machine for machine, _ in read_roster(service, "web", number).lines] for number in (1, 2)]
    assert names == [["lb-01", "web-01", "web-02", "web-03", "web-04"], ["lb-01", "web-02", "web-03", "web-04"]]
    zone_b = read_roster(service, "web", where=(("zone", ("b",)), ("rack", ("r2", "r3"))))
    assert "".join(zone_b.as_text()) == "web-03 rack=r2 zone=b\nweb-04 rack=r2 zone=b\n"
    assert (
        "".join(read_roster(service, "web", 1, (("shard", ("9",)),)).as_text()) == "web-01 rack=r1 shard=7,9 zone=a\n"
    )


@pytest.mark.parametrize("lines", ["", without("web-01")], ids=["empty", "one of five"])
def test_roster_that_loses_too_many_machines_changes_nothing(tiers: Service, lines: str) -> None:
    before = rows(tiers)
    with pytest.raises(ConflictError, match="would vanish"):
        put_roster(tiers, lines)
    assert rows(tiers) == before
    assert len(list_versions(tiers, "web")) == 1


def test_dry_run_says_what_the_import_does_and_changes_nothing(tiers: Service) -> None:
    update(tiers, "web", "canary", "lb-01")
    claim(tiers, "web", "fleet", "web-01")
    update(tiers, "web", "fleet", "web-01")
    planned = put_roster(tiers, without("web-01"), max_loss="20", dry_run=True)
    assert len(list_versions(tiers, "web")) == 1
    done = put_roster(tiers, without("web-01"), max_loss="20")
    assert planned.charts == done.charts
    (effect,) = done.charts
    assert (effect.before, effect.after, effect.withdrawn, effect.current_state) == (4, 3, ("web-01",), "fleet")
    assert get_status(tiers, "web").values == {"count": 0, "failed": 0}
    assert [row.kind for row in rows(tiers)][-2:] == ["roster", "withdraw"]
    assert verify(tiers, "web").differences == ()


def test_percentage_is_of_the_set_of_the_state(tiers: Service) -> None:
    assert get_status(tiers, "web").expect == 1
    assert update(tiers, "web", "canary", "web-01").reason is Reason.NOT_ON_ROSTER
    assert update(tiers, "web", "canary", "lb-01").reason is Reason.TRANSITIONED
    status = get_status(tiers, "web")
    assert (status.expect, status.progress and status.progress.needed) == (4, 3)
    assert "not heard from: web-01, web-02, web-03, web-04" in status.waits_for
    missing = list_roll(tiers, "web", RollQuery(which=Which.MISSING)).machines
    assert [item.machine for item in missing] == ["web-01", "web-02", "web-03", "web-04"]


def test_question_of_a_machine_outside_the_set_is_no(tiers: Service) -> None:
    assert ask(tiers, "web", Question("canary", "web-01")).reason is Reason.NOT_ON_ROSTER
    assert ask(tiers, "web", Question("canary", "lb-01")).reason is Reason.CURRENT


def test_smaller_roster_makes_a_percentage_hold(tiers: Service) -> None:
    update(tiers, "web", "canary", "lb-01")
    for name in ("web-01", "web-03"):
        claim(tiers, "web", "fleet", name)
        update(tiers, "web", "fleet", name)
    assert get_status(tiers, "web").current_state == "fleet"
    done = put_roster(tiers, without("web-02", "web-04"), max_loss="50")
    assert done.charts[0].current_state == "done"
    assert verify(tiers, "web").differences == ()


def test_group_that_is_full_refuses_and_the_status_says_who_fills_it(tiers: Service) -> None:
    update(tiers, "web", "canary", "lb-01")
    claim(tiers, "web", "fleet", "web-01")
    refused = claim(tiers, "web", "fleet", "web-02")
    assert (refused.reason, refused.slots and refused.slots.group) == (Reason.GROUP_FULL, "rack=r1")
    assert claim(tiers, "web", "fleet", "web-03").is_yes
    status = get_status(tiers, "web")
    assert status.waits_for.startswith("room in rack=r1 (down: web-01); room in rack=r2 (down: web-03); back when")
    slots = status.slots
    assert slots is not None
    assert [(full.group, full.limit, full.machines) for full in slots.full] == [
        ("rack=r1", 1, ["web-01"]),
        ("rack=r2", 1, ["web-03"]),
    ]


def test_chart_with_shares_of_groups_is_imported_again_and_seen_as_it_was(service: Service, clock: Clock) -> None:
    """Every status counts the groups' machines: of an import without a difference, an upgrade, and of the past."""
    put_roster(service, WEB)
    shares = TIERS.replace("current_state: canary", "current_state: fleet").replace("rack: 1", 'rack: "50%"')
    import_text(service, shares)
    claim(service, "web", "fleet", "web-01")
    clock.advance(60)
    full = get_status(service, "web").slots
    assert full is not None
    assert [one.group for one in full.full] == ["rack=r1"]
    assert import_text(service, shares).status.slots == full
    assert import_text(service, shares.replace("75%", "80%")).status.slots == full
    assert get_past_status(service, "web", clock.now - timedelta(seconds=30)).slots == full
    with_list = reading.list_statuses(service)[0].slots
    assert with_list is not None
    assert with_list.holders == full.holders


def test_failure_keeps_its_group_full_and_may_try_again(tiers: Service) -> None:
    update(tiers, "web", "canary", "lb-01")
    claim(tiers, "web", "fleet", "web-01")
    update(tiers, "web", "fleet", "web-01", "failed")
    assert claim(tiers, "web", "fleet", "web-02").reason is Reason.GROUP_FULL
    assert claim(tiers, "web", "fleet", "web-01").is_yes
    update(tiers, "web", "fleet", "web-01")
    assert claim(tiers, "web", "fleet", "web-02").is_yes
    assert verify(tiers, "web").differences == ()


def test_back_out_expects_exactly_those_who_reported(tiers: Service) -> None:
    update(tiers, "web", "canary", "lb-01", "failed")
    status = get_status(tiers, "web")
    assert (status.current_state, status.expect) == ("back", 1)
    assert update(tiers, "web", "back", "web-01").reason is Reason.NOT_ON_ROSTER
    assert update(tiers, "web", "back", "lb-01").reason is Reason.TRANSITIONED
    assert verify(tiers, "web").differences == ()


def test_state_whose_set_is_empty_is_left_at_once(service: Service) -> None:
    put_roster(service, "web-01 zone=a\n")
    imported = import_text(service, TIERS)
    assert imported.status.current_state == "fleet"
    assert [(entry.kind, entry.reason) for entry in imported.entries][-1] == (
        "transition",
        "count >= 100%: 0 counted on entry",
    )
    assert verify(service, "web").differences == ()


def chain(states: int, last: str) -> str:
    """A chart of so many states in which no machine takes part, each leads to the next one, and then to `last`."""
    names = [*(f"s{number}" for number in range(states)), last]
    text = "chart: web\ncurrent_state: s0\nexpect: {roster: web, where: {tier: none}}\nstates:\n"
    for name, following in itertools.pairwise(names):
        text += f"- name: {name}\n  func: increment\n  current: {{key: count, value: 0}}\n"
        text += f'  target: [{{name: {following}, when: {{key: count, value: "100%"}}}}, {{name: bad, when: {LATE}}}]\n'
    return text + "- name: bad\n" + ("" if last in names[:-1] else f"- name: {last}\n")


LATE = "{key: elapsed, value: 9d}"


def test_states_whose_sets_are_empty_are_left_however_many_there_are(service: Service) -> None:
    put_roster(service, WEB)
    assert import_text(service, chain(130, "end")).status.current_state == "end"
    assert verify(service, "web").differences == ()


def test_circle_of_states_whose_sets_are_empty_is_gone_round_once(service: Service) -> None:
    put_roster(service, WEB)
    imported = import_text(service, chain(3, "s0"))
    assert [entry.to_state for entry in imported.entries if entry.kind == "transition"] == ["s1", "s2", "s0"]
    assert verify(service, "web").differences == ()


CYCLE = """\
current_state: a
expect: {roster: web}
states:
- name: a
  func: increment
  current: {key: count, value: 0}
  target: [{name: a, when: {key: clock, value: "2001-01-01T00:00:00"}}, {name: end, when: {key: count, value: "50%"}}]
- {name: end}
"""


def test_empty_set_is_left_in_a_transaction_in_which_the_clock_has_nothing_left(service: Service) -> None:
    put_roster(service, WEB)
    import_text(service, CYCLE, name="a")
    empty = TIERS.replace("expect: {reported: [canary, fleet]}", "expect: {roster: web, where: {tier: none}}")
    import_text(service, empty, name="web")
    apply(service, [Sent("a", Put("a", "web-01"), NOBODY), Sent("web", Put("canary", "lb-01", "failed"), NOBODY)])
    assert get_status(service, "web").current_state == "backed_out"


def test_charts_that_follow_share_the_clock_transitions_of_one_import(service: Service, clock: Clock) -> None:
    put_roster(service, WEB)
    for name in "abc":
        import_text(service, CYCLE, name=name)
    clock.advance(1)
    put_roster(service, WEB + "web-05 zone=a\n")
    at = clock.now
    found = [row for name in "abc" for row in rows(service, name) if row.at == at]
    assert [row.kind for row in found].count("timeout") <= 100
    assert [row.kind for row in found].count("roster") == 3
    assert [verify(service, name).differences for name in "abc"] == [(), (), ()]


def test_empty_roster_does_not_finish_a_rollout(tiers: Service) -> None:
    update(tiers, "web", "canary", "lb-01")
    put_roster(tiers, "", max_loss="100")
    assert get_status(tiers, "web").current_state == "fleet"


INCLUDING = TIERS.replace("  expect: {roster: web, where: {tier: lb}}\n", "  expect: [web-01, web-03]\n").replace(
    "- name: fleet\n", "- name: fleet\n  including: [canary]\n"
)


def test_machines_counted_before_are_counted_on_entry(service: Service) -> None:
    put_roster(service, WEB)
    import_text(service, INCLUDING)
    update(service, "web", "canary", "web-01")
    update(service, "web", "canary", "web-03")
    status = get_status(service, "web")
    assert (status.current_state, dict(status.values)) == ("fleet", {"count": 2, "failed": 0})
    assert ask(service, "web", Question("fleet", "web-01")).reason is Reason.DONE
    reported = list_roll(service, "web", RollQuery()).machines
    assert [(report.machine, report.seq) for report in reported] == [("web-01", 4), ("web-03", 4)]
    assert verify(service, "web").differences == ()


def test_machines_counted_in_one_transaction_are_counted_on_entry(service: Service) -> None:
    put_roster(service, WEB)
    import_text(service, INCLUDING)
    apply(service, [Sent("web", Put("canary", name), NOBODY) for name in ("web-01", "web-03")])
    assert get_status(service, "web").values == {"count": 2, "failed": 0}
    assert verify(service, "web").differences == ()


def test_log_of_a_crowd_verifies_after_a_prune_and_a_reset(service: Service, owner: Service, clock: Clock) -> None:
    put_roster(service, WEB)
    import_text(service, INCLUDING)
    update(service, "web", "canary", "web-01")
    clock.advance(10)
    assert prune(owner, "web", timedelta(0), NOBODY).rows > 0
    update(service, "web", "canary", "web-03")
    assert get_status(service, "web").values == {"count": 2, "failed": 0}
    assert verify(service, "web").differences == ()
    reset(service, "web", "again", NOBODY)
    put_roster(service, without("lb-01"), max_loss="20")
    assert verify(service, "web").differences == ()


def test_chart_names_a_roster_that_is_not_there(service: Service) -> None:
    with pytest.raises(ChartFileError, match="3:18: there is no roster 'web'"):
        import_text(service, TIERS)


def test_import_warns_of_machines_without_a_label(service: Service) -> None:
    put_roster(service, WEB.replace("web-04 zone=b rack=r2", "web-04 zone=b"))
    imported = import_text(service, TIERS)
    assert "1 of 4 machines have no label 'rack': they are in no group of it" in [
        warning.message for warning in imported.warnings
    ]


def test_import_of_a_chart_warns_of_labels_that_no_machine_has(service: Service) -> None:
    put_roster(service, WEB.replace("tier=lb", "tier=balancer"))
    imported = import_text(service, TIERS.replace("zone: [a, b]", "zone: [a, c]"))
    assert [(warning.line, warning.message) for warning in imported.warnings if "no machine" in warning.message] == [
        (3, "no machine of the roster 'web' has 'zone=c' (its values are a, b)"),
        (7, "no machine of the roster 'web' has 'tier=lb' (its values are balancer)"),
    ]


def test_import_of_a_roster_warns_of_states_in_which_nobody_takes_part(tiers: Service) -> None:
    imported = put_roster(tiers, WEB.replace("tier=lb", "tier=balancer"), dry_run=True)
    assert [chart.warnings for chart in imported.charts] == [
        ("state 'canary': no machine of the roster has the labels of its set: no machine takes part",)
    ]
    assert [chart.warnings for chart in put_roster(tiers, WEB + "web-05 zone=b rack=r2").charts] == [()]


def test_rosters_are_listed_with_the_charts_that_follow(tiers: Service) -> None:
    assert [(roster.name, roster.version.machines, roster.charts) for roster in list_rosters(tiers)] == [
        ("web", 5, ("web",))
    ]


def test_waiting_claim_is_given_when_its_group_is_free(tiers: Service) -> None:
    update(tiers, "web", "canary", "lb-01")
    tiers_claims = [claim(tiers, "web", "fleet", "web-01"), claim(tiers, "web", "fleet", "web-02")]
    assert [answer.is_yes for answer in tiers_claims] == [True, False]
    update(tiers, "web", "fleet", "web-01")
    assert claim(tiers, "web", "fleet", "web-02").is_yes


def test_report_of_a_machine_that_left_gives_its_slot_back_and_counts_nothing(tiers: Service) -> None:
    update(tiers, "web", "canary", "lb-01")
    assert claim(tiers, "web", "fleet", "web-01").is_yes
    put_roster(tiers, without("web-01"), max_loss="50")
    answer = update(tiers, "web", "fleet", "web-01")
    assert (answer.is_yes, answer.reason) == (False, Reason.NOT_ON_ROSTER)
    assert get_status(tiers, "web").values == {"count": 0, "failed": 0}
    assert (rows(tiers)[-1].kind, rows(tiers)[-1].machine) == ("release", "web-01")
    slots = get_status(tiers, "web").slots
    assert slots is not None
    assert slots.holders == ()
    assert verify(tiers, "web").differences == ()


def test_lease_of_a_machine_that_left_ends_and_counts_nothing(service: Service, clock: Clock) -> None:
    put_roster(service, WEB)
    failing = "slots: 3\n  lease: 60s\n  on_expire: fail"
    import_text(service, TIERS.replace("slots: {total: 3, per: {rack: 1}}", failing))
    update(service, "web", "canary", "lb-01")
    for name in ("web-01", "web-02"):
        assert claim(service, "web", "fleet", name).is_yes
    put_roster(service, without("web-01"), max_loss="50")
    clock.advance(61)
    tick(service, "web")

    status = get_status(service, "web")
    assert status.slots is not None
    assert (status.values, status.slots.holders) == ({"count": 0, "failed": 1}, ())
    ends = [(row.machine, row.key, row.reason) for row in rows(service) if row.kind == "expire"]
    assert ends == [("web-01", None, "free"), ("web-02", "failed", "fail")]
    assert verify(service, "web").differences == ()


def test_lines_of_an_earlier_version_are_recognised(service: Service) -> None:
    for lines in ({"a": "", "b": ""}, {"a": "", "b": "", "c": ""}):
        import_roster(service, RosterRequest("again", lines, max_loss=Fraction(1)), NOBODY)
    assert find_earlier(service, "again", {"b": "", "a": ""}) == 1
    assert find_earlier(service, "again", {"a": "", "b": "", "c": ""}) is None
    assert find_earlier(service, "again", {"a": ""}) is None
    assert find_earlier(service, "new", {"a": ""}) is None


@pytest.mark.parametrize("lines", ["web-01\nWEB-01", "WEB-01\nweb-01", "web-01.\nweb-01", "Web-01.\nWEB-01"])
def test_import_warns_of_two_spellings_of_a_machine(service: Service, lines: str) -> None:
    imported = import_roster(
        service, RosterRequest("web", read_lines(f"{lines}\nweb-02".encode().splitlines())), NOBODY
    )
    (warning,) = imported.warnings
    assert "may be one: the ids are compared exactly" in warning
    assert warning in imported.as_text()
    again = import_roster(service, RosterRequest("web", read_lines(f"{lines}\nweb-02".encode().splitlines())), NOBODY)
    assert (again.outcome, again.warnings) == ("unchanged", imported.warnings)


def test_import_of_ids_that_are_different_has_no_warning(service: Service) -> None:
    lines = read_lines([b"WEB-01", b"web-02.", b"DB.01"])
    assert import_roster(service, RosterRequest("web", lines), NOBODY).warnings == ()


PROMISING = """\
current_state: a
expect: {roster: web}
never: [{begun: ">4", while: a}]
states:
- name: a
  func: increment
  slots: 2
  current: {key: count, value: 0}
  target: {name: b, when: {key: count, value: "100%"}}
- name: b
"""


def test_file_of_a_chart_with_promises_is_read_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the locks of an import nothing is parsed again, unless a promise is broken and its place must be said."""
    read = chart_file.read_nodes
    texts: list[str] = []
    monkeypatch.setattr(chart_file, "read_nodes", lambda text, problems: texts.append(text) or read(text, problems))
    put_roster(service, "m1\nm2\nm3\n")
    imported = import_text(service, PROMISING)
    assert not any("promise" in warning.message for warning in imported.warnings)
    assert len(texts) == 1
    put_roster(service, "m1\nm2\nm3\nm4\n")
    assert len(texts) == 1
    with pytest.raises(ChartFileError) as caught:
        put_roster(service, "m1\nm2\nm3\nm4\nm5\n")
    assert len(texts) == 2
    (problem,) = caught.value.problems
    assert problem.message.startswith("chart 'web', 3:9: ")
    assert "5 machines can have begun" in problem.message
    assert problem.story
    with pytest.raises(ChartFileError, match="4 machines can have begun"):
        import_text(service, PROMISING.replace(">4", ">2"))


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        ("m1 zone\nm1\n", ["1:1: 'zone' is not label=value", "2:1: the machine 'm1' is listed twice"]),
        ("m1 zone\nm2 zone\n", ["1:1: 'zone' is not label=value", "2:1: 'zone' is not label=value"]),
        (
            "x=1 zone\n",
            ["1:1: 'x=1' looks like a label: a line begins with a machine", "1:1: 'zone' is not label=value"],
        ),
    ],
)
def test_every_problem_of_the_lines_is_told_at_once(lines: str, problems: list[str]) -> None:
    with pytest.raises(RosterFileError) as caught:
        read_lines(lines.encode().splitlines())
    assert [str(problem) for problem in caught.value.problems] == problems


@pytest.mark.parametrize(
    ("share", "problem"),
    [("101%", "'101%' is over 100%"), ("a lot", "'a lot' is not a percentage, such as 10%")],
)
def test_share_that_may_vanish_is_refused_alike_by_both_doors(
    run: Commands, client: FlaskClient, share: str, problem: str
) -> None:
    answer = client.put("/rosters/web", query_string={"max_loss": share}, data="m1\n")
    assert (answer.status_code, answer.get_json()["detail"]) == (400, f"max_loss: {problem}")
    assert problem in run("roster", "import", "web", "-", "--max-loss", share, code=2, stdin="m1\n").stderr


def test_import_warns_of_one_machine_without_a_label(tiers: Service) -> None:
    imported = put_roster(tiers, WEB.replace("web-04 zone=b rack=r2", "web-04 zone=b"))
    assert "state 'fleet': 1 machine has no label 'rack': it is in no group of it" in imported.charts[0].warnings
