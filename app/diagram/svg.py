"""Draws a chart as SVG.

Colours are presentation attributes, so that the picture is complete by itself. Classes beside them let a page's own
style sheet change the colours. First come the shapes, then the picture made of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Protocol

from app.core.chart import Chart, State
from app.core.plan import find_needed, list_failed_endings, list_on_plan
from app.diagram.layout import BEND, BOX_HEIGHT, Line, Point
from app.diagram.rows import LABEL_LIMIT, Rows
from app.diagram.texts import Snapshot, say_count, say_guards, shorten, size_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """The colours, each named after what it is for."""

    paper: str
    box: str
    rim: str
    ink: str
    quiet: str
    line: str
    current: str
    on_current: str
    passed: str
    failed: str


LIGHT = Theme(
    paper="#ffffff",
    box="#f6f8fa",
    rim="#8390a2",
    ink="#1b2430",
    quiet="#55606e",
    line="#67748a",
    current="#146c4a",
    on_current="#ffffff",
    passed="#e4f1ea",
    failed="#a8322a",
)
DARK = Theme(
    paper="#12171f",
    box="#1c2430",
    rim="#6f7f95",
    ink="#e6ebf2",
    quiet="#a5b1c2",
    line="#8a98ad",
    current="#2f9e6f",
    on_current="#04110b",
    passed="#173328",
    failed="#f08a80",
)
THEMES = {"light": LIGHT, "dark": DARK}
# Characters that XML cannot contain, and line ends, which have no meaning in a picture.
_UNFIT = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Return `text` escaped, without the characters that XML cannot contain."""
    return escape(_UNFIT.sub("", text))


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """Return one element; `content` is markup.

    In the name of an attribute, `_` stands for `-`. An attribute that is None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return clean(value) if isinstance(value, str) else str(value)


RADIUS = 9.0
CUT = 13.0


def bent_path(corners: tuple[Point, ...], radius: float = BEND) -> str:
    """Return the path along right-angled corners, each of them rounded."""
    first, *inner, last = corners
    parts = [f"M{_at(first)}"]
    previous = first
    for corner, following in zip(inner, [*inner, last][1:], strict=True):
        bend = min(radius, _length(previous, corner) / 2, _length(corner, following) / 2)
        parts.append(f"L{_at(_towards(corner, previous, bend))}Q{_at(corner)} {_at(_towards(corner, following, bend))}")
        previous = corner
    parts.append(f"L{_at(last)}")
    return "".join(parts)


def rounded(at: Point, width: float, grow: float, **attributes: object) -> str:
    """Return a box with round corners; it is `grow` larger on each side."""
    x, y = at[0] - grow, at[1] - grow
    size = {"width": width + 2 * grow, "height": BOX_HEIGHT + 2 * grow}
    return tag("rect", x=x, y=y, **size, rx=RADIUS + grow, **attributes)


def octagon(at: Point, width: float, grow: float, **attributes: object) -> str:
    """Return a box with cut corners, the shape of a failed ending; it is `grow` larger on each side."""
    left, top = at[0] - grow, at[1] - grow
    right, bottom, cut = at[0] + width + grow, at[1] + BOX_HEIGHT + grow, CUT + grow * 0.41
    corners = [
        (left + cut, top),
        (right - cut, top),
        (right, top + cut),
        (right, bottom - cut),
        (right - cut, bottom),
        (left + cut, bottom),
        (left, bottom - cut),
        (left, top + cut),
    ]
    return tag("path", d="M" + "L".join(_at(corner) for corner in corners) + "Z", **attributes)


def draw_arrows(lines: Sequence[Line], theme: Theme, taken: frozenset[tuple[str, str]] = frozenset()) -> str:
    """Return all arrows: lines, heads and labels. The lines of arrows that only the clock takes are dashed.

    Arrows that the run has `taken` are thick.

    Attributes that all arrows share are written once, on a group; otherwise a large picture would be twice as large.
    """
    paths = "".join(_line(line, (line.arrow.source, line.arrow.target) in taken) for line in lines)
    heads = "".join(head_at(line.corners[-1]) for line in lines if line.drawn is None)
    labels = "".join(_label(line) for line in lines if line.label)
    # The paper-coloured rim keeps a label legible if a line passes beneath it.
    rim = {"stroke": theme.paper, "stroke_width": 4, "stroke_linejoin": "round", "paint_order": "stroke"}
    return (
        tag("g", paths, class_="d-line", fill="none", stroke=theme.line, stroke_width=1.5)
        + tag("path", class_="d-head", d=heads, fill=theme.line)
        + tag("g", labels, class_="d-guard", fill=theme.quiet, font_size=11.5, **rim)
    )


def head_at(tip: Point) -> str:
    """Return the path of an arrow's head that ends at `tip`."""
    return f"M{_at((tip[0] - 1, tip[1]))}l-9,-4.5l0,9Z"


