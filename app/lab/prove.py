"""What `chart prove` prints: the most machines that are down and have begun at each ending, and what may go wrong.

`app.core.proof` finds the numbers; here they become findings, each with a story that was played before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app.core.chart import FAILED_KEY, Chart, OnExpire, State, Transition
from app.core.counts import BUDGET, UNLIMITED, Budget, Counts, Exit, Peak
from app.core.errors import BadRequestError
from app.core.memory import Lists, find_uncovered
from app.core.proof import Bound, Leg, Measure, Proof, list_clock_moves
from app.core.telling import show, show_most
from app.core.witness import write_file, write_tale

ASSUMES = (
    "as many machines take part as expected, and each has one id",
    "any deadline may pass at any moment, and any machine may claim, report, fail or fall silent",
    "no operator pauses, resets, evicts or upgrades, and no roster changes",
)
# Combinations of counts that a proof may look at if the size of a set differs from run to run.
MANY_SIZES = 20_000_000
# A story of more lines is cut in the text for people; --json and --stories have the whole story.
MAX_LINES = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most machines of a measure at an ending; None if nothing limits them. `story` shows it happen."""

    most: int | None
    because: str
    story: str | None
    with_releases: int | None = None
    # How many machines the story shows, if no story was found for the most.
    shown: int | None = None

    def as_json(self, file: str) -> dict[str, Any]:
        """Return the limit as `--json` shows it; its story is about the chart in `file`."""
        releases = {} if self.with_releases is None else {"most_with_releases": self.with_releases}
        return {
            "most": self.most,
            "unbounded": self.most is None,
            **releases,
            "because": self.because or None,
            **({} if self.shown is None else {"shown": self.shown}),
            "story": _as_file(self.story, file),
        }

    def as_text(self, machines: int) -> str:
        """Return the limit in a line for people."""
        if self.most is None:
            return f"unbounded: {self.because}"
        of = "" if machines >= UNLIMITED else f" of {machines}"
        releases = ""
        if self.with_releases is not None and self.with_releases > self.most:
            releases = f" ({self.with_releases}, if machines give slots back without a report)"
        shown = "" if self.shown is None else f"; the story that was found shows {self.shown}"
        return f"at most {self.most}{of}{releases}{shown}"


@dataclass(frozen=True, slots=True)
class Ending:
    """What is proved about one final state."""

    name: str
    down: Limit
    begun: Limit


