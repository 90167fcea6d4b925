"""The Ansible role in a state with slots: it claims, tells why a task failed, and changes nothing in check mode."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import STATE_SERVICE
from tests.support.processes import free_port
from tests.support.servers import ROOT, Server, running

CHART = """
chart: web
current_state: reboot
expect: 3
states:
  - name: reboot
    func: increment
    slots: 1
    lease: 30m
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: halted, when: {key: failed, value: 2}}
      - {name: done, when: {key: count, value: 3}}
      - {name: halted, when: {key: elapsed, value: 1d}}
  - name: halted
  - name: done
"""
ROLE = ROOT / "clients" / "ansible" / "roles"


@pytest.fixture
def server(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    port = free_port()
    command = [*STATE_SERVICE, "--database", sqlite_url, "--port", str(port)]
    with running(sqlite_url, tmp_path, command, port) as server:
        server.import_chart("web", CHART)
        yield server


def play(server: Server, folder: Path, work: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "work.yml").write_text(work)
    (folder / "play.yml").write_text(f"""
- hosts: all
  connection: local
  gather_facts: false
  roles:
    - role: stateservice
      stateservice_url: {server.url}
      stateservice_chart: web
      stateservice_state: reboot
      stateservice_retries: 1
      stateservice_delay: 1
      stateservice_tasks: "{{{{ playbook_dir }}}}/work.yml"
""")
    settings = {name: str(folder / "ansible") for name in ("ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP")}
    return subprocess.run(
        ["ansible-playbook", "-i", "web-01,", str(folder / "play.yml"), *options],
        env=os.environ | settings | {"ANSIBLE_ROLES_PATH": str(ROLE), "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def told(server: Server) -> list[tuple[Any, ...]]:
    """The rows of the log after the import."""
    return [(row["kind"], row["machine"], row["key"], row["note"]) for row in server.history("web")][1:]


def test_role_claims_a_slot_and_reports(server: Server, tmp_path: Path) -> None:
    done = play(server, tmp_path, f"- ansible.builtin.shell: echo done >> {tmp_path}/done\n")

    assert done.returncode == 0, done.stdout
    assert told(server) == [("claim", "web-01", None, None), ("update", "web-01", "count", None)]
    assert (tmp_path / "done").read_text() == "done\n"


def test_role_does_not_work_while_another_machine_has_the_slot(server: Server, tmp_path: Path) -> None:
    assert server.ask("PUT", "/charts/web/slot?state=reboot&machine=web-02").status == 200

    done = play(server, tmp_path, f"- ansible.builtin.shell: echo done >> {tmp_path}/done\n")

    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "done").exists()


def test_failure_is_told_with_its_output(server: Server, tmp_path: Path) -> None:
    work = "- name: Update\n  ansible.builtin.shell: 'echo \"disk sda is full\" >&2; exit 3'\n"
    done = play(server, tmp_path, work)

    assert done.returncode == 2, done.stdout
    claim, (kind, machine, key, note) = told(server)
    assert (claim[0], kind, machine, key) == ("claim", "update", "web-01", "failed")
    assert note == "Update: exit status 3: disk sda is full"


def test_output_of_a_task_without_log_is_not_told(server: Server, tmp_path: Path) -> None:
    work = "- name: Update\n  no_log: true\n  ansible.builtin.shell: 'echo secret >&2; exit 3'\n"
    play(server, tmp_path, work)

    assert told(server)[-1] == ("update", "web-01", "failed", "Update: failed")


def test_work_that_says_not_now_gives_its_slot_back(server: Server, tmp_path: Path) -> None:
    done = play(server, tmp_path, "- ansible.builtin.shell: exit 75\n")

    assert done.returncode == 0, done.stdout
    assert [row[0] for row in told(server)] == ["claim", "release"]


def test_check_mode_changes_nothing(server: Server, tmp_path: Path) -> None:
    done = play(server, tmp_path, f"- ansible.builtin.shell: echo done >> {tmp_path}/done\n", "--check")

    assert done.returncode == 0, done.stdout
    assert told(server) == []
    assert not (tmp_path / "done").exists()
