"""The production block of README, word for word: only the database's address and the ports are this machine's."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url

from tests.e2e.stack import ROOT, nginx_file, replaced
from tests.support.databases import database_on
from tests.support.http import ANSWER_SECONDS, Reply, send
from tests.support.processes import PATIENCE, end_group, free_port, until


@dataclass(frozen=True, slots=True)
class Production:
    """What README's block has started; `folder` has what its commands printed."""

    folder: Path
    port: int

    @property
    def tokens(self) -> list[str]:
        """The secrets that `token create` has printed: the fleet's, and the operator's."""
        return re.findall(r"^sst_\S+$", (self.folder / "out").read_text(), flags=re.M)

    def ask(self, method: str, path: str, host: str = "state.example", **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        return send(connection, method, path, Host=host, **headers)

    def is_ready(self) -> bool:
        with suppress(OSError):
            return self.ask("GET", "/readyz").status == 200
        return False


def blocks(kind: str) -> str:
    section = (ROOT / "README.md").read_text().partition("## Production\n")[2].partition("\n## ")[0]
    (found,) = re.findall(rf"```{kind}\n(.*?)```", section, flags=re.DOTALL)
    return found


@contextmanager
def started(command: list[str], folder: Path, **own: str) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATE_SERVICE_")}
    with (folder / "out").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=inherited | own, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            end_group(process, 40)


@pytest.fixture
def production(postgresql_server: Engine, tmp_path: Path) -> Iterator[Production]:
    backend, front = free_port(), free_port()
    (tmp_path / "nginx").mkdir()
    site = replaced(blocks("nginx"), {"127.0.0.1:5000": f"127.0.0.1:{backend}", "listen 80;": f"listen {front};"})
    found = Production(tmp_path, front)
    for url in database_on(postgresql_server):
        own_url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        changes = {
            "postgresql://stateservice@db.example/stateservice": own_url,
            "instance/secret_key": f"{tmp_path}/secret_key",
        }
        *before, last = replaced(blocks("sh"), changes).splitlines()
        script = "\n".join([*before, f"exec {last}"])
        nginx = ["nginx", "-c", str(nginx_file(tmp_path / "nginx", site)), "-g", "daemon off;"]
        with (
            started(["sh", "-euc", script], tmp_path, STATE_SERVICE_BIND=f"127.0.0.1:{backend}") as service,
            started(nginx, tmp_path / "nginx"),
        ):
            until(
                lambda: service.poll() is not None or found.is_ready(),
                f"it is ready, see {tmp_path}/out",
                # Four commands come before the server.
                15 * PATIENCE,
            )
            assert service.poll() is None, (tmp_path / "out").read_text()
            yield found


def test_production_block_of_readme_serves_as_it_says(production: Production) -> None:
    fleet, operator = production.tokens
    by_fleet, by_operator = {"Authorization": f"Bearer {fleet}"}, {"Authorization": f"Bearer {operator}"}

    asked = production.ask("GET", "/state?state=canary", **by_fleet)
    assert (asked.status, asked.body) == (200, "canary")
    assert production.ask("GET", "/state?state=canary").status != 200
    assert production.ask("GET", "/state?state=canary", host="other.example", **by_fleet).status != 200
    assert production.ask("GET", "/readyz", host="localhost").status == 200
    assert json.loads(production.ask("GET", "/charts/kernel-rollout", **by_operator).body)["version"] == 1
    # People can sign in.
    assert production.ask("GET", "/ui/login").status == 200
