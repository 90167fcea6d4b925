"""What a proof says can happen does happen on a running service: its stories, told over HTTP with curl."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.chart_file import parse
from app.core.chart import FAILED_KEY
from app.core.proof import Measure, Proof
from app.core.witness import Said
from tests.serving.conftest import curl, history, serving
from tests.support.apps import ROOT
from tests.support.servers import Server, chart_path

REBOOT = ROOT / "tests" / "lab" / "charts" / "rolling-reboot.yaml"

pytestmark = pytest.mark.slow


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    with serving(database_url, tmp_path, "--chart", REBOOT) as server:
        yield server


def test_story_of_the_most_machines_down_happens_on_a_running_service(server: Server) -> None:
    chart = parse(REBOOT.read_bytes()).chart
    proof = Proof(chart, 20)
    bound = proof.find_bound(Measure.DOWN, "halted")
    story = proof.show(bound.legs, Measure.DOWN, bound.most or 0)
    assert story is not None
    for act in story.acts:
        assert isinstance(act, Said)
        rest, more = ("slot", {}) if act.verb == "claim" else ("state", {"key": act.key or ""})
        path = chart_path(chart.name, rest, state="reboot", machine=act.machine, **more)
        assert curl(server, path, "-X", "PUT").startswith("HTTP/1.1 200 ")
    assert server.status(chart.name)["current_state"] == "halted"
    assert count_down(server, chart.name) == bound.most == 7


def count_down(server: Server, chart: str) -> int:
    """Return how many machines were down as the log has it: their last row in the visit is a claim, or a failure."""
    last = {row["machine"]: row for row in history(server, chart) if row["machine"]}
    return sum(row["kind"] == "claim" or row["key"] == FAILED_KEY for row in last.values())
