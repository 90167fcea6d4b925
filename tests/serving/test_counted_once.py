"""Each machine and each key counts once, however often it is sent at once. (In full: bench/machines.py)"""

from __future__ import annotations

import pytest

from tests.support.rush import rush_of_keys, rush_of_machines
from tests.support.servers import Server

pytestmark = pytest.mark.slow


def test_every_machine_counts_once(server: Server, chart: str) -> None:
    rush_of_machines(server, chart, machines=500, seed=1)
    server.verify()


def test_every_key_counts_once(server: Server, chart: str) -> None:
    rush_of_keys(server, chart, keys=100, threads=1, seed=2)
    server.verify()
