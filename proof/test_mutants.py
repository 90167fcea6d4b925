"""A few of the spoilt chart files; 300,000 of them are in `make prove`."""

from __future__ import annotations

from typing import Any

import pytest

from proof.mutants import read_mutants

COUNT = 400


def test_mutants_are_charts_or_problems() -> None:
    found = read_mutants(8, COUNT)
    assert found.is_proof, found.as_line()
    assert 0 < found.accepted < found.mutants == COUNT


def test_another_error_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: bytes, **named: Any) -> None:
        raise RecursionError

    monkeypatch.setattr("proof.mutants.parse", fail)
    found = read_mutants(8, 1)
    assert found.wrong
    assert not found.is_proof
