"""`chart test` and `chart new`."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.lab.templates import TEMPLATES
from tests.cli.conftest import Run
from tests.support.apps import ROOT

STORY = """chart: states.yaml
story:
  - name: first
    steps:
      - put: {}
      - expect: {state: red_state}
"""


@pytest.fixture
def story(tmp_path: Path) -> Path:
    (tmp_path / "states.yaml").write_bytes((ROOT / "charts" / "states.yaml").read_bytes())
    path = tmp_path / "states.story.yaml"
    path.write_text(STORY)
    return path


def test_story_as_expected_is_exit_0_and_tells_what_it_covered(bare: Run, story: Path) -> None:
    done = bare("chart", "test", str(story))
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"{story}: 1 story of states, fine\n"
        "  states entered: 2 of 3; not blue_state\n"
        "  transitions taken: 1 of 2; not\n"
        "    red_state -> blue_state: count ≥ 1\n"
    )


def test_story_that_differs_is_exit_1_at_line_and_column(bare: Run, story: Path) -> None:
    story.write_text(STORY.replace("red_state", "blue_state"))
    done = bare("chart", "test", str(story))
    assert done.code == 1
    assert done.err == f"{story}:6:25: differs: state is red_state, expected blue_state (in 'first')\n"
    assert "1 story of states, 1 of them not as expected" in done.out


def test_bad_story_is_exit_2_at_line_and_column(bare: Run, story: Path) -> None:
    story.write_text(STORY.replace("red_state", "rde_state"))
    done = bare("chart", "test", str(story), str(story))
    assert done.code == 2
    assert done.err.splitlines() == [f"{story}:6:25: error: unknown state 'rde_state' (did you mean 'red_state'?)"] * 2
    assert bare("chart", "test", str(story.parent / "none.yaml")).code == 2


def test_calendar_closes_the_chart_of_a_story(bare: Run, story: Path) -> None:
    (story.parent / "states.yaml").write_text(
        "current_state: a\nexcept: freeze\nstates:\n- {name: a, func: increment, slots: 1, lease: 1h,"
        " current: {key: count, value: 0}, target: {name: b, when: {key: count, value: 1}}}\n- {name: b}\n"
    )
    story.write_text("chart: states.yaml\nstory: [{name: x, steps: [{claim: {machine: m1}, answer: window}]}]\n")
    calendar = story.parent / "freeze.ics"
    calendar.write_text("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20300107\nEND:VEVENT\nEND:VCALENDAR\n")

    assert bare("chart", "test", str(story)).code == 1
    done = bare("chart", "test", str(story), "--calendar", str(calendar))
    assert (done.code, done.err) == (0, "")


def test_json_has_each_story_and_what_was_covered(bare: Run, story: Path) -> None:
    story.write_text(STORY.replace("red_state", "blue_state"))
    done = bare("chart", "test", str(story), "--json")
    assert done.code == 1
    (found,) = done.json()
    assert (found["file"], found["chart"], found["problems"]) == (str(story), "states", [])
    difference = {"line": 6, "column": 25, "message": "state is red_state, expected blue_state"}
    assert found["stories"] == [{"name": "first", "difference": difference}]
    assert found["covered"]["states"] == {"green_state": True, "red_state": True, "blue_state": False}
    assert [item["taken"] for item in found["covered"]["transitions"]] == [True, False]


def test_several_files_of_one_chart_are_covered_together(bare: Run, story: Path) -> None:
    other = story.with_name("more.story.yaml")
    other.write_text(STORY.replace("- put: {}\n", "- put: {}\n      - put: {}\n").replace("red_state", "blue_state"))
    done = bare("chart", "test", str(story), str(other))
    assert done.out.endswith("states, 2 files together\n  states entered: 3 of 3\n  transitions taken: 2 of 2\n")


@pytest.mark.parametrize("template", TEMPLATES)
def test_new_chart_has_no_warning_and_its_stories_cover_it(bare: Run, tmp_path: Path, template: str) -> None:
    done = bare("chart", "new", "web", "--template", template, "--folder", str(tmp_path))
    chart, story = tmp_path / "web.yaml", tmp_path / "web.story.yaml"
    assert done.out.splitlines()[:2] == [str(chart), str(story)]
    linted = bare("chart", "lint", str(chart))
    assert (linted.code, linted.err, linted.out) == (0, "", linted.out)
    (played,) = bare("chart", "test", str(story), "--json").json()
    covered = played["covered"]
    assert [story["difference"] for story in played["stories"]] == [None] * len(played["stories"])
    assert all(covered["states"].values())
    assert all(item["taken"] for item in covered["transitions"])


def test_new_chart_overwrites_no_file(bare: Run, tmp_path: Path) -> None:
    (tmp_path / "web.story.yaml").write_text("mine")
    done = bare("chart", "new", "web", "--template", "canary", "--folder", str(tmp_path))
    assert (done.code, done.err) == (1, f"state_service: {tmp_path}/web.story.yaml exists; nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["web.story.yaml"]


def test_new_chart_needs_a_name_and_a_template(bare: Run, tmp_path: Path) -> None:
    folder = ("--folder", str(tmp_path))
    assert bare("chart", "new", "a/b", "--template", "canary", *folder).code == 2
    assert bare("chart", "new", "web", "--template", "canray", *folder).code == 2
    assert bare("chart", "new", "web", *folder).code == 2
    assert list(tmp_path.iterdir()) == []


SIMULATE = ("chart", "simulate", str(ROOT / "tests" / "lab" / "charts" / "rolling-reboot.yaml"), "--jobs", "1")


def test_simulation_prints_endings_and_what_it_assumes(bare: Run, tmp_path: Path) -> None:
    picture = tmp_path / "spread.svg"
    done = bare(*SIMULATE, "--runs", "30", "--fail", "20%", "--work", "5m..15m", "--svg", str(picture))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("rolling-reboot: 30 runs of 20 machines, seed 1\n\nENDING")
    assert "\nhalted " in done.out
    assert (
        "  20 % of the tries fail; a machine that failed reports it and does not try again in that state\n" in done.out
    )
    assert picture.read_text().startswith("<svg xmlns=")
    again = bare(*SIMULATE, "--runs", "30", "--fail", "20%", "--work", "5m..15m")
    assert again.out.split("the run begins at ")[0] == done.out.split("the run begins at ")[0]


def test_simulation_as_json_has_spreads(bare: Run) -> None:
    found = bare(*SIMULATE, "--runs", "20", "--start", "2030-01-01", "--json").json()
    assert (found["chart"], found["runs"], found["assumed"]["machines"]) == ("rolling-reboot", 20, 20)
    assert found["assumed"]["start"] == "2030-01-01T00:00:00.000000Z"
    assert sum(ending["runs"] for ending in found["endings"]) == 20
    assert list(found["endings"][0]["begun"]) == ["p5", "p50", "p90", "p95", "most"]


@pytest.mark.parametrize(
    "options",
    [
        ("--fail", "2"),
        ("--fail", "101%"),
        ("--work", "soon"),
        ("--work", "40m..10m"),
        ("--poll", "0s"),
        ("--runs", "0"),
        ("--machines", "21"),
    ],
)
def test_simulation_refuses_what_makes_no_sense(bare: Run, options: tuple[str, ...]) -> None:
    assert bare(*SIMULATE, *options).code == 2


def test_simulation_learns_from_a_run(run: Run) -> None:
    chart = ROOT / "tests" / "lab" / "charts" / "rolling-reboot.yaml"
    assert run("chart", "import", str(chart)).code == 0
    taught = run("chart", "simulate", "rolling-reboot", "--runs", "2", "--jobs", "1", "--from-run", "1")
    assert (taught.code, "it teaches nothing" in taught.err) == (2, True)
    assert run("chart", "simulate", "rolling-reboot", "--runs", "2", "--jobs", "1").code == 0
    assert run("chart", "simulate", "nothing", "--runs", "2").code == 1


PROMISED = """chart: web
current_state: go
expect: {roster: web}
never: {down: ">2", at: stop}
states:
  - name: go
    func: increment
    slots: "20%"
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: stop, when: {key: failed, value: 1}}, {name: end, when: {key: count, value: "100%"}}]
  - name: stop
  - name: end
"""


def test_roster_that_lets_a_chart_break_its_promise_is_refused_with_the_story(run: Run, tmp_path: Path) -> None:
    lines, chart = tmp_path / "web.txt", tmp_path / "web.yaml"
    lines.write_text("".join(f"m{number}\n" for number in range(10)))
    chart.write_text(PROMISED)
    assert (run("roster", "import", "web", str(lines)).code, run("chart", "import", str(chart)).code) == (0, 0)
    lines.write_text("".join(f"m{number}\n" for number in range(40)))
    refused = run("roster", "import", "web", str(lines))
    assert refused.code == 2
    assert "4:8: never down >2 at stop can be broken: 8 machines can be down\n    chart: web.yaml\n" in refused.err
