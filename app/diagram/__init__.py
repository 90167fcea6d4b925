"""Pictures of charts, as text: SVG, Graphviz DOT and Mermaid. Pure: no clock, no database, no files."""

from app.diagram.draw import Form, draw
from app.diagram.svg import DARK, LIGHT, THEMES, Theme
from app.diagram.texts import Standing

__all__ = ["DARK", "LIGHT", "THEMES", "Form", "Standing", "Theme", "draw"]
