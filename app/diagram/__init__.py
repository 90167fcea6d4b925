"""Pictures of charts as text: SVG, Graphviz DOT and Mermaid. They are pure: no clock, database or files."""

from app.diagram.draw import Form, draw
from app.diagram.svg import DARK, LIGHT, Theme
from app.diagram.texts import Snapshot

__all__ = ["DARK", "LIGHT", "Form", "Snapshot", "Theme", "draw"]
