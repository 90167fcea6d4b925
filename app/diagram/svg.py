"""A chart as SVG: colours as presentation attributes, classes beside them for a page that has its own style sheet."""

from __future__ import annotations

from collections.abc import Iterator

from app.core.chart import Chart, State
from app.diagram import shapes
from app.diagram.geometry import BOX_HEIGHT, Geometry, Line, Point
from app.diagram.layout import lay_out
from app.diagram.markup import clean, tag
from app.diagram.plan import list_failed_endings
from app.diagram.standing import Standing
from app.diagram.theme import Theme
from app.diagram.words import find_needed, say_count, say_guards, shorten

NAME_LIMIT = 26
LABEL_LIMIT = 44
# Pixels a character takes, on the wide side of what system fonts have.
NAME_EM, COUNT_EM = 8.0, 6.9
NARROWEST, WIDEST = 104.0, 236.0
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def draw_svg(chart: Chart, standing: Standing | None, theme: Theme, whole: Chart | None = None, note: str = "") -> str:
    """The picture of a chart, or of a part of the `whole` one; `note` is a line at its foot."""
    return _Picture(chart, standing, theme, whole or chart, note).draw()


class _Picture:
    def __init__(self, chart: Chart, standing: Standing | None, theme: Theme, whole: Chart, note: str) -> None:
        self.chart = chart
        self.standing = standing
        self.theme = theme
        self.note = note
        self.start = whole.initial
        self.failed = list_failed_endings(whole)
        self.counts = {name: say_count(chart, name, standing) for name in chart.states}
        layout = lay_out(chart)
        labels = [shorten(say_guards(arrow.guards), LABEL_LIMIT) for arrow in layout.arrows]
        self.geometry = Geometry(layout, labels, self.find_box_width())

    def find_box_width(self) -> float:
        names = max(min(len(name), NAME_LIMIT) * NAME_EM + (22 if self.has_mark(name) else 0) for name in self.counts)
        counts = max(len(count) for count in self.counts.values()) * COUNT_EM
        return min(max(names + 30, counts + 28, NARROWEST), WIDEST)

    def has_mark(self, name: str) -> bool:
        return self.chart.states[name].is_final or self.is_current(name)

    def is_current(self, name: str) -> bool:
        return self.standing is not None and name == self.standing.state

    def draw(self) -> str:
        theme, width = self.theme, self.geometry.width
        height = self.geometry.height + (22 if self.note else 0)
        paper = tag("rect", class_="d-paper", width=width, height=height, rx=8, fill=theme.paper)
        lines = shapes.draw_arrows(self.list_lines(), theme)
        boxes = "".join(self.draw_state(state) for state in self.chart.states.values())
        boxes = tag("g", boxes, class_="d-states", text_anchor="middle", font_size=14, font_weight=500)
        title = tag("title", clean(self.say_title())) + tag("desc", clean(self.say_all()))
        size = {"width": f"{width:.0f}", "height": f"{height:.0f}", "viewBox": f"0 0 {width:.0f} {height:.0f}"}
        content = title + paper + self.draw_start() + lines + boxes + self.draw_note(height)
        return tag("svg", content, xmlns="http://www.w3.org/2000/svg", **size, role="img", font_family=FONT)

    def list_lines(self) -> list[Line]:
        cleaned = []
        for line in self.geometry.list_lines():
            whole = say_guards(line.arrow.guards)
            hint = tag("title", clean(whole)) if len(whole) > LABEL_LIMIT else ""
            cleaned.append(Line(line.arrow, line.corners, clean(line.label) + hint, line.label_at, line.anchor))
        return cleaned

    def draw_start(self) -> str:
        if self.start not in self.chart.states:
            return ""
        x, y = self.geometry.box(self.start)[0], self.geometry.middle(self.start)
        dot = tag("circle", class_="d-start", cx=x - 32, cy=y, r=5.5, fill=self.theme.ink)
        line = tag("path", class_="d-line", d=f"M{x - 26:.1f},{y:.1f}L{x - 5:.1f},{y:.1f}", stroke=self.theme.line)
        return dot + line + tag("path", class_="d-head", d=shapes.head_at((x, y)), fill=self.theme.line)

    def draw_state(self, state: State) -> str:
        kind = self.kind_of(state)
        at = self.geometry.box(state.name)
        title = tag("title", clean(f"{state.name}: {state.description}" if state.description else state.name))
        content = title + "".join(self.draw_rims(state, kind, at)) + self.draw_words(state, kind, at)
        if self.is_current(state.name):
            content += self.draw_progress(state, at)
        return tag("g", content, class_=f"d-state d-{kind}" + (" d-failed" if state.name in self.failed else ""))

    def kind_of(self, state: State) -> str:
        if self.is_current(state.name):
            return "paused" if self.standing is not None and self.standing.is_paused else "current"
        return "passed" if self.standing is not None and state.name in self.standing.passed else "ahead"

    def draw_rims(self, state: State, kind: str, at: Point) -> Iterator[str]:
        shape = shapes.octagon if state.name in self.failed else shapes.rounded
        theme, width = self.theme, self.geometry.box_width
        is_current = kind in ("current", "paused")
        fill = theme.current if is_current else theme.passed if kind == "passed" else theme.box
        rim = theme.current if is_current else theme.failed if state.name in self.failed else theme.rim
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
            signs = shapes.mark(sign, (max(left, at[0] + 14), y - 5), failed if sign == "failed" else ink)
            centre += 8
        weight = 600 if kind in ("current", "paused") else None
        words = tag("text", clean(name), class_="d-name", x=centre, y=y, fill=ink, font_weight=weight)
        if count:
            x = at[0] + self.geometry.box_width / 2
            words += tag("text", clean(count), class_="d-count", x=x, y=y + 18, fill=quiet, font_size=12)
        return signs + words

    def sign_of(self, state: State, kind: str) -> str | None:
        if state.is_final:
            return "failed" if state.name in self.failed else "good"
        return "paused" if kind == "paused" else None

    def draw_progress(self, state: State, at: Point) -> str:
        needed = find_needed(state)
        if self.standing is None or not needed or state.default_key is None:
            return ""
        initial = state.initial_values()[state.default_key]
        done = self.standing.values.get(state.default_key, initial) - initial
        share = min(max(done / (needed - initial), 0.0), 1.0) if needed != initial else 1.0
        width = self.geometry.box_width - 28
        bar = {"x": at[0] + 14, "y": at[1] + BOX_HEIGHT - 9, "height": 3.5, "rx": 1.7}
        colour = self.theme.current if self.standing.is_paused else self.theme.on_current
        track = tag("rect", class_="d-track", width=width, fill=colour, fill_opacity=0.3, **bar)
        return track + (tag("rect", class_="d-done", width=width * share, fill=colour, **bar) if share else "")

    def draw_note(self, height: float) -> str:
        if not self.note:
            return ""
        at = {"x": 16, "y": height - 14}
        return tag("text", clean(self.note), class_="d-note", fill=self.theme.quiet, font_size=12, **at)

    def say_title(self) -> str:
        if self.standing is None:
            return f"Chart {self.chart.name}"
        held = ", paused" if self.standing.is_paused else ""
        return f"Chart {self.chart.name}, now in {self.standing.state}{held}"

    def say_all(self) -> str:
        """The whole chart in words, for whoever does not see it; long ones are cut."""
        said = [self.say_state(state) for state in list(self.chart.states.values())[:40]]
        return " ".join(said) + (" And more." if len(self.chart.states) > len(said) else "")

    def say_state(self, state: State) -> str:
        count = self.counts[state.name]
        first = state.name + (f" ({count})" if count else "")
        if state.is_final:
            return f"{first} is {'a failed' if state.name in self.failed else 'an'} ending."
        moves = [f"to {item.target} when {say_guards([item.guard])}" for item in state.transitions]
        return f"{first} goes {', '.join(moves)}."
