"""The service as it is deployed, on this machine: nginx with deploy/nginx.conf before gunicorn on its socket."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.stack import Front, Service

SECONDS = 30


@dataclass(slots=True)
class Fronted:
    """nginx and the service behind it, open to everybody."""

    service: Service
    front: Front

    @property
    def host(self) -> str:
        return f"localhost:{self.front.https_port}"

    def connect(self, received: int | None = None) -> socket.socket:
        """A connection to nginx, HTTP/1.1 over TLS; `received` bounds what the kernel keeps of unread answers."""
        plain = socket.socket()
        plain.settimeout(SECONDS)
        if received is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
        plain.connect(("127.0.0.1", self.front.https_port))
        context = ssl.create_default_context(cafile=str(self.front.certificate))
        return context.wrap_socket(plain, server_hostname="localhost")

    def status(self, chart: str) -> dict[str, Any]:
        """A chart's status."""
        found: dict[str, Any] = self.service.ask("GET", f"/charts/{chart}").json()
        return found

    def import_chart(self, name: str, text: str) -> None:
        """Import a chart; fails where it is refused."""
        reply = self.service.ask("PUT", f"/charts/{name}", text)
        assert reply.status in (200, 201), reply.body


@contextmanager
def fronted(folder: Path) -> Iterator[Fronted]:
    """Run both on a new SQLite file until the block ends."""
    assert shutil.which("nginx"), "nginx is needed: tests/e2e/install.sh installs it"
    (folder / "nginx").mkdir()
    settings = {"STATE_SERVICE_AUTH": "open", "STATE_SERVICE_TRUSTED_HOSTS": "localhost,127.0.0.1"}
    service = Service(folder, f"sqlite:///{folder / 'fronted.db'}", settings)
    front = Front(folder / "nginx", f"unix:{service.socket}")
    service.run("db", "upgrade")
    try:
        service.start()
        front.start()
        yield Fronted(service, front)
    finally:
        front.stop()
        service.stop()
