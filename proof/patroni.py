"""Three PostgreSQL servers under Patroni, with deploy/patroni.yaml, behind HAProxy, with deploy/haproxy.cfg."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml

from proof.stand import kill_at_once, quiet_port
from tests.support.databases import migrate
from tests.support.hanging import find_postmaster
from tests.support.processes import until
from tests.support.servers import ROOT

DEPLOY = ROOT / "deploy"
NAMES = ("db1", "db2", "db3")
SCOPE = "stateservice"
# Who runs PostgreSQL, which refuses to be run by root; and its superuser.
USER = "postgres"
START_SECONDS = 90
# What the shipped configuration leaves to each host; everybody here is on this one.
ACCESS = ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]


def find_programs() -> Path:
    """The folder of the newest PostgreSQL that Debian has installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert found, "PostgreSQL is needed: sh tests/e2e/install.sh"
    return found[-1]


@dataclass(slots=True)
class Node:
    """One Patroni and its PostgreSQL."""

    name: str
    folder: Path
    etcd: int
    settings: Mapping[str, int]
    port: int = field(default_factory=quiet_port)
    api: int = field(default_factory=quiet_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / self.name

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL; as systemd would, also after its death."""
        file = self.folder / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump(self._configuration()))
        self.process = _launch(self.folder, self.name, "patroni", str(file))

    def _configuration(self) -> dict[str, Any]:
        configuration: dict[str, Any] = yaml.safe_load((DEPLOY / "patroni.yaml").read_text())
        configuration["bootstrap"]["dcs"] |= self.settings
        own = {
            "scope": SCOPE,
            "name": self.name,
            "etcd3": {"host": f"127.0.0.1:{self.etcd}"},
            "restapi": {"listen": f"127.0.0.1:{self.api}", "connect_address": f"127.0.0.1:{self.api}"},
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.data),
                "bin_dir": str(find_programs()),
                "pgpass": str(self.folder / f"{self.name}.pgpass"),
                "authentication": {"superuser": {"username": USER}, "replication": {"username": USER}},
                "pg_hba": ACCESS,
                "parameters": {"unix_socket_directories": str(self.folder)},
            },
        }
        return configuration | own

    def ask(self, path: str) -> tuple[int, Any]:
        """Ask its Patroni; 0 where that does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        except (OSError, ValueError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def kill(self) -> int:
        """Kill -9 Patroni and PostgreSQL at once; return when the last of them was sent the signal."""
        killed = kill_at_once(*self._list_roots())
        if self.process is not None:
            self.process.wait(10)
        return killed

    def _list_roots(self) -> Iterator[psutil.Process]:
        # PostgreSQL is no child of Patroni, so that it outlives it.
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            server = find_postmaster(self.data)
            if str(self.data) in server.cmdline():
                yield server
        if self.process is not None:
            with suppress(psutil.NoSuchProcess):
                yield psutil.Process(self.process.pid)


@dataclass(slots=True)
class Cluster:
    """Three nodes, one of which leads; at `url` HAProxy finds it. A database as the campaign knows one."""

    nodes: list[Node]
    url: str
    killed: Node | None = None

    def faults(self) -> dict[str, Any]:
        """What the campaign can do to it: nothing, because an operator must start again what was killed."""
        return {}

    def find_leader(self) -> Node | None:
        """The node whose Patroni says that it leads, where exactly one does."""
        leaders = [node for node in self.nodes if node.ask("/primary")[0] == 200]
        return leaders[0] if len(leaders) == 1 else None

    def is_whole(self) -> bool:
        """True where one leads, two follow, and one of these is synchronous."""
        leader = self.find_leader()
        if leader is None:
            return False
        members = (leader.ask("/cluster")[1] or {}).get("members", [])
        roles = sorted(member["role"] for member in members if member["state"] in ("running", "streaming"))
        return roles == ["leader", "replica", "sync_standby"]

    def fail_over(self) -> int:
        """Kill -9 the leader and return, once another one leads, when that was. Nobody lends a hand."""
        leader = until(self.find_leader, "a server leads", START_SECONDS)
        killed = leader.kill()
        self.killed = leader
        until(self.find_leader, "another one leads", START_SECONDS)
        return killed

    def rebuild(self) -> None:
        """Start again what was killed, as systemd would, and return once it follows."""
        assert self.killed is not None
        self.killed.start()
        until(self.is_whole, "the old leader follows the new one", START_SECONDS)


@contextmanager
def patroni_cluster(**settings: int) -> Iterator[Cluster]:
    """A migrated database on a new cluster. `settings` take the place of some of those of deploy/patroni.yaml."""
    with tempfile.TemporaryDirectory(prefix="patroni-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        etcd, port = quiet_port(), quiet_port()
        nodes = [Node(name, folder, etcd, settings) for name in NAMES]
        others = []
        try:
            others.append(_start_etcd(folder, etcd))
            for node in nodes:
                node.start()
            others.append(_start_haproxy(folder, port, nodes))
            yield _open(Cluster(nodes, f"postgresql://{SCOPE}@127.0.0.1:{port}/{SCOPE}"))
        finally:
            for node in nodes:
                node.kill()
            for process in others:
                process.kill()
                process.wait(10)


def _open(cluster: Cluster) -> Cluster:
    """Make the service's role and database, as docs/operations.md says, once the cluster is whole."""
    until(cluster.is_whole, "the cluster is whole", START_SECONDS)
    leader = until(cluster.find_leader, "a server leads", START_SECONDS)
    with psycopg.connect(f"postgresql://{USER}@127.0.0.1:{leader.port}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {SCOPE} LOGIN".encode())
        connection.execute(f"CREATE DATABASE {SCOPE} OWNER {SCOPE}".encode())
    until(lambda: _answers(cluster.url), "HAProxy has found the leader", START_SECONDS)
    migrate(cluster.url)
    return cluster


def _answers(url: str) -> bool:
    with suppress(psycopg.Error), psycopg.connect(url, connect_timeout=2):
        return True
    return False


def _start_etcd(folder: Path, port: int) -> subprocess.Popen[bytes]:
    peer = f"http://127.0.0.1:{quiet_port()}"
    client = f"http://127.0.0.1:{port}"
    return _launch(
        folder,
        "etcd",
        *("etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", client),
        *("--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"default={peer}"),
    )


def _start_haproxy(folder: Path, port: int, nodes: list[Node]) -> subprocess.Popen[bytes]:
    text = (DEPLOY / "haproxy.cfg").read_text()
    changes = {"bind 127.0.0.1:5432": f"bind 127.0.0.1:{port}"} | {
        f"server {node.name} 10.0.0.{number}:5432 check port 8008": (
            f"server {node.name} 127.0.0.1:{node.port} check port {node.api}"
        )
        for number, node in enumerate(nodes, 1)
    }
    for old, new in changes.items():
        assert old in text, f"no longer in haproxy.cfg: {old}"
        text = text.replace(old, new)
    file = folder / "haproxy.cfg"
    file.write_text(text)
    return _launch(folder, "haproxy", "haproxy", "-db", "-f", str(file))


def _launch(folder: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
    """Start a program as PostgreSQL's user, its output in a file of the folder."""
    user = USER if os.geteuid() == 0 else None
    with (folder / f"{name}.log").open("ab") as log:
        # Patroni's own Python must not be led to our libraries.
        plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        variables = plain | {"PATH": f"{find_programs()}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)}
        return subprocess.Popen(
            command, cwd=folder, env=variables, user=user, group=user, stdout=log, stderr=log, start_new_session=True
        )
