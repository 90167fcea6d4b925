"""From what was sent to text that YAML may be looked for in."""

from __future__ import annotations

import re

from app.chart_file.problems import Problems

MAX_BYTES = 1024 * 1024
BYTE_ORDER_MARK = "\ufeff"
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# YAML 1.1's printable characters are all others; lone surrogates are among these.
FORBIDDEN_CHARACTER = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def decode(source: str | bytes, problems: Problems) -> str | None:
    """Return the source as text; None, with a problem noted, where it is too big, not UTF-8 or not printable."""
    if _size(source) > MAX_BYTES:
        problems.add_at(1, 1, f"the chart file is over {MAX_BYTES} bytes")
        return None
    text = _decode_utf8(source, problems) if isinstance(source, bytes) else source
    if text is None:
        return None
    content = text.removeprefix(BYTE_ORDER_MARK)
    forbidden = FORBIDDEN_CHARACTER.search(content)
    if forbidden is None:
        return text
    line, column = find_position(content, forbidden.start())
    problems.add_at(line, column, f"the character U+{ord(forbidden[0]):04X} is not allowed")
    return None


def blank_preamble(text: str) -> str:
    """Return the text without a byte order mark and with a first line `--- NAME ---` left empty."""
    text = text.removeprefix(BYTE_ORDER_MARK)
    first_break = LINE_BREAK.search(text)
    end = first_break.start() if first_break else len(text)
    first_line = text[:end].rstrip()
    is_heading = len(first_line) > len("---  ---") and first_line.startswith("--- ") and first_line.endswith(" ---")
    return text[end:] if is_heading else text


def find_position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of the character at `offset`."""
    breaks = list(LINE_BREAK.finditer(text, 0, offset))
    return len(breaks) + 1, offset - (breaks[-1].end() if breaks else 0) + 1


def _size(source: str | bytes) -> int:
    return len(source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass"))


def _decode_utf8(source: bytes, problems: Problems) -> str | None:
    try:
        return source.decode("utf-8")
    except UnicodeDecodeError as error:
        before = source[: error.start].decode("utf-8").removeprefix(BYTE_ORDER_MARK)
        problems.add_at(*find_position(before, len(before)), f"not UTF-8: the byte 0x{source[error.start]:02X}")
        return None
