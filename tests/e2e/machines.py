"""Machines that ask, work and report, each with another of clients/, with the test's address put in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.e2e.stack import CLIENTS, Stack, replaced

HERE = Path(__file__).resolve().parent
MACHINE = "web-01.example"
Run = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of one test: the folder it works in, the chart and state it asks about."""

    stack: Stack
    folder: Path
    chart: str
    state: str = "green_state"

    @property
    def worked(self) -> Path:
        """Every time it works, a line is added to this file."""
        return self.folder / "worked"

    @property
    def done(self) -> Path:
        return self.folder / "done"

    @property
    def work(self) -> str:
        return f"echo done >> {self.worked}"

    def times_worked(self) -> int:
        return len(self.worked.read_text().splitlines()) if self.worked.exists() else 0

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def run(self, *command: str, **environment: str) -> Run:
        """Run a command in the machine's folder, with a clean environment."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        variables = kept | {"LANG": "C.UTF-8"} | environment
        return subprocess.run(
            command,
            cwd=self.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    # What each client must be told

    def statectl_file(self) -> dict[str, str]:
        token = self.write("token", self.stack.tokens["machine"] + "\n")
        settings = {
            "URL": self.stack.url,
            "MACHINE": MACHINE,
            "TOKEN_FILE": str(token),
            "CACERT": str(self.stack.front.certificate),
            "RETRIES": "1",
        }
        text = "".join(f"STATECTL_{name}={value}\n" for name, value in settings.items())
        return {"STATECTL_CONF": str(self.write("statectl.conf", "# of this test\n\n" + text))}

    def curl_lines(self) -> str:
        token = self.stack.tokens["machine"]
        return f'\nheader = "Authorization: Bearer {token}"\ncacert = "{self.stack.front.certificate}"\n'

    def write_curl_files(self) -> None:
        """The files of clients/curl."""
        url = f"{self.stack.url}/charts/{self.chart}/state?state={self.state}"
        changes = {"http://localhost:5000/charts/kernel-rollout/state?state=rollout": url}
        for name in ("can.curl", "did.curl"):
            text = replaced((CLIENTS / "curl" / name).read_text(), changes)
            assert MACHINE in text
            self.write(name, text + self.curl_lines())

    def fetch_curl_files(self) -> None:
        """The files that the service writes."""
        query = urlencode({"state": self.state, "machine": MACHINE})
        for name in ("can.curl", "did.curl"):
            reply = self.stack.ask("GET", f"/charts/{self.chart}/{name}?{query}", "machine")
            assert reply.status == 200, reply
            assert self.stack.url in reply.body
            self.write(name, reply.body + self.curl_lines())


def run_curl(machine: Machine) -> Run:
    machine.write_curl_files()
    return machine.run("sh", "-c", f"curl -K can.curl && {machine.work} && curl -K did.curl")


def run_statectl(shell: str) -> Callable[[Machine], Run]:
    def run(machine: Machine) -> Run:
        command = [*shell.split(), str(CLIENTS / "statectl"), "run", machine.chart, machine.state, "--"]
        return machine.run(*command, "sh", "-c", machine.work, **machine.statectl_file())

    return run


def run_cron(machine: Machine) -> Run:
    """The line of clients/cron as cron runs it: without the user's name, `\\%` made `%`, by sh."""
    line = (CLIENTS / "cron" / "kernel-rollout").read_text().splitlines()[-1]
    command = line.split(None, 6)[6].replace("\\%", "%")
    changes = {
        "/var/lib/kernel-rollout.done": str(machine.done),
        "% 60": "% 1",
        "statectl run kernel-rollout rollout -- update-kernel": (
            f"{CLIENTS}/statectl run {machine.chart} {machine.state} -- sh -c '{machine.work}'"
        ),
    }
    assert line.split()[5] == "root"
    return machine.run("/bin/sh", "-c", replaced(command, changes), **machine.statectl_file())


