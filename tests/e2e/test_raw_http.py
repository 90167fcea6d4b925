"""Requests that no client library sends, through nginx: nothing that one hides is done, and nothing is opened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proof.raw_http import REQUESTS, Target, read_answers, send, through_nginx, try_all


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with through_nginx(tmp_path_factory.mktemp("raw")) as found:
        yield found


def statuses(target: Target, head: bytes, body: bytes = b"") -> list[int]:
    return [answer.status for answer in read_answers(send(target, head + body), is_head=False)]


def test_nothing_hidden_in_a_request_is_done(target: Target) -> None:
    found = try_all(target)
    assert (found.requests, found.smuggled, found.wrong) == (len(REQUESTS), 0, [])


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/metrics/", "/metrics//", "//metrics", "/%6detrics", "/metrics%2f", "/./metrics", "/metrics?x"],
)
def test_metrics_are_closed_in_every_spelling(target: Target, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert statuses(target, request.encode()) == [403]


@pytest.mark.parametrize("size", [1_048_577, 1_100_000, 2_000_000])
def test_chart_file_that_is_too_large_is_always_told_so(target: Target, size: int) -> None:
    """A server that closes the connection on what it has not read loses its answer now and then."""
    head = f"PUT /charts/big HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    assert [statuses(target, head.encode(), b"#" * size) for _ in range(10)] == [[413]] * 10
