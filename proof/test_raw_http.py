"""Requests that no client library sends, to gunicorn; through nginx they are in tests/e2e/."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proof.raw_http import REQUESTS, Answer, direct, read_answers, try_all

SILENCE = 0.1


def test_nothing_hidden_in_a_request_is_done(tmp_path: Path) -> None:
    with direct(tmp_path) as target:
        found = try_all(replace(target, silence=SILENCE))
    assert (found.requests, found.smuggled, found.wrong) == (len(REQUESTS), 0, [])


def test_server_that_leaves_bodies_unread_is_found_out(tmp_path: Path) -> None:
    with direct(tmp_path, is_broken=True) as target:
        found = try_all(replace(target, silence=SILENCE), REQUESTS[:1])
    assert found.smuggled == 1
    assert not found.is_proof


@pytest.mark.parametrize(
    ("received", "answers"),
    [
        (b"", []),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 400 No\r\n\r\n", [(200, b"ab"), (400, b"")]),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", [(200, b"")]),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", [(200, b"a"), (0, b"b")]),
        (b"page", [(0, b"page")]),
    ],
    ids=["none", "two", "told to go on", "more than it says", "without a head"],
)
def test_answers_are_told_apart(received: bytes, answers: list[tuple[int, bytes]]) -> None:
    found: list[Answer] = read_answers(received, is_head=False)
    assert [(answer.status, answer.body) for answer in found] == answers