def run_ansible(machine: Machine, *options: str, is_forced: bool = False) -> Run:
    """Run the playbook; `is_forced` lets its work be done in check mode, too."""
    changes = {
        "https://state.example": machine.stack.url,
        "kernel-rollout": machine.chart,
        "rollout\n": f"{machine.state}\n",
        "hosts: all": "hosts: all\n  connection: local",
        "      stateservice_chart:": (
            f'      stateservice_token: "{machine.stack.tokens["machine"]}"\n'
            "      stateservice_retries: 1\n      stateservice_delay: 1\n      stateservice_chart:"
        ),
    }
    playbook = machine.write("kernel.yml", replaced((CLIENTS / "ansible" / "kernel.yml").read_text(), changes))
    tasks = (CLIENTS / "ansible" / "update-kernel.yml").read_text()
    work = {
        "ansible.builtin.command: /usr/local/sbin/update-kernel": f"ansible.builtin.shell: {machine.work}",
        "/var/lib/kernel-rollout.done": str(machine.done),
    }
    machine.write("update-kernel.yml", replaced(tasks, work) + "  check_mode: false\n" * is_forced)
    return machine.run(
        "ansible-playbook",
        *options,
        "-i",
        f"{MACHINE},",
        str(playbook),
        ANSIBLE_ROLES_PATH=str(CLIENTS / "ansible" / "roles"),
        ANSIBLE_LOCALHOST_WARNING="False",
        ANSIBLE_PYTHON_INTERPRETER=sys.executable,
        ANSIBLE_LOCAL_TEMP=str(machine.folder / "ansible"),
        ANSIBLE_REMOTE_TEMP=str(machine.folder / "ansible"),
        SSL_CERT_FILE=str(machine.stack.front.certificate),
    )


def run_puppet(machine: Machine) -> Run:
    changes = {
        "'kernel-rollout'": f"'{machine.chart}'",
        "'rollout'": f"'{machine.state}'",
        "/usr/local/sbin/update-kernel": machine.work,
        "/var/lib/kernel-rollout.done": str(machine.done),
        "  creates": f"  statectl => '{CLIENTS}/statectl',\n  creates",
    }
    manifest = machine.write("kernel.pp", replaced((CLIENTS / "puppet" / "kernel.pp").read_text(), changes))
    folders = [f"--{kind}dir={machine.folder}/puppet-{kind}" for kind in ("conf", "var")]
    command = ["puppet", "apply", "--detailed-exitcodes", *folders, "--modulepath", str(CLIENTS / "puppet")]
    return machine.run(*command, str(manifest), **machine.statectl_file())


def run_chef_seed(machine: Machine) -> Run:
    """The recipe of the first StateService: `execute` with `only_if`, two `curl -K` files."""
    if not (machine.folder / "did.curl").exists():
        machine.fetch_curl_files()
    return machine.run("ruby", str(HERE / "chef_runner.rb"), str(HERE / "recipes" / "seed.rb"))


def run_chef_resource(machine: Machine) -> Run:
    changes = {
        "'kernel-rollout'": f"'{machine.chart}'",
        "'rollout'": f"'{machine.state}'",
        "'/usr/local/sbin/update-kernel'": f"'{machine.work}'\n  statectl '{CLIENTS}/statectl'",
        "/var/lib/kernel-rollout.done": str(machine.done),
    }
    text = replaced((CLIENTS / "chef" / "recipes" / "example.rb").read_text(), changes)
    recipe = machine.write("recipe.rb", text)
    resource = CLIENTS / "chef" / "resources" / "run.rb"
    return machine.run("ruby", str(HERE / "chef_runner.rb"), str(recipe), str(resource), **machine.statectl_file())


@dataclass(frozen=True, slots=True)
class Client:
    """A client, and the exit status that it ends with: allowed, refused, with the service down."""

    run: Callable[[Machine], Run]
    allowed: int
    refused: int
    down: int


# curl says 22 of any status from 400 on; Puppet 2 where it changed something; Ansible 2 where a host failed.
KINDS = {
    "curl": Client(run_curl, 0, 22, 22),
    "statectl in dash": Client(run_statectl("dash"), 0, 1, 3),
    "statectl in busybox": Client(run_statectl("busybox sh"), 0, 1, 3),
    "cron": Client(run_cron, 0, 1, 3),
    "ansible": Client(run_ansible, 0, 0, 2),
    "puppet": Client(run_puppet, 2, 0, 0),
    "chef, the seed's recipe": Client(run_chef_seed, 0, 0, 0),
    "chef, the resource": Client(run_chef_resource, 0, 0, 0),
}
