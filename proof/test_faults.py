"""Nothing acknowledged is lost, whatever dies: the short form. `make prove` runs the whole (docs/reliability.md)."""

from __future__ import annotations

from pathlib import Path

from proof.campaign import Plan, run
from proof.crashes import POINTS
from proof.stand import Database

# Other tests run beside these, which is why so little load is enough.
FAULTS = {"kill_worker": 1, "kill_all": 1, "stop_continue": 1, "move_clock": 2, **dict.fromkeys(POINTS, 1)}


def test_nothing_acknowledged_is_lost_whatever_dies(database: Database, tmp_path: Path) -> None:
    also = {"pg_kill": 1, "pg_terminate": 1} if database.faults() else {}
    report = run(database, tmp_path, Plan(FAULTS | also, min_rate=10))
    assert report.invalid == []
    assert report.violations == []
    assert report.faults >= len(FAULTS)
    assert report.acknowledged > 0
