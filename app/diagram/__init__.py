"""Pictures of charts, as text: SVG, Graphviz DOT and Mermaid. Pure: no clock, no database, no files."""

from app.diagram.draw import Form, draw
from app.diagram.standing import Standing
from app.diagram.theme import DARK, LIGHT, Theme

__all__ = ["DARK", "LIGHT", "Form", "Standing", "Theme", "draw"]
