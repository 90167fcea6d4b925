"""The real thing on this machine: nginx with deploy/nginx.conf, gunicorn with deploy/stateservice.env, PostgreSQL."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "gunicorn.sock"

    @property
    def log(self) -> Path:
        return self.folder / "service.log"

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATE_SERVICE_")}
        own = {"STATE_SERVICE_DATABASE_URL": self.database_url, "STATE_SERVICE_BIND": f"unix:{self.socket}"}
        return inherited | read_env_file(DEPLOY / "stateservice.env") | own | self.settings

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


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    certificate, key = folder / "localhost.pem", folder / "localhost.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
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
        certificate, key = make_certificate(self.folder)
        changes = {
            "unix:/run/stateservice/gunicorn.sock": self.upstream,
            "listen 80;": f"listen 127.0.0.1:{self.http_port};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.https_port} ssl http2;",
            "server_name state.example;": "server_name localhost;",
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
    # What whoever installs it fills in.
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
