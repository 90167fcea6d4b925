"""The benchmark's own rules: what it reads, when a round counts, when a goal is met. Nothing is timed here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app import schema
from app.chart_file.rosters import parse_roster
from app.core.log import Author
from app.service.put import Put
from app.service.rosters import RosterRequest, import_roster
from bench.charts import HOT, STATE
from bench.fill import add_chart, add_copies, add_log_rows
from bench.layers import raw_connection, transact_driver
from bench.pgbench import read_pgbench
from bench.rosters import GROUPS, chart_by, make_lines
from bench.rounds import Options, take_turns
from bench.run import BEGIN, END, PAGE, PARTS, describe, write_docs
from bench.table import Row, read_row, render_table
from bench.wrk import InvalidRoundError, Sample, read_report
from tests.service.support import NOBODY, get_row, import_text, opened_service, query, rows
from tests.support.requests import claim, update

REPORT = 'Running\nREPORT {"requests": 4000, "seconds": 2.0, "p50": 900, "p99": 4500, "refused": %d, "broken": %d}\n'
PGBENCH = "number of failed transactions: %d (0.000%%)\ntps = 2903.125 (without initial connection time)\n"


def test_wrk_report_gives_rate_and_percentiles() -> None:
    assert read_report(REPORT % (0, 0), "GET") == Sample(2000, 900, 4500, 4000)


def test_wrk_report_counts_what_was_accepted_where_the_script_says_so() -> None:
    report = REPORT.replace('"broken"', '"accepted": 1000, "broken"')

    assert read_report(report % (0, 0), "POST").rate == 500


@pytest.mark.parametrize(
    "output",
    [REPORT % (1, 0), REPORT % (0, 1), (REPORT % (0, 0)).replace("4000", "0"), "Running\n"],
    ids=["a 406", "a broken connection", "no answer", "no report"],
)
def test_round_is_invalid_when_not_every_answer_was_a_yes(output: str) -> None:
    with pytest.raises(InvalidRoundError):
        read_report(output, "PUT")


def test_pgbench_output_gives_transactions_a_second() -> None:
    assert read_pgbench(PGBENCH % 0).rate == 2903.125


@pytest.mark.parametrize("output", [PGBENCH % 1, "pgbench: error"], ids=["a failed transaction", "no figure"])
def test_pgbench_round_is_invalid_when_something_failed(output: str) -> None:
    with pytest.raises(InvalidRoundError):
        read_pgbench(output)


def test_ratio_is_that_of_the_medians() -> None:
    row = Row("GET", "/s", [100, 700, 900], "peer", [1000, 10, 5000], 0.7)

    assert row.ratio == 0.7


@pytest.mark.parametrize(
    ("row", "is_met"),
    [
        (Row("GET", "/s", [800], "peer", [1000], 0.8), True),
        (Row("GET", "/s", [799], "peer", [1000], 0.8), False),
        (Row("p99", "x", [5.0], goal=5, at_most=True), True),
        (Row("p99", "x", [5.1], goal=5, at_most=True), False),
        (Row("GET", "/s", [1], "peer", [1000]), None),
        (Row("GET", "/s", [1], goal=0.8), False),
    ],
    ids=["just enough", "too little", "just below", "too much", "no goal", "a goal, and nobody beside"],
)
def test_goal_is_met(row: Row, is_met: bool | None) -> None:
    assert row.is_met is is_met


def test_row_is_read_back_from_the_report() -> None:
    row = Row("GET", "/s", [1, 2], "peer", [3], 0.8)

    assert read_row(row.as_json()) == row


def test_table_shows_median_spread_ratio_and_verdict() -> None:
    table = render_table([Row("GET", "/s", [1000, 1200, 900], "empty", [2000], 0.8)])

    assert table.splitlines()[-1] == (
        "| GET | 1,000 (900 to 1,200) /s | empty | 2,000 (2,000 to 2,000) /s | 0.50 | ≥ 0.8 | **no** |"
    )


def test_rounds_are_taken_in_turn_after_one_that_does_not_count() -> None:
    asked: list[tuple[str, int]] = []

    def ask(name: str, seconds: int) -> Sample:
        asked.append((name, seconds))
        return Sample(len(asked))

    contenders = {name: partial(ask, name) for name in ("us", "peer")}
    samples = take_turns(contenders, Options(rounds=2, seconds=7))

    assert asked == [("us", 1), ("peer", 1), ("us", 7), ("peer", 7), ("us", 7), ("peer", 7)]
    assert [sample.rate for sample in samples["us"]] == [3, 5]


def test_docs_take_the_table_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    machine = {"cpus": 2, "memory_gb": 8, "python": "3.11"}
    report = {"at": "2000-01-01T00:00", "seconds": 1, "machine": machine, "options": {"rounds": 5, "seconds": 2}}
    report |= {"rows": [Row("GET", "/s", [1]).as_json()], "invalid": {}}

    write_docs(report, page)

    assert page.read_text() == f"before\n{BEGIN}\n\n{describe(report)}\n\n{END}\nafter\n"


def test_performance_page_has_the_marks_and_names_every_part() -> None:
    page = PAGE.read_text()

    assert page.count(BEGIN) == page.count(END) == 1
    assert [name for name in PARTS if f"`{name}`" not in page] == []


def test_chart_is_never_done(database_url: str) -> None:
    add_chart(database_url)
    with opened_service(database_url) as service:
        update(service, HOT, Put(STATE), NOBODY)

        assert get_row(service, HOT).state == STATE


def test_copies_are_charts_like_any_other(database_url: str, superuser_url: str) -> None:
    add_chart(database_url)
    add_copies(superuser_url, 3)

    with opened_service(database_url) as service:
        answer = update(service, "c3", Put(STATE), NOBODY)

        assert (answer.seq, answer.value) == (2, 1)
        assert query(service, "SELECT count(*) FROM charts") == [(4,)]


def test_claims_are_given_beside_others(database_url: str) -> None:
    machines = 200
    with opened_service(database_url) as service:
        lines = parse_roster(make_lines(machines).splitlines())
        import_roster(service, RosterRequest("web", lines), NOBODY)
        import_text(service, chart_by("web", GROUPS), "grouped")
        answers = [claim(service, "grouped", STATE, f"m{number}") for number in range(1, machines + 1)]

    assert len(lines) == machines
    assert [answer.is_yes for answer in answers] == [True] * machines


def test_bare_statements_write_what_the_service_writes(database_url: str) -> None:
    add_chart(database_url)
    with opened_service(database_url) as service, raw_connection(database_url) as raw:
        update(service, HOT, Put(STATE), Author(remote_addr="127.0.0.1"))
        transact_driver(raw, service.database.engine.dialect.name)
        *_, ours, bare = rows(service, HOT)
        chart, ((value,),) = get_row(service, HOT), query(service, "SELECT value FROM attribute_values")

    assert (chart.seq, value) == (bare.seq, bare.value_after) == (3, 2)
    assert replace(bare, seq=ours.seq, at=ours.at, value_before=0, value_after=1) == ours


def test_filled_log_goes_on_where_it_ends(database_url: str, superuser_url: str) -> None:
    add_chart(database_url)
    add_log_rows(superuser_url, 50)

    with opened_service(database_url) as service:
        answer = update(service, HOT, Put(STATE), NOBODY)

        assert (answer.seq, answer.value) == (52, 51)
        assert [row.seq for row in rows(service, HOT)] == list(range(1, 53))


def test_fill_leaves_the_check_of_the_log_in_force(database_url: str, superuser_url: str) -> None:
    add_chart(database_url)
    add_log_rows(superuser_url, 5)

    with opened_service(database_url) as service:
        assert schema.check(service.database.engine) == []
