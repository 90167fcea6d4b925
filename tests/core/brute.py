"""What can happen to a chart, found by trying every act of every machine through `step`: the proof's oracle.

Nothing is counted here and no two machines are alike. `random_chart` makes the charts, small enough for that.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from app.core import machine
from app.core.arrival import find_failed, measure, regroup
from app.core.chart import (
    FAILED_KEY,
    Attribute,
    Chart,
    ClockGuard,
    CountGuard,
    ElapsedGuard,
    Func,
    Guard,
    OnExpire,
    Op,
    SlotRule,
    State,
    Transition,
)
from app.core.expect import FromRoster, GroupLimit, Labels
from app.core.memory import Lists, Memory
from app.core.position import Claim, Position, Release, Report, Slot, Step, Tick, Update

T0 = datetime(2030, 1, 7, 12, 0, tzinfo=UTC)
FAR = T0 + timedelta(days=30000)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a chart stands, without its times: `reports` and `begun` are sorted, so that equal spots are equal."""

    state: str
    values: tuple[tuple[str, int], ...]
    slots: frozenset[str]
    reports: tuple[tuple[str, str], ...]
    succeeded: int
    begun: frozenset[str] = frozenset()


@dataclass(slots=True)
class Found:
    """What was found: the transitions taken, and the most machines of each measure."""

    taken: set[tuple[str, int]] = field(default_factory=set)
    down: dict[tuple[str, int], int] = field(default_factory=dict)
    down_within: dict[str, int] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    begun_within: dict[str, int] = field(default_factory=dict)
    spots: int = 0


@dataclass(frozen=True, slots=True)
class Stand:
    """A chart, and the rosters by which it goes."""

    chart: Chart
    memory: Memory

    def step(self, position: Position, happening: Update | Claim | Release | Tick, now: datetime) -> Step:
        """Return what `step` decides."""
        return machine.step(self.chart, position, happening, now, self.memory)


def explore(chart: Chart, machines: int, *, counts_begun: bool = False, rosters: Lists | None = None) -> Found:
    """Try everything. With `counts_begun` nobody gives a slot back without a report, and a spot knows who has begun."""
    names = [f"m{number}" for number in range(1, machines + 1)]
    stand = Stand(chart, Memory(rosters or {}))
    first = machine.start(chart, 1, 1, T0, rosters=stand.memory.newest, known=stand.memory)
    start = _spot(first.position, {}, frozenset())
    found, seen, ahead = Found(), {start}, [start]
    moves = (entry for entry in first.entries if entry.kind in ("transition", "timeout"))
    found.taken.update((entry.from_state, _find_move(chart, entry)) for entry in moves)
    while ahead:
        spot = ahead.pop()
        _measure(spot, found)
        for following in _try_all(stand, spot, names, found, counts_begun):
            if following not in seen:
                seen.add(following)
                ahead.append(following)
    found.spots = len(seen)
    return found


def _measure(spot: Spot, found: Found) -> None:
    down = len(spot.slots | {name for name, key in spot.reports if key == FAILED_KEY})
    found.down_within[spot.state] = max(down, found.down_within.get(spot.state, 0))
    here = spot.slots | {name for name, _ in spot.reports}
    found.begun_within[spot.state] = max(len(here), found.begun_within.get(spot.state, 0))
    found.begun[spot.state] = max(len(spot.begun), found.begun.get(spot.state, 0))


def _try_all(stand: Stand, spot: Spot, names: list[str], found: Found, counts_begun: bool) -> Iterator[Spot]:
    chart = stand.chart
    state = chart.states[spot.state]
    if state.is_final:
        return
    here = _position(stand, spot)
    reports = dict(spot.reports)
    for name in names:
        for attribute in state.attributes:
            report = Report(1, name, reports[name]) if name in reports else None
            said = Update(state=spot.state, machine=name, key=attribute.key, report=report, was_entered=True)
            yield _follow(chart, spot, stand.step(here, said, T0), found, name)
        if state.slots is not None:
            yield _follow(chart, spot, stand.step(here, Claim(spot.state, name, again=True), T0), found, None)
            if not counts_begun:
                yield _follow(chart, spot, stand.step(here, Release(spot.state, name), T0), found, None)
    yield from _let_time_pass(stand, spot, here, found)