@dataclass(frozen=True, slots=True)
class Within:
    """What is proved about every moment of a visit of one state; `begun` counts those that began in this visit."""

    state: str
    down: Bound
    begun: Bound

    def as_json(self) -> dict[str, Any]:
        """Return it as `--json` shows it."""
        bounds = {"down": self.down, "begun": self.begun}
        return {
            "state": self.state,
            **{
                word: {"most": bound.most, "unbounded": bound.most is None, "because": bound.because or None}
                for word, bound in bounds.items()
            },
        }

    def as_text(self) -> str:
        """Return it in a line for people."""
        if self.down.most is None or self.begun.most is None:
            return f"{self.state}: unbounded: {self.down.because or self.begun.because}"
        return f"{self.state}: at most {self.down.most} down, {self.begun.most} begun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that goes wrong for good in a state: `kind` is `stuck`, `lasting` or `never`."""

    kind: str
    state: str
    because: str
    story: str | None = None
    endings: tuple[str, ...] = ()
    transition: Transition | None = None

    def as_json(self, file: str) -> dict[str, Any]:
        """Return the finding as `--json` shows it; its story is about the chart in `file`."""
        found: dict[str, Any] = {"state": self.state, "because": self.because}
        if self.transition is not None:
            found |= {"to": self.transition.target, "when": self.transition.guard.log_text}
        if self.kind == "lasting":
            found["endings"] = list(self.endings)
        return found if self.kind == "never" else {**found, "story": _as_file(self.story, file)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """Everything that was proved about a chart."""

    chart: Chart
    machines: int
    endings: tuple[Ending, ...]
    within: tuple[Within, ...]
    findings: tuple[Finding, ...]

    @property
    def most_down(self) -> int | None:
        """The most machines down at any ending; None if nothing limits them."""
        most = [ending.down.most for ending in self.endings]
        known = [number for number in most if number is not None]
        return max(known, default=0) if len(known) == len(most) else None

    def list_findings(self, kind: str) -> list[Finding]:
        """Return the findings of one kind, in the order of the chart file."""
        return [finding for finding in self.findings if finding.kind == kind]

    def as_json(self, file: str) -> dict[str, Any]:
        """Return everything as `--json` shows it; each story is a story file about the chart in `file`."""
        return {
            "chart": self.chart.name,
            "machines": None if self.machines >= UNLIMITED else self.machines,
            "down": self.most_down,
            "endings": [
                {"ending": item.name, "down": item.down.as_json(file), "begun": item.begun.as_json(file)}
                for item in self.endings
            ],
            "within": [item.as_json() for item in self.within],
            "lasting": [finding.as_json(file) for finding in self.list_findings("lasting")],
            "stuck": [finding.as_json(file) for finding in self.list_findings("stuck")],
            "never": [finding.as_json(file) for finding in self.list_findings("never")],
            "assumes": list(ASSUMES),
        }

    def as_text(self, *, with_stories: bool = True) -> str:
        """Return everything for people to read."""
        of = "any number of" if self.machines >= UNLIMITED else str(self.machines)
        lines = [f"{self.chart.name}, {of} machines"]
        for item in self.endings:
            lines += ["", f"{item.name}", f"  down:  {item.down.as_text(self.machines)}"]
            lines += _indent(item.down.story) if with_stories else []
            lines.append(f"  begun: {item.begun.as_text(self.machines)}")
            lines += _indent(item.begun.story) if with_stories else []
        if self.within:
            lines += ["", "While a state is current:", *(f"  {item.as_text()}" for item in self.within)]
        headings = {
            "lasting": "If failures last",
            "stuck": "Stuck for ever",
            "never": "Never taken",
        }
        for kind, heading in headings.items():
            found = self.list_findings(kind)
            lines += ["", heading + (":" if found else ": nothing")]
            for finding in found:
                lines += [f"  {finding.because}", *(_indent(finding.story) if with_stories else [])]
        return "\n".join([*lines, "", "Assumed:", *(f"  {text}" for text in ASSUMES)]) + "\n"

    def as_stories(self, file: str) -> str:
        """Return the story file with every story once; `file` is the chart's path from there."""
        told = [limit.story for item in self.endings for limit in (item.down, item.begun)]
        told += [finding.story for finding in self.findings]
        stories = dict.fromkeys(story for story in told if story is not None)
        return _as_file("".join(stories), file) or ""


def _as_file(stories: str | None, file: str) -> str | None:
    return None if stories is None else write_file(file, stories)


def _indent(story: str | None) -> list[str]:
    lines = [] if story is None else story.splitlines()
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"    ... {len(lines) - MAX_LINES + 1} more lines"]
    return [f"  {line}" for line in lines]


def prove(chart: Chart, machines: int, rosters: Lists | None = None) -> Proved:
    """Prove what can be proved about the chart if `machines` take part. Raises TooManyCountsError, BadRequestError.

    `rosters` has the lines of each roster that the chart goes by.
    """
    uncovered = find_uncovered(chart, rosters)
    if uncovered is not None:
        raise BadRequestError(f"no proof covers chart {chart.name!r}: it {uncovered}")
    budget = Budget(MANY_SIZES if chart.looks_up else BUDGET)
    proof = Proof(chart, machines, budget, rosters)
    endings = tuple(
        Ending(name, _limit(proof, Measure.DOWN, name), _limit(proof, Measure.BEGUN, name))
        for name in proof.list_endings()
    )
    within = tuple(
        Within(
            state.name,
            proof.find_bound_within(Measure.DOWN, state.name),
            proof.find_bound_within(Measure.BEGUN, state.name),
        )
        for state in _counting(proof)
    )
    findings = [*_find_lasting(proof), *_find_stuck(proof), *_find_never(proof)]
    return Proved(chart=chart, machines=machines, endings=endings, within=within, findings=tuple(findings))


