"""What the image and the Kubernetes manifests do, without an engine: their own words, run on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import VERSION, list_settings
from tests.support.processes import children_of, end_group, free_port, is_open, until
from tests.support.servers import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
# `docker stop` and Kubernetes must leave more.
GRACEFUL_SECONDS = 30


def command_after(word: str) -> list[str]:
    """The JSON array of an instruction of the Dockerfile."""
    found: list[str] = json.loads(re.findall(rf"{word} (\[.*\])$", DOCKERFILE, flags=re.M)[-1])
    return found


def settings_of_image() -> dict[str, str]:
    (text,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE, flags=re.M)
    return dict(pair.split("=", 1) for pair in text.replace("\\\n", " ").split())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The files that the image has in /app, and no others."""
    home = tmp_path / "app-folder"
    home.mkdir()
    for sources, target in re.findall(r"^COPY (?!--from)(.+) (\S+)$", DOCKERFILE.rpartition("\nFROM ")[2], flags=re.M):
        for source in sources.split():
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, home / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, home / target)
    (home / ".venv").symlink_to(sys.prefix)
    (tmp_path / "data").mkdir()
    return home


def own_settings(image: Path, port: int) -> dict[str, str]:
    found = settings_of_image() | {"STATE_SERVICE_AUTH": "open", "STATE_SERVICE_BIND": f"127.0.0.1:{port}"}
    found["PATH"] = f"{image / '.venv' / 'bin'}:{os.environ['PATH']}"
    found["STATE_SERVICE_DATABASE_URL"] = f"sqlite:///{image.parent / 'data' / 'state_service.db'}"
    return {"HOME": str(image.parent), "no_proxy": "*"} | found


def test_image_starts_is_healthy_and_ends_in_time(image: Path) -> None:
    port = free_port()
    own = own_settings(image, port)
    check = [word.replace("5000", str(port)) for word in command_after("CMD") if word]
    assert check[0] == "sh"
    healthy = [
        word.replace("5000", str(port))
        for word in json.loads(re.findall(r"^    CMD (\[.*\])$", DOCKERFILE, flags=re.M)[0])
    ]
    process = subprocess.Popen(check, cwd=image, env=own, start_new_session=True)
    try:
        until(
            lambda: subprocess.run(healthy, cwd=image, env=own, check=False, stderr=subprocess.DEVNULL).returncode == 0,
            "not healthy",
            90,
        )
        process.terminate()
        assert process.wait(GRACEFUL_SECONDS + 10) == 0
    finally:
        end_group(process, 1)
    assert (image.parent / "data" / "state_service.db").exists()


@contextmanager
def as_process_1(image: Path, own: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start the image's command as the first process of a container; yields what waits for it, and its id outside.

    The kernel gives such a process no signal that it does not handle.
    """
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--fork", "--pid", "--kill-child", *user, *command_after("CMD")]
    process = subprocess.Popen(command, cwd=image, env=own, start_new_session=True)
    try:
        until(lambda: children_of(process.pid), "it has not started")
        yield process, children_of(process.pid)[0]
    finally:
        end_group(process, 1)


def test_image_as_process_1_ends_when_it_serves(image: Path) -> None:
    port = free_port()
    with as_process_1(image, own_settings(image, port)) as (process, inside):
        until(lambda: is_open(port), "it does not serve", 90)
        os.kill(inside, signal.SIGTERM)
        assert process.wait(GRACEFUL_SECONDS + 10) == 0


def test_image_as_process_1_ends_while_its_migration_waits(image: Path) -> None:
    with closing(sqlite3.connect(image.parent / "data" / "state_service.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN EXCLUSIVE")
        with as_process_1(image, own_settings(image, free_port())) as (process, inside):
            until(lambda: children_of(inside), "it does not migrate")
            os.kill(inside, signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM


def test_image_without_auth_ends_at_once(image: Path) -> None:
    own = own_settings(image, free_port())
    del own["STATE_SERVICE_AUTH"]
    done = subprocess.run(
        command_after("CMD"), cwd=image, env=own, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode != 0
    assert "STATE_SERVICE_AUTH" in done.stderr


def test_compose_gives_settings_that_exist_and_time_to_end() -> None:
    service = COMPOSE["services"]["service"]
    known = {setting.variable for setting in list_settings()}

    assert {name for name in service["environment"] if name.startswith("STATE_SERVICE_")} <= known
    assert int(service["stop_grace_period"].removesuffix("s")) > GRACEFUL_SECONDS


# Kubernetes

MANIFESTS: dict[str, Any] = {
    found["kind"]: found for found in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
}
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
CONTAINERS = [*POD["initContainers"], *POD["containers"]]


def test_manifests_give_settings_that_exist() -> None:
    given = set(MANIFESTS["ConfigMap"]["data"]) | {item["name"] for one in CONTAINERS for item in one["env"]}

    assert given <= {setting.variable for setting in list_settings()}
    assert all(isinstance(value, str) for value in MANIFESTS["ConfigMap"]["data"].values())


def test_manifests_select_the_pods_of_the_deployment() -> None:
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [MANIFESTS[kind]["spec"]["selector"] for kind in ("Deployment", "PodDisruptionBudget")]

    assert [selector["matchLabels"] for selector in selectors] == [labels, labels]
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    ports = {port["name"] for one in POD["containers"] for port in one["ports"]}
    assert {port["targetPort"] for port in MANIFESTS["Service"]["spec"]["ports"]} <= ports


def test_pods_run_as_the_images_user_and_may_end_in_time() -> None:
    assert f"USER {POD['securityContext']['runAsUser']}" in DOCKERFILE
    assert POD["terminationGracePeriodSeconds"] > GRACEFUL_SECONDS + 5
    assert {one["image"].rpartition(":")[2] for one in CONTAINERS} == {VERSION}
    for one in CONTAINERS:
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert (one["command"][0], one["command"][-1]) in {("python", "upgrade"), ("gunicorn", "wsgi:app")}


def test_pod_migrates_and_answers_its_probes(image: Path) -> None:
    port = free_port()
    own = own_settings(image, port) | {
        name: value for name, value in MANIFESTS["ConfigMap"]["data"].items() if name not in ("STATE_SERVICE_BIND",)
    }
    migrate, serve = (one["command"] for one in CONTAINERS)
    subprocess.run(migrate, cwd=image, env=own, check=True, timeout=120)
    process = subprocess.Popen(serve, cwd=image, env=own, start_new_session=True)
    try:
        for probe in ("livenessProbe", "readinessProbe"):
            asked = POD["containers"][0][probe]["httpGet"]
            (host,) = asked["httpHeaders"]
            curl = ["curl", "-fsS", "-H", f"{host['name']}: {host['value']}", f"http://127.0.0.1:{port}{asked['path']}"]
            until(lambda curl=curl: subprocess.run(curl, capture_output=True, check=False).returncode == 0, probe, 60)  # type: ignore[misc]
    finally:
        end_group(process, GRACEFUL_SECONDS)
