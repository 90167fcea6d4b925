"""Writing XML: every text and every attribute is escaped here."""

from __future__ import annotations

from html import escape


def clean(text: str) -> str:
    """`text` without the characters that XML cannot hold, escaped."""
    return escape(
        "".join(character for character in text if character >= " " and not "\ud800" <= character <= "\udfff")
    )


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """One element; `content` is markup already, an attribute's `_` stands for `-`, and None leaves it out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{clean(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def _number(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
