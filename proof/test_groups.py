"""No log shows a group over its limit, and the checker sees each seeded defect and each row written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.core.log import LogRow
from app.core.position import Kind
from app.service.context import Service
from proof.groups import DEFECTS, find_excess, live, seeded
from proof.stand import Database
from tests.service.support import Clock, opened_service

LINES = {1: {"a": {"rack": ["r1"]}, "b": {"rack": ["r1"]}}, 2: {"a": {"rack": ["r1"]}, "b": {"rack": ["r2"]}}}


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    with opened_service(database.url) as opened:
        opened.database.clock = Clock()
        yield opened


def clock_of(service: Service) -> Clock:
    assert isinstance(service.database.clock, Clock)
    return service.database.clock


def test_no_row_of_the_log_has_a_group_over_its_limit(service: Service) -> None:
    life = live(service, clock_of(service))
    assert life.excess == []
    # The life was one in which groups were full.
    assert life.answers["group_full"] > 50
    assert life.rows > 200


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_caught(service: Service, defect: str) -> None:
    # The threads take turns by chance, so that one life may not come to the limit of a group.
    with seeded(defect):
        assert any(live(service, clock_of(service), seed=seed).excess for seed in range(1, 9))


def row(seq: int, kind: Kind, machine: str | None = None, **more: str) -> LogRow:
    values = {"chart": "c", "version": 1, "run": 1, "visit": 1, "at": datetime(2030, 1, 7, tzinfo=UTC)}
    return LogRow(seq=seq, kind=kind, from_state="work", to_state="work", machine=machine, **values, **more)  # type: ignore[arg-type]


START = (row(1, Kind.IMPORT), row(2, Kind.ROSTER, reason="web version 1"))


@pytest.mark.parametrize(
    ("log", "seqs"),
    [
        ([row(3, Kind.CLAIM, "a"), row(4, Kind.CLAIM, "b")], [4]),
        ([row(3, Kind.CLAIM, "a"), row(4, Kind.RELEASE, "a"), row(5, Kind.CLAIM, "b")], []),
        ([row(3, Kind.CLAIM, "a"), row(4, Kind.UPDATE, "a", key="failed"), row(5, Kind.CLAIM, "b")], [5]),
        ([row(3, Kind.CLAIM, "a"), row(4, Kind.EXPIRE, "a", reason="fail"), row(5, Kind.CLAIM, "b")], [5]),
        ([row(3, Kind.CLAIM, "a"), row(4, Kind.EXPIRE, "a", reason="free"), row(5, Kind.CLAIM, "b")], []),
        ([row(3, Kind.CLAIM, "a"), row(4, Kind.EXPIRE, "a", reason="hold"), row(5, Kind.CLAIM, "b")], [5]),
        ([row(3, Kind.ROSTER, reason="web version 1 to 2"), row(4, Kind.CLAIM, "a"), row(5, Kind.CLAIM, "b")], []),
    ],
    ids=["two at work", "given back", "failed", "lease failed", "lease free", "lease held", "another roster"],
)
def test_row_over_the_limit_is_found(log: list[LogRow], seqs: list[int]) -> None:
    found = find_excess([*START, *log], LINES, {"work": {"rack": 1}})
    assert [int(text.split()[1].rstrip(":")) for text in found] == seqs


def test_roster_that_moves_machines_together_is_no_excess_but_a_claim_after_it_is() -> None:
    begin = [row(1, Kind.IMPORT), row(2, Kind.ROSTER, reason="web version 2")]
    both = [row(3, Kind.CLAIM, "a"), row(4, Kind.CLAIM, "b"), row(5, Kind.ROSTER, reason="web version 2 to 1")]
    again = [row(6, Kind.RELEASE, "a"), row(7, Kind.CLAIM, "a")]
    found = find_excess([*begin, *both, *again], LINES, {"work": {"rack": 1}})
    assert [text.split()[1] for text in found] == ["7:"]


def test_late_report_is_not_judged_by_the_limits_of_the_state_that_was_left() -> None:
    log = [row(3, Kind.TRANSITION), row(4, Kind.CLAIM, "a"), row(5, Kind.CLAIM, "b"), row(6, Kind.LATE, "c")]
    log[:3] = [replace(one, from_state="work" if one.seq == 3 else "rest", to_state="rest") for one in log[:3]]
    assert find_excess([*START, *log], LINES, {"work": {"rack": 1}, "rest": {"rack": 2}}) == []
