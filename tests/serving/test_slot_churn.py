"""A few seconds of what bench/slots.py does for a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.churn import churn

pytestmark = pytest.mark.slow


def test_log_of_a_churn_never_shows_a_slot_too_many(database_url: str, tmp_path: Path) -> None:
    result = churn(database_url, tmp_path, machines=40, seconds=6, kill_every=1.5, processes=2)
    assert result.problems == []
