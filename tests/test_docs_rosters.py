"""docs/rosters.md: each command that prints an inventory as lines is run, and its lines can be imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.chart_file.rosters import parse_labels
from tests.support.docs import blocks, read_page

COMMANDS = next(block for block in blocks(read_page("docs/rosters.md"), "sh") if "knife search" in block)
# What `knife search node ... -F json -a fqdn -a rack -a zone` prints: under `rows`, each node by its name.
KNIFE = {
    "results": 2,
    "rows": [
        {"web-01": {"fqdn": "web-01.example", "rack": "r12", "zone": "a"}},
        {"web-02": {"fqdn": "web-02.example", "rack": "r13", "zone": "b"}},
    ],
}
ANSIBLE = {
    "_meta": {
        "hostvars": {
            "web-01.example": {"rack": "r12", "zone": "a", "ansible_host": "192.0.2.7"},
            "web-02.example": {"rack": "r13", "zone": "b"},
            "db-01.example": {"rack": "r13", "zone": "b"},
        }
    },
    "all": {"children": ["ungrouped", "web", "db"]},
    "web": {"hosts": ["web-01.example", "web-02.example"]},
    "db": {"hosts": ["db-01.example"]},
}
LIST = [
    {"name": "web-01.example", "zone": "a", "shards": ["7", "9"]},
    {"name": "web-02.example", "zone": "b", "shards": ["8"]},
]
FOUND = {
    "Chef": {"rack": ("r12", "r13"), "zone": ("a", "b")},
    "Ansible": {"rack": ("r12", "r13"), "zone": ("a", "b")},
    "any JSON list": {"zone": ("a", "b"), "shard": ("7 9", "8")},
}
PIECES = dict(piece.split("\n", 1) for piece in COMMANDS.removeprefix("# ").split("\n# "))


def test_every_command_of_the_page_is_run() -> None:
    assert PIECES.keys() == FOUND.keys()


@pytest.mark.parametrize("name", PIECES)
def test_command_prints_lines_that_can_be_imported(tmp_path: Path, name: str) -> None:
    assert shutil.which("jq") is not None, "jq is needed: apt install jq"
    for tool, answer in (("knife", KNIFE), ("ansible-inventory", ANSIBLE)):
        script = tmp_path / tool
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
        script.chmod(0o755)
    (tmp_path / "machines.json").write_text(json.dumps(LIST))
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", PIECES[name]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = parse_labels(done.stdout)
    wanted = {
        f"web-0{number + 1}.example": {label: tuple(values[number].split()) for label, values in FOUND[name].items()}
        for number in range(2)
    }
    assert lines == wanted
