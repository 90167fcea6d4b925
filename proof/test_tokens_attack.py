"""Guesses, tokens carried wrongly, roles and charts overreached: a few routes here, all of them in `make prove`."""

from __future__ import annotations

from pathlib import Path

import pytest

from proof.stand import sqlite_database
from proof.tokens_attack import CLOSED, HOLED, HOLES, try_attacks


def test_tokens_keep_out_who_has_none(tmp_path: Path) -> None:
    with sqlite_database(tmp_path) as database:
        found = try_attacks("sqlite", database.url, tmp_path, guesses=0, endpoints=CLOSED[::6])
    assert found.wrong == []
    assert found.is_proof


@pytest.mark.parametrize("hole", HOLES)
def test_hole_is_found(tmp_path: Path, hole: str) -> None:
    with sqlite_database(tmp_path) as database:
        found = try_attacks("sqlite", database.url, tmp_path, endpoints=[HOLED], patch=HOLES[hole])
    assert found.wrong
