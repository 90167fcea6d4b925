"""Templates for `chart new`: a chart file and a story file in this folder, with NAME for the chart's name.

A template whose chart goes by a roster has its lines, too.
"""

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
    "tiers": "tiers of a roster one after another, with limits of racks and a back-out",
}
_HERE = Path(__file__).parent


def make_files(name: str, template: str) -> dict[str, str]:
    """Return the files of a new chart by their names: chart, story and, if it has one, its roster.

    Raises BadRequestError.
    """
    if not CHART_NAME.fullmatch(name):
        raise BadRequestError(f"{name!r} is no name for a chart: {CHART_NAME_RULE}")
    suffixes = [suffix for suffix in (".yaml", ".story.yaml", ".txt") if (_HERE / f"{template}{suffix}").exists()]
    return {f"{name}{suffix}": _read(f"{template}{suffix}").replace("NAME", name) for suffix in suffixes}


def _read(file: str) -> str:
    return (_HERE / file).read_text(encoding="utf-8")
