"""Reads stories: what happens to a chart, step by step, and what is expected of it.

A story file is YAML, read with the same care as a chart file: every problem is reported with its line and column.
`app.lab.play` plays what is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from app.chart_file import parse
from app.chart_file.fields import (
    ScalarError,
    expect_type,
    list_nodes,
    read_map,
    read_scalar,
    to_age,
    to_boolean,
    to_count,
    to_instant,
    to_integer,
    to_machine_id,
    to_name,
)
from app.chart_file.nodes import ListNode, MapNode, Node, Place, Problems, ScalarNode, decode, quote, read_nodes
from app.chart_file.rosters import parse_labels
from app.chart_file.windows import ParsedCalendar, parse_calendar
from app.core.chart import Chart
from app.core.errors import BadRequestError, ChartFileError
from app.core.expect import Labels
from app.core.memory import Lists
from app.core.position import Archive, Evict, Goto, Happening, Open, Pause, Reason, Reset, Resume
from app.core.window import HORIZON, Interval
from app.lab.world import Calendars, need_rosters

# When a story begins if it does not say so: a Monday at noon.
BEGINNING = datetime(2030, 1, 7, 12, 0, tzinfo=UTC)
# Machines that one step may name, as in `machine: web-0001..web-5000`.
MAX_MACHINES = 100_000
RANGE = re.compile(r"(?P<prefix>.*?)(?P<first>[0-9]+)\.\.(?P=prefix)(?P<last>[0-9]+)")
# The answer to expect of something that is an error rather than a refusal, such as a 400 or a 409.
ERROR = "error"

ROOT_KEYS = ("chart", "rosters", "calendars", "machines", "start", "story", "never")
TALE_KEYS = ("name", "start", "steps", "never")
# What machines say, and what a step may say about it.
SAYINGS = {
    "put": ("machine", "state", "key", "idempotency_key"),
    "claim": ("machine", "state", "again"),
    "release": ("machine", "state"),
    "work": ("machine", "state", "key", "again"),
}
ACTS = ("pause", "resume", "reset", "goto", "archive", "evict", "open")
VERBS = (*SAYINGS, "pass", "at", *ACTS, "upgrade", "roster", "expect")
EXPECTED_KEYS = ("state", "values", "visit", "run", "version", "paused", "held", "machines")
ANSWERS = (*(str(reason) for reason in Reason), ERROR)
# Answers that a story may want from a state that its chart does not have.
ABOUT_NO_STATE = (str(Reason.UNKNOWN_STATE), ERROR)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in the story file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """Machines put, claim or release, one after another; a None in `machines` is a machine without an id.

    To `work` is to claim a slot, if the state has slots, and to put. `again` asks for a slot after the work was done.
    A `state` that is None stands for the current one.
    """

    verb: str
    machines: tuple[str | None, ...]
    state: str | None = None
    key: str | None = None
    idempotency_key: str | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Passing:
    """Time passes: for the length `span`, or until `instant` if that is given."""

    span: timedelta = timedelta(0)
    instant: datetime | None = None


@dataclass(frozen=True, slots=True)
class Acting:
    """An operator acts."""

    happening: Happening


@dataclass(frozen=True, slots=True)
class Upgrading:
    """Another version takes over; `maps` are texts `old:new`, the new home of each state that it lacks."""

    chart: Chart
    maps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """Other lines of rosters are imported."""

    rosters: Lists


@dataclass(frozen=True, slots=True)
class Expecting:
    """What is expected: for each word of `EXPECTED_KEYS` that the story names, its value and its place."""

    wanted: Mapping[str, tuple[Spot, object]]


Doing = Saying | Passing | Acting | Upgrading | Listing | Expecting


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One step of a tale; `answer` is the reason that is wanted, or `error`, and None stands for any yes."""

    spot: Spot
    doing: Doing
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Tale:
    """One course of events, from the chart's import at `start` on; the states `never` must not be entered."""

    spot: Spot
    name: str
    start: datetime
    steps: tuple[StoryStep, ...]
    never: frozenset[str]


@dataclass(frozen=True, slots=True)
class Story:
    """A story file: a chart, the rosters and calendars by which it goes, and tales about it."""

    chart: Chart
    tales: tuple[Tale, ...]
    rosters: Lists = field(default_factory=dict)
    calendars: Calendars = field(default_factory=dict)


# Returns the content of a file that a story names. Raises OSError.
Load = Callable[[str], bytes]


def read_story(
    text: str | bytes, load: Load, rosters: Lists | None = None, calendars: Calendars | None = None
) -> Story:
    """Return the story in `text`; `load` reads the files that it names.

    `rosters` and `calendars` are in the place of the story's own.

    Raises ChartFileError with every problem of the story, also if a chart file that it names has problems.
    """
    problems = Problems()
    decoded = decode(text, problems)
    root = None if decoded is None else read_nodes(decoded, problems)
    story = None if root is None else _Reader(problems, load, rosters or {}, calendars or {}).read(root)
    if story is None or problems:
        raise ChartFileError(problems.in_order())
    return story


