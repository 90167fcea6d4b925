"""The shapes that boxes and arrows are made of."""

from __future__ import annotations

from collections.abc import Sequence

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


def draw_arrows(lines: Sequence[Line], theme: Theme) -> str:
    """All arrows: their lines, dashed where the clock takes them, their heads and their labels.

    What they have in common is said once, or a large picture would be twice as large.
    """
    paths = "".join(_line(line) for line in lines)
    heads = "".join(head_at(line.corners[-1]) for line in lines)
    labels = "".join(_label(line) for line in lines)
    # The paper-coloured rim keeps a label legible where a line passes beneath it.
    rim = {"stroke": theme.paper, "stroke_width": 4, "stroke_linejoin": "round", "paint_order": "stroke"}
    return (
        tag("g", paths, class_="d-line", fill="none", stroke=theme.line, stroke_width=1.5)
        + tag("path", class_="d-head", d=heads, fill=theme.line)
        + tag("g", labels, class_="d-guard", fill=theme.quiet, font_size=11.5, **rim)
    )


def head_at(tip: Point) -> str:
    """The path of an arrow's head just before its tip."""
    return f"M{_at((tip[0] - 1, tip[1]))}l-9,-4.5l0,9Z"


def _line(line: Line) -> str:
    *before, (x, y) = line.corners
    return tag("path", d=bent_path((*before, (x - 5, y))), stroke_dasharray="5 4" if line.arrow.is_clock else None)


def _label(line: Line) -> str:
    anchor = None if line.anchor == "start" else line.anchor
    return tag("text", line.label, x=line.label_at[0], y=line.label_at[1], text_anchor=anchor)


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
