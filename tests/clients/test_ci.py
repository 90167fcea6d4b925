"""What pipelines run: the script that lints, tests and proves, and the two files that call it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.servers import ROOT

CI = ROOT / "clients" / "ci"
GOOD = (ROOT / "charts" / "rolling-reboot.yaml").read_text()


def check(*words: str, script: str | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [str(CI / "check-charts"), *words] if script is None else ["sh", "-euc", script]
    own = os.environ | {"STATESERVICE": str(ROOT / "state_service")} | settings
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=120, check=False)


def test_good_chart_with_its_stories_passes() -> None:
    done = check("--at-most", "7", "charts/rolling-reboot.yaml")

    assert done.returncode == 0, done.stderr
    assert "rolling-reboot, 4 states, fine" in done.stdout
    assert "transitions taken: 3 of 3" in done.stdout
    assert "warning" not in done.stderr


@pytest.mark.parametrize(
    ("text", "story", "options", "code", "said"),
    [
        pytest.param(GOOD.replace("name: done, when", "name: dome, when"), "", (), 2, "'dome'", id="lint"),
        pytest.param(GOOD, "{put: {machine: web-01}}", (), 1, "differs", id="story"),
        pytest.param(GOOD, "{claim: {machine: web-01}}", ("--at-most", "1"), 1, "", id="proof"),
        pytest.param("", None, (), 2, "", id="empty file"),
    ],
)
def test_what_is_wrong_is_found(
    tmp_path: Path, text: str, story: str | None, options: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "web.yaml").write_text(text)
    if story:
        (tmp_path / "web.story.yaml").write_text(f"chart: web.yaml\nstory:\n- name: x\n  steps: [{story}]\n")

    done = check(*options, str(tmp_path / "web.yaml"))

    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_pattern_that_matches_nothing_is_no_success() -> None:
    assert check().returncode == 2
    assert check("charts/none-*.yaml").returncode == 2
    assert check("--at-most").returncode == 2


def test_chart_without_a_size_needs_machines() -> None:
    without = check("charts/states.yaml")

    assert (without.returncode, "nothing is proven" in without.stderr) == (0, True)
    assert "nothing is proven" not in check("--machines", "5", "charts/states.yaml").stderr


def test_action_hands_its_inputs_over_in_the_environment() -> None:
    action = yaml.safe_load((CI / "action.yml").read_text())
    install, run = action["runs"]["steps"]
    assert "${{" not in install["run"] + run["run"]
    assert set(action["inputs"]) == {value.split("inputs.")[1].split()[0] for value in run["env"].values()}

    script = run["run"].replace('export STATESERVICE="$RUNNER_TEMP/stateservice/bin/stateservice"\n', "")
    settings = {"GITHUB_ACTION_PATH": str(CI), "MACHINES": "", "STORIES": "", "CHARTS": "charts/rolling-*.yaml"}
    assert check(script=script, AT_MOST="7", **settings).returncode == 0
    assert check(script=script, AT_MOST="1", **settings).returncode == 1


def test_gitlab_job_runs_the_script() -> None:
    template = yaml.safe_load((CI / "gitlab.yml").read_text())
    settings = template["variables"] | {"STATESERVICE_CHECKOUT": ".", "STATESERVICE_CHARTS": "charts/rolling-*.yaml"}
    script = template["check-charts"]["script"][-1]

    assert check(script=script, **settings | {"STATESERVICE_AT_MOST": "7"}).returncode == 0
    assert check(script=script, **settings | {"STATESERVICE_AT_MOST": "1"}).returncode == 1