class _Reader:
    """Reads a story's nodes; what is wrong with them is noted in `problems`."""

    def __init__(self, problems: Problems, load: Load, rosters: Lists, calendars: Calendars) -> None:
        self._problems = problems
        self._load = load
        self._rosters = rosters
        self._calendars = calendars
        self._machines: tuple[str, ...] = ()
        self._start = BEGINNING
        self._charts: list[Chart] = []

    def read(self, root: Node) -> Story | None:
        """Return the story; None if it cannot be read at all."""
        fields = read_map(root, "a story file", ROOT_KEYS, ("chart", "story"), self._problems)
        if fields is None:
            return None
        chart = self._read_chart(fields.find("chart"), "chart")
        if chart is None:
            return None
        rosters = {**self._read_rosters(fields.find("rosters"), "rosters"), **self._rosters}
        self._check_rosters(fields.find("chart"), chart, rosters)
        calendars = {**self._read_calendars(fields.find("calendars")), **self._calendars}
        self._check_calendars(fields.find("calendars"), chart, calendars)
        self._machines = self._read_machines(fields.find("machines"))
        self._start = self._scalar(fields.find("start"), "start", to_instant) or BEGINNING
        node = fields.find("story")
        if node is not None and not isinstance(node, ListNode):
            expect_type(node, "story", "a list", self._problems)
            return None
        tales = [tale for item in list_nodes(node) if (tale := self._read_tale(item)) is not None]
        if not tales and node is not None:
            self._problems.add(node, "story is an empty list")
        # Read last: by now the states of every version are known.
        never = self._read_states(fields.find("never"), "never")
        return Story(chart, tuple(replace(tale, never=tale.never | never) for tale in tales), rosters, calendars)

    def _read_tale(self, node: Node) -> Tale | None:
        fields = read_map(node, "an entry of story", TALE_KEYS, ("name", "steps"), self._problems)
        if fields is None:
            return None
        name = self._scalar(fields.find("name"), "name", str)
        start = self._scalar(fields.find("start"), "start", to_instant) or self._start
        never = self._read_states(fields.find("never"), "never")
        steps = [self._read_step(item) for item in list_nodes(fields.find("steps"))]
        return Tale(_spot(node), name or "", start, tuple(step for step in steps if step is not None), never)

    def _read_step(self, node: Node) -> StoryStep | None:
        fields = read_map(node, "a step", (*VERBS, "answer"), (), self._problems)
        if fields is None:
            return None
        verbs = [verb for verb in VERBS if verb in fields.entries]
        if len(verbs) != 1:
            found = "none of" if not verbs else f"{' and '.join(verbs)}: a step has one of"
            self._problems.add(node, f"a step says what happens: {found} {', '.join(VERBS)}")
            return None
        answer = self._read_answer(fields.find("answer"))
        doing = self._read_doing(verbs[0], fields.entries[verbs[0]][1], answer)
        if answer is not None and isinstance(doing, Passing | Expecting):
            self._problems.add(node, f"there is no answer to the step {verbs[0]!r}")
        return None if doing is None else StoryStep(_spot(node), doing, answer)

    def _read_answer(self, node: Node | None) -> str | None:
        word = self._scalar(node, "answer", str)
        if word is not None and word not in ANSWERS and node is not None:
            return self._problems.add_unknown(node, "answer", word, ANSWERS)
        return word

    def _read_doing(self, verb: str, node: Node, answer: str | None) -> Doing | None:
        if verb in SAYINGS:
            return self._read_saying(verb, node, answer)
        if verb in ACTS:
            return self._read_act(verb, node, answer)
        if verb == "pass":
            span = self._scalar(node, verb, to_age)
            return None if span is None else Passing(span=span)
        if verb == "at":
            instant = self._scalar(node, verb, to_instant)
            return None if instant is None else Passing(instant=instant)
        if verb == "roster":
            return Listing(self._read_rosters(node, verb))
        return self._read_upgrade(node) if verb == "upgrade" else self._read_expecting(node)

    # What machines say

    def _read_saying(self, verb: str, node: Node, answer: str | None) -> Saying | None:
        required = () if verb == "put" else ("machine",)
        fields = read_map(node, verb, SAYINGS[verb], required, self._problems)
        if fields is None:
            return None
        named = self._read_machines(fields.find("machine"))
        self._check_known(fields.find("machine"), named)
        return Saying(
            verb=verb,
            machines=named or (None,),
            state=self._read_state(fields.find("state"), "state", answer),
            key=self._scalar(fields.find("key"), "key", to_name),
            idempotency_key=self._scalar(fields.find("idempotency_key"), "idempotency_key", str),
            again=self._scalar(fields.find("again"), "again", to_boolean) or False,
        )

    def _read_machines(self, node: Node | None) -> tuple[str, ...]:
        """Return the ids in a value or a list; `web-01..web-20` stands for twenty of them."""
        found: list[str] = []
        for item in list_nodes(node):
            names = self._scalar(item, "machine", _to_machines)
            found += names or ()
        return tuple(found)

    def _check_known(self, node: Node | None, named: tuple[str, ...]) -> None:
        unknown = [name for name in named if self._machines and name not in self._machines]
        if unknown and node is not None:
            self._problems.add_unknown(node, "machine", unknown[0], self._machines)

    # What operators do

    def _read_act(self, verb: str, node: Node, answer: str | None) -> Acting | None:
        other = {"goto": "state", "evict": "machine", "open": "until"}.get(verb)
        if isinstance(node, ScalarNode) and other is None:
            return Acting(_make_act(verb, node.text, ""))
        known = ("reason",) if other is None else (other, "reason")
        fields = read_map(node, verb, known, known, self._problems)
        if fields is None:
            return None
        reason = self._scalar(fields.find("reason"), "reason", str)
        if verb == "open":
            until = self._scalar(fields.find("until"), "until", to_instant)
            return None if until is None or reason is None else Acting(Open(until, reason))
        if verb == "goto":
            what = self._read_state(fields.find("state"), "state", answer)
        else:
            what = self._scalar(fields.find("machine"), "machine", to_machine_id)
        return None if reason is None or (other and what is None) else Acting(_make_act(verb, reason, what or ""))

    def _read_upgrade(self, node: Node) -> Upgrading | None:
        if isinstance(node, ScalarNode):
            chart = self._read_chart(node, "upgrade")
            return None if chart is None else Upgrading(chart)
        fields = read_map(node, "upgrade", ("file", "map"), ("file",), self._problems)
        chart = None if fields is None else self._read_chart(fields.find("file"), "upgrade")
        if fields is None or chart is None:
            return None
        maps = [self._scalar(item, "map", str) for item in list_nodes(fields.find("map"))]
        return Upgrading(chart, tuple(text for text in maps if text is not None))

    def _read_chart(self, node: Node | None, what: str) -> Chart | None:
        """Return the chart in the file that the node names; its problems become the node's."""
        file = self._scalar(node, what, str)
        if file is None or node is None:
            return None
        try:
            stem = re.sub(r"\.ya?ml$", "", file.rpartition("/")[2])
            chart = parse(self._load(file), default_name=stem).chart
        except OSError as error:
            self._problems.add(node, f"{what}: cannot read {quote(file)}: {error.strerror or error}")
            return None
        except ChartFileError as error:
            more = f" (and {len(error.problems) - 1} more problems)" if len(error.problems) > 1 else ""
            self._problems.add(node, f"{what}: {file}:{error.problems[0]}{more}")
            return None
        self._charts.append(chart)
        return chart

    # Rosters

    def _read_rosters(self, node: Node | None, what: str) -> dict[str, Mapping[str, Labels]]:
        """Return the machines of each roster: its value is the name of a file, or, over several lines, the lines."""
        if node is not None and not isinstance(node, MapNode):
            expect_type(node, what, "a mapping from a roster's name to its file or its lines", self._problems)
            return {}
        found: dict[str, Mapping[str, Labels]] = {}
        for name, (_, value) in ({} if node is None else node.entries).items():
            text = self._scalar(value, name, str)
            if text is not None:
                found[name] = self._read_lines(value, name, text)
        return found

    def _read_lines(self, node: Node, name: str, text: str) -> Mapping[str, Labels]:
        """Return the machines in the file `text`, or in `text` itself; problems of the lines become the node's."""
        is_file = "\n" not in text
        try:
            return parse_labels(self._load(text) if is_file else text.encode())
        except OSError as error:
            self._problems.add(node, f"{name}: cannot read {quote(text)}: {error.strerror or error}")
        except ChartFileError as error:
            place = f"{text}:" if is_file else "in its lines, "
            self._problems.add(node, f"{name}: {place}{error.problems[0]}")
        return {}

    def _read_calendars(self, node: Node | None) -> dict[str, ParsedCalendar]:
        """Return each calendar: its value is the name of a file, or, over several lines, the iCalendar text."""
        if node is not None and not isinstance(node, MapNode):
            expect_type(node, "calendars", "a mapping from a calendar's name to its file or its text", self._problems)
            return {}
        found: dict[str, ParsedCalendar] = {}
        for name, (_, value) in ({} if node is None else node.entries).items():
            text = self._scalar(value, name, str)
            calendar = None if text is None else self._read_calendar(value, name, text)
            if calendar is not None:
                found[name] = calendar
        return found

    def _read_calendar(self, node: Node, name: str, text: str) -> ParsedCalendar | None:
        """Return the calendar in the file `text`, or in `text` itself; its problems become the node's."""
        is_file = "\n" not in text
        try:
            return parse_calendar(self._load(text) if is_file else text, Interval(BEGINNING, BEGINNING + HORIZON))
        except OSError as error:
            self._problems.add(node, f"{name}: cannot read {quote(text)}: {error.strerror or error}")
        except ChartFileError as error:
            place = f"{text}:" if is_file else "in its lines, "
            self._problems.add(node, f"{name}: {place}{error.problems[0]}")
        return None

    def _check_calendars(self, node: Node | None, chart: Chart, calendars: Calendars) -> None:
        """Note a calendar that the chart names and that is not among those of the story, if it has any."""
        missing = sorted(chart.calendars - calendars.keys())
        if node is not None and missing:
            self._problems.add(node, f"chart {chart.name!r} names the calendar {missing[0]!r}, which is not given here")

    def _check_rosters(self, node: Node | None, chart: Chart, rosters: Lists) -> None:
        try:
            need_rosters(chart, rosters)
        except BadRequestError as error:
            if node is not None:
                self._problems.add(node, str(error))

    # What is expected

    def _read_expecting(self, node: Node) -> Expecting | None:
        fields = read_map(node, "expect", EXPECTED_KEYS, (), self._problems)
        if fields is None:
            return None
        wanted: dict[str, tuple[Spot, object]] = {}
        for word, (_, value) in fields.entries.items():
            if word in EXPECTED_KEYS:
                found = self._read_wanted(word, value)
                if found is not None:
                    wanted[word] = (_spot(value), found)
        return Expecting(wanted)

    def _read_wanted(self, word: str, node: Node) -> object:
        if word == "state":
            return self._read_state(node, word, None)
        if word == "values":
            return self._read_values(node)
        if word == "held":
            return self._read_held(node)
        return self._scalar(node, word, to_boolean if word == "paused" else to_count)

    def _read_values(self, node: Node) -> dict[str, int] | None:
        if not isinstance(node, MapNode):
            expect_type(node, "values", "a mapping of keys to integers", self._problems)
            return None
        keys = {
            item.key: None for chart in self._charts for state in chart.states.values() for item in state.attributes
        }
        found = {}
        for key, (place, value) in node.entries.items():
            if key not in keys:
                self._problems.add_unknown(place, "key", key, keys)
            number = self._scalar(value, key, to_integer)
            if number is not None:
                found[key] = number
        return found

    def _read_held(self, node: Node) -> int | frozenset[str] | None:
        """Return how many slots are held, or by which machines; a single word that is no number is a machine."""
        if isinstance(node, ScalarNode) and node.text.isdecimal():
            return self._scalar(node, "held", to_integer)
        named = self._read_machines(node)
        self._check_known(node, named)
        return frozenset(named)

    # Names

    def _read_states(self, node: Node | None, what: str) -> frozenset[str]:
        names = [self._read_state(item, what, None) for item in list_nodes(node)]
        return frozenset(name for name in names if name is not None)

    def _read_state(self, node: Node | None, what: str, answer: str | None) -> str | None:
        name = self._scalar(node, what, str)
        known = {state: None for chart in self._charts for state in chart.states}
        if name is None or node is None or name in known or answer in ABOUT_NO_STATE:
            return name
        return self._problems.add_unknown(node, what, name, known)

    def _scalar(self, node: Node | None, what: str, convert: Callable[[str], Value]) -> Value | None:
        return read_scalar(node, what, convert, self._problems)


def _spot(node: Place) -> Spot:
    return Spot(node.line, node.column)


def _make_act(verb: str, reason: str, what: str) -> Happening:
    match verb:
        case "pause":
            return Pause(reason)
        case "resume":
            return Resume(reason)
        case "reset":
            return Reset(reason)
        case "archive":
            return Archive(reason)
        case "goto":
            return Goto(what, reason)
    return Evict(what, reason)


def _to_machines(text: str) -> tuple[str, ...]:
    """Return the machine's id, or the ids that a range such as `web-01..web-20` stands for. Raises ScalarError."""
    found = RANGE.fullmatch(text)
    if found is None:
        return (to_machine_id(text),)
    first, last, width = int(found["first"]), int(found["last"]), len(found["first"])
    if not first <= last < first + MAX_MACHINES:
        raise ScalarError(f"{quote(text)} is not a range of 1 to {MAX_MACHINES} machines")
    return tuple(to_machine_id(f"{found['prefix']}{number:0{width}}") for number in range(first, last + 1))
