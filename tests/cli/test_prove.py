"""`chart prove` on the command line: exit codes, `--json`, `--stories`, and a chart in the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.lab import prove as lab_prove
from app.lab.templates import TEMPLATES
from tests.cli.conftest import Run
from tests.support.apps import ROOT

REBOOT = str(ROOT / "tests" / "lab" / "charts" / "rolling-reboot.yaml")
SEED = str(ROOT / "charts" / "states.yaml")


def test_at_most_is_exit_0_up_to_the_proved_number_and_1_below(bare: Run) -> None:
    fine, refused = (bare("chart", "prove", REBOOT, "--at-most", number) for number in ("7", "6"))
    assert (fine.code, refused.code) == (0, 1)
    assert "halted\n  down:  at most 7 of 20\n" in fine.out
    assert refused.err.endswith("halted: at most 7 of 20; overdue: at most 7 of 20\n")


def test_json_has_the_number_and_a_story_that_plays(bare: Run, tmp_path: Path) -> None:
    endings = {item["ending"]: item for item in bare("chart", "prove", REBOOT, "--json").json()["endings"]}
    assert endings["halted"]["down"]["most"] == 7
    story = tmp_path / "halted.story.yaml"
    story.write_text(endings["halted"]["down"]["story"])
    assert bare("chart", "test", str(story)).code == 0


def test_stories_are_written_into_a_file_that_plays(bare: Run, tmp_path: Path) -> None:
    file = tmp_path / "proof.story.yaml"
    assert bare("chart", "prove", REBOOT, "--stories", str(file)).code == 0
    played = bare("chart", "test", str(file))
    assert (played.code, "transitions taken: 3 of 3" in played.out) == (0, True)


def test_machines_are_asked_for_if_the_chart_does_not_say_how_many(bare: Run) -> None:
    assert "say it with --machines N" in bare("chart", "prove", SEED).err
    assert bare("chart", "prove", SEED, "--machines", "3").code == 0
    assert bare("chart", "prove", REBOOT, "--machines", "3").code == 2


def test_states_without_slots_are_unbounded_and_never_at_most_a_number(bare: Run) -> None:
    done = bare("chart", "prove", SEED, "--machines", "3", "--at-most", "3")
    assert done.code == 1
    assert "unbounded: state 'red_state' has no slots" in done.out


def test_chart_in_the_database_is_proved_by_its_name(run: Run) -> None:
    assert run("chart", "import", REBOOT).code == 0
    assert run("chart", "prove", "rolling-reboot", "--json").json()["down"] == 7
    assert run("chart", "prove", "no-such-chart").code == 1


def test_missing_file_is_exit_2(bare: Run) -> None:
    assert bare("chart", "prove", "no/such.yaml").code == 2


@pytest.mark.parametrize("template", TEMPLATES)
def test_new_chart_is_proved_and_every_story_of_the_proof_plays(bare: Run, tmp_path: Path, template: str) -> None:
    assert bare("chart", "new", "web", "--template", template, "--folder", str(tmp_path)).code == 0
    roster = ("--roster", str(tmp_path / "web.txt")) if (tmp_path / "web.txt").exists() else ()
    stories = str(tmp_path / "proof.story.yaml")
    proved = bare("chart", "prove", str(tmp_path / "web.yaml"), "--stories", stories, *roster)
    assert (proved.code, proved.err) == (0, "")
    played = bare("chart", "test", stories, *roster)
    assert (played.code, played.err) == (0, "")


def test_proof_that_is_given_up_is_exit_3(bare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_prove, "BUDGET", 20)
    done = bare("chart", "prove", REBOOT, "--at-most", "20")
    assert (done.code, done.out) == (3, "")
    assert "not proved: over 20 combinations of counts; all that is known is that 20 machines take part" in done.err
