"""The whole set of deploy/ together, as its files and pages describe it; only paths, ports and passwords are ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from sqlalchemy import Engine, make_url

from app.waiting.hub import LISTENER_NAME
from tests.e2e.stack import CHART, DEPLOY, ROOT, Front, Service, pooler, prometheus
from tests.support.databases import database_on
from tests.support.processes import PATIENCE, until

NAME = "state.example"
PASSWORD = "pass-word"
# More than one worker can be asked to hold: some wait in a worker that does not count the PUT.
WAITERS = 12


@dataclass(slots=True)
class Whole:
    """PostgreSQL, pgbouncer, gunicorn, nginx and Prometheus, and a client that knows the service by its name."""

    folder: Path
    service: Service
    front: Front
    own_database_url: str
    prometheus_url: str = ""
    tokens: dict[str, str] = field(default_factory=dict)

    def curl_command(self, *words: str, role: str | None = None) -> list[str]:
        """How a client asks https://state.example/, which is nginx here."""
        command = ["curl", "-sS", "--cacert", str(self.front.certificate)]
        command += ["--connect-to", f"{NAME}:443:127.0.0.1:{self.front.https_port}"]
        return [*command, *(("-H", f"Authorization: Bearer {self.tokens[role]}") if role else ()), *words]

    def curl(self, path: str, *words: str, role: str | None = None) -> str:
        """Return the body of an answer, and below it the status."""
        command = self.curl_command("-w", "\n%{http_code}", *words, f"https://{NAME}{path}", role=role)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def ask_prometheus(self, path: str) -> Any:
        with urlopen(f"{self.prometheus_url}/api/v1/{path}", timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def waiters(self) -> float:
        """How many requests wait, as Prometheus has scraped it."""
        found = self.ask_prometheus("query?query=stateservice_waiters")["result"]
        return max((float(one["value"][1]) for one in found), default=0)

    def listeners(self) -> int:
        """How many workers are connected to PostgreSQL itself in order to listen; pgbouncer would change their name."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{LISTENER_NAME}'"
        return int(psql(self.own_database_url, "--tuples-only", "--command", query))


def settings_behind_the_pooler(pooled_url: str, listen_url: str) -> dict[str, str]:
    """What deploy/pgbouncer.ini tells to set, with these URLs."""
    lines = re.findall(r"^;   (STATE_SERVICE_\w+)=(.*)$", (DEPLOY / "pgbouncer.ini").read_text(), flags=re.M)
    urls = {"STATE_SERVICE_DATABASE_URL": pooled_url, "STATE_SERVICE_LISTEN_URL": listen_url}
    assert urls.keys() <= dict(lines).keys()
    return dict(lines) | urls


def psql(url: str, *words: str) -> str:
    """Run psql as the administrator of PostgreSQL, stopping at the first error; return what it prints."""
    command = ["psql", "--quiet", "--dbname", url, "--set", "ON_ERROR_STOP=1", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def prepare_roles(url: str) -> None:
    """As docs/operations.md and docs/settings.md say: the tables' owner, and the service's role with its limits."""
    psql(url, "--file", str(DEPLOY / "roles.sql"))
    limits = re.search(
        r"```sql\n(ALTER ROLE stateservice SET .*?)```", (ROOT / "docs" / "settings.md").read_text(), re.S
    )
    assert limits is not None
    psql(url, "--command", f"{limits[1]} ALTER ROLE stateservice PASSWORD '{PASSWORD}'")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that others can read: pgbouncer refuses to run as root."""
    path = Path(tempfile.mkdtemp(prefix="whole-"))
    path.chmod(0o755)
    for name in ("nginx", "pgbouncer", "prometheus"):
        (path / name).mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def own_database_url(postgresql_server: Engine) -> Iterator[str]:
    """An empty database; the roles that are made for it go with it."""
    for url in database_on(postgresql_server):
        yield make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with postgresql_server.connect() as connection:
        connection.exec_driver_sql("DROP ROLE stateservice, stateservice_owner")


@pytest.fixture(scope="module")
def whole(folder: Path, own_database_url: str) -> Iterator[Whole]:
    secret_key = subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, text=True, check=True).stdout
    filled_in = {"STATE_SERVICE_SECRET_KEY": secret_key.strip()}
    Service(folder, own_database_url, filled_in).run("db", "upgrade")
    prepare_roles(own_database_url)
    own_url = make_url(own_database_url).set(username="stateservice").render_as_string(hide_password=False)
    with ExitStack() as stack:
        pooled_url = stack.enter_context(pooler(folder / "pgbouncer", own_url, PASSWORD))
        service = Service(folder, pooled_url, filled_in | settings_behind_the_pooler(pooled_url, own_url))
        found = Whole(folder, service, Front(folder / "nginx", f"unix:{service.socket}", NAME), own_database_url)
        # What the unit's ExecStartPre runs: the schema is current, so it changes nothing, and needs no owner.
        service.run("db", "upgrade")
        for role in ("machine", "reader", "admin"):
            found.tokens[role] = service.run("token", "create", f"a-{role}", "--role", role).strip()
        stack.callback(service.stop)
        service.start()
        stack.callback(found.front.stop)
        found.front.start()
        found.prometheus_url = stack.enter_context(prometheus(folder / "prometheus", service, found.tokens["reader"]))
        yield found


