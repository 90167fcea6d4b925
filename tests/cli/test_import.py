"""`chart import`: new, unchanged, upgraded, refused; dry runs, maps, names, standard input."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.log import Author
from app.service.operate import Behind, ImportRequest, find_behind, import_chart
from tests.cli.conftest import Run
from tests.service.support import opened_service
from tests.support.apps import SEED

RENAMED = SEED.replace("green_state", "lime_state")


@pytest.fixture
def renamed(tmp_path: Path) -> str:
    """A chart file in which the current state has another name."""
    path = tmp_path / "renamed.yaml"
    path.write_text(RENAMED)
    return str(path)


def charts(run: Run) -> dict[str, tuple[str, int]]:
    return {item["chart"]: (item["current_state"], item["version"]) for item in run("chart", "list", "--json").json()}


def test_import_creates_a_chart_named_after_its_file(run: Run, seed: str) -> None:
    done = run("chart", "import", seed)
    assert done.code == 0
    assert done.out.startswith("states: created, version 1\n")
    assert charts(run) == {"states": ("green_state", 1)}


def test_import_again_is_unchanged(run: Run, seed: str) -> None:
    run("chart", "import", seed)
    assert run("chart", "import", seed).out.startswith("states: unchanged, version 1\n")
    assert charts(run) == {"states": ("green_state", 1)}


def test_import_of_a_changed_file_is_an_upgrade(run: Run, seed: str) -> None:
    run("chart", "import", seed)
    Path(seed).write_text(SEED + "    description: the end\n")
    assert run("chart", "import", seed).out.startswith("states: upgraded, version 2\n")
    assert charts(run) == {"states": ("green_state", 2)}


def test_import_takes_a_name(run: Run, seed: str) -> None:
    assert run("chart", "import", seed, "--name", "another").code == 0
    assert charts(run) == {"another": ("green_state", 1)}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129, "ü", "a\n"])
def test_import_refuses_a_name_that_no_chart_can_have(run: Run, seed: str, name: str) -> None:
    assert run("chart", "import", seed, "--name", name).code == 2
    assert charts(run) == {}


def test_import_reads_standard_input(run: Run) -> None:
    assert run("chart", "import", "-", "--name", "piped", stdin=SEED).code == 0
    assert charts(run) == {"piped": ("green_state", 1)}


def test_import_from_standard_input_needs_a_name(run: Run) -> None:
    done = run("chart", "import", "-", stdin=SEED)
    assert done.code == 2
    assert "name" in done.err


def test_import_as_json_says_what_came_of_it(run: Run, seed: str) -> None:
    found = run("chart", "import", seed, "--json").json()
    assert (found["outcome"], found["chart"], found["version"], found["dry_run"]) == ("created", "states", 1, False)


def test_dry_run_says_the_same_and_changes_nothing(run: Run, seed: str) -> None:
    done = run("chart", "import", seed, "--dry-run")
    assert (done.code, done.out.splitlines()[0]) == (0, "states: would be created, version 1")
    assert charts(run) == {}
    run("chart", "import", seed)
    Path(seed).write_text(SEED + "    description: the end\n")
    found = run("chart", "import", seed, "--dry-run", "--json").json()
    assert (found["outcome"], found["version"], found["dry_run"]) == ("upgraded", 2, True)
    assert charts(run) == {"states": ("green_state", 1)}


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--json",)])
def test_import_that_drops_the_current_state_exits_1(
    run: Run, seed: str, renamed: str, options: tuple[str, ...]
) -> None:
    run("chart", "import", seed)
    done = run("chart", "import", renamed, "--name", "states", *options)
    assert (done.code, done.out) == (1, "")
    assert "green_state" in done.err
    assert charts(run) == {"states": ("green_state", 1)}


def test_map_names_the_new_home(run: Run, seed: str, renamed: str) -> None:
    run("chart", "import", seed)
    done = run("chart", "import", renamed, "--name", "states", "--map", "green_state:lime_state")
    assert done.code == 0
    assert charts(run) == {"states": ("lime_state", 2)}


@pytest.mark.parametrize("text", ["green_state", "green_state:", ":lime_state", "green_state:nowhere", "a:lime_state"])
def test_map_that_names_no_states_exits_2(run: Run, seed: str, renamed: str, text: str) -> None:
    run("chart", "import", seed)
    done = run("chart", "import", renamed, "--name", "states", "--map", text)
    assert done.code == 2
    assert repr(text) in done.err
    assert charts(run) == {"states": ("green_state", 1)}


def test_import_of_a_bad_file_exits_2_and_changes_nothing(run: Run, seed: str) -> None:
    Path(seed).write_text(SEED.replace("increment", "incremnt"))
    done = run("chart", "import", seed)
    assert (done.code, done.out) == (2, "")
    assert [line for line in done.err.splitlines() if line.startswith(f"{seed}:6:11: error: ")]
    assert charts(run) == {}


@pytest.mark.parametrize("file", ["missing.yaml", "."])
def test_import_exits_2_when_the_file_cannot_be_read(run: Run, file: str) -> None:
    done = run("chart", "import", file)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"state_service: {file}: ")


def test_find_behind_names_the_version_that_a_file_has(run: Run, seed: str, database_url: str) -> None:
    run("chart", "import", seed)
    changed = SEED + "    description: the end\n"
    with opened_service(database_url) as service:
        assert find_behind(service, ImportRequest(changed, name="states")) is None
        import_chart(service, ImportRequest(changed, name="states"), Author())
        assert find_behind(service, ImportRequest(changed, name="states")) is None
        assert find_behind(service, ImportRequest(SEED, name="new")) is None
        assert find_behind(service, ImportRequest(SEED, name="states")) == Behind("states", 1, 2)
