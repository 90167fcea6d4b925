"""The real thing on this machine, as deploy/ ships it: nginx, gunicorn, pgbouncer and Prometheus, and PostgreSQL."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from tests.e2e.lossy import LossyProxy
from tests.support.http import ANSWER_SECONDS, Reply, UnixConnection, send
from tests.support.processes import end_group, free_port, is_open, until

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
CLIENTS = ROOT / "clients"

CHART = """\
current_state: green_state
states:
  - name: green_state
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: {name: red_state, when: {key: count, value: 100}}
  - name: red_state
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: {name: blue_state, when: {key: count, value: 100}}
  - name: blue_state
"""


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """`text` with each key, which must be there, replaced by its value."""
    for old, new in changes.items():
        assert old in text, f"no longer there: {old}"
        text = text.replace(old, new)
    return text


def read_env_file(path: Path) -> dict[str, str]:
    """The settings of a file as systemd's EnvironmentFile= reads it."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: "".join(shlex.split(value)) for name, value in pairs}


@dataclass(slots=True)
class Service:
    """gunicorn, with the settings of deploy/stateservice.env but for what is this machine's."""

    folder: Path
    database_url: str
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "gunicorn.sock"

    @property
    def log(self) -> Path:
        return self.folder / "service.log"

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATE_SERVICE_")}
        shipped = read_env_file(DEPLOY / "stateservice.env")
        changes = {"/run/stateservice/gunicorn.sock": str(self.socket), "127.0.0.1:5000": f"127.0.0.1:{self.port}"}
        own = {
            "STATE_SERVICE_DATABASE_URL": self.database_url,
            "STATE_SERVICE_BIND": replaced(shipped["STATE_SERVICE_BIND"], changes),
        }
        return inherited | shipped | own | self.settings

    def run(self, *words: str) -> str:
        """Run a command of ./state_service and return what it prints."""
        command = [sys.executable, str(ROOT / "state_service"), *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """Start, and return once it is ready."""
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )
        until(self.is_ready, f"it is ready, see {self.log}")

    def stop(self) -> None:
        """Stop as systemd would."""
        if self.process is None:
            return
        end_group(self.process, 40)
        self.process = None

    @contextmanager
    def down(self) -> Iterator[None]:
        """Away until the block ends."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with suppress(OSError):
            return self.ask("GET", "/readyz").status == 200
        return False

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Reply:
        """Send one request past nginx."""
        return send(UnixConnection(self.socket), method, path, body, **headers)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the request log."""
        found = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in found if line["logger"] == "stateservice.access"]


def make_certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate for `name` that signs itself, and its key."""
    certificate, key = folder / "localhost.pem", folder / "localhost.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return certificate, key


def nginx_file(folder: Path, site: str) -> Path:
    """A whole configuration of nginx around the http-level text `site`, everything it writes in `folder`."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.geteuid() == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(
        f"{user}pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nworker_rlimit_nofile 16384;\n"
        f"events {{ worker_connections 4096; }}\nhttp {{\n{paths}{site}\n}}\n"
    )
    return path


@dataclass(slots=True)
class Front:
    """nginx with deploy/nginx.conf, its addresses, files and upstream replaced."""

    folder: Path
    upstream: str
    name: str = "localhost"
    http_port: int = field(default_factory=free_port)
    https_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "localhost.pem"

    @property
    def log(self) -> Path:
        return self.folder / "stateservice.log"

    def write(self) -> Path:
        """Write the configuration and return its path."""
        certificate, key = make_certificate(self.folder, self.name)
        changes = {
            "unix:/run/stateservice/gunicorn.sock": self.upstream,
            "listen 80;": f"listen 127.0.0.1:{self.http_port};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.https_port} ssl http2;",
            "server_name state.example;": f"server_name {self.name};",
            "/etc/ssl/stateservice.pem": str(certificate),
            "/etc/ssl/private/stateservice.key": str(key),
            "/var/log/nginx/stateservice.log": str(self.log),
        }
        return nginx_file(self.folder, replaced((DEPLOY / "nginx.conf").read_text(), changes))

    def start(self) -> None:
        """Start, and return once it listens."""
        path = self.write()
        with (self.folder / "error.log").open("ab") as log:
            self.process = subprocess.Popen(["nginx", "-c", str(path), "-g", "daemon off;"], stderr=log)
        until(self._listens, f"nginx listens, see {self.folder}/error.log")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "error.log").read_text()
        return is_open(self.https_port)


