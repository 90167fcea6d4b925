"""What pipelines run: the script that lints, tests and proves, and the two files that call it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers import ROOT

CI = ROOT / "clients" / "ci"
GOOD = (ROOT / "charts" / "rolling-reboot.yaml").read_text()


def check(*words: str, script: str | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [str(CI / "check-charts"), *words] if script is None else ["sh", "-euc", script]
    own = os.environ | {"STATESERVICE": str(ROOT / "state_service")} | settings
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=600, check=False)


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


CLOSED_BY_ROSTER = """\
current_state: reboot
expect: {roster: web}
except: [freeze]
states:
- name: reboot
  func: increment
  slots: 2
  lease: 1h
  on_expire: fail
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target:
  - {name: halted, when: {key: failed, value: 1}}
  - {name: done, when: {key: count, value: "100%"}}
  - {name: halted, when: {key: elapsed, value: 2d}}
- name: halted
- name: done
"""
STORY = """\
chart: web.yaml
story:
- name: what the roster and the calendar say
  steps:
  - {claim: {machine: web-01}, answer: window}
  - pass: 1d
  - work: {machine: [web-01, web-02]}
  - work: {machine: web-03}
    answer: transitioned
  - expect: {state: done}
"""
FREEZE = """BEGIN:VCALENDAR
BEGIN:VEVENT
DTSTART;VALUE=DATE:20300107
END:VEVENT
END:VCALENDAR
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a chart that goes by a roster and a calendar, and its story; the files' names have spaces."""
    (tmp_path / "web.yaml").write_text(CLOSED_BY_ROSTER)
    (tmp_path / "web.story.yaml").write_text(STORY)
    (tmp_path / "all web.txt").write_text("web-01 zone=a\nweb-02\nweb-03\n")
    (tmp_path / "the freeze.ics").write_text(FREEZE)
    return tmp_path


def by_script(folder: Path, roster: str, calendar: str, at_most: str) -> subprocess.CompletedProcess[str]:
    return check("--at-most", at_most, "--roster", roster, "--calendar", calendar, str(folder / "web.yaml"))


def by_action(folder: Path, roster: str, calendar: str, at_most: str) -> subprocess.CompletedProcess[str]:
    run = yaml.safe_load((CI / "action.yml").read_text())["runs"]["steps"][-1]["run"]
    script = run.replace('export STATESERVICE="$RUNNER_TEMP/stateservice/bin/stateservice"\n', "")
    named = {"ROSTERS": f"{roster}\n", "CALENDARS": f"{calendar}\n", "AT_MOST": at_most, "STORIES": str(folder)}
    return check(script=script, GITHUB_ACTION_PATH=str(CI), CHARTS=f"{folder}/we?.yaml", MACHINES="", **named)


def by_template(folder: Path, roster: str, calendar: str, at_most: str) -> subprocess.CompletedProcess[str]:
    template = yaml.safe_load((CI / "gitlab.yml").read_text())
    given = {"CHECKOUT": ".", "ROSTERS": f"{roster}\n", "CALENDARS": f"{calendar}\n", "AT_MOST": at_most}
    given |= {"CHARTS": f"{folder}/we?.yaml", "STORIES": str(folder)}
    settings = template["variables"] | {f"STATESERVICE_{name}": value for name, value in given.items()}
    return check(script=template["check-charts"]["script"][-1], **settings)


@pytest.mark.parametrize(
    ("roster", "calendar", "at_most", "code", "said"),
    [
        pytest.param("web={}/all web.txt", "freeze={}/the freeze.ics", "1", 1, "more than 1 machines", id="proof"),
        pytest.param("wbe={}/all web.txt", "freeze={}/the freeze.ics", "2", 2, "goes by the roster 'web'", id="roster"),
        pytest.param("web={}/all web.txt", "frost={}/the freeze.ics", "2", 1, "events of 'freeze'", id="calendar"),
    ],
)
def test_script_goes_by_rosters_and_calendars(
    folder: Path, roster: str, calendar: str, at_most: str, code: int, said: str
) -> None:
    done = by_script(folder, roster.format(folder), calendar.format(folder), at_most)

    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("run", [by_script, by_action, by_template], ids=["script", "action", "template"])
def test_every_pipeline_hands_over_its_rosters_and_calendars(folder: Path, run: Any) -> None:
    done = run(folder, f"web={folder}/all web.txt", f"freeze={folder}/the freeze.ics", "2")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 story of web, fine" in done.stdout


def test_story_that_names_its_own_roster_and_calendar_keeps_them(folder: Path) -> None:
    own = STORY.replace("story:", "rosters: {web: w.txt}\ncalendars: {freeze: f.ics}\nstory:", 1)
    (folder / "web.story.yaml").write_text(own.replace("web-0", "own-0"))
    (folder / "w.txt").write_text("own-01\nown-02\nown-03\n")
    (folder / "f.ics").write_text(FREEZE)
    (folder / "never.ics").write_text(FREEZE.replace("2030", "2040"))

    done = by_script(folder, f"web={folder}/all web.txt", f"freeze={folder}/never.ics", "2")

    assert done.returncode == 0, done.stdout + done.stderr


def test_action_hands_its_inputs_over_in_the_environment() -> None:
    action = yaml.safe_load((CI / "action.yml").read_text())
    install, run = action["runs"]["steps"]
    assert "${{" not in install["run"] + run["run"]
    assert set(action["inputs"]) == {value.split("inputs.")[1].split()[0] for value in run["env"].values()}

    script = run["run"].replace('export STATESERVICE="$RUNNER_TEMP/stateservice/bin/stateservice"\n', "")
    settings = {"GITHUB_ACTION_PATH": str(CI), "CHARTS": "charts/rolling-*.yaml"}
    settings |= dict.fromkeys(("MACHINES", "ROSTERS", "CALENDARS", "STORIES"), "")
    assert_refused_by_its_proof(check(script=script, AT_MOST="1", **settings))


def test_gitlab_job_runs_the_script() -> None:
    template = yaml.safe_load((CI / "gitlab.yml").read_text())
    settings = template["variables"] | {"STATESERVICE_CHECKOUT": ".", "STATESERVICE_CHARTS": "charts/rolling-*.yaml"}
    script = template["check-charts"]["script"][-1]

    assert_refused_by_its_proof(check(script=script, **settings | {"STATESERVICE_AT_MOST": "1"}))


def assert_refused_by_its_proof(done: subprocess.CompletedProcess[str]) -> None:
    """Fail unless the chart and its story passed, and the proof found more machines down than 1."""
    assert done.returncode == 1, done.stderr
    assert "transitions taken: 3 of 3" in done.stdout
    assert "more than 1 machines may be down" in done.stderr
