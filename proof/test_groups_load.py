"""Groups under load in the short form: none is over its limit, and a service that lets one too many in is seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proof.conftest import opened
from proof.groups_load import SMALL, fill_groups
from proof.stand import Database


def test_no_group_is_over_its_limit_while_workers_die(database: Database, tmp_path: Path) -> None:
    found = fill_groups(database, tmp_path, SMALL)
    assert (found.violations, found.invalid) == ([], [])


@pytest.fixture
def sqlite(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from opened(request, "sqlite")


def test_load_sees_a_service_that_lets_one_too_many_in(sqlite: Database, tmp_path: Path) -> None:
    # Who is let in is decided apart from the database.
    found = fill_groups(sqlite, tmp_path, replace(SMALL, seconds=0), defect="one too many")
    assert any("are down, and" in violation for violation in found.violations)
