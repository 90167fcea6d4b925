"""A body that nobody reads, through nginx: what was asked is answered all the same, and not with 502."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from proof.fronted import Fronted, fronted
from proof.raw_http import CHART, STATE

# Past what a socket keeps, and as much as deploy/nginx.conf lets through.
SIZES = (200_000, 1_000_000, 2 * 1024 * 1024)
# Only now and then was an answer lost.
TIMES = 8


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("bodies")) as opened:
        opened.import_chart("front", CHART)
        yield opened


def ask(front: Fronted, method: str, path: str, size: int) -> int:
    connection = http.client.HTTPConnection(front.host)
    connection.sock = front.connect()
    try:
        connection.request(method, path, b"#" * size)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("GET", f"/charts/front/state?state={STATE}", {200}),
        ("PUT", f"/charts/front/state?state={STATE}&machine=m1", {200}),
        ("POST", "/charts/front/pause", {400, 413}),
    ],
    ids=["question", "put", "act"],
)
def test_answer_is_not_lost(front: Fronted, method: str, path: str, statuses: set[int], size: int) -> None:
    assert {ask(front, method, path, size) for _ in range(TIMES)} <= statuses


def test_roster_larger_than_a_chart_comes_through(front: Fronted) -> None:
    lines = b"".join(b"machine-%06d.example rack=r%04d zone=a\n" % (number, number // 40) for number in range(80_000))
    assert len(lines) > 3_000_000
    connection = http.client.HTTPConnection(front.host)
    connection.sock = front.connect()
    try:
        connection.request("PUT", "/rosters/large", lines)
        assert connection.getresponse().status == 201
    finally:
        connection.close()