def _line(line: Line, is_taken: bool) -> str:
    *before, (x, y) = line.corners
    # The arrow's head covers the end of its line.
    corners = line.drawn if line.drawn is not None and not is_taken else (*before, (x - 5, y))
    dash = "5 4" if line.arrow.is_clock else None
    thick = {"class_": "d-taken", "stroke_width": 3.5} if is_taken else {}
    return tag("path", d=bent_path(corners), stroke_dasharray=dash, **thick)


def _label(line: Line) -> str:
    anchor = None if line.anchor == "start" else line.anchor
    return tag("text", line.label, x=line.label_at[0], y=line.label_at[1], text_anchor=anchor)


def mark(kind: str, at: Point, colour: str) -> str:
    """Return a small sign with its centre at `at`: a tick for `good`, a cross for `failed`, two bars for `paused`."""
    signs = {"good": "m-5,0l3.5,4l6.5,-8", "failed": "m-4.5,-4.5l9,9m0,-9l-9,9", "paused": "m-3,-5l0,10m6,-10l0,10"}
    stroke = {"fill": "none", "stroke": colour, "stroke_width": 2.2, "stroke_linecap": "round"}
    return tag("path", class_=f"d-mark d-mark-{kind}", d=f"M{_at(at)}{signs[kind]}", **stroke)


def _at(point: Point) -> str:
    return ",".join(f"{value:.1f}".removesuffix(".0") for value in point)


def _length(one: Point, other: Point) -> float:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def _towards(corner: Point, other: Point, by: float) -> Point:
    length = _length(corner, other) or 1.0
    share = by / length
    return corner[0] + (other[0] - corner[0]) * share, corner[1] + (other[1] - corner[1]) * share


NAME_LIMIT = 26
# Pixels for one character; system fonts are at most about this wide.
NAME_EM, COUNT_EM = 8.0, 6.9
NARROWEST, WIDEST = 104.0, 236.0
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds the states of a picture: the colours, a line at the bottom, and where a passed state links to."""

    theme: Theme = LIGHT
    note: str = ""
    link: Callable[[str], str] | None = None


class Placed(Protocol):
    """A chart in pixels: the size of the whole, and the places of boxes and arrows."""

    box_width: float
    width: float
    height: float

    def box(self, name: str) -> Point:
        """Return the upper left corner of a state's box."""

    def middle(self, name: str) -> float:
        """Return the height at which straight arrows meet a state's box."""

    def list_lines(self) -> Iterator[Line]:
        """Return every arrow with its corners and its label."""


