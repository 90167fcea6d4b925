"""The limits of size in app/, which keep it readable. `make check` prints what was measured."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from statistics import median

from tests.support.apps import ROOT

PATHS = sorted((ROOT / "app").rglob("*.py"))
LINES = {path: len(path.read_text().splitlines()) for path in PATHS}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[Path, ast.Module]:
    """The parsed files. Not at import, when each of pytest's processes would parse them."""
    return {path: ast.parse(path.read_text()) for path in PATHS}


def show(measure: str, value: object) -> None:
    """Print what was measured; pytest shows it with `-s`."""
    sys.stdout.write(f"\n{measure}: {value}")


def place(path: Path, node: ast.stmt | ast.expr) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def functions() -> Iterator[tuple[str, int]]:
    """Yield each function: where it is and what it is called, and how many lines it has."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{place(path, node)} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_app_has_85_to_140_files() -> None:
    show("files", len(PATHS))
    # The rooms of today, and one for each concept that a larger service has; files that only hold a few lines are found
    # by the median.
    assert 85 <= len(PATHS) <= 140


def test_median_file_has_at_least_120_lines() -> None:
    show("lines of the median file", median(LINES.values()))
    assert median(LINES.values()) >= 120


def test_no_file_has_over_600_lines() -> None:
    show("lines of the longest file", max(LINES.values()))
    assert [str(path.relative_to(ROOT)) for path, lines in LINES.items() if lines > 600] == []


def test_no_function_has_over_60_lines() -> None:
    show("lines of the longest function", max(lines for _, lines in functions()))
    assert [name for name, lines in functions() if lines > 60] == []


def test_put_crosses_at_most_20_files() -> None:
    command = [sys.executable, "-m", "bench.trace"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    show("one request crosses", done.stdout.strip())
    found = re.search(r"PUT: .* (\d+) files, (\d+) changes of file", done.stdout)
    assert found is not None, done.stderr
    files, changes = map(int, found.groups())
    assert (files <= 20, changes <= 80) == (True, True), done.stdout


# Calls of libraries whose positional arguments are a list, or whose parameters are not ours to name.
LISTS = {"Table", "table", "select", "makeRecord"}


def called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_no_call_passes_six_positional_arguments() -> None:
    calls = ((path, node) for path, tree in trees().items() for node in ast.walk(tree) if isinstance(node, ast.Call))
    crowded = [(path, call) for path, call in calls if len(call.args) >= 6 and called_name(call) not in LISTS]
    assert [place(path, call) for path, call in crowded] == []


def is_positional_dataclass(node: ast.ClassDef) -> bool:
    """True if it is a dataclass whose fields may be given by their position."""
    found = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any("dataclass" in text and "kw_only=True" not in text for text in found)


def count_fields(node: ast.ClassDef) -> int:
    """Count the fields that may be given by position: those before KW_ONLY, if the class has it."""
    types = [ast.unparse(item.annotation) for item in node.body if isinstance(item, ast.AnnAssign)]
    return sum("ClassVar" not in type_ for type_ in takewhile(lambda type_: type_ != "KW_ONLY", types))


def test_dataclass_of_more_than_five_fields_takes_keywords_only() -> None:
    classes = (
        (path, node) for path, tree in trees().items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    assert [
        f"{place(path, node)} {node.name}"
        for path, node in classes
        if is_positional_dataclass(node) and count_fields(node) > 5
    ] == []