@contextmanager
def pooler(folder: Path, database_url: str, password: str | None = None) -> Iterator[str]:
    """Run pgbouncer with deploy/pgbouncer.ini before a database; yields the URL to use instead.

    Without a password it lets the database's user in as PostgreSQL here does. `folder` must be open to other users.
    """
    url, port = make_url(database_url), free_port()
    # On a machine where a service of that name runs, the default would be its folder.
    changes = {
        "host=db.example port=5432 dbname=stateservice": f"host={url.query['host']} port=5432 dbname={url.database}",
        # PostgreSQL then knows which sessions came through pgbouncer: their names end in their client's address.
        "listen_port = 6432": f"listen_port = {port}\nunix_socket_dir =\napplication_name_add_host = 1",
        "/etc/pgbouncer/userlist.txt": f"{folder}/users",
    }
    if password is None:
        changes["auth_type = scram-sha-256"] = "auth_type = trust"
    (folder / "pgbouncer.ini").write_text(replaced((DEPLOY / "pgbouncer.ini").read_text(), changes))
    (folder / "users").write_text(f'"{url.username}" "{password or ""}"\n')
    # As the user that PostgreSQL runs as, whose socket nobody else reaches; pgbouncer refuses to run as root.
    owner = Path(str(url.query["host"])).stat().st_uid
    drop = ["setpriv", f"--reuid={owner}", "--clear-groups"] if os.geteuid() == 0 else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*drop, "pgbouncer", str(folder / "pgbouncer.ini")], stderr=log)
    try:
        until(lambda: is_open(port), f"pgbouncer listens, see {folder}/log")
        login = f"{url.username}:{password}" if password else str(url.username)
        yield f"postgresql://{login}@127.0.0.1:{port}/stateservice"
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def prometheus(folder: Path, service: Service, token: str) -> Iterator[str]:
    """Run Prometheus with deploy/prometheus.yaml and deploy/alerts.yaml; yields the address of its interface."""
    shutil.copy(DEPLOY / "alerts.yaml", folder)
    (folder / "token").write_text(token)
    changes = {
        "/etc/prometheus/stateservice.token": str(folder / "token"),
        "127.0.0.1:5000": f"127.0.0.1:{service.port}",
        # A test does not wait for a minute.
        "scrape_interval: 15s": "scrape_interval: 1s\n  evaluation_interval: 1s",
    }
    (folder / "prometheus.yaml").write_text(replaced((DEPLOY / "prometheus.yaml").read_text(), changes))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--storage.tsdb.path={folder}/data"], stdout=log, stderr=log)
    try:
        until(lambda: is_open(int(address.rpartition(":")[2])), f"Prometheus listens, see {folder}/log")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


@dataclass(slots=True)
class Stack:
    """nginx → a proxy that can lose answers → gunicorn → PostgreSQL, with tokens required."""

    folder: Path
    service: Service
    lossy: LossyProxy
    front: Front
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.front.url

    @property
    def lossy_url(self) -> str:
        """Past nginx: an answer lost here is a closed connection, where nginx says 502."""
        return f"http://127.0.0.1:{self.lossy.server_address[1]}"

    def start(self) -> None:
        """Migrate, make the tokens, and start everything."""
        self.service.run("db", "upgrade")
        self.tokens["admin"] = self.service.run("token", "create", "admin", "--role", "admin").strip()
        self.tokens["machine"] = self.service.run("token", "create", "machine", "--role", "machine").strip()
        self.service.start()
        threading.Thread(target=self.lossy.serve_forever, daemon=True).start()
        self.front.start()

    def stop(self) -> None:
        self.front.stop()
        self.lossy.shutdown()
        self.lossy.server_close()
        self.service.stop()

    def ask(self, method: str, path: str, role: str | None = "admin", body: str | None = None, **headers: str) -> Reply:
        """Send one request through nginx, with the token of `role`."""
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        context = ssl.create_default_context(cafile=str(self.front.certificate))
        connection = http.client.HTTPSConnection(
            "localhost", self.front.https_port, timeout=ANSWER_SECONDS, context=context
        )
        return send(connection, method, path, body, **headers)

    def import_chart(self, name: str, text: str = CHART) -> None:
        reply = self.ask("PUT", f"/charts/{name}", body=text)
        assert reply.status == 201, reply

    def values(self, name: str) -> dict[str, int]:
        """The current state's attributes."""
        status: dict[str, Any] = json.loads(self.ask("GET", f"/charts/{name}").body)
        values: dict[str, int] = status["values"]
        return values

    def updates(self, name: str) -> int:
        """How many PUTs the log says were counted."""
        text = self.ask("GET", f"/charts/{name}/history?format=ndjson").body
        return sum(json.loads(line)["kind"] in ("update", "transition") for line in text.splitlines())


@contextmanager
def running_stack(folder: Path, database_url: str) -> Iterator[Stack]:
    """Run everything until the block ends."""
    (folder / "nginx").mkdir()
    # What the person who installs it fills in.
    filled_in = {"STATE_SERVICE_TRUSTED_HOSTS": "localhost,127.0.0.1", "STATE_SERVICE_SECRET_KEY": "s" * 44}
    service = Service(folder, database_url, filled_in)
    lossy = LossyProxy(service.socket)
    front = Front(folder / "nginx", f"127.0.0.1:{lossy.server_address[1]}")
    stack = Stack(folder, service, lossy, front)
    try:
        stack.start()
        yield stack
    finally:
        with suppress(OSError):
            stack.stop()
