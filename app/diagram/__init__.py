"""Pictures of charts as text: SVG, Graphviz DOT and Mermaid. They are pure: no clock, database or files."""

from app.diagram.draw import Form, draw
from app.diagram.svg import DARK, LIGHT, THEMES, Theme
from app.diagram.texts import Snapshot

__all__ = ["DARK", "LIGHT", "THEMES", "Form", "Snapshot", "Theme", "draw"]
