"""What can be read of charts: exports, versions, statuses and the log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from app.core.chart import Op
from app.core.errors import ChartNotFoundError, VersionNotFoundError
from app.service import context, operate, reading
from app.service.context import Service
from app.service.metrics import read_gauges
from app.service.operate import Outcome
from app.service.rosters import RosterRequest, import_roster, read_lines
from app.service.upkeep import verify
from app.store import definitions
from tests.core.support import NOON
from tests.service.support import (
    ANN,
    CANARY,
    CHARTS,
    NOBODY,
    REBOOT,
    SEED,
    Clock,
    import_text,
    opened_service,
    put,
    rows,
)
from tests.support import requests
from tests.support.reads import counted_reads

SAMPLES = sorted(CHARTS.glob("*.yaml"))


@pytest.fixture(autouse=True)
def canary(service: Service) -> None:
    import_text(service, CANARY)


# Many charts


def import_charts(service: Service, count: int) -> None:
    """Import charts without slots and with them, in turn."""
    for number in range(count):
        import_text(service, (SEED, REBOOT)[number % 2], name=f"c{number:02}")


@pytest.mark.parametrize(
    "read", [reading.list_statuses, lambda service: read_gauges(service, 2)], ids=["list", "scrape"]
)
def test_many_charts_are_read_with_as_many_statements_as_few(
    service: Service, database_url: str, read: Callable[[Service], object]
) -> None:
    counts = []
    for charts in (4, 40):
        import_charts(service, charts)
        with opened_service(database_url) as fresh, counted_reads(fresh) as reads:
            read(fresh)
        counts.append(len(reads.statements))
    assert counts[0] == counts[1]


def test_scrape_reads_no_definition_of_charts_that_it_leaves_out(service: Service, database_url: str) -> None:
    import_charts(service, 6)
    with (
        opened_service(database_url) as fresh,
        patch.object(definitions, "load_charts", wraps=definitions.load_charts) as load,
    ):
        assert len(read_gauges(fresh, 2).conditions) == 2
    assert [len(call.args[1]) for call in load.call_args_list] == [2]


def test_charts_that_are_read_in_parts_are_all_listed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    import_charts(service, 6)
    whole, gauges = reading.list_statuses(service), read_gauges(service, 7).conditions
    assert len(whole) == len(gauges) == 7
    monkeypatch.setattr(context, "TOGETHER", 2)
    assert (reading.list_statuses(service), read_gauges(service, 7).conditions) == (whole, gauges)


# Export


def test_export_carries_the_live_state_and_values(service: Service) -> None:
    put(service, "canary")
    text = reading.export_chart(service, "web")
    assert "current_state: canary" in text
    assert "[{key: count, value: 1}, {key: failed, value: 0}]" in text


def test_export_of_a_running_chart_is_an_upgrade_that_changes_no_position(service: Service) -> None:
    put(service, "canary", "m1")
    imported = import_text(service, reading.export_chart(service, "web"))
    assert (imported.outcome, imported.status.values["count"]) == (Outcome.UPGRADED, 1)
    assert verify(service, "web").differences == ()


def test_export_under_a_new_name_starts_a_run_there(service: Service) -> None:
    put(service, "canary", key="count")
    put(service, "canary", key="count")
    put(service, "soak")
    status = import_text(service, reading.export_chart(service, "web"), name="copy").status
    assert (status.current_state, status.run, status.visit, status.values) == ("soak", 1, 1, {"count": 1})


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_export_of_a_sample_imports_again_as_the_same_chart(service: Service, path: Any) -> None:
    for roster in CHARTS.glob("rosters/*.txt"):
        lines = read_lines(roster.read_bytes().splitlines())
        import_roster(service, RosterRequest(roster.stem, lines), ANN)
    name = import_text(service, path.read_text(), name=path.stem).status.chart
    text = reading.export_chart(service, name)
    import_text(service, text, name="copy")
    assert reading.export_chart(service, "copy") == text.replace(f"chart: {name}\n", "chart: copy\n", 1)


@pytest.mark.parametrize("read", [reading.export_chart, reading.get_status, reading.list_versions])
def test_archived_chart_is_not_found(service: Service, read: Any) -> None:
    operate.archive(service, "web", "over", ANN)
    with pytest.raises(ChartNotFoundError):
        read(service, "web")


# Versions


def test_version_is_the_text_that_was_imported(service: Service) -> None:
    pasted = f"--- states.yaml ---\n{SEED}"
    import_text(service, pasted, name="seed")
    version = reading.get_version(service, "seed", 1)
    assert (version.text, version.imported_by, version.imported_at) == (pasted, "ann", NOON)


def test_unknown_version_is_an_error(service: Service) -> None:
    with pytest.raises(VersionNotFoundError, match="no version 2"):
        reading.get_version(service, "web", 2)


# Status


def test_status_says_what_it_waits_for(service: Service, clock: Clock) -> None:
    put(service, "canary")
    status = reading.get_status(service, "web")
    assert status.waits_for == "rollback when failed >= 1 (now 0, 1 more); soak when count >= 2 (now 1, 1 more)"
    progress = status.progress
    assert progress is not None
    assert (progress.key, progress.value, progress.needed, progress.target) == ("count", 1, 2, "soak")


def test_status_names_the_deadline(service: Service, clock: Clock) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    clock.advance(20)
    status = reading.get_status(service, "web")
    assert status.deadline is not None
    assert (status.deadline.at, status.deadline.target) == (NOON + timedelta(seconds=60), "done")
    assert status.waits_for.endswith("done in 40 s, by the clock")


def test_deadline_of_a_paused_chart_has_no_instant(service: Service, clock: Clock) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    operate.pause(service, "web", "look", ANN)
    clock.advance(150)
    status = reading.get_status(service, "web")
    assert status.deadline is not None
    assert (status.deadline.at, status.waits_for) == (None, "paused by ann 2 min 30 s ago: look")


def test_status_of_a_chart_that_has_ended(service: Service) -> None:
    operate.goto(service, "web", "done", "there", ANN)
    status = reading.get_status(service, "web")
    assert (status.is_final, status.waits_for, status.values) == (True, "nothing: done is final", {})


def test_list_has_every_chart_that_is_not_archived_by_name(service: Service) -> None:
    for name in ("zoo", "abc", "old"):
        import_text(service, CANARY, name=name)
    operate.archive(service, "old", "over", ANN)
    put(service, "canary", chart="zoo")
    found = [(status.chart, status.values["count"]) for status in reading.list_statuses(service)]
    assert found == [("abc", 0), ("web", 0), ("zoo", 1)]


@pytest.mark.parametrize("op", [op for op in Op if op not in (Op.GE, Op.NE, Op.LT)])
def test_status_names_the_op(service: Service, op: Op) -> None:
    text = CANARY.replace("{key: count, value: 2}", f'{{key: count, op: "{op}", value: 2}}')
    import_text(service, text, name="op")
    assert f"soak when count {op} 2 (now 0" in reading.get_status(service, "op").waits_for


# History


@pytest.fixture
def lived(service: Service, clock: Clock) -> None:
    """A log of four rows: the first at noon, the others ten seconds apart."""
    for machine in ("m1", "m2"):
        clock.advance(10)
        put(service, "canary", machine)
    clock.advance(10)
    operate.pause(service, "web", "look", ANN)


FILTERS = [
    pytest.param({}, [1, 2, 3, 4], id="everything"),
    pytest.param({"after": 2}, [3, 4], id="after"),
    pytest.param({"after": 4}, [], id="after the last"),
    pytest.param({"limit": 2}, [1, 2], id="limit"),
    pytest.param({"limit": 0}, [], id="limit of 0"),
    pytest.param({"after": 1, "limit": 1}, [2], id="after and limit"),
    pytest.param({"kind": "transition"}, [3], id="kind"),
    pytest.param({"kind": "goto"}, [], id="kind without rows"),
    pytest.param({"machine": "m1"}, [2], id="machine"),
    pytest.param({"since": NOON + timedelta(seconds=20)}, [3, 4], id="since, with its own instant"),
    pytest.param({"until": NOON + timedelta(seconds=20)}, [1, 2], id="until, without its own instant"),
    pytest.param({"since": NOON, "until": NOON + timedelta(microseconds=1)}, [1], id="since and until"),
    pytest.param({"kind": "update", "machine": "m2"}, [], id="kind and machine"),
]


@pytest.mark.parametrize(("wanted", "seqs"), FILTERS)
def test_history_has_the_rows_that_pass_the_filter(
    service: Service, lived: None, wanted: dict[str, Any], seqs: list[int]
) -> None:
    assert [row.seq for row in rows(service, **wanted)] == seqs


def test_history_reads_page_by_page(service: Service, lived: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 1)
    assert [row.seq for row in rows(service)] == [1, 2, 3, 4]
    assert [row.seq for row in rows(service, limit=3)] == [1, 2, 3]


def test_history_of_an_archived_chart_can_be_read(service: Service, lived: None) -> None:
    operate.archive(service, "web", "over", ANN)
    assert [row.kind for row in rows(service)][-1] == "archive"


def test_history_of_an_unknown_chart_is_an_error(service: Service) -> None:
    with pytest.raises(ChartNotFoundError):
        rows(service, chart="nowhere")


def test_history_has_only_rows_of_its_chart(service: Service, lived: None) -> None:
    import_text(service, REBOOT, name="other")
    requests.claim(service, "other", "reboot", "m1", NOBODY)
    assert [row.kind for row in rows(service, chart="other")] == ["import", "claim"]
