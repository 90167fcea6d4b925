"""A chart from its first mistakes to the report, once with curl only and once with the command line only."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.servers import ROOT, environment, run_curl, running

pytestmark = pytest.mark.slow

# Three mistakes: an unknown func, a value that is not a number, and a target that is not a state.
MISTAKEN = """\
current_state: canary
states:
  - name: canary
    func: incremental
    current: {key: count, value: none}
    target: {name: rolout, when: {key: count, value: 2}}
  - name: rollout
    func: increment
    current: {key: count, value: 0}
    target: {name: done, when: {key: count, value: 3}}
  - name: done
"""
FIXED = MISTAKEN.replace("incremental", "increment").replace("value: none", "value: 0").replace("rolout", "rollout")
# An upgrade on the way: the current state gets another name, and its guard needs only what is counted by then.
RENAMED = FIXED.replace("rollout", "everywhere").replace("value: 3}}", "value: 2}}")


@dataclass
class Commands:
    """The command line in its own process."""

    database_url: str

    def __call__(self, *arguments: str, code: int = 0) -> str:
        variables = environment(self.database_url, {}) | {"USER": "ann", "LOGNAME": "ann"}
        command = [sys.executable, str(ROOT / "state_service"), *arguments]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr


@dataclass
class Curl:
    """curl itself. The token is in its configuration, not on its command line."""

    url: str
    config: Path

    def __call__(self, path: str, *options: str, status: int = 200) -> str:
        told = run_curl("-sS", "-K", str(self.config), "-w", "\\n%{http_code}", *options, f"{self.url}{path}")
        body, _, code = told.stdout.rpartition("\n")
        assert (told.returncode, code) == (0, str(status)), body + told.stderr
        return body


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the chart file in its three stages."""
    for name, text in (("mistaken", MISTAKEN), ("fixed", FIXED), ("renamed", RENAMED)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def token(run: Commands, folder: Path, name: str, role: str) -> Path:
    config = folder / f"{name}.curlrc"
    config.write_text(f'oauth2-bearer = "{run("token", "create", name, "--role", role).strip()}"\n')
    os.chmod(config, 0o600)
    return config


def test_life_of_a_chart_with_curl_only(database_url: str, folder: Path) -> None:
    run = Commands(database_url)
    with running(database_url, folder, auth="tokens") as server:
        ann = Curl(server.url, token(run, folder, "ann", "admin"))
        fleet = Curl(server.url, token(run, folder, "fleet", "machine"))

        def put_chart(file: str, query: str = "", status: int = 200) -> dict[str, object]:
            options = ("-X", "PUT", "--data-binary", f"@{folder}/{file}.yaml")
            found: dict[str, object] = json.loads(ann(f"/charts/web{query}", *options, status=status))
            return found

        problems = put_chart("mistaken", status=422)["problems"]
        assert isinstance(problems, list)
        assert [(item["line"], item["column"]) for item in problems] == [(4, 11), (5, 34), (6, 20)]
        assert put_chart("fixed", status=201)["current_state"] == "canary"

        for machine in ("web-01", "web-02"):
            assert fleet(f"/charts/web/state?state=canary&machine={machine}", "-X", "PUT") == "canary"
        assert fleet("/charts/web/state?state=canary", status=406) == ""
        fleet("/charts/web/state?state=rollout&machine=web-01", "-X", "PUT")
        fleet("/charts/web/state?state=rollout&machine=web-02", "-X", "PUT")
        fleet("/charts/web", "-X", "PUT", "--data-binary", "x", status=403)

        assert "name its new home" in str(put_chart("renamed", status=409)["detail"])
        foretold = put_chart("renamed", "?map=rollout:everywhere&dry_run=1")
        steps = [("upgrade", "rollout", "everywhere"), ("transition", "everywhere", "done")]
        assert said(foretold) == ("upgraded", steps, "done")
        assert json.loads(ann("/charts/web"))["current_state"] == "rollout"

        ann("/charts/web/pause", "-d", "{}", status=422)
        ann("/charts/web/pause", "-d", '{"reason": "disk errors on web-02"}')
        text = ann("/charts/web", "-H", "Accept: text/plain")
        assert "paused by ann 0 s ago: disk errors on web-02" in text.replace(" 1 s ago", " 0 s ago")
        fleet("/charts/web/state?state=rollout", status=406)
        paused = put_chart("renamed", "?map=rollout:everywhere")
        assert said(paused) == ("upgraded", steps[:1], "everywhere")

        ann("/charts/web/versions/1", "-o", str(folder / "old.yaml"))
        assert (folder / "old.yaml").read_text() == FIXED
        back = put_chart("old", "?map=everywhere:rollout")
        assert (back["version"], back["current_state"], back["values"]) == (3, "rollout", {"count": 2})
        ann("/charts/web/resume", "-d", '{"reason": "disks replaced"}')
        assert fleet("/charts/web/state?state=rollout&machine=web-03", "-X", "PUT") == "rollout"

        check_report(ann("/charts/web/history", "-H", "Accept: text/csv"), "ann", "fleet")
        server.verify()


def said(imported: dict[str, object]) -> tuple[object, list[tuple[str, str, str]], object]:
    steps = imported["steps"]
    assert isinstance(steps, list)
    told = [(step["kind"], step["from_state"], step["to_state"]) for step in steps]
    return imported["outcome"], told, imported["current_state"]


def check_report(text: str, operator: str, machines: str) -> None:
    """Which actor did what, in order. Updates are included only if there were machines."""
    rows = list(csv.DictReader(io.StringIO(text)))
    done = [(row["kind"], row["actor"], row["reason"]) for row in rows if row["kind"] not in ("update", "transition")]
    assert done == [
        ("import", operator, ""),
        ("pause", operator, "disk errors on web-02"),
        ("upgrade", operator, 'version 1 to 2; map {"rollout": "everywhere"}'),
        ("upgrade", operator, 'version 2 to 3; map {"everywhere": "rollout"}'),
        ("resume", operator, "disks replaced"),
    ]
    counted = [(row["machine"], row["actor"]) for row in rows if row["kind"] in ("update", "transition")]
    names = ("web-01", "web-02", "web-01", "web-02", "web-03")
    assert counted == [(machine, machines) for machine in names]


def test_life_of_a_chart_with_the_command_line_only(database_url: str, folder: Path) -> None:
    run = Commands(database_url)

    def import_(file: str, *options: str, code: int = 0) -> str:
        return run("chart", "import", str(folder / f"{file}.yaml"), "--name", "web", *options, code=code)

    for told in (run("chart", "lint", str(folder / "mistaken.yaml"), code=2), import_("mistaken", code=2)):
        places = [line.split(": error: ")[0].rpartition("/")[2] for line in told.splitlines()]
        assert places == ["mistaken.yaml:4:11", "mistaken.yaml:5:34", "mistaken.yaml:6:20"]
    assert "web: created, version 1" in import_("fixed")

    run("chart", "goto", "web", "rollout", "--reason", "canaries are well")
    assert "web: rollout" in run("chart", "show", "web")

    assert "name its new home" in import_("renamed", code=1)
    foretold = import_("renamed", "--map", "rollout:everywhere", "--dry-run")
    assert '  upgrade: rollout -> everywhere (version 1 to 2; map {"rollout": "everywhere"})\n' in foretold
    assert "web: rollout" in run("chart", "show", "web")

    run("chart", "pause", "web", code=2)
    run("chart", "pause", "web", "--reason", "disk errors on web-02")
    assert " s ago: disk errors on web-02" in run("chart", "show", "web")
    assert "upgrade: rollout -> everywhere" in import_("renamed", "--map", "rollout:everywhere")

    assert "upgrade: everywhere -> rollout" in import_("fixed", "--map", "everywhere:rollout")
    assert json.loads(run("chart", "resume", "web", "--reason", "disks replaced", "--json"))["version"] == 3

    rows = list(csv.DictReader(io.StringIO(run("chart", "history", "web", "--csv"))))
    assert [(row["kind"], row["actor"], row["reason"]) for row in rows] == [
        ("import", "ann (command line)", ""),
        ("goto", "ann (command line)", "canaries are well"),
        ("pause", "ann (command line)", "disk errors on web-02"),
        ("upgrade", "ann (command line)", 'version 1 to 2; map {"rollout": "everywhere"}'),
        ("upgrade", "ann (command line)", 'version 2 to 3; map {"everywhere": "rollout"}'),
        ("resume", "ann (command line)", "disks replaced"),
    ]
    assert "6 rows, chain and position as they should be" in run("chart", "verify")


def test_every_process_refuses_a_revoked_token_within_a_second(database_url: str, folder: Path) -> None:
    run = Commands(database_url)
    with running(database_url, folder, auth="tokens", workers="2") as server:
        ann = Curl(server.url, token(run, folder, "ann", "reader"))
        for _ in range(10):
            ann("/charts")
        run("token", "revoke", "ann")
        # The command took longer than BELIEVED_SECONDS.
        for _ in range(10):
            ann("/charts", status=401)
        assert "sst_" not in server.log.read_text()


def test_wsgi_does_not_start_without_the_auth_setting(database_url: str) -> None:
    variables = environment(database_url, {})
    del variables["STATE_SERVICE_AUTH"]
    for command in (
        [sys.executable, "wsgi.py"],
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"],
    ):
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "STATE_SERVICE_AUTH must say tokens or open" in done.stderr
