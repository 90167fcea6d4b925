"""What importing the core and the chart reader loads, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.docs import ROOT

PROGRAM = """
import sys
before = set(sys.modules)
import {module}
# Cython's extensions put modules there that no import system has found.
print(*sorted(name for name in set(sys.modules) - before if getattr(sys.modules[name], "__spec__", None)))
"""


def loaded_by(module: str) -> list[str]:
    """Return the modules that `import module` loads."""
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def packages(modules: list[str]) -> set[str]:
    """Return the top-level packages that are not the standard library's."""
    found = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    # zoneinfo reads where the time zones are from the interpreter's build settings, a module that is listed nowhere.
    return {name for name in found if not name.startswith("_sysconfigdata")}


def test_core_loads_the_standard_library_and_itself_alone() -> None:
    modules = loaded_by("app.core.machine")
    assert packages(modules) == {"app"}
    assert {name for name in modules if name.startswith("app.") and not name.startswith("app.core")} == set()
    assert len(modules) < 100


@pytest.mark.parametrize("module", ["chart", "errors", "log", "machine", "plan", "position", "replay", "window"])
def test_core_module_needs_no_library(module: str) -> None:
    assert packages(loaded_by(f"app.core.{module}")) == {"app"}


def test_chart_file_needs_pyyaml_alone() -> None:
    modules = loaded_by("app.chart_file")
    assert packages(modules) == {"app", "yaml"}
    layers = {".".join(name.split(".")[:2]) for name in modules if name.startswith("app.")}
    assert layers == {"app.core", "app.chart_file"}
