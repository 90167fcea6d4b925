"""What the commands print: tables, JSON, and progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import click

# Rows that a table's columns are made wide enough for; a later cell that is wider pushes its line to the right.
MEASURED = 1000


def print_json(value: Any) -> None:
    """A value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_pieces(pieces: Iterable[str]) -> None:
    """A text in pieces, as it is; bytes, so that no line end is translated."""
    for piece in pieces:
        sys.stdout.buffer.write(piece.encode())
    sys.stdout.buffer.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under headings, in columns as wide as they need; any number of rows takes little memory."""
    lines = ([_cell(value) for value in row] for row in rows)
    first = [list(headings), *islice(lines, MEASURED)]
    widths = [max(len(line[column]) for line in first) for column in range(len(headings))]
    for line in chain(first, lines):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what to call with how much is done, and of how much; a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def show(done: int, of: int) -> None:
            bar.length = max(of, 1)
            bar.update(done - bar.pos)

        yield show
