"""The service behind pgbouncer, with deploy/pgbouncer.ini: it counts, and it still hears what it must hear."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.e2e.stack import CHART, DEPLOY, Service, replaced
from tests.support.processes import free_port, is_open, until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that pgbouncer can read: it refuses to run as root."""
    path = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def pooler(folder: Path, database_url: str) -> Iterator[str]:
    """Run pgbouncer in front of a database; yields the URL to use in its place."""
    url = make_url(database_url)
    port = free_port()
    changes = {
        "host=db.example port=5432 dbname=stateservice": f"host={url.query['host']} dbname={url.database}",
        "listen_port = 6432": f"listen_port = {port}\nunix_socket_dir =",
        "auth_type = scram-sha-256": "auth_type = trust",
        "/etc/pgbouncer/userlist.txt": f"{folder}/users",
    }
    (folder / "pgbouncer.ini").write_text(replaced((DEPLOY / "pgbouncer.ini").read_text(), changes))
    (folder / "users").write_text(f'"{url.username}" ""\n')
    # As the user that PostgreSQL runs as, whose socket nobody else reaches.
    owner = Path(str(url.query["host"])).stat().st_uid
    drop = ["setpriv", f"--reuid={owner}", "--clear-groups"] if os.geteuid() == 0 else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*drop, "pgbouncer", str(folder / "pgbouncer.ini")], stderr=log)
    try:
        until(lambda: is_open(port), f"pgbouncer listens, see {folder}/log")
        yield f"postgresql://{url.username}@127.0.0.1:{port}/stateservice"
    finally:
        process.terminate()
        process.wait(10)


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
            waiting.join(5)
            assert answers == [200]
        finally:
            service.stop()
