"""The page that simulates a chart: assumptions as a form, and how runs with so many machines would end.

A simulation is work for the processor, and the machines' requests share it. So the page simulates few runs, stops after
a few seconds, and lets one simulation run at a time in each worker; `chart simulate` has no such limits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from flask import Response, request
from markupsafe import Markup

from app.chart_file.fields import ScalarError, to_age, to_part, to_span
from app.core.chart import Chart
from app.core.errors import BadRequestError, ConflictError
from app.core.expect import Labels, read_labels
from app.core.memory import Lists
from app.diagram.plots import draw_share_axis, draw_shares, pick_colours
from app.lab.simulate import Assumptions, Group, Simulation, list_assumptions, list_curves, say_time, simulate_within
from app.service.context import Service
from app.service.reading import get_definition, get_status
from app.service.rosters import read_roster
from app.service.runs import learn_from_run
from app.service.words import say_number
from app.web.request import current_request, current_service
from app.web.ui.base import blueprint, find_instant, find_query, find_whole, render

# Machines, runs, and machines times runs of one simulation; and the seconds of processor time that it may take.
MAX_MACHINES = 20_000
MAX_RUNS = 1_000
MAX_LIVES = 200_000
SECONDS = 3.0
# Runs, if the person does not say how many; and machines times runs then.
FEW_RUNS = 100
FEW_LIVES = 100_000
# Rows of an earlier run from which a simulation learns, and seconds for which a request waits for its turn.
MAX_ROWS = 50_000
PATIENCE = 5.0
FIELDS = ("machines", "runs", "fail", "lost", "work", "poll", "retry", "approve", "from_run", "start", "seed")

_turn = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One ending as a row of the table: its texts, and the number of its colour."""

    colour: int
    ending: str
    origin: str
    share: str
    after: tuple[str, ...]
    down: tuple[str, ...]
    begun: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A simulation as the template shows it. `wanted` is how many runs were asked for."""

    runs: int
    wanted: int
    lines: list[Line]
    axis: Markup
    plot: Markup
    longest: str
    says: str
    assumed: list[str]


@blueprint.get("/ui/charts/<chart:name>/what-if", provide_automatic_options=False)
def get_what_if(name: str) -> Response:
    """The form, and with any of its fields the figures. A simulation reads the chart's file and moves no chart."""
    service = current_service()
    status, chart = get_status(service, name), get_definition(service, name)
    typed = {field: request.args[field] for field in FIELDS if request.args.get(field)}
    shown, problem, code = None, None, 200
    try:
        rosters = _read_rosters(service, chart)
        known = _find_machines(chart, rosters)
        if typed:
            shown = _simulate(service, chart, rosters, known, status.read_at)
    except (BadRequestError, ConflictError) as error:
        known, problem = _find_machines(chart, {}), str(error)
        code = 409 if isinstance(error, ConflictError) else 400
        current_request().problem = problem
    return render(
        "what_if.html",
        code,
        name=name,
        status=status,
        chart=chart,
        typed=typed,
        shown=shown,
        problem=problem,
        known=known,
        has_approvers=any(state.approvers is not None for state in chart.states.values()),
        limits={"machines": MAX_MACHINES, "runs": MAX_RUNS},
    )


