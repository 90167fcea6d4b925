"""The guards of the Chef and Puppet pieces, the curl files, and what deploy/ ships, run by sh and by Python."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import VERSION, read_config
from tests.support.servers import ROOT, until

CLIENTS, DEPLOY = ROOT / "clients", ROOT / "deploy"


# Chef and Puppet


def guards() -> dict[str, str]:
    """The shell texts that decide whether the command of a resource is run, for a statectl called STATECTL."""
    chef = (CLIENTS / "chef" / "resources" / "run.rb").read_text()
    puppet = (CLIENTS / "puppet" / "stateservice" / "manifests" / "run.pp").read_text()
    found = {
        "chef": re.findall(r'only_if "#\{new_resource.statectl\} can #\{which\}(.*)"', chef),
        "puppet": re.findall(r'onlyif    => "\$\{statectl\} can \$\{which\}(.*)"', puppet),
    }
    assert [len(texts) for texts in found.values()] == [1, 1]
    return {name: texts[0] for name, texts in found.items()}


@pytest.mark.parametrize("piece", ["chef", "puppet"])
@pytest.mark.parametrize(
    ("status", "is_run"), [(0, True), (1, False), (2, True), (3, False)], ids=["yes", "no", "settings", "no answer"]
)
def test_guard_tells_a_no_from_wrong_settings(piece: str, status: int, is_run: bool) -> None:
    done = subprocess.run(["sh", "-c", f"(exit {status}){guards()[piece]}"], check=False)
    assert (done.returncode == 0) == is_run


@pytest.mark.parametrize("unit", ["kernel-update.service", "rolling-reboot.service"])
@pytest.mark.parametrize(
    ("status", "ends_with"), [(0, 0), (1, 1), (2, 255), (3, 3)], ids=["yes", "no", "settings", "no answer"]
)
def test_unit_tells_a_no_from_wrong_settings(unit: str, status: int, ends_with: int) -> None:
    text = (CLIENTS / "systemd" / unit).read_text()
    (command,) = re.findall(r"^ExecCondition=(.*)$", text, flags=re.M)
    words = shlex.split(re.sub(r"/usr/local/bin/statectl \S+ \S+ \w+", f"(exit {status})", command.replace("$$", "$")))
    # systemd skips a unit for 1 to 254, and lets it fail for 255.
    assert subprocess.run(words, check=False).returncode == ends_with


@pytest.mark.parametrize("file", ["chef/resources/run.rb", "puppet/stateservice/manifests/run.pp"])
def test_piece_passes_its_time_limit_on(file: str) -> None:
    text = (CLIENTS / file).read_text()
    assert re.search(r"property :timeout, Integer, default: 3600|Integer\[0\] \$timeout = 3600", text)
    assert re.search(r"timeout new_resource\.timeout|timeout   => \$timeout", text)


def puppet_metadata() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CLIENTS / "puppet" / "stateservice" / "metadata.json").read_text())
    return found


def chef_metadata() -> dict[str, str]:
    return dict(re.findall(r"^(\w+) '([^']*)'$", (CLIENTS / "chef" / "metadata.rb").read_text(), flags=re.M))


def test_pieces_have_the_version_and_the_licence_of_the_service() -> None:
    ansible = yaml.safe_load((CLIENTS / "ansible" / "galaxy.yml").read_text())
    found = [(piece["version"], piece["license"]) for piece in (puppet_metadata(), chef_metadata(), ansible)]
    assert found == [(VERSION, "MIT"), (VERSION, "MIT"), (VERSION, ["MIT"])]


def test_puppet_module_says_what_puppet_asks_of_one() -> None:
    """Puppet refuses a module without these, and one whose name is not AUTHOR-FOLDER."""
    metadata = puppet_metadata()
    assert {"name", "version", "author", "license", "summary", "source", "dependencies"} <= metadata.keys()
    assert metadata["name"] == f"{metadata['author']}-stateservice"
    assert [(item["name"], item["version_requirement"]) for item in metadata["requirements"]] == [
        ("puppet", ">= 5.5.0 < 9.0.0")
    ]


def test_chef_cookbook_has_the_name_that_its_resource_begins_with() -> None:
    resource = (CLIENTS / "chef" / "resources" / "run.rb").read_text()
    assert f"provides :{chef_metadata()['name']}_run" in resource
    # `unified_mode` is an error before.
    assert ("unified_mode true" in resource, chef_metadata()["chef_version"]) == (True, ">= 15.3")


# curl


@pytest.mark.parametrize(("file", "option"), [("can.curl", "retry-connrefused"), ("did.curl", "retry-all-errors")])
def test_curl_file_repeats_a_refused_connection(file: str, option: str) -> None:
    lines = (CLIENTS / "curl" / file).read_text().splitlines()
    assert {"fail", "retry = 3", option} <= set(lines)


@pytest.mark.parametrize("page", ["README.md", *[str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")]])
def test_page_shows_no_retry_that_a_refused_connection_ends(page: str) -> None:
    lines = [line for line in (ROOT / page).read_text().splitlines() if re.search(r"curl.* --retry \d", line)]
    assert [line for line in lines if not re.search(r"--retry-(connrefused|all-errors)", line)] == []


# The image


def dockerfile_command(instruction: str) -> list[str]:
    """The last JSON list that follows an instruction of the Dockerfile."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")
    words: list[str] = json.loads(re.findall(rf"^{instruction}(?: .*?)? (\[.*\])$", text, flags=re.M)[-1])
    return words


