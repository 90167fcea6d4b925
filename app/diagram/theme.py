"""The colours of a picture, as presentation attributes: a wiki that forbids <style> still shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours by what they are for. A page's own style sheet overrides them by the classes beside them."""

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
