"""What the service tells, read back: whether a name in it made a row, a line, an element or a header of its own."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from app.chart_file import parse
from app.core.errors import ChartFileError

KNOWN_HEADERS = frozenset(
    {
        *("Content-Type", "Content-Length", "Cache-Control", "X-Content-Type-Options", "X-Request-Id", "Allow"),
        *("Retry-After", "Content-Security-Policy", "X-Frame-Options", "Referrer-Policy", "Permissions-Policy"),
        *("Cross-Origin-Opener-Policy", "Location", "Set-Cookie", "Vary", "Last-Modified", "ETag", "Date"),
        *("Content-Disposition", "Expires", "WWW-Authenticate"),
    }
)
# Paths that answer about a state, and those of the default chart, where whatever is wrong is 500.
ANSWERS = re.compile(r"/(?:charts/[^/]+/)?(?:state|reached|turn|slot)/?")
SEED_PATHS = re.compile(r"/(?:state|reached|turn)/?")
STATUS_DIGITS = re.compile("200|406|500")


class _Shape(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, ...]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, *sorted(name for name, _ in attrs)))
        for name, value in attrs:
            if name in ("href", "src", "action", "formaction"):
                self.found.add((tag, name, "ours" if (value or "/")[0] in "/#?" else "not ours"))


def shape_of_html(text: str) -> set[Any]:
    """The elements of a page, each with its attributes, and whether its links stay here."""
    parser = _Shape()
    parser.feed(text)
    return parser.found


def shape_of_xml(text: str) -> set[Any]:
    """The elements of a picture, each with its attributes. Raises ParseError."""
    return {(found.tag, *sorted(found.attrib)) for found in ET.fromstring(text).iter()}


_QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"')
_LABEL = re.compile(r'^( *s\d+ --> s\d+ : )[^"<>]*$')
_CURL_LINE = re.compile(
    r'#[ -~]*|(url|header|request) = "(\\.|[^"\\\n])*"|(max-time|retry) = \d+|fail|silent|show-error'
    r"|location|max-redirs = 0"
    r"|retry-connrefused|retry-all-errors"
)


def shape_of_text(text: str) -> set[Any]:
    """The lines of a DOT or Mermaid text, without what is quoted, an arrow's label and numbers."""
    lines = (_LABEL.sub(r"\1", _QUOTED.sub('""', line)) for line in text.splitlines())
    return {re.sub(r"\d+", "0", line) for line in lines}


def check_csv(text: str) -> Iterator[str]:
    """What is wrong with a history as CSV."""
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if {len(row) for row in rows} != {len(rows[0])} or rows[0][:2] != ["chart", "version"]:
        yield "a row of the CSV is cut"
    if [row[rows[0].index("seq")] for row in rows[1:]] != [str(number) for number in range(1, len(rows))]:
        yield "a row of the CSV is forged"
    cells = [cell for row in rows for cell in row]
    yield from (f"a formula: {cell!r}" for cell in cells if cell[:1] in tuple("=+-@\t\r") and not _is_number(cell))


def _is_number(cell: str) -> bool:
    with suppress(ValueError):
        return bool(int(cell) or True)
    return False


def check_lines(text: str) -> Iterator[str]:
    """What is wrong with a text of lines."""
    if not all(line.isprintable() for line in text.split("\n")):
        yield "a line with what cannot be printed"


def check_curl(text: str) -> Iterator[str]:
    """What is wrong with a file for `curl -K`."""
    lines = text.splitlines()
    yield from (f"a line of the curl file: {line!r}" for line in lines if not _CURL_LINE.fullmatch(line))
    if sum(line.startswith("url") for line in lines) != 1:
        yield "not one url in the curl file"


def check_ndjson(text: str) -> Iterator[str]:
    """What is wrong with a history as NDJSON."""
    rows = [json.loads(line) for line in text.split("\n")[:-1]]
    if [row["seq"] for row in rows] != list(range(1, len(rows) + 1)):
        yield "a row of the NDJSON is forged"


def check_yaml(text: str) -> Iterator[str]:
    """What is wrong with a chart file."""
    try:
        parse(text, default_name="exported")
    except ChartFileError as error:
        yield f"an exported chart file: {error}"


def check_metrics(text: str) -> Iterator[str]:
    """What is wrong with the metrics."""
    names = {family.name for family in text_string_to_metric_families(text)}
    yield from (f"a forged metric {name}" for name in names if not name.startswith("stateservice_"))


def check_head(response: TestResponse, path: str) -> Iterator[str]:
    """What is wrong with an answer's status and headers."""
    is_refused = (
        response.status_code == 500 and SEED_PATHS.fullmatch(path) and "the service failed" not in response.text
    )
    if response.status_code >= 500 and not is_refused:
        yield f"answered {response.status_code}: {response.text[:80]!r}"
    if is_refused and response.mimetype == "text/plain" and response.text.count("\n") > 1:
        yield "more than one line of a reason"
    for name, value in response.headers:
        if name not in KNOWN_HEADERS or not value.isprintable():
            yield f"the header {name}: {value!r}"
        if ANSWERS.fullmatch(unquoted(path)) and STATUS_DIGITS.search(value):
            yield f"a status in the header {name}: {value!r}"
        if name == "Location" and not value.startswith("/"):
            yield f"sent elsewhere: {value!r}"


def unquoted(path: str) -> str:
    """A path as WSGI has it: the bytes behind its percent signs, each as a character."""
    return re.sub("%([0-9A-Fa-f]{2})", lambda match: chr(int(match.group(1), 16)), path)
