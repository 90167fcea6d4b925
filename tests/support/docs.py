"""Reads the Markdown pages: their blocks, links, shell examples, commands, and the code that they name."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent.parent
_FENCE = re.compile(r"(?m)^```(\w*)\n(.*?)^```$", flags=re.DOTALL)


def list_pages() -> list[Path]:
    """Every Markdown file of the project itself, relative to the root."""
    paths = (path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.md")))
    return [path for path in paths if not any(part.startswith(".") or part == "vendor" for part in path.parts)]


def read_page(page: Path | str) -> str:
    """The text of a page, which is named relative to the root."""
    return (ROOT / page).read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page that are in `language`."""
    return [body for name, body in _FENCE.findall(text) if name == language]


def without_blocks(text: str) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", text)


# Shell examples


@dataclass(frozen=True, slots=True)
class Example:
    """A command after `$ `, and the lines that the page shows below it."""

    command: str
    output: str


def examples(text: str) -> list[Example]:
    """The examples of every console block, in order."""
    found = []
    for block in blocks(text, "console"):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, _, output = part.partition("\n")
            found.append(Example(command, output))
    return found


_SPAN = r"\d+ (?:s|min|h|d)(?: \d+ (?:s|min|h))?"
_CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{6}Z)?"), "INSTANT"),
    (re.compile(rf"\bin {_SPAN}, by the clock"), "in SPAN, by the clock"),
    (re.compile(rf"\bby the clock in {_SPAN}"), "by the clock in SPAN"),
    (re.compile(rf"\b{_SPAN} ago: "), "SPAN ago: "),
    (re.compile(r"\b[0-9a-f]{64}\b"), "HASH"),
    # A table's columns are as wide as its widest cell.
    (re.compile(r" +"), " "),
)


def normalize(output: str) -> str:
    """An output without the parts that differ between days: instants, spans, hashes, column widths."""
    for pattern, word in _CHANGING:
        output = pattern.sub(word, output)
    return "\n".join(line.rstrip() for line in output.strip().splitlines())


# Links


def links(text: str) -> list[str]:
    """The targets of a page's links."""
    return re.findall(r"\]\(([^)\s]+)\)", without_blocks(text))


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"(?m)^#+ (.+)$", without_blocks(text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """The relative links of a page whose file or heading does not exist."""
    broken = []
    for link in links(text):
        name, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / page).parent / name if name else ROOT / page
        found = text if not name else target.read_text() if target.suffix == ".md" and target.exists() else ""
        if not target.exists() or (anchor and anchor not in anchors(found)):
            broken.append(link)
    return broken


# Addresses

_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|Users|tmp)(?:/[\w./-]*|\b)")
_IP = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
_MAIL = re.compile(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)")
_URL = re.compile(r"(\w+)://(?:[^/\s'\"@]*@)?\[?([\w.-]+)")
_FINE_IPS = ("127.0.0.1", "0.0.0.0", "192.0.2.", "198.51.100.", "203.0.113.")


def stray_addresses(text: str) -> list[str]:
    """Paths of one machine, and addresses that are neither this host, nor reserved for examples, nor public pages."""
    found = _MACHINE_PATH.findall(text)
    found += [address for address in _IP.findall(text) if not address.startswith(_FINE_IPS)]
    found += [domain for domain in _MAIL.findall(text) if not domain.endswith(".example") and not _IP.fullmatch(domain)]
    found += [host for scheme, host in _URL.findall(text) if not _is_fine_host(scheme, host)]
    return found


def _is_fine_host(scheme: str, host: str) -> bool:
    # A bare host name in a database's URL belongs to the reader's own network.
    if (
        scheme in ("sqlite", "postgresql")
        or host == "localhost"
        or host.endswith(".example")
        or host.startswith(_FINE_IPS)
    ):
        return True
    return scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)*\.(com|org|io|net|dev)", host) is not None


# Commands


def command_lines(text: str) -> set[tuple[str, ...]]:
    """The words after each `./state_service` of a page."""
    found = re.findall(r"\./state_service((?:[ \t]+[^\s`|;&)#>]+)*)", text)
    return {tuple(shlex.split(words)) for words in found}


def resolve(root: click.Command, words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The path of the command that `words` name, and the options and commands in `words` that do not exist."""
    command, path, unknown = root, list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        if word.startswith("-") and word != "-":
            option = _find_option(command, word.partition("=")[0])
            if option is None:
                unknown.append(word)
            elif not option.is_flag and "=" not in word:
                next(rest, None)
        elif isinstance(command, click.Group):
            path.append(word)
            if word not in command.commands:
                return path, [*unknown, word]
            command = command.commands[word]
    return path, unknown


def _find_option(command: click.Command, name: str) -> click.Option | None:
    if name in ("--help", "-h"):
        return click.Option(["--help"], is_flag=True)
    options = (param for param in command.params if isinstance(param, click.Option))
    return next((option for option in options if name in option.opts), None)


# Endpoints


def endpoints(text: str) -> Iterator[str]:
    """Each `METHOD /path` in a page's headings and in the first cells of its tables."""
    for place in re.findall(r"(?m)^(?:#{2,4} .*|\| [^|]*)", without_blocks(text)):
        yield from re.findall(r"`([A-Z]+ /\S*)`", place)


def table_rows(text: str, first: str) -> list[list[str]]:
    """The cells of a page's table rows whose first cell matches `first`."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in rows if re.fullmatch(first, row[0].strip())]


# Code

_FOLDERS = ("app", "bench", "charts", "clients", "deploy", "docs", "migrations", "tests")
_PATH = re.compile(rf"`((?:{'|'.join(_FOLDERS)})/[\w./-]*)`")


def paths(text: str) -> list[str]:
    """The files and folders of the repository that a page names in code spans, such as `app/core/chart.py`.

    A name with NNNN in it is a pattern, and left out.
    """
    return [path for path in _PATH.findall(without_blocks(text)) if "NNNN" not in path]


def list_modules() -> set[str]:
    """The modules of `app`, as paths, without the files that only mark a package or start it."""
    found = (path for path in (ROOT / "app").rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
    return {str(path.relative_to(ROOT)) for path in found}


def pathed_names(text: str) -> list[tuple[str, str]]:
    """The module and the name of each `app/x.py`: `name` of a page."""
    return re.findall(r"`(app/[\w./]+\.py)`:\s+`([\w.]+)`", text)


def defined_names(module: str) -> set[str]:
    """The names that a module defines at its top level, and its methods as `Class.method`."""
    names = set()
    for node in ast.parse((ROOT / module).read_text()).body:
        names |= _names_of(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for item in node.body for name in _names_of(item)}
    return names


def _names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}
