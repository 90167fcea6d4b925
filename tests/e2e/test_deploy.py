"""What deploy/ and clients/ ship is read by the tools that it is for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import VERSION
from tests.e2e.stack import CLIENTS, DEPLOY, ROOT, Front, nginx_file, replaced

UNITS = [*sorted(DEPLOY.glob("*.service")), *sorted(DEPLOY.glob("*.timer")), *sorted(CLIENTS.glob("systemd/*.[st]*"))]
SCRIPTS = [CLIENTS / "statectl", CLIENTS / "ci" / "check-charts", ROOT / "tests" / "e2e" / "install.sh"]


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# nginx


def test_nginx_takes_its_file(tmp_path: Path) -> None:
    run("nginx", "-t", "-c", Front(tmp_path, "127.0.0.1:5000").write())


def test_nginx_takes_the_file_of_compose(tmp_path: Path) -> None:
    # `resolve` and its resolver need a newer nginx than the distribution's: compose.yaml names the image.
    changes = {"server service:5000 resolve": "server 127.0.0.1:5000", "  resolver 127.0.0.11 valid=5s;\n": ""}
    text = replaced((DEPLOY / "nginx-compose.conf").read_text(), changes)
    run("nginx", "-t", "-c", nginx_file(tmp_path, text))


# systemd


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    # It asks for every program that a unit starts; those that are not installed here are replaced by one that is.
    programs = r"/(?:opt/stateservice/\.venv/bin/\w+|usr/local/bin/statectl)"
    for unit in UNITS:
        (tmp_path / unit.name).write_text(re.sub(rf"^(\w+=){programs}", r"\1/bin/true", unit.read_text(), flags=re.M))
    done = run("systemd-analyze", "verify", *sorted(tmp_path.iterdir()))
    assert done.stderr == ""


def test_service_is_hardened(tmp_path: Path) -> None:
    unit = shutil.copy(DEPLOY / "stateservice.service", tmp_path)
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=30", unit)
    assert "Overall exposure level" in done.stdout


# Prometheus and Grafana


def test_promtool_takes_the_alerts_and_they_fire(tmp_path: Path) -> None:
    run("promtool", "check", "rules", DEPLOY / "alerts.yaml")
    run("promtool", "test", "rules", "alerts_test.yaml", cwd=DEPLOY)
    # It asks for the files that the configuration names.
    shutil.copy(DEPLOY / "alerts.yaml", tmp_path)
    (tmp_path / "token").write_text("sst_x")
    changes = {"/etc/prometheus/stateservice.token": str(tmp_path / "token")}
    config = tmp_path / "prometheus.yaml"
    config.write_text(replaced((DEPLOY / "prometheus.yaml").read_text(), changes))
    run("promtool", "check", "config", config)


def test_every_alert_is_tested() -> None:
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    tests = (DEPLOY / "alerts_test.yaml").read_text()
    assert [rule["alert"] for rule in rules if f'"{rule["alert"]}", alertstate="firing"' not in tests] == []


def dashboard_expressions() -> list[str]:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana.json").read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found = targets + [mark["expr"] for mark in dashboard["annotations"]["list"]]
    return [re.sub(r"\$\w+", "x", text.replace("$__rate_interval", "5m")) for text in found]


def test_promtool_takes_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(dashboard_expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run("promtool", "check", "rules", file)


def test_dashboard_and_alerts_name_no_metric_that_is_not_there() -> None:
    text = " ".join(dashboard_expressions()) + (DEPLOY / "alerts.yaml").read_text()
    named = set(re.findall(r"stateservice_\w+", text))
    sources = " ".join(
        path.read_text() for path in [*ROOT.glob("app/*/metrics.py"), ROOT / "app" / "web" / "observe.py"]
    )
    known = set(re.findall(r'"(stateservice_\w+)"', sources))
    known |= {f"stateservice_{name}" for name in re.findall(r'_gauge\("(\w+)"', sources)}
    known |= {f"stateservice_chart_{name}" for name in re.findall(r'_family\(\s*"(\w+)"', sources)}
    known |= {"stateservice_requests_total"} | {f"{name}_bucket" for name in known}
    assert named - known == set()


# Shell, HAProxy


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    run("shellcheck", script)


def test_haproxy_takes_its_file() -> None:
    run("haproxy", "-c", "-f", DEPLOY / "haproxy.cfg")


# Ansible, Puppet and Chef


def test_ansible_installs_the_collection(tmp_path: Path) -> None:
    place = tmp_path / "collections"
    own = ("env", f"ANSIBLE_LOCAL_TEMP={tmp_path}", f"ANSIBLE_HOME={tmp_path}")
    run(*own, "ansible-galaxy", "collection", "install", "--offline", CLIENTS / "ansible", "-p", place, cwd=tmp_path)
    play = "[{hosts: localhost, gather_facts: false, roles: [stateservice.stateservice.stateservice]}]"
    (tmp_path / "play.yml").write_text(play)
    paths = ("ANSIBLE_LOCALHOST_WARNING=False", f"ANSIBLE_COLLECTIONS_PATH={place}")

    done = run(*own, *paths, "ansible-playbook", "--list-tasks", "play.yml", cwd=tmp_path)

    assert "stateservice.stateservice.stateservice : May I" in done.stdout
    installed = place / "ansible_collections" / "stateservice" / "stateservice"
    assert json.loads((installed / "MANIFEST.json").read_text())["collection_info"]["version"] == VERSION
    assert not (installed / "kernel.yml").exists()


def test_puppet_takes_the_metadata_of_the_module(tmp_path: Path) -> None:
    run("metadata-json-lint", "--fail-on-warnings", CLIENTS / "puppet" / "stateservice" / "metadata.json")
    folders = [f"--{kind}dir={tmp_path / kind}" for kind in ("conf", "var")]
    done = run("puppet", "module", "list", *folders, "--modulepath", CLIENTS / "puppet")
    assert ("Warning" in done.stderr, f"stateservice-stateservice (v{VERSION})" in plain(done.stdout)) == (False, True)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_ruby_reads_the_metadata_of_the_cookbook() -> None:
    """As Chef does: each word is a call with its values."""
    told = "F = Hash.new { |h, k| h[k] = [] }; def method_missing(n, *v) = F[n] << v"
    found = json.loads(
        run(
            "ruby", "-rjson", "-e", f"{told}; eval File.read(ARGV[0]); puts F.to_json", CLIENTS / "chef" / "metadata.rb"
        ).stdout
    )
    assert (found["name"], found["version"], found["license"]) == ([["stateservice"]], [[VERSION]], [["MIT"]])
    assert len(found["supports"]) > 1


# The image


def test_image_copies_what_there_is() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), flags=re.M)
    sources = [source for line in copied for source in line.split()]
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text()
    assert sources
    assert [source for source in sources if not (ROOT / source).exists() or f"!{source}" not in ignored] == []


def test_compose_mounts_and_builds_what_there_is() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert (DEPLOY / services["service"]["build"]["context"] / services["service"]["build"]["dockerfile"]).exists()
    mounted = services["proxy"]["volumes"][0].split(":")[0]
    assert (DEPLOY / mounted).exists()
