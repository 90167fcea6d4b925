"""The harness sees: each seeded defect, on one of the databases; `make prove` seeds all of them on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proof.campaign import run_defect
from proof.conftest import opened
from proof.defects import DEFECTS
from proof.stand import Database

# A busy machine may need more than one try.
SECONDS = (2, 6, 15)
SEEDED = [
    (name, defect.databases[number % len(defect.databases)]) for number, (name, defect) in enumerate(DEFECTS.items())
]


@pytest.fixture
def seeded(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from opened(request, request.param)


@pytest.mark.parametrize(("defect", "seeded"), SEEDED, indirect=["seeded"], ids=[name for name, _ in SEEDED])
def test_defect_is_caught(seeded: Database, tmp_path: Path, defect: str) -> None:
    assert any(is_caught(seeded, tmp_path, defect, seconds) for seconds in SECONDS)


def is_caught(database: Database, folder: Path, defect: str, seconds: float) -> bool:
    found = run_defect(database, folder, defect, seconds)
    return DEFECTS[defect].find(found.violations) is not None