def _let_time_pass(stand: Stand, spot: Spot, here: Position, found: Found) -> Iterator[Spot]:
    chart = stand.chart
    state = chart.states[spot.state]
    for item in state.transitions:
        if isinstance(item.guard, ElapsedGuard):
            yield _follow(chart, spot, stand.step(here, Tick(), T0 + item.guard.age), found, None)
        elif isinstance(item.guard, ClockGuard):
            later = replace(here, entered_at=item.guard.instant)
            yield _follow(chart, spot, stand.step(later, Tick(), item.guard.instant), found, None)
    if state.slots is not None and state.slots.lease is not None:
        for name, slot in here.slots.items():
            over = replace(here, slots={**here.slots, name: replace(slot, expires_at=T0)})
            yield _follow(chart, spot, stand.step(over, Tick(), T0), found, name)


def _position(stand: Stand, spot: Spot) -> Position:
    slots = {name: Slot(machine=name, fence=1, claimed_at=T0, renewed_at=T0, expires_at=FAR) for name in spot.slots}
    position = Position(
        version=1,
        run=1,
        visit=1,
        state=spot.state,
        values=dict(spot.values),
        entered_at=T0,
        slots=slots,
        succeeded=spot.succeeded,
        holder_reports={name: key for name, key in spot.reports if name in spot.slots},
        rosters=stand.memory.newest,
    )
    position = find_failed(stand.chart, measure(stand.chart, position, stand.memory), dict(spot.reports))
    return regroup(stand.chart, position, stand.memory)


def _follow(chart: Chart, spot: Spot, step: Step, found: Found, actor: str | None) -> Spot:
    """Return the spot after the step; note the transitions that it took, and who was down and had begun."""
    reports = {**dict(spot.reports), **{one.machine: one.key for one in step.reports if one.visit == 1 and one.key}}
    # Only the first move can be that of a report; those after it are the clock's, in states just entered.
    moves = [entry for entry in step.entries if entry.to_state != entry.from_state or _is_loop(chart, entry, step)]
    begun = spot.begun | set(step.position.slots if not step.visits else ())
    for number, entry in enumerate(moves):
        move = _find_move(chart, entry)
        found.taken.add((entry.from_state, move))
        if number == 0:
            left = (spot.slots - {actor}) | {name for name, key in reports.items() if key == FAILED_KEY}
            edge = (entry.from_state, move)
            found.down[edge] = max(len(left), found.down.get(edge, 0))
    return _spot(step.position, {} if step.visits else reports, frozenset(begun))


def _is_loop(chart: Chart, entry: object, step: Step) -> bool:
    kind = str(getattr(entry, "kind", ""))
    return bool(step.visits) and kind in ("transition", "timeout")


def _find_move(chart: Chart, entry: object) -> int:
    """Return which transition a log entry records: only one leads to each target."""
    from_state, to_state = getattr(entry, "from_state", ""), getattr(entry, "to_state", "")
    targets = [item.target for item in chart.states[from_state].transitions]
    return targets.index(to_state)


def _spot(position: Position, reports: dict[str, str], begun: frozenset[str]) -> Spot:
    return Spot(
        state=position.state,
        values=tuple(sorted(position.values.items())),
        slots=frozenset(position.slots),
        reports=tuple(sorted(reports.items())),
        succeeded=position.succeeded,
        begun=begun,
    )


