"""Forty clients that send or read as slowly as they can: behind nginx nobody else notices them."""

from __future__ import annotations

from pathlib import Path

from proof.slow_clients import CLIENTS, measure, through_nginx


def test_slow_clients_are_not_noticed_behind_nginx(tmp_path: Path) -> None:
    with through_nginx(tmp_path) as connect:
        found = measure(connect, seconds=4)
    assert (found.clients, found.finished) == (CLIENTS, {})
    assert (found.alone["wrong"], found.beside["wrong"]) == ([], [])
    # Of a hundred GETs the slowest say more of this machine than of the service: `make prove` asks for longer.
    assert found.beside["p50"] < 0.25
