"""deploy/nginx-mtls.conf with real client certificates: a machine speaks for itself alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.stack import CHART, DEPLOY, make_certificate, nginx_file, replaced
from tests.support.processes import free_port, is_open, until
from tests.support.servers import Server, running

UPSTREAM = "upstream stateservice {{ server 127.0.0.1:{0}; }}\n"
URL = "/charts/canary/state?state=green_state"


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


def make_ca(folder: Path, name: str) -> None:
    subject = ["-subj", f"/CN={name}", "-days", "2", "-nodes"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    openssl("req", "-x509", *key, *subject, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")


def sign(folder: Path, ca: str, name: str, subject: str) -> None:
    """Make NAME.pem and NAME.key, signed by a CA."""
    request = folder / f"{name}.csr"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", *key, "-subj", subject, "-keyout", folder / f"{name}.key", "-out", request)
    signer = ["-CA", folder / f"{ca}.pem", "-CAkey", folder / f"{ca}.key", "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", request, *signer, "-out", folder / f"{name}.pem")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The service behind nginx, and a folder of certificates."""

    server: Server
    folder: Path
    port: int

    def ask(self, certificate: str | None, method: str, path: str, *options: str) -> int:
        """The status of one request with a client's certificate."""
        given: list[str] = []
        if certificate is not None:
            given = [
                "--cert",
                str(self.folder / f"{certificate}.pem"),
                "--key",
                str(self.folder / f"{certificate}.key"),
            ]
        command = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--noproxy",
            "*",
            "-X",
            method,
            *given,
            *options,
        ]
        command += ["--cacert", str(self.folder / "localhost.pem"), f"https://localhost:{self.port}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return int(done.stdout)


@pytest.fixture
def fleet(sqlite_url: str, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    certificate, key = make_certificate(folder)
    make_ca(folder, "machines")
    make_ca(folder, "strangers")
    sign(folder, "machines", "web-01", "/O=Example/CN=web-01")
    sign(folder, "machines", "liar", "/O=Example, CN=web-01/CN=web-02")
    sign(folder, "machines", "late", "/CN=web-03/O=CN=web-01")
    sign(folder, "strangers", "forged", "/CN=web-01")
    settings = {"proxy_hops": "1", "machine_header": "X-Certified-Machine"}
    with running(sqlite_url, tmp_path, workers="1", **settings) as server:
        port = free_port()
        changes = {
            "listen 8443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
            "server_name machines.state.example;": "server_name localhost;",
            "/etc/ssl/stateservice.pem": str(certificate),
            "/etc/ssl/private/stateservice.key": str(key),
            "/etc/ssl/stateservice-machines.pem": str(folder / "machines.pem"),
        }
        site = UPSTREAM.format(server.port) + replaced((DEPLOY / "nginx-mtls.conf").read_text(), changes)
        process = subprocess.Popen(["nginx", "-c", str(nginx_file(folder, site)), "-g", "daemon off;"])
        try:
            until(lambda: is_open(port), "nginx listens")
            assert server.ask("PUT", "/charts/canary", CHART).status == 201
            yield Fleet(server, folder, port)
        finally:
            process.terminate()
            process.wait(20)


def test_machine_speaks_for_itself_alone(fleet: Fleet) -> None:
    forged = ("-H", "X-Certified-Machine: web-02", "-H", "X_Certified_Machine: web-02")
    assert fleet.ask("web-01", "PUT", URL) == 200
    assert fleet.ask("web-01", "PUT", f"{URL}&machine=web-01") == 200
    for method, path in (
        ("GET", f"{URL}&machine=web-02"),
        ("PUT", f"{URL}&machine=web-02"),
        ("PUT", "/charts/canary/slot?state=green_state&machine=web-02"),
        ("DELETE", "/charts/canary/slot?state=green_state&machine=web-02"),
        ("GET", "/charts/canary/reached?state=green_state&machine=web-02"),
        ("GET", "/charts/canary/turn?machine=web-02"),
    ):
        assert fleet.ask("web-01", method, path) == 403, path
        assert fleet.ask("web-01", method, path, *forged) == 403, path
    assert fleet.ask("web-01", "PUT", URL, "-H", "X-Machine: web-02") == 403
    body = '{"client_params": {"id": "web-02", "group": "canary"}}'
    lock = ("-H", "fleet-lock-protocol: true", "-d", body)
    assert fleet.ask("web-01", "POST", "/v1/pre-reboot", *lock) == 403
    reports = fleet.server.ask("GET", "/charts/canary/machines?state=green_state", Accept="text/plain").body
    assert reports.split() == ["web-01"]


def test_certificate_names_the_machine_that_its_ca_signed(fleet: Fleet) -> None:
    # The common name comes first in the subject as nginx writes it; what is behind it is not read.
    assert fleet.ask("liar", "PUT", f"{URL}&machine=web-01") == 403
    assert fleet.ask("liar", "PUT", URL) == 200
    # Another attribute comes first: no machine is named, so none may be named.
    assert fleet.ask("late", "PUT", f"{URL}&machine=web-01") == 403
    assert fleet.ask("late", "PUT", f"{URL}&machine=web-03") == 403
    # nginx itself refuses a certificate of another CA, and none.
    assert fleet.ask("forged", "PUT", URL) == 400
    assert fleet.ask(None, "PUT", URL) == 400