class Picture:
    """One SVG: the chart, what to mark in it, and its layout in pixels."""

    def __init__(self, chart: Chart, snapshot: Snapshot | None, frame: Frame, whole: Chart) -> None:
        self.chart = chart
        self.snapshot = snapshot
        self.theme = frame.theme
        self.note = frame.note
        self.link = frame.link
        self.start = whole.initial
        self.failed = list_failed_endings(whole)
        self.on_plan = list_on_plan(whole)
        self.counts = {name: say_count(chart, name, snapshot) for name in chart.states}
        self.geometry = self.lay_out()

    def lay_out(self) -> Placed:
        """Return the chart in pixels: here in rows."""
        self.rows = Rows(self.chart, self.find_box_width())
        return self.rows

    def find_box_width(self) -> float:
        """Return the width that all boxes share: wide enough for the longest name and count, within limits."""
        names = max(min(len(name), NAME_LIMIT) * NAME_EM + (22 if self.has_mark(name) else 0) for name in self.counts)
        counts = max(len(count) for count in self.counts.values()) * COUNT_EM
        return min(max(names + 30, counts + 28, NARROWEST), WIDEST)

    def has_mark(self, name: str) -> bool:
        """Return whether there is a sign in front of the state's name."""
        return self.chart.states[name].is_final or self.is_current(name)

    def is_current(self, name: str) -> bool:
        """Return whether the chart is in the state."""
        return self.snapshot is not None and name == self.snapshot.state

    def draw(self) -> str:
        """Return the whole picture."""
        theme, width = self.theme, self.geometry.width
        height = self.geometry.height + (22 if self.note else 0)
        paper = tag("rect", class_="d-paper", width=width, height=height, rx=8, fill=theme.paper)
        lines = draw_arrows(self.list_lines(), theme, frozenset() if self.snapshot is None else self.snapshot.taken)
        boxes = "".join(self.draw_state(state) for state in self.chart.states.values())
        stubs = tag("g", self.draw_stubs(), class_="d-stubs", text_anchor="middle", font_size=12)
        boxes = tag("g", boxes, class_="d-states", text_anchor="middle", font_size=14, font_weight=500)
        title = tag("title", clean(self.say_title())) + tag("desc", clean(self.say_all()))
        size = {"width": f"{width:.0f}", "height": f"{height:.0f}", "viewBox": f"0 0 {width:.0f} {height:.0f}"}
        content = title + paper + self.draw_start() + lines + stubs + boxes + self.draw_note(height)
        # A screen reader announces an image as one thing, and would hide the links of a picture.
        role = "img" if self.link is None else "graphics-document"
        return tag("svg", content, xmlns="http://www.w3.org/2000/svg", **size, role=role, font_family=FONT)

    def list_lines(self) -> list[Line]:
        """Return the arrows with labels as markup; a label that was cut shows the whole text as a hint."""
        cleaned = []
        for line in self.geometry.list_lines():
            whole = say_guards(line.arrow.guards)
            hint = tag("title", clean(whole)) if line.label and len(whole) > LABEL_LIMIT else ""
            cleaned.append(replace(line, label=clean(line.label) + hint))
        return cleaned

    def draw_start(self) -> str:
        """Return the dot and the short arrow that lead to the initial state, if the picture has it."""
        if self.start not in self.chart.states:
            return ""
        x, y = self.geometry.box(self.start)[0], self.geometry.middle(self.start)
        dot = tag("circle", class_="d-start", cx=x - 32, cy=y, r=5.5, fill=self.theme.ink)
        line = tag("path", class_="d-line", d=f"M{x - 26:.1f},{y:.1f}L{x - 5:.1f},{y:.1f}", stroke=self.theme.line)
        return dot + line + tag("path", class_="d-head", d=head_at((x, y)), fill=self.theme.line)

    def draw_stubs(self) -> str:
        """Return the small boxes at the ends of arrows that lead to a state of another row."""
        drawn = ""
        for name, (x, y) in self.rows.list_stubs():
            width, middle = self.geometry.box_width, y + BOX_HEIGHT / 2
            rim = self.theme.failed if name in self.failed else self.theme.rim
            size = {"x": x, "y": middle - 15, "width": width, "height": 30, "rx": 15}
            box = tag("rect", class_="d-stub", fill="none", stroke=rim, stroke_dasharray="3 3", **size)
            limit = int(width / COUNT_EM) - 3
            text = f"→ {shorten(name, limit)}"
            box += tag("text", clean(text), class_="d-count", x=x + width / 2, y=middle + 4, fill=self.theme.quiet)
            box = tag("g", tag("title", clean(name)) + box)
            linked = self.link is not None and self.kind_of(self.chart.states[name]) != "ahead"
            drawn += tag("a", box, href=self.link(name)) if linked and self.link is not None else box
        return drawn

    def draw_state(self, state: State) -> str:
        """Return a state's box with its texts and, if it is current, its progress."""
        kind = self.kind_of(state)
        at = self.geometry.box(state.name)
        title = tag("title", clean(f"{state.name}: {state.description}" if state.description else state.name))
        content = title + "".join(self.draw_rims(state, kind, at)) + self.draw_words(state, kind, at)
        if self.is_current(state.name):
            content += self.draw_progress(state, at)
        off = " d-off" if state.name not in self.on_plan else ""
        failed = " d-failed" if state.name in self.failed else ""
        box = tag("g", content, class_=f"d-state d-{kind}{off}{failed}")
        return box if self.link is None or kind == "ahead" else tag("a", box, href=self.link(state.name))

    def kind_of(self, state: State) -> str:
        """Return how a state is shown: `paused`, `current`, `passed` or `ahead`."""
        if self.is_current(state.name):
            return "paused" if self.snapshot is not None and self.snapshot.is_paused else "current"
        return "passed" if self.snapshot is not None and state.name in self.snapshot.passed else "ahead"

    def draw_rims(self, state: State, kind: str, at: Point) -> Iterator[str]:
        """Return the outlines of a state's box; a final state has two."""
        shape = octagon if state.name in self.failed else rounded
        theme, width = self.theme, self.geometry.box_width
        is_current = kind in ("current", "paused")
        # A chart off its main path is shown in the colour of failures, an ending and a way back alike.
        here = theme.current if state.name in self.on_plan else theme.failed
        fill = here if is_current else theme.passed if kind == "passed" else theme.box
        rim = here if is_current else theme.failed if state.name in self.failed else theme.rim
        dash = "7 4" if kind == "paused" else None
        if kind == "paused":
            fill = theme.box
        if state.is_final:
            yield shape(at, width, 0, class_="d-rim", fill=theme.paper, stroke=rim, stroke_width=1.5)
            yield shape(at, width, -4, class_="d-box", fill=fill, stroke=rim, stroke_width=1.5)
        else:
            thick = 2.5 if is_current else 1.4
            yield shape(at, width, 0, class_="d-box", fill=fill, stroke=rim, stroke_width=thick, stroke_dasharray=dash)

    def draw_words(self, state: State, kind: str, at: Point) -> str:
        """Return a state's sign, name and count."""
        theme = self.theme
        ink, quiet = (theme.on_current, theme.on_current) if kind == "current" else (theme.ink, theme.quiet)
        name, count = shorten(state.name, NAME_LIMIT), self.counts[state.name]
        centre, middle = at[0] + self.geometry.box_width / 2, at[1] + BOX_HEIGHT / 2
        y = middle - 5 if count else middle + 5
        sign = self.sign_of(state, kind)
        signs = ""
        if sign is not None:
            failed = theme.failed if kind != "current" else ink
            left = centre - len(name) * NAME_EM / 2 - 5
            signs = mark(sign, (max(left, at[0] + 14), y - 5), failed if sign == "failed" else ink)
            centre += 8
        weight = 600 if kind in ("current", "paused") else None
        words = tag("text", clean(name), class_="d-name", x=centre, y=y, fill=ink, font_weight=weight)
        if count:
            x = at[0] + self.geometry.box_width / 2
            words += tag("text", clean(count), class_="d-count", x=x, y=y + 18, fill=quiet, font_size=12)
        return signs + words

    def sign_of(self, state: State, kind: str) -> str | None:
        """Return the sign of a state: `good`, `failed`, `paused` or None."""
        if state.is_final:
            return "failed" if state.name in self.failed else "good"
        return "paused" if kind == "paused" else None

    def draw_progress(self, state: State, at: Point) -> str:
        """Return a bar that shows how much of the count has been reached; nothing if no count is needed."""
        needed = find_needed(size_state(self.chart, state.name, self.snapshot))
        if self.snapshot is None or not needed or state.default_key is None:
            return ""
        initial = state.initial_values()[state.default_key]
        done = self.snapshot.values.get(state.default_key, initial) - initial
        share = min(max(done / (needed - initial), 0.0), 1.0) if needed != initial else 1.0
        width = self.geometry.box_width - 28
        bar = {"x": at[0] + 14, "y": at[1] + BOX_HEIGHT - 9, "height": 3.5, "rx": 1.7}
        colour = self.theme.current if self.snapshot.is_paused else self.theme.on_current
        track = tag("rect", class_="d-track", width=width, fill=colour, fill_opacity=0.3, **bar)
        return track + (tag("rect", class_="d-done", width=width * share, fill=colour, **bar) if share else "")

    def draw_note(self, height: float) -> str:
        """Return the note at the bottom, if there is one."""
        if not self.note:
            return ""
        at = {"x": 16, "y": height - 14}
        return tag("text", clean(self.note), class_="d-note", fill=self.theme.quiet, font_size=12, **at)

    def say_title(self) -> str:
        """Return the title, which a browser shows as a hint."""
        if self.snapshot is None:
            return f"Chart {self.chart.name}"
        held = ", paused" if self.snapshot.is_paused else ""
        return f"Chart {self.chart.name}, now in {self.snapshot.state}{held}"

    def say_all(self) -> str:
        """Describe the chart in words for readers who cannot see it; at most 40 states."""
        said = [self.say_state(state) for state in list(self.chart.states.values())[:40]]
        return " ".join(said) + (" And more." if len(self.chart.states) > len(said) else "")

    def say_state(self, state: State) -> str:
        """Return one state and its transitions in words."""
        count = self.counts[state.name]
        first = state.name + (f" ({count})" if count else "")
        if state.is_final:
            return f"{first} is {'a failed' if state.name in self.failed else 'an'} ending."
        moves = [f"to {item.target} when {say_guards([item.guard])}" for item in state.transitions]
        return f"{first} goes {', '.join(moves)}."
