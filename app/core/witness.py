"""Stories that show what a proof found: who claims a slot, who reports what, and when the clock goes on.

`Stage` builds the acts of one visit from a `Peak`; `play` lets a chart go through acts by the same `step` that serves
machines, so no finding is shown that did not happen; `write_story` is the text that `chart test` plays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from app.core import machine
from app.core.chart import FAILED_KEY, Chart, ClockGuard, ElapsedGuard
from app.core.counts import Counts, Peak
from app.core.errors import StateServiceError
from app.core.memory import Lists, Memory
from app.core.position import Claim, Position, Report, Step, Tick, Update, Verdict

# When a story begins: the same instant as in `chart test`.
BEGINNING = datetime(2030, 1, 7, 12, 0, tzinfo=UTC)
# What happens in the last moment before a deadline happens so long before it.
MOMENT = timedelta(seconds=1)
# A story of more acts than this is not written: no person reads it, and to play it takes too long.
MAX_ACTS = 30_000
NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>[0-9]+)")
# Scalars that YAML reads as they are, in a flow mapping too.
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")
TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]*[A-Za-z]")
NOT_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


class StoryTooLongError(StateServiceError):
    """The story would have too many acts to be written."""


@dataclass(frozen=True, slots=True)
class Said:
    """A machine claims a slot (`verb` is `claim`), or reports on `key` (`put`).

    `again` is the claim of a machine that was counted on the first attribute before.
    """

    verb: str
    machine: str
    key: str | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Waited:
    """Time passes: for `span`, or until `instant` if that is given."""

    span: timedelta = timedelta(0)
    instant: datetime | None = None


Act = Said | Waited


@dataclass(frozen=True, slots=True)
class Story:
    """Acts, and when they begin."""

    acts: tuple[Act, ...]
    start: datetime = BEGINNING

    def late(self) -> Story:
        """Return the story with a start from which the first instant that it waits for is a moment away."""
        past = timedelta(0)
        for act in self.acts:
            if isinstance(act, Waited) and act.instant is not None:
                return replace(self, start=act.instant - past - MOMENT)
            past += act.span if isinstance(act, Waited) else timedelta(0)
        return self


@dataclass(slots=True, kw_only=True)
class Stage:
    """One visit while its acts are written down: which machines are fresh, have reported, or hold a slot."""

    counts: Counts
    name_of: Callable[[int], str]
    # The machines that are counted on entry, on the first attribute.
    included: Sequence[str] = ()
    used: int = 0
    standing: dict[str, list[str]] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)

    def write(self, peak: Peak) -> list[Act]:
        """Return the acts that lead to the peak and, by the transition `peak.move`, out of the visit."""
        self.standing = {key: [] for key in self.counts.keys}
        if self.included:
            # A state that counts no machine, such as a `time` state, has no attributes.
            self.standing[self.counts.keys[0]] += self.included
        if sum(peak.size) > MAX_ACTS:
            raise StoryTooLongError(f"its story would have over {MAX_ACTS} acts")
        if self.counts.state.slots is None:
            self._write_without_slots(peak)
        else:
            self._write_with_slots(peak)
        return self._with_clock(peak)

    def _with_clock(self, peak: Peak) -> list[Act]:
        guard = self.counts.state.transitions[peak.move].guard if peak.move >= 0 else None
        match guard:
            case ElapsedGuard(age=age) if self.acts:
                early = max(age - MOMENT, timedelta(0))
                return [Waited(early), *self.acts, Waited(age - early)]
            case ElapsedGuard(age=age):
                return [Waited(age)]
            case ClockGuard(instant=instant) if self.acts:
                return [Waited(instant=instant - MOMENT), *self.acts, Waited(instant=instant)]
            case ClockGuard(instant=instant):
                return [Waited(instant=instant)]
        return self.acts

    def _write_without_slots(self, peak: Peak) -> None:
        for key in self._in_order(peak.counts):
            for _ in range(peak.counts[key] - len(self.standing[key])):
                self._put(self._take_fresh(), key)
        if peak.exit is not None:
            gone = peak.exit.moved_from
            self._put(self._take_fresh() if gone is None else self.standing[gone].pop(), peak.exit.key)

    def _write_with_slots(self, peak: Peak) -> None:
        first = self.counts.keys[0]
        away = peak.counts[first] - peak.leftover_from
        before = {**peak.counts, first: peak.leftover_from}
        falls = self._list_falls(before, -away) if away < 0 else []
        for key in falls:
            before[key] -= 1
        for key in self._in_order(before):
            self._report(key, max(before[key] - len(self.standing[key]), 0))
        held = peak.held - (peak.exit is not None)
        # The holders that report next, the one that ends the visit, and those that still work then.
        rising = [self._take_fresh() for _ in range(max(away, 0))]
        falling = [self.standing[first].pop() for _ in falls]
        last = self._find_last(peak, falling)
        working = [] if held <= 0 else self._find_holders(held)
        self._claim([*rising, *falling, *([] if last is None else [last]), *working], done=falling)
        for name in rising:
            self._put(name, first)
        for name, key in zip(falling, falls, strict=True):
            self._put(name, key)
        if peak.exit is not None and last is not None:
            self._put(last, peak.exit.key)

    def _find_last(self, peak: Peak, falling: list[str]) -> str | None:
        if peak.exit is None:
            return None
        gone = peak.exit.moved_from
        if gone is None:
            return self._take_fresh()
        if not self.standing[gone] and falling:
            return None
        return self.standing[gone].pop()

    def _list_falls(self, before: dict[str, int], number: int) -> list[str]:
        """Return the attributes to which `number` machines move that were counted on the first one."""
        keys = sorted(self.counts.keys[1:], key=lambda key: key != FAILED_KEY)
        return [key for key in keys for _ in range(before[key])][:number]

    def _in_order(self, counts: dict[str, int]) -> list[str]:
        """Return the attributes; one whose guard holds from the start comes first, since its report ends that."""
        return sorted(counts, key=lambda key: self.counts.find_move(key, 0) is None)

    def _report(self, key: str, number: int) -> None:
        """Let `number` fresh machines claim and report on `key`, as many at a time as there are slots."""
        rule, first = self.counts.state.slots, self.counts.keys[0]
        assert rule is not None
        while number:
            batch = [self._take_fresh() for _ in range(min(number, rule.limit(len(self.standing[first]))))]
            self._claim(batch)
            for name in batch:
                self._put(name, key)
            number -= len(batch)

    def _find_holders(self, number: int) -> list[str]:
        """Return machines that hold a slot at the end: fresh ones first, failed ones last."""
        first = self.counts.keys[0]
        fresh = [self._take_fresh() for _ in range(min(number, self.counts.machines - self.used))]
        ranks = {FAILED_KEY: 2, first: 1}
        keys = sorted(self.counts.keys, key=lambda key: ranks.get(key, 0))
        return [*fresh, *(name for key in keys for name in self.standing[key])][:number]

    def _take_fresh(self) -> str:
        self.used += 1
        return self.name_of(self.used - 1)

    def _claim(self, names: Iterable[str], done: Iterable[str] = ()) -> None:
        counted = {*done, *self.standing[self.counts.keys[0]]}
        self.acts += [Said("claim", name, again=name in counted) for name in names]

    def _put(self, name: str, key: str) -> None:
        self.acts.append(Said("put", name, key))
        self.standing[key].append(name)


@dataclass(slots=True, kw_only=True)
class Course:
    """A chart that goes through acts: where it stands, who reported, and who was given a slot in this run."""

    chart: Chart
    now: datetime
    position: Position
    memory: Memory = field(default_factory=lambda: Memory({}))
    reports: dict[str, Report] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    # What the visit that ended last left behind: the machines that were down then.
    left_down: int = 0
    entered: set[str] = field(default_factory=set)

    def find_down(self, has_left: bool) -> int:
        """Return how many machines are down, or were when the visit that ended last was left."""
        return self.left_down if has_left else len(self.down)

    @property
    def down(self) -> set[str]:
        """The machines that hold a slot or whose report stands on `failed`."""
        failed = {name for name, report in self.reports.items() if report.key == FAILED_KEY}
        return failed | set(self.position.slots)

    def do(self, act: Act) -> Step:
        """Let one act happen."""
        match act:
            case Waited(span, instant):
                self.now = max(self.now, self.now + span if instant is None else instant)
                return self._take(Tick())
            case Said("claim", name):
                claim = Claim(self.position.state, name, again=act.again, report=self.reports.get(name))
                step = self._take(claim)
                if step.verdict is Verdict.ACCEPTED:
                    self.begun.add(name)
                return step
            case Said(_, name, key):
                report = self.reports.get(name)
                state = self.position.state
                return self._take(Update(state=state, machine=name, key=key, report=report, was_entered=True), name)

    def _take(self, happening: Tick | Claim | Update, machine_id: str | None = None) -> Step:
        before = self.position
        step = machine.step(self.chart, self._with_holders(), happening, self.now, self.memory)
        self.memory.take(step)
        down = {name for name in self.down if name != machine_id} if step.visits else set()
        for report in step.reports:
            if report.visit == before.visit:
                self.reports[report.machine] = report
        self.entered.update(visit.state for visit in step.visits)
        if step.position.visit != before.visit:
            failed = {name for name, report in self.reports.items() if report.key == FAILED_KEY}
            if self.chart.states[before.state].is_counting:
                self.left_down = len((down & set(before.slots)) | failed)
            self.reports = {report.machine: report for report in step.reports if report.visit == step.position.visit}
        self.position = step.position
        return step

    def _with_holders(self) -> Position:
        held = {name: self.reports[name].key for name in self.position.slots if name in self.reports}
        return replace(self.position, holder_reports=held)


def begin(chart: Chart, start: datetime = BEGINNING, rosters: Lists | None = None) -> Course:
    """Return the chart at the beginning of a story."""
    memory = Memory(rosters or {})
    step = machine.start(chart, 1, 1, start, rosters=memory.newest, known=memory)
    memory.take(step)
    return Course(
        chart=chart,
        now=start,
        position=step.position,
        memory=memory,
        entered={visit.state for visit in step.visits},
        reports={report.machine: report for report in step.reports if report.visit == step.position.visit},
    )


def play(chart: Chart, story: Story, rosters: Lists | None = None) -> Course | None:
    """Return the chart after the story; None if one of its acts is refused."""
    course = begin(chart, story.start, rosters)
    for act in story.acts:
        try:
            step = course.do(act)
        except StateServiceError:
            return None
        if step.verdict is Verdict.REFUSED:
            return None
    return course


def write_file(file: str, tales: str) -> str:
    """Return the story file about the chart in `file` with these tales."""
    name = file if PLAIN_PATH.fullmatch(file) else _word(file)
    return f"chart: {name}\nstory:\n{tales}" if tales else f"chart: {name}\nstory: []\n"


def write_tale(chart: Chart, name: str, story: Story, expect: str, rosters: Lists | None = None) -> str:
    """Return the story as an item of a story file, which `chart test` plays.

    Acts alike of machines with rising numbers are one step. What is true before the last act is expected there.
    """
    lines = [f"  - name: {name if TITLE.fullmatch(name) else _word(name)}"]
    if story.start != BEGINNING:
        lines.append(f"    start: {_instant(story.start)}")
    lines.append("    steps:" if story.acts else f"    steps: [expect: {{state: {_word(expect)}}}]")
    if not story.acts:
        return "\n".join(lines) + "\n"
    lines += _write_acts(story.acts[:-1])
    before = play(chart, replace(story, acts=story.acts[:-1]), rosters)
    assert before is not None, "a story is played before it is written"
    here = before.position
    if here.values and len(story.acts) > 1:
        values = ", ".join(f"{_word(key)}: {value}" for key, value in here.values.items())
        held = f", held: {len(here.slots)}" if chart.states[here.state].slots is not None else ""
        lines.append(f"      - expect: {{state: {_word(here.state)}, values: {{{values}}}{held}}}")
    lines += _write_acts(story.acts[-1:])
    lines.append(f"      - expect: {{state: {_word(expect)}}}")
    return "\n".join(lines) + "\n"


def _write_acts(acts: Sequence[Act]) -> Iterator[str]:
    for verb, key, is_again, names in _gather(acts):
        if isinstance(names, Waited):
            at = names.instant
            yield f"      - pass: {_age(names.span)}" if at is None else f"      - at: {_instant(at)}"
            continue
        more = (f", key: {_word(key)}" if key is not None else "") + (", again: true" if is_again else "")
        yield f"      - {verb}: {{machine: {_word(names)}{more}}}"


def _gather(acts: Sequence[Act]) -> Iterator[tuple[str, str | None, bool, str | Waited]]:
    """Yield each act, or a range of machines that do the same one after another."""
    number = 0
    while number < len(acts):
        act = acts[number]
        number += 1
        if isinstance(act, Waited):
            yield "pass", None, False, act
            continue
        last = act
        while number < len(acts) and _follows(last, acts[number]):
            following = acts[number]
            assert isinstance(following, Said)
            last, number = following, number + 1
        names = act.machine if last is act else f"{act.machine}..{last.machine}"
        yield act.verb, act.key, act.again, names


def _follows(one: Said, other: Act) -> bool:
    if not isinstance(other, Said) or replace(other, machine=one.machine) != one:
        return False
    before, after = NUMBERED.fullmatch(one.machine), NUMBERED.fullmatch(other.machine)
    if before is None or after is None or before["stem"] != after["stem"]:
        return False
    width = len(before["number"])
    return after["number"] == str(int(before["number"]) + 1).zfill(width)


def _word(text: str) -> str:
    if PLAIN.fullmatch(text) and text.lower() not in NOT_TEXT and ".." not in text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _instant(at: datetime) -> str:
    return _word(at.isoformat().replace("+00:00", "Z"))


def _age(span: timedelta) -> str:
    """Return a length of time as a chart file writes it."""
    seconds = span.total_seconds()
    if seconds != int(seconds):
        return f"PT{seconds:.6f}S"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{int(seconds) // size}{unit}"
    return f"{int(seconds)}s"
