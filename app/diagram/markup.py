"""Writing XML: every text and every attribute is escaped here."""

from __future__ import annotations

import re
from html import escape

# What XML cannot hold, and line ends, which say nothing in a picture.
_UNFIT = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """`text` without the characters that XML cannot hold, escaped."""
    return escape(_UNFIT.sub("", text))


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """One element; `content` is markup already, an attribute's `_` stands for `-`, and None leaves it out."""
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
