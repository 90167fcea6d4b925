"""Plays stories: each tale runs over the pure `step` until something differs from what the story expects.

What a story covered is part of the result: the states it entered, and the transitions it took.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from app.core import machine
from app.core.chart import Chart, Transition
from app.core.errors import StateServiceError
from app.core.position import Reason, Release, Step, Verdict
from app.lab.story import (
    ERROR,
    Acting,
    Doing,
    Expecting,
    Listing,
    Passing,
    Saying,
    Spot,
    Story,
    StoryStep,
    Tale,
    Upgrading,
)
from app.lab.world import World

# Reasons with which a report, a claim or a release is accepted.
YES = frozenset({str(Reason.UPDATED), str(Reason.TRANSITIONED), str(Reason.RECORDED), str(Reason.REPLAY)})
# Machines that a message names of those that differ.
MAX_NAMED = 5


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """The first thing in a tale that is not as the story expects it, and its place in the file."""

    line: int
    column: int
    message: str

    def as_json(self) -> dict[str, int | str]:
        """Return the difference as `--json` shows it."""
        return {"line": self.line, "column": self.column, "message": self.message}


@dataclass(frozen=True, slots=True)
class Played:
    """A tale that was played; without a difference all was as expected."""

    name: str
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the tales of a chart did: the states that they entered, and the transitions that they took."""

    chart: Chart
    entered: set[str] = field(default_factory=set)
    taken: set[tuple[str, Transition]] = field(default_factory=set)

    @property
    def states_left(self) -> list[str]:
        """The states that no tale entered, in the order of the chart file."""
        return [name for name in self.chart.states if name not in self.entered]

    @property
    def transitions(self) -> list[tuple[str, Transition]]:
        """Every transition of the chart, with the state that it leaves."""
        return [(state.name, item) for state in self.chart.states.values() for item in state.transitions]

    @property
    def transitions_left(self) -> list[tuple[str, Transition]]:
        """The transitions that no tale took, in the order of the chart file."""
        return [item for item in self.transitions if item not in self.taken]

    def follow(self, world: World) -> None:
        """Take in what happened in one tale."""
        self.entered.add(self.chart.initial)
        self.entered.update(move.to_state for move in world.moves)
        self.taken.update((move.from_state, move.taken) for move in world.moves if move.taken is not None)

    def as_json(self) -> dict[str, Any]:
        """Return the coverage as `--json` shows it."""
        return {
            "states": {name: name in self.entered for name in self.chart.states},
            "transitions": [
                {"from": name, "to": item.target, "when": item.guard.log_text, "taken": (name, item) in self.taken}
                for name, item in self.transitions
            ],
        }

    def as_text(self) -> str:
        """Return the coverage in a few lines for people."""
        states, transitions = len(self.chart.states), len(self.transitions)
        left, untaken = self.states_left, self.transitions_left
        lines = [f"  states entered: {states - len(left)} of {states}" + (f"; not {', '.join(left)}" if left else "")]
        lines.append(
            f"  transitions taken: {transitions - len(untaken)} of {transitions}" + ("; not" if untaken else "")
        )
        lines += [f"    {name} -> {item.target}: {item.guard.text}" for name, item in untaken]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Result:
    """A story file that was played."""

    tales: tuple[Played, ...]
    coverage: Coverage

    @property
    def first_difference(self) -> Difference | None:
        """The difference that comes first in the file; None if there is none."""
        return min((tale.difference for tale in self.tales if tale.difference is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """Return the result as `--json` shows it."""
        return {
            "chart": self.coverage.chart.name,
            "stories": [
                {"name": tale.name, "difference": None if tale.difference is None else tale.difference.as_json()}
                for tale in self.tales
            ],
            "covered": self.coverage.as_json(),
        }


def play(story: Story) -> Result:
    """Play every tale of the story."""
    coverage = Coverage(story.chart)
    return Result(tuple(play_tale(story, tale, coverage) for tale in story.tales), coverage)


def play_tale(story: Story, tale: Tale, coverage: Coverage) -> Played:
    """Play one tale up to its first difference; what it did before that counts as covered."""
    world = World(story.chart, tale.start, story.rosters, story.calendars)
    difference = _find_forbidden(world, tale, 0, tale.spot)
    for step in tale.steps:
        if difference is not None:
            break
        seen = len(world.moves)
        difference = _find_difference(world, step) or _find_forbidden(world, tale, seen, step.spot)
    coverage.follow(world)
    return Played(tale.name, difference)


def _find_forbidden(world: World, tale: Tale, seen: int, spot: Spot) -> Difference | None:
    entered = [move.to_state for move in world.moves[seen:]] or [world.position.state]
    for name in entered:
        if name in tale.never:
            return Difference(spot.line, spot.column, f"the chart entered {name!r}, which the story says never happens")
    return None


def _find_difference(world: World, step: StoryStep) -> Difference | None:
    if isinstance(step.doing, Expecting):
        return _compare(world, step.doing)
    try:
        message = _do(world, step.doing, step.answer)
    except StateServiceError as error:
        message = None if step.answer == ERROR else f"{error}"
    else:
        if step.answer == ERROR and message is None:
            message = "it was done, expected an error"
    return None if message is None else Difference(step.spot.line, step.spot.column, message)


def _do(world: World, doing: Doing, answer: str | None) -> str | None:
    """Let something happen; return how its answer differs from the one that is expected."""
    match doing:
        case Passing(span, instant):
            world.pass_until(world.now + span if instant is None else instant)
        case Acting(happening):
            world.do(happening)
        case Upgrading(chart, maps):
            world.upgrade(chart, machine.read_homes(maps, world.chart, chart))
        case Listing(rosters):
            for name, lines in rosters.items():
                world.take_over(name, lines)
        case Saying():
            return _say(world, doing, answer)
    return None


def _say(world: World, saying: Saying, answer: str | None) -> str | None:
    """Let each machine say it; return what is wrong with the answers.

    A yes that is expected is the last machine's, and those before it must hear any yes. A no is every machine's.
    """
    for number, name in enumerate(saying.machines, 1):
        step = _say_one(world, saying, name)
        found, is_last = str(step.reason), number == len(saying.machines)
        is_any_yes = answer is None or (answer in YES and not is_last)
        if step.verdict is Verdict.ACCEPTED if is_any_yes else found == answer:
            continue
        wanted = "a yes" if is_any_yes else answer
        return f"{name or 'the machine'} was answered {found}, expected {wanted}"
    return None


def _say_one(world: World, saying: Saying, name: str | None) -> Step:
    state = saying.state if saying.state is not None else world.position.state
    if saying.verb == "release":
        return world.do(Release(state, name or ""))
    if saying.verb == "claim":
        return world.claim(state, name or "", again=saying.again)
    if saying.verb == "work" and state in world.chart.states and world.chart.states[state].slots is not None:
        claimed = world.claim(state, name or "", again=saying.again)
        if claimed.verdict is not Verdict.ACCEPTED:
            return claimed
    return world.put(state, name, saying.key, saying.idempotency_key)


def _compare(world: World, expecting: Expecting) -> Difference | None:
    for word, (spot, wanted) in expecting.wanted.items():
        message = _find_unlike(world, word, wanted)
        if message is not None:
            return Difference(spot.line, spot.column, message)
    return None


def _find_unlike(world: World, word: str, wanted: object) -> str | None:
    """Return how the chart differs from what is wanted of `word`."""
    here = world.position
    if word == "values" and isinstance(wanted, dict):
        unlike = [
            f"{key} is {here.values.get(key, 'no attribute here')}, expected {number}"
            for key, number in wanted.items()
            if here.values.get(key) != number
        ]
        return "; ".join(unlike) or None
    if word == "held" and isinstance(wanted, frozenset):
        return (
            None if wanted == set(here.slots) else f"slots are held by {_names(here.slots)}, expected {_names(wanted)}"
        )
    found: object = {
        "state": here.state,
        "visit": here.visit,
        "run": here.run,
        "version": here.version,
        "paused": here.is_paused,
        "held": len(here.slots),
        "machines": world.chart.count_expected(here),
    }[word]
    return None if found == wanted else f"{word} is {found}, expected {wanted}"


def _names(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - MAX_NAMED} more" if len(shown) > MAX_NAMED else ""
    return (", ".join(shown[:MAX_NAMED]) + more) or "no machine"