def _limit(proof: Proof, measure: Measure, name: str) -> Limit:
    bound = proof.find_bound(measure, name)
    told, shown = (None, 0) if not bound.most else show_most(proof, bound.legs, measure, bound.most)
    verbs = ("is down", "are down") if measure is Measure.DOWN else ("has begun", "have begun")
    title = f"{_machines(shown)} {verbs[shown != 1]} when {name} is reached"
    because = bound.because
    if bound.most and shown < bound.most:
        because = "no story was found that shows so many: it would be too long, or a deadline or a group comes before"
    return Limit(
        most=bound.most,
        because=because,
        story=None if told is None else write_tale(proof.chart, title, told, name, proof.crowd.rosters),
        with_releases=bound.with_releases,
        shown=shown if told is not None and shown != bound.most else None,
    )


def _machines(number: int) -> str:
    return f"{number} machine{'' if number == 1 else 's'}"


# What goes wrong for good


def _counting(proof: Proof) -> Iterator[State]:
    states = (state for state in proof.chart.states.values() if state.name in proof.shortest)
    return (state for state in states if state.is_for_machines)


def _find_lasting(proof: Proof) -> Iterator[Finding]:
    """Yield what can still be reached if some machines fail for good, for each number that makes a difference."""
    for state in _counting(proof):
        counts = proof.counts[state.name]
        most = counts.find_most(FAILED_KEY)
        if most < 1 or state.default_key == FAILED_KEY:
            continue
        last = {move: _most_failures(counts, move) for move in proof.moves[state.name]}
        breaks = sorted({number + 1 for number in last.values() if number is not None and number < most})
        for number, start in enumerate(breaks):
            stop = breaks[number + 1] - 1 if number + 1 < len(breaks) else most
            left = [move for move, failures in last.items() if failures is None or failures >= start]
            if start >= 1:
                yield _describe_lasting(proof, state, left, start, stop)


def _most_failures(counts: Counts, move: int) -> int | None:
    """Return how many machines may fail for good so that the transition can still be taken without them.

    None for any number, -1 if only a failure takes it.
    """
    if counts.state.transitions[move].guard.is_clock:
        return None
    ends = [end for end in counts.exits if end.move == move and FAILED_KEY not in (end.key, end.moved_from)]
    return max((counts.find_spare(end, FAILED_KEY) for end in ends), default=-1)


def _describe_lasting(proof: Proof, state: State, left: list[int], start: int, stop: int) -> Finding:
    number = f"{start} lasting failure" + ("s" if start > 1 else "") if start == stop else _range(start, stop)
    endings = _list_endings_after(proof, state, left)
    if endings:
        because = f"with {number} in {state.name} it can only end {' or '.join(endings)}"
    else:
        because = f"with {number} in {state.name} it never leaves {state.name}"
    story = _tell_failures(proof, state, start)
    kind = "lasting" if endings else "stuck"
    return Finding(kind=kind, state=state.name, because=because, story=story, endings=tuple(endings))


def _range(start: int, stop: int) -> str:
    return f"{start} {'or' if stop == start + 1 else 'to'} {stop} lasting failures"


def _list_endings_after(proof: Proof, state: State, moves: Iterable[int]) -> list[str]:
    """Return the endings to which the transitions of the state lead, in the order of the chart file."""
    ahead = [state.transitions[move].target for move in moves]
    found: set[str] = set()
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += [proof.chart.states[name].transitions[move].target for move in proof.moves.get(name, ())]
    return [name for name, one in proof.chart.states.items() if one.is_final and name in found]


