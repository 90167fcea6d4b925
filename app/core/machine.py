"""The chart machine: what happens to a chart, decided from its definition, its position and the time alone."""

from __future__ import annotations

from datetime import datetime

from app.core import acts, reporting, slotting
from app.core.chart import Chart
from app.core.making import MOVES_PER_STEP, Making
from app.core.position import (
    Archive,
    Claim,
    Evict,
    Goto,
    Happening,
    Kind,
    Pause,
    Position,
    Reason,
    Release,
    Reset,
    Resume,
    Step,
    Tick,
    Update,
    Upgrade,
    Verdict,
    Visit,
)

__all__ = ["MOVES_PER_STEP", "start", "step"]


def step(chart: Chart, position: Position, happening: Happening, now: datetime) -> Step:
    """Decide what `happening` does to `chart` at `position` when the time is `now`.

    Raises BadRequestError, KeyReusedError or ConflictError; then nothing may be written.
    """
    making = Making(chart, position, now)
    match happening:
        case Update():
            return reporting.update(making, happening)
        case Claim():
            return slotting.claim(making, happening)
        case Release():
            return slotting.release(making, happening)
        case Tick():
            making.run_clock()
        case Pause():
            acts.pause(making, happening.reason)
        case Resume():
            acts.resume(making, happening.reason)
        case Reset():
            acts.reset(making, happening.reason)
        case Goto():
            acts.goto(making, happening.state, happening.reason)
        case Archive():
            acts.archive(making, happening.reason)
        case Upgrade():
            acts.upgrade(making, happening)
        case Evict():
            slotting.evict(making, happening)
    return making.done(Verdict.ACCEPTED, Reason.UPDATED)


def start(chart: Chart, version: int, run: int, now: datetime, fence: int = 0) -> Step:
    """Decide the first step of a chart's run `run`: in its initial state, its clock guards judged."""
    position = _at_start(chart, version, run, now, fence)
    making = Making(chart, position, now)
    making.log(Kind.IMPORT)
    making.visits.append(Visit(run, 1, chart.initial))
    making.run_clock()
    return making.done(Verdict.ACCEPTED, Reason.UPDATED)


def _at_start(chart: Chart, version: int, run: int, now: datetime, fence: int) -> Position:
    values = chart.states[chart.initial].initial_values()
    return Position(version, run, 1, chart.initial, values, now, fence=fence)
