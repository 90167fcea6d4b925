"""Templates for `chart new`: each is a chart file and a story file in this folder, with NAME for the chart's name."""

from __future__ import annotations

from pathlib import Path

from app.core.chart import CHART_NAME, CHART_NAME_RULE
from app.core.errors import BadRequestError

# Each template, and what its chart does, for `--help`.
TEMPLATES = {
    "canary": "a few machines first, then all, with a budget of failures",
    "rolling-reboot": "a few machines at a time, with slots and leases",
    "window": "work at night only",
    "approval": "two people approve before the first machine begins",
}
_HERE = Path(__file__).parent


def make_files(name: str, template: str) -> dict[str, str]:
    """Return the chart file and the story file of a new chart, by their file names. Raises BadRequestError."""
    if not CHART_NAME.fullmatch(name):
        raise BadRequestError(f"{name!r} is no name for a chart: {CHART_NAME_RULE}")
    suffixes = (".yaml", ".story.yaml")
    return {f"{name}{suffix}": _read(f"{template}{suffix}").replace("NAME", name) for suffix in suffixes}


def _read(file: str) -> str:
    return (_HERE / file).read_text(encoding="utf-8")
