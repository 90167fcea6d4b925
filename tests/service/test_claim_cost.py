"""What a claim costs while it holds the chart's lock, counted: it does not grow with the roster or with the log."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.core.log import Author
from app.core.position import Claim, Reason, Release
from app.service.context import Service
from app.service.put import Answer, Applied, Sent, apply
from app.service.rosters import RosterRequest, import_roster, read_lines
from tests.service.support import NOBODY, Clock, alter, import_text
from tests.support.growth import count_calls
from tests.support.reads import counted_reads

CHART = """\
current_state: a
expect: {roster: NAME}
states:
- name: a
  func: increment
  slots: {total: 2000PER}
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: {name: b, when: {key: count, value: 2000}}
- {name: b}
"""
PER = {"plain": "", "grouped": ', per: {zone: "100%", rack: "100%", shard: "100%"}'}
both = pytest.mark.parametrize("per", list(PER))


def begin(service: Service, per: str, machines: int, chart: str = "web") -> None:
    """Import a roster, and a chart that goes by it: each machine is in a zone, in one of 20 racks and in two shards."""
    lines = [f"m{n} zone=z{n % 3} rack=r{n % 20} shard={n},{n + 7}".encode() for n in range(machines)]
    import_roster(service, RosterRequest(f"all{machines}", read_lines(lines)), NOBODY)
    import_text(service, CHART.replace("NAME", f"all{machines}").replace("PER", PER[per]), name=chart)


def claim(service: Service, numbers: Sequence[int], chart: str = "web", address: str = "192.0.2.1") -> list[Answer]:
    """Claim for these machines in one transaction; each has a slot then."""
    applied = apply(service, [Sent(chart, Claim("a", f"m{n}"), Author(remote_addr=address)) for n in numbers])
    answers = [one.answer for one in applied if isinstance(one, Applied)]
    assert len(answers) == len(numbers)
    assert all(answer.is_yes for answer in answers)
    return answers


@both
def test_claim_reads_as_much_however_large_the_roster_is(service: Service, per: str) -> None:
    found = []
    for machines in (60, 600):
        chart = f"web{machines}"
        begin(service, per, machines, chart)
        claim(service, range(10), chart)
        with counted_reads(service) as reads:
            (answer,) = claim(service, [20], chart)
        assert answer.reason is Reason.UPDATED
        found.append((len(reads.statements), reads.work))
    (statements, work), (statements_of_many, work_of_many) = found
    assert statements_of_many == statements
    assert work_of_many <= work * 1.5, found


def test_groups_are_counted_with_one_statement_and_without_a_lock(service: Service) -> None:
    begin(service, "grouped", 60)
    claim(service, [0])
    with counted_reads(service) as reads:
        claim(service, [20])
    counting = [any("GROUP BY" in one for one in statements) for statements in reads.transactions]
    writing = [
        any("transition_log" in one and "INSERT" in one for one in statements) for statements in reads.transactions
    ]
    # The transaction that needed the sizes did nothing, the next one read them, the third one wrote.
    assert (counting, writing) == ([False, True, False], [False, False, True])
    with counted_reads(service) as again:
        claim(service, [40])
    assert len(again.transactions) == 1


@both
def test_slot_asked_for_again_reads_as_much_however_long_the_log_is(
    service: Service, owner: Service, clock: Clock, per: str
) -> None:
    begin(service, per, 60)
    claim(service, range(10))
    work = []
    for rounds in (1, 20):
        for _ in range(rounds):
            clock.advance(1)
            claim(service, range(20, 40))
            clock.advance(1)
            apply(service, [Sent("web", Release("a", f"m{n}"), NOBODY) for n in range(20, 40)])
        if not service.database.is_sqlite:
            # As autovacuum does. Before that, PostgreSQL takes one index on `chart` for as good as another.
            alter(owner, "ANALYZE transition_log")
        with counted_reads(service) as reads:
            (answer,) = claim(service, [5], address="192.0.2.2")
        assert (answer.reason, answer.claimed_from) == (Reason.REPLAY, "192.0.2.1")
        work.append(reads.work)
    # PostgreSQL reads the whole log while it is this short, so its rows are compared with a number.
    assert work[1] <= (2 * work[0] if service.database.is_sqlite else 150), work


@both
def test_claims_that_share_a_transaction_share_its_statements(service: Service, per: str) -> None:
    begin(service, per, 60)
    claim(service, range(20))
    counts = []
    for numbers in ([20], range(21, 41)):
        with counted_reads(service) as reads:
            claim(service, numbers)
        counts.append(len(reads.statements))
    assert counts[0] == counts[1]


@both
def test_slot_that_is_held_costs_a_claim_next_to_nothing(service: Service, per: str) -> None:
    begin(service, per, 600)
    claim(service, range(100))
    few = count_calls(lambda: claim(service, [500]))
    claim(service, range(100, 400))
    claim(service, [501])
    many = count_calls(lambda: claim(service, [502]))
    assert (many - few) / 300 < 12