class Health(BaseHTTPRequestHandler):
    """Answers /healthz with the status that its server has."""

    def do_GET(self) -> None:
        self.send_response(getattr(self.server, "status", 200) if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Say nothing."""


@pytest.fixture
def health() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (400, 0), (500, 1), (503, 1)])
def test_health_check_does_not_ask_the_proxy(health: HTTPServer, status: int, code: int) -> None:
    health.status = status  # type: ignore[attr-defined]  # read by Health
    command = [word.replace("5000", str(health.server_port)) for word in dockerfile_command("HEALTHCHECK")]
    command[0] = sys.executable
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    assert subprocess.run(command, env=os.environ | proxies, timeout=30, check=False).returncode == code


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a `python` whose migration takes long and a `gunicorn` that says that it has begun."""
    for name, text in {
        "python": f'echo $$ >"{tmp_path}/migration"; exec sleep 60',
        "gunicorn": f'echo $$ >"{tmp_path}/serving"; exec sleep 60',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def start_image(folder: Path) -> subprocess.Popen[bytes]:
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(dockerfile_command("CMD"), env=os.environ | {"PATH": path})


def test_image_ends_with_its_migration_on_sigterm(programs: Path) -> None:
    process = start_image(programs)
    pid = int(until(lambda: (programs / "migration").exists() and (programs / "migration").read_text(), "it migrates"))
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    until(lambda: is_gone(pid), "the migration has ended")


def is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_image_is_gunicorn_once_it_has_migrated(programs: Path) -> None:
    (programs / "python").write_text("#!/bin/sh\n")
    process = start_image(programs)
    try:
        pid = until(lambda: (programs / "serving").exists() and (programs / "serving").read_text(), "gunicorn runs")
        assert int(pid) == process.pid
    finally:
        process.kill()
        process.wait()


def test_image_does_not_serve_after_a_failed_migration(programs: Path) -> None:
    (programs / "python").write_text("#!/bin/sh\nexit 1\n")
    assert start_image(programs).wait(30) == 1
    assert not (programs / "serving").exists()


# The settings


ENVIRONMENT = DEPLOY / "stateservice.env"
FAILOVER_URL = "postgresql://u:p$w@/x?host=db1,db2&port=5432,5433&target_session_attrs=read-write"


def settings_lines() -> list[str]:
    return [line for line in ENVIRONMENT.read_text().splitlines() if line.lstrip("#").startswith("STATE_SERVICE_")]


def test_settings_file_has_quotes_around_every_value() -> None:
    assert [line for line in settings_lines() if not re.fullmatch(r"#?STATE_SERVICE_\w+='[^']*'", line)] == []


def test_settings_file_means_the_same_to_a_shell(tmp_path: Path) -> None:
    file = tmp_path / "stateservice.env"
    text = ENVIRONMENT.read_text()
    file.write_text(re.sub(r"(?m)^(STATE_SERVICE_DATABASE_URL=')[^']*", lambda found: found[1] + FAILOVER_URL, text))
    shell = f"set -a && . {shlex.quote(str(file))} && set +a && env -0"
    found = subprocess.run(["sh", "-c", shell], env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    read = dict(item.split("=", 1) for item in found.stdout.decode().split("\0") if item.startswith("STATE_SERVICE_"))
    assert read["STATE_SERVICE_DATABASE_URL"] == FAILOVER_URL
    assert read_config(read).workers == 2


def shipped() -> dict[str, str]:
    lines = [line.split("=", 1) for line in settings_lines() if not line.startswith("#")]
    return {name: shlex.split(value)[0] for name, value in lines}


def test_prometheus_reaches_the_service_with_the_settings_shipped() -> None:
    config = read_config(shipped())
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target in config.bind.split(",")
    assert target.partition(":")[0] in config.trusted_hosts
    assert config.auth == "tokens"
    assert job["authorization"]["credentials_file"]


def test_secret_key_is_there_to_be_filled_in() -> None:
    assert shipped()["STATE_SERVICE_SECRET_KEY"] == ""
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["service"]
    assert service["environment"]["STATE_SERVICE_SECRET_KEY"] == "${STATE_SERVICE_SECRET_KEY:-}"


def test_nginx_of_compose_asks_again_for_the_address_of_the_service() -> None:
    (upstream,) = re.findall(r"upstream stateservice \{(.*?)\n\}", (DEPLOY / "nginx-compose.conf").read_text(), re.S)
    lines = [line.strip() for line in upstream.splitlines()]
    assert "server service:5000 resolve fail_timeout=0;" in lines
    assert "resolver 127.0.0.11 valid=5s;" in lines
    assert any(line.startswith("zone ") for line in lines)


# What nginx tells the service of the client. A header that is missing here reaches the service as the client sent it.
PROXY_HEADERS = {"Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id", "X-Certified-Machine", "Connection"}
NGINX_PAGES = [*sorted(DEPLOY.glob("nginx*.conf")), ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def list_proxying_blocks() -> list[tuple[str, str]]:
    """Every `location` of every nginx file and snippet that passes requests on."""
    found = [
        (path.name, block)
        for path in NGINX_PAGES
        for block in re.findall(r"location [^{]*\{([^}]*)\}", path.read_text())
        if "proxy_pass" in block
    ]
    assert len(found) >= 4
    return found


@pytest.mark.parametrize(("name", "block"), list_proxying_blocks())
def test_nginx_leaves_no_header_of_ours_to_the_client(name: str, block: str) -> None:
    sent = dict(re.findall(r"proxy_set_header (\S+) (.*?);", block))
    assert PROXY_HEADERS - set(sent) == set(), name
    assert sent["X-Forwarded-For"] == "$remote_addr", f"{name}: $proxy_add_x_forwarded_for keeps what the client chose"


def test_unit_limits_the_memory() -> None:
    unit = (DEPLOY / "stateservice.service").read_text()
    assert re.search(r"^MemoryMax=\d+[MG]$", unit, re.M)
