"""A leader is killed under Patroni: another one takes over by itself, and nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

from proof.failover import Plan, run_failovers
from proof.patroni import patroni_cluster


def test_another_leader_takes_over_without_a_hand(tmp_path: Path) -> None:
    # Shorter times than deploy/patroni.yaml has; `make prove ARGS=patroni` takes those.
    with patroni_cluster(ttl=10, loop_wait=1, retry_timeout=3) as cluster:
        found = run_failovers(cluster, tmp_path, Plan(failovers=1, acknowledged=200, threads=6))
    assert found.report.invalid == []
    assert found.report.violations == []
    assert found.report.acknowledged >= 400
