"""The service behind pgbouncer, with deploy/pgbouncer.ini: it counts, and it still hears what it must hear."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import CHART, Service, pooler


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that pgbouncer can read: it refuses to run as root."""
    path = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_service_counts_and_wakes_those_who_wait_behind_pgbouncer(folder: Path, e2e_database_url: str) -> None:
    open_to_all = {"STATE_SERVICE_AUTH": "open", "STATE_SERVICE_TRUSTED_HOSTS": ""}
    direct = Service(folder, e2e_database_url, open_to_all)
    direct.run("db", "upgrade")
    with pooler(folder, e2e_database_url) as pooled_url:
        past = {"STATE_SERVICE_POOLER": "true", "STATE_SERVICE_LISTEN_URL": e2e_database_url}
        service = Service(folder, pooled_url, {**open_to_all, **past})
        service.run("db", "upgrade")
        try:
            service.start()
            chart = CHART.replace("100", "1")
            assert service.ask("PUT", "/charts/pooled", chart).status in (200, 201)
            answers: list[int] = []
            path = "/charts/pooled/state?state=red_state&wait=30"
            waiting = threading.Thread(target=lambda: answers.append(service.ask("GET", path).status))
            waiting.start()
            time.sleep(1)
            assert service.ask("PUT", "/charts/pooled/state?state=green_state&machine=a").status == 200
            waiting.join(30)
            assert answers == [200]
        finally:
            service.stop()