def random_chart(seed: int, most_machines: int = 6) -> tuple[Chart, int]:
    """Return a chart and how many machines take part in it. Every transition of a state has its own target.

    If more than three machines take part, one state with small thresholds is all there is: what `explore` must try
    grows fast with the machines.
    """
    rng = random.Random(seed)
    if seed % 10 == 5 and most_machines > 3:
        return _fewer_slots_later(rng), 4
    is_large = seed % 10 == 0 and most_machines > 3
    machines = rng.randint(4, most_machines) if is_large else rng.randint(1, min(3, most_machines))
    working = [f"s{number}" for number in range(rng.randint(1, 3) if machines < 4 else 1)]
    endings = [f"e{number}" for number in range(4)]
    make = _random_state if machines < 4 else _small_state
    states = {name: make(rng, name, [*working, *endings], machines) for name in working}
    states |= {name: State(name=name) for name in endings}
    return Chart(name="random", initial="s0", states=states, expect=machines, require_machine=True), machines


def _fewer_slots_later(rng: random.Random) -> Chart:
    """Return a chart in which slots are held on that would not be given any more."""
    count, failed = CountGuard("count", Op.GE, 4, "4"), CountGuard("failed", Op.GE, rng.randint(1, 2), "f")
    stages = rng.choice([(3, 1), (3, 2), (3, 1, 1)])
    state = State(
        name="s0",
        func=Func.INCREMENT,
        attributes=(Attribute("count", 0), Attribute("failed", 0)),
        transitions=(Transition("e1", failed), Transition("e0", count)),
        slots=SlotRule(stages=stages, written=tuple(map(str, stages))),
    )
    states = {"s0": state, "e0": State(name="e0"), "e1": State(name="e1")}
    return Chart(name="random", initial="s0", states=states, expect=4, require_machine=True)


@dataclass(frozen=True, slots=True)
class Grouped:
    """A chart that goes by a roster and limits groups, and the roster's lines.

    `is_exact` says that the proof's limit of groups is reached: each machine is in one group at most, one label has a
    limit, and the slots never become fewer. Otherwise the proof may only be too careful.
    """

    chart: Chart
    machines: int
    rosters: Lists
    is_exact: bool


def random_grouped_chart(seed: int) -> Grouped:
    """Return a chart of one or two states with limits of groups, for two to five machines.

    What `explore` must try grows fast with the machines, so only few charts have five.
    """
    rng = random.Random(f"groups {seed}")
    is_exact = seed % 3 > 0
    machines = 5 if seed % 30 == 0 else rng.choice([2, 3, 4, 4])
    lines = {f"m{number}": _labels(rng, is_exact) for number in range(1, machines + 1)}
    labels = ["rack"] if is_exact or rng.random() < 0.3 else ["rack", "row"]
    per = tuple(_limit_group(rng, label) for label in labels)
    working = ["s0"] if machines == 5 or rng.random() < 0.5 else ["s0", "s1"]
    states = {}
    for name, after in zip(working, [*working[1:], "e0"], strict=True):
        where = (("rack", ("a", "b")),) if rng.random() < 0.2 else ()
        state = _grouped_state(rng, name, after, machines, is_exact)
        assert state.slots is not None
        states[name] = replace(state, expect=FromRoster("web", where), slots=replace(state.slots, per=per))
    states |= {name: State(name=name) for name in ("e0", "e1", "e2")}
    chart = Chart(name="random", initial="s0", states=states, follows=FromRoster("web"))
    return Grouped(chart, machines, {"web": lines}, is_exact)


def _labels(rng: random.Random, is_exact: bool) -> Labels:
    racks = {rng.choice("aaabc") for _ in range(1 if is_exact else rng.choice([1, 1, 1, 2]))}
    labels = {"rack": tuple(sorted(racks)), "row": (rng.choice(["1", "2"]),)}
    return {label: values for label, values in labels.items() if rng.random() < 0.85}


def _limit_group(rng: random.Random, label: str) -> GroupLimit:
    if rng.random() < 0.3:
        return GroupLimit(label, "50%", share=Fraction(1, 2))
    most = rng.randint(1, 2)
    return GroupLimit(label, str(most), machines=most)