def _tell_failures(proof: Proof, state: State, number: int) -> str | None:
    """Return the story in which `number` machines fail, and all others succeed as far as the visit lasts."""
    counts = proof.counts[state.name]
    first = state.default_key or ""
    others = min(counts.find_most(first), counts.machines - number)
    after = {**dict.fromkeys(counts.keys, 0), FAILED_KEY: number, first: others}
    peak = Peak(value=0, counts=after, held=0, leftover_from=others, move=-1, exit=None)
    story = show(proof, (*proof.way_to(state.name), Leg(state.name, peak)))
    title = f"{_machines(number)} {'fails' if number == 1 else 'fail'} for good in {state.name}"
    return None if story is None else write_tale(proof.chart, title, story, state.name, proof.crowd.rosters)


def _find_stuck(proof: Proof) -> Iterator[Finding]:
    """Yield the states that may never be left, and how that happens."""
    for state in _counting(proof):
        clock, _ = list_clock_moves(state)
        if clock:
            continue
        way = proof.way_to(state.name)
        slots = state.slots
        if not proof.moves[state.name]:
            because = f"no transition of {state.name} can be taken, whatever {_say_machines(proof)} report"
            peak = None
        elif slots is not None and (slots.lease is None or slots.on_expire is OnExpire.HOLD):
            most = proof.crowd.find_most_down(state.name)
            held = min(slots.limit(0), proof.machines if most is None else most)
            verb = "comes" if held == 1 else "come"
            because = (
                f"{state.name} is never left if the {_say_first(held)} never {verb} back: nothing frees a held slot"
            )
            none = dict.fromkeys(proof.counts[state.name].keys, 0)
            peak = Peak(value=0, counts=none, held=held, leftover_from=0, move=-1, exit=None)
        else:
            needed = min(sum(peak.counts.values()) + 1 for peak in proof.moves[state.name].values())
            because = f"{state.name} is never left if fewer than {needed} machines report: the clock does not end it"
            peak = None
        story = show(proof, way if peak is None else (*way, Leg(state.name, peak)))
        told = (
            None
            if story is None
            else write_tale(proof.chart, f"{state.name} is never left", story, state.name, proof.crowd.rosters)
        )
        yield Finding(kind="stuck", state=state.name, because=because, story=told)


def _say_first(number: int) -> str:
    return "machine with its first slot" if number == 1 else f"{number} machines with its first slots"


def _say_machines(proof: Proof) -> str:
    return "the machines" if proof.machines >= UNLIMITED else f"the {proof.machines} machines"


def _find_never(proof: Proof) -> Iterator[Finding]:
    """Yield the states that are never entered and the transitions that are never taken, and why."""
    for state in proof.chart.states.values():
        if state.name not in proof.shortest:
            yield Finding(kind="never", state=state.name, because=f"{state.name} is never entered")
            continue
        for number, item in enumerate(state.transitions):
            if number not in proof.moves[state.name]:
                because = f"{state.name} -> {item.target} ({item.guard.text}): {_say_why(proof, state, number)}"
                yield Finding(kind="never", state=state.name, because=because, transition=item)


def _say_why(proof: Proof, state: State, number: int) -> str:
    guard = state.transitions[number].guard
    if list_clock_moves(state)[1]:
        return "the state is left in the moment in which it is entered"
    if guard.is_clock:
        return "a deadline that is listed before it always comes first"
    counts = proof.counts[state.name]
    ends = [end for end in counts.exits if end.move == number]
    if ends:
        needed = min(_count_needed(end) for end in ends)
        return f"it needs {needed} machines, and {proof.population(state)} take part"
    other = next((end.move for end in counts.exits if end.key == guard.key), None)
    if other is None:
        return "no count of reports makes its guard hold"
    nearer = state.transitions[other]
    return f"{nearer.guard.text} ends the visit before, and leads to {nearer.target}"


def _count_needed(end: Exit) -> int:
    return sum(track.low for track in end.tracks) + (end.moved_from is None)
