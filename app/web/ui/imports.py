"""The page to import a chart by hand: it shows a file's problems or what the import would do, and then does it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from flask import Response, request

from app.chart_file import parse
from app.core.errors import BadRequestError, ChartFileError, ChartNotFoundError, ConflictError, Problem
from app.service.operate import MAX_BYTES, Imported, ImportRequest, import_chart
from app.service.reading import get_status, get_version
from app.service.tokens import Role
from app.web.auth import check
from app.web.request import NAME_LENGTH, current_author, current_holder, current_service
from app.web.ui.base import blueprint, find_field, find_query, go_to, render
from app.web.ui.diff import DiffLine, compare

# A file of up to so many lines is shown whole with its problems; of a longer one, so many lines around each problem.
MAX_WHOLE_LINES = 400
LINES_AROUND = 3


@dataclass(frozen=True, slots=True)
class ImportForm:
    """The import form as it was sent; `default_name` is the stem of the chosen file, for a chart that names none."""

    text: str
    name: str | None = None
    default_name: str | None = None
    maps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MarkedLine:
    """A line of the file and the problems in it; `number` is None if it stands for lines that are left out."""

    number: int | None
    text: str
    problems: tuple[Problem, ...] = ()


@blueprint.get("/ui/import", provide_automatic_options=False)
def get_import() -> Response:
    """The empty form, or with `chart=NAME` a form that has that chart's text."""
    name = find_query("chart", NAME_LENGTH)
    if name is None:
        return render("import.html", form=ImportForm(""))
    check(current_holder(), Role.ADMIN, name)
    service = current_service()
    text = get_version(service, name, get_status(service, name).version).text
    return render("import.html", form=ImportForm(text, name))


@blueprint.post("/ui/import", provide_automatic_options=False)
def post_import() -> Response:
    """Show what the import would do, or do it if the form has the field `apply`."""
    form = _read_form()
    try:
        # Before anything is locked, and the same answer whether or not there is such a chart.
        check(current_holder(), Role.ADMIN, _find_chart(form))
        would = _import(form, dry_run=True)
        if request.form.get("apply") is None:
            return render("import.html", form=form, would=would, lines=_compare(form, would))
        done = _import(form, dry_run=False)
    except ChartFileError as error:
        return render("import.html", form=form, problems=error.problems, marked=mark_lines(form.text, error))
    except (BadRequestError, ConflictError) as error:
        return render("import.html", form=form, refusal=str(error))
    return go_to("ui.get_chart", name=done.status.chart, done=str(done.outcome))


def _read_form() -> ImportForm:
    chosen = request.files.get("file")
    content = chosen.read(MAX_BYTES + 1) if chosen is not None and chosen.filename else b""
    text = content.decode(errors="replace") if content else request.form.get("text", "")
    stem = (chosen.filename or "").rpartition("/")[2].rpartition(".")[0] if chosen is not None else ""
    # A browser sends the lines of a text area with CR LF.
    return ImportForm(
        text.replace("\r\n", "\n"),
        find_field("name", NAME_LENGTH),
        stem or find_field("default_name", NAME_LENGTH),
        tuple(part.strip() for part in request.form.get("maps", "").splitlines() if part.strip()),
    )


def _find_chart(form: ImportForm) -> str:
    """The chart that the form would import. Raises ChartFileError."""
    return parse(form.text, name=form.name, default_name=form.default_name).chart.name


def _import(form: ImportForm, *, dry_run: bool) -> Imported:
    wanted = ImportRequest(form.text, name=form.name, default_name=form.default_name, maps=form.maps, dry_run=dry_run)
    return import_chart(current_service(), wanted, current_author())


def _compare(form: ImportForm, would: Imported) -> list[DiffLine] | None:
    service = current_service()
    try:
        running = get_status(service, would.status.chart).version
    except ChartNotFoundError:
        return []
    return compare(get_version(service, would.status.chart, running).text, form.text)


def mark_lines(text: str, error: ChartFileError) -> list[MarkedLine]:
    """The lines of the file with the problems in each; of a long file, only those around its problems."""
    problems: dict[int, list[Problem]] = defaultdict(list)
    for problem in error.problems:
        problems[problem.line].append(problem)
    lines = text.split("\n")
    near = {number + offset for number in problems for offset in range(-LINES_AROUND, LINES_AROUND + 1)}
    marked: list[MarkedLine] = []
    for number in range(1, max(len(lines), *problems) + 1):
        if len(lines) <= MAX_WHOLE_LINES or number in near:
            line = lines[number - 1] if number <= len(lines) else ""
            marked.append(MarkedLine(number, line, tuple(problems.get(number, ()))))
        elif marked and marked[-1].number is not None:
            marked.append(MarkedLine(None, ""))
    return marked