def import_chart(whole: Whole, name: str) -> None:
    file = whole.folder / f"{name}.yaml"
    file.write_text(CHART.replace("100", "1"))
    assert whole.curl(f"/charts/{name}", "-T", str(file), role="admin").endswith("\n201")


def test_person_signs_in_and_sees_the_first_page(whole: Whole) -> None:
    import_chart(whole, "signed-in")
    cookies = ("-L", "-b", str(whole.folder / "cookies"), "-c", str(whole.folder / "cookies"))

    asked = re.search(r'name="form_token" value="([^"]+)"', whole.curl("/", *cookies))
    assert asked is not None
    fields = ("--data-urlencode", f"token={whole.tokens['admin']}", "--data-urlencode", f"form_token={asked[1]}")
    # As a browser does, curl says which site the form is from.
    page = whole.curl("/ui/login", *cookies, "-H", f"Origin: https://{NAME}", *fields)

    assert ("signed-in" in page, "Sign out" in page, page.endswith("\n200")) == (True, True, True)


def test_put_wakes_those_who_wait_in_another_worker(whole: Whole) -> None:
    """With the settings that deploy/pgbouncer.ini names: a worker that listens through the pooler hears nothing."""
    # Through the pooler, none would be listed. Each worker has the same settings.
    until(whole.listeners, "a worker listens, and not through the pooler", 60)
    import_chart(whole, "waited-for")
    url = f"https://{NAME}/charts/waited-for/state?state=red_state"
    waiting = [
        subprocess.Popen(
            whole.curl_command("-o", os.devnull, "-w", "%{http_code}", f"{url}&wait=30", role="machine"),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(WAITERS)
    ]
    until(lambda: whole.waiters() == WAITERS, "all wait")

    counted = whole.curl("/charts/waited-for/state?state=green_state&machine=a", "-X", "PUT", role="machine")
    answers = [process.communicate(timeout=PATIENCE)[0] for process in waiting]

    assert (counted, answers) == ("green_state\n200", ["200"] * WAITERS)


def test_prometheus_scrapes_the_service_and_takes_the_rules(whole: Whole) -> None:
    rules = [rule["alert"] for rule in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]]

    def judged() -> list[dict[str, Any]]:
        (group,) = whole.ask_prometheus("rules")["groups"]
        return group["rules"] if all(rule["health"] == "ok" for rule in group["rules"]) else []

    def targets() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = whole.ask_prometheus("targets")["activeTargets"]
        return [] if "unknown" in {target["health"] for target in found} else found

    assert [(target["health"], target["lastError"]) for target in until(targets, "it has scraped")] == [("up", "")]
    assert [rule["name"] for rule in until(judged, "it has judged the rules")] == rules
    (up,) = whole.ask_prometheus("query?query=stateservice_database_up")["result"]
    assert up["value"][1] == "1"
    # The set has just been started, and nothing is wrong with it.
    paging = whole.ask_prometheus('query?query=ALERTS{severity="page"}')["result"]
    assert paging == []


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_answered_under_every_name_that_is_trusted(whole: Whole, path: str) -> None:
    assert whole.curl(path).endswith("\n200")
    # A load balancer's or Kubernetes' way, behind nginx.
    for host in ("localhost", f"127.0.0.1:{whole.service.port}"):
        command = ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", "-H", f"Host: {host}"]
        url = f"http://127.0.0.1:{whole.service.port}{path}"
        assert subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout == "200"


def test_metrics_and_foreign_names_are_refused_at_the_front(whole: Whole) -> None:
    assert whole.curl("/metrics", role="admin").endswith("\n403")
    assert whole.curl("/charts", "-H", "Host: other.example", role="admin").endswith("\n400")


def test_health_check_of_the_image_asks_the_service_and_no_proxy(whole: Whole) -> None:
    (text,) = re.findall(r"^    CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), flags=re.M)
    command = [word.replace("5000", str(whole.service.port)) for word in json.loads(text)]
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"), "http://127.0.0.1:9")

    assert subprocess.run([sys.executable, *command[1:]], env=os.environ | proxies, check=False).returncode == 0
