"""The rows of a log as text, a piece at a time, however many there are."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from app.store import HashedRow

# Characters gathered before they go out: a piece is a system call, and over HTTP a chunk.
PIECE = 65536


def as_ndjson(rows: Iterable[HashedRow]) -> Iterator[str]:
    """One JSON object a line."""
    return _gathered(_as_json(row) + "\n" for row in rows)


def as_json_array(rows: Iterable[HashedRow]) -> Iterator[str]:
    """One JSON array, an object a line."""
    return _gathered(_array_lines(rows))


def _array_lines(rows: Iterable[HashedRow]) -> Iterator[str]:
    before = "[\n"
    for row in rows:
        yield before + _as_json(row)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def as_csv(rows: Iterable[HashedRow]) -> Iterator[str]:
    """A heading and a line a row, as RFC 4180 has it; nothing in it is a formula to a spreadsheet."""
    return _gathered(_csv_lines(rows))


def _csv_lines(rows: Iterable[HashedRow]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(HashedRow.columns())
    for row in rows:
        yield _emptied(buffer)
        writer.writerow([_cell(value) for value in row.as_json().values()])
    yield _emptied(buffer)


def _emptied(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _gathered(lines: Iterable[str]) -> Iterator[str]:
    piece: list[str] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= PIECE:
            yield "".join(piece)
            piece, size = [], 0
    if piece:
        yield "".join(piece)


def _as_json(row: HashedRow) -> str:
    return json.dumps(row.as_json(), ensure_ascii=False)


def _cell(value: Any) -> Any:
    # A spreadsheet runs a cell that begins like this as a formula; a quote in front makes it text.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value
