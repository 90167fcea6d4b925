"""The shapes that boxes and arrows are made of."""

from __future__ import annotations

from app.diagram.geometry import BOX_HEIGHT, Line, Point
from app.diagram.markup import tag
from app.diagram.theme import Theme

RADIUS = 9.0
CUT = 13.0


def bent_path(corners: tuple[Point, ...], radius: float = 7.0) -> str:
    """A path along right-angled corners, each of them rounded."""
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
    """A box with round corners, `grow` larger on each side."""
    x, y = at[0] - grow, at[1] - grow
    size = {"width": width + 2 * grow, "height": BOX_HEIGHT + 2 * grow}
    return tag("rect", x=x, y=y, **size, rx=RADIUS + grow, **attributes)


def octagon(at: Point, width: float, grow: float, **attributes: object) -> str:
    """A box with cut corners, `grow` larger on each side: the shape of a failed ending."""
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


def arrow_marks(line: Line, theme: Theme) -> str:
    """An arrow: its line, dashed where the clock takes it, its head and its label."""
    *before, (x, y) = line.corners
    dash = "5 4" if line.arrow.is_clock else None
    stroke = {"fill": "none", "stroke": theme.line, "stroke_width": 1.5, "stroke_dasharray": dash}
    path = tag("path", class_="d-line", d=bent_path((*before, (x - 5, y))), **stroke)
    head = tag("path", class_="d-head", d=f"M{_at((x - 1, y))}l-9,-4.5l0,9Z", fill=theme.line)
    at = {"x": line.label_at[0], "y": line.label_at[1], "text_anchor": line.anchor}
    # The paper-coloured rim keeps a label legible where a line passes beneath it.
    rim = {"stroke": theme.paper, "stroke_width": 4, "stroke_linejoin": "round", "paint_order": "stroke"}
    return path + head + tag("text", line.label, class_="d-guard", fill=theme.quiet, font_size=11.5, **at, **rim)


def mark(kind: str, at: Point, colour: str) -> str:
    """A small sign: `good` a tick, `failed` a cross, `paused` two bars; its centre is `at`."""
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
