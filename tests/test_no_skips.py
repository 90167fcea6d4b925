"""Where it counts, a run with a skipped test has failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIPPING = "import pytest\n\ndef test_passes(): pass\n\n@pytest.mark.skip(reason='x')\ndef test_skips(): pass\n"


def run_pytest(folder: Path, source: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(source)
    plugins = ["-p", "xdist", "-p", "tests.support.skips"]
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, *plugins, *options, str(folder)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "STATE_SERVICE_NO_SKIPS")}
    # The plugins that the test does not need would take most of its time.
    quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=inherited | quick | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [("CI", "true", ("-n", "2")), ("CI", "true", ()), ("STATE_SERVICE_NO_SKIPS", "1", ())],
    ids=["CI, xdist", "CI", "no skips"],
)
def test_run_fails_when_a_test_was_skipped(tmp_path: Path, name: str, value: str, options: tuple[str, ...]) -> None:
    run = run_pytest(tmp_path, SKIPPING, *options, **{name: value})
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert "FAILED: 1 skipped" in run.stdout


def test_run_fails_when_a_module_was_skipped(tmp_path: Path) -> None:
    source = "import pytest\n\npytest.skip('x', allow_module_level=True)\n"
    (tmp_path / "test_other.py").write_text("def test_passes(): pass\n")
    assert run_pytest(tmp_path, source, CI="true").returncode == pytest.ExitCode.TESTS_FAILED


def test_run_passes_with_a_skip_elsewhere(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, SKIPPING).returncode == pytest.ExitCode.OK


def test_run_passes_without_a_skip(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, "def test_passes(): pass\n", CI="true").returncode == pytest.ExitCode.OK