def _simulate(service: Service, chart: Chart, rosters: Lists, known: int | None, now: datetime) -> Shown:
    """Return what the runs of the form come to. Raises BadRequestError, ConflictError."""
    assumed = _read_assumptions(service, chart, rosters, known, now)
    runs = find_whole("runs", MAX_RUNS) or max(min(FEW_RUNS, FEW_LIVES // assumed.machines), 1)
    if runs * assumed.machines > MAX_LIVES:
        raise BadRequestError(
            f"{say_number(runs)} runs of {say_number(assumed.machines)} machines are more than this page simulates"
            f" ({say_number(MAX_LIVES)} machines in all runs together): chart simulate on the command line does it"
        )
    with _taking_turns():
        found = simulate_within(chart, assumed, runs, SECONDS, seed=find_whole("seed", 10**9) or 1)
    return _show(found, chart, runs)


@contextmanager
def _taking_turns() -> Iterator[None]:
    """Let one simulation run at a time. Raises ConflictError if the others take too long."""
    if not _turn.acquire(timeout=PATIENCE):
        raise ConflictError("the server is busy with other simulations: try it again in a few seconds")
    try:
        yield
    finally:
        _turn.release()


# Reading


def _read_rosters(service: Service, chart: Chart) -> dict[str, Mapping[str, Labels]]:
    """Return the newest lines of each roster. Raises BadRequestError for one that is too large for this page."""
    found: dict[str, Mapping[str, Labels]] = {}
    for roster in chart.rosters:
        lines = list(islice(read_roster(service, roster).lines, MAX_MACHINES + 1))
        _check_machines(len(lines))
        found[roster] = {machine: read_labels(text) for machine, text in lines}
    return found


def _check_machines(machines: int) -> None:
    if machines > MAX_MACHINES:
        raise BadRequestError(
            f"this page simulates {say_number(MAX_MACHINES)} machines at most: use chart simulate on the command line"
        )


def _find_machines(chart: Chart, rosters: Lists) -> int | None:
    """Return how many machines there are if the chart or its rosters list them."""
    if chart.rosters:
        return len({machine for lines in rosters.values() for machine in lines})
    return None if chart.roster is None else len(chart.roster)


def _read_assumptions(service: Service, chart: Chart, rosters: Lists, known: int | None, now: datetime) -> Assumptions:
    """Return what the form says. Raises BadRequestError."""
    machines = known or find_whole("machines", MAX_MACHINES) or chart.expect
    if machines is None:
        raise BadRequestError("the chart does not say how many machines it expects: fill in machines")
    _check_machines(machines)
    try:
        shortest, longest = to_span(find_query("work", 40) or "10m..40m")
        poll = to_age(find_query("poll", 20) or "30m")
        assumed = Assumptions(
            start=find_instant("start") or now,
            machines=machines,
            rosters=rosters,
            fail=_read_share("fail", "1%"),
            lost=_read_share("lost", "0%"),
            shortest=shortest,
            longest=longest,
            poll=poll,
            retries=find_query("retry", 5) is not None,
            approve=to_age(find_query("approve", 20) or "1h"),
        )
    except ScalarError as error:
        raise BadRequestError(str(error)) from None
    if not poll:
        raise BadRequestError("poll must be longer than zero")
    run = find_whole("from_run")
    if run is None:
        return assumed
    learned = learn_from_run(service, chart.name, run, MAX_ROWS)
    fail = assumed.fail if find_query("fail") is not None else learned.fail
    return replace(assumed, spans=learned.spans, fail=fail)


def _read_share(name: str, default: str) -> float:
    try:
        return float(to_part(find_query(name, 20) or default, "0.5%"))
    except ScalarError as error:
        raise BadRequestError(f"{name}: {error}") from None


# Showing


def _show(found: Simulation, chart: Chart, wanted: int) -> Shown:
    groups, runs = found.list_groups(), len(found.endings)
    curves = list_curves(found, chart)
    longest = max(max(curve.ends) for curve in curves)
    says = "; ".join(f"{group.name}: {len(group.endings)} of {runs} runs" for group in groups)
    return Shown(
        runs=runs,
        wanted=wanted,
        lines=[_write_line(colour, group, runs) for colour, group in zip(pick_colours(curves), groups, strict=True)],
        axis=Markup(draw_share_axis()),
        plot=Markup(draw_shares(curves, runs, says)),
        longest=say_time(timedelta(seconds=longest)),
        says=says,
        assumed=list_assumptions(found.assumed),
    )


def _write_line(colour: int, group: Group, runs: int) -> Line:
    def count(share: float) -> str:
        return say_number(int(share))

    return Line(
        colour=colour,
        ending=group.state or "never ends",
        origin=group.origin,
        share=f"{len(group.endings) / runs:.0%}",
        after=tuple(say_time(timedelta(seconds=seconds)) for seconds in group.after.percentiles),
        down=(*(count(group.down.percentiles[at]) for at in (1, 3)), count(group.down.most)),
        begun=(*(count(group.begun.percentiles[at]) for at in (1, 3)), count(group.begun.most)),
    )