def _grouped_state(rng: random.Random, name: str, after: str, machines: int, is_exact: bool) -> State:
    stages = [rng.randint(1, 4) for _ in range(rng.randint(1, 2))]
    stages = sorted(stages) if is_exact else stages
    most = 3 if machines < 5 else 2
    limits = {"failed": rng.randint(1, most + 1), "count": rng.randint(1, most)}
    guards = {key: CountGuard(key, Op.GE, limit, str(limit)) for key, limit in limits.items()}
    return State(
        name=name,
        func=Func.INCREMENT,
        attributes=(Attribute("count", 0), Attribute("failed", 0)),
        transitions=(
            Transition("e1", guards["failed"]),
            Transition(after, guards["count"]),
            Transition("e2", ElapsedGuard(timedelta(hours=1), "1h")),
        ),
        slots=SlotRule(stages=tuple(stages), written=tuple(map(str, stages))),
    )


def _small_state(rng: random.Random, name: str, names: list[str], machines: int) -> State:
    attributes = (Attribute("count", 0), Attribute("failed", 0))
    limits = [rng.randint(1, 2), 1 if machines > 4 else rng.randint(1, 2)]
    guards = [CountGuard(one.key, Op.GE, limit, str(limit)) for one, limit in zip(attributes, limits, strict=True)]
    stages = tuple(rng.randint(1, 2) for _ in range(rng.randint(1, 2)))
    return State(
        name=name,
        func=Func.INCREMENT,
        attributes=attributes,
        transitions=(
            Transition(names[-1], guards[0]),
            Transition(names[-2], guards[1]),
            Transition(names[-3], ElapsedGuard(timedelta(hours=1), "1h")),
        ),
        slots=SlotRule(stages=stages, written=tuple(map(str, stages))),
    )


def _random_state(rng: random.Random, name: str, names: list[str], machines: int) -> State:
    if rng.random() < 0.08:
        # Left in the moment in which it is entered.
        return State(name=name, func=Func.TIME, transitions=(Transition(names[-1], ElapsedGuard(timedelta(0), "0s")),))
    targets = rng.sample([one for one in names if one != name or rng.random() < 0.3], k=rng.randint(1, 4))
    if rng.random() < 0.1:
        return State(name=name, func=Func.TIME, transitions=tuple(Transition(one, _clock(rng)) for one in targets))
    keys = rng.choice(
        [["count", "failed"], ["count", "failed"], ["count"], ["failed", "count"], ["count", "x", "failed"]]
    )
    func = rng.choice([Func.INCREMENT, Func.INCREMENT, Func.DECREMENT])
    attributes = tuple(Attribute(key, rng.choice([0, 0, 0, 1, -1])) for key in keys)
    moves = [
        Transition(one, _clock(rng) if rng.random() < 0.25 else _count(rng, attributes, func, machines))
        for one in targets
    ]
    return State(name=name, func=func, attributes=attributes, transitions=tuple(moves), slots=_slots(rng))


def _count(rng: random.Random, attributes: tuple[Attribute, ...], func: Func, machines: int) -> Guard:
    attribute = rng.choice(attributes)
    reached = func.reached_op or Op.GE
    op = reached if rng.random() < 0.6 else rng.choice(list(Op))
    reports = rng.choice([1, 1, 2, 2, 3, machines, machines, machines + 1, 0])
    threshold = attribute.value + (reports if func is Func.INCREMENT else -reports)
    return CountGuard(attribute.key, op, threshold, str(threshold))


def _clock(rng: random.Random) -> Guard:
    if rng.random() < 0.2:
        days = rng.randint(1, 3)
        return ClockGuard(T0 + timedelta(days=days), str(days))
    hours = rng.choice([1, 1, 2, 2, 3])
    return ElapsedGuard(timedelta(hours=hours), f"{hours}h")


def _slots(rng: random.Random) -> SlotRule | None:
    if rng.random() < 0.1:
        return None
    stages = tuple(rng.randint(1, 3) for _ in range(rng.choice([1, 1, 2, 3])))
    lease = rng.choice([None, timedelta(minutes=5)])
    on_expire = OnExpire.HOLD if lease is None else rng.choice([OnExpire.HOLD, OnExpire.FREE])
    return SlotRule(
        stages=stages,
        written=tuple(map(str, stages)),
        lease=lease,
        lease_written=None if lease is None else "5m",
        on_expire=on_expire,
    )
