"""`./state_service chart`: check, import and read charts, act on them as an operator, and read their logs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from app import chart_file
from app.chart_file.rosters import warn_of_sets
from app.cli.given import calendars_option, read_calendars, read_given, rosters_option
from app.cli.shared import (
    MACHINE,
    NAME,
    NO,
    NUMBER,
    SEQ,
    USAGE,
    WORDS,
    Instant,
    config_of,
    current_author,
    exits_on_error,
    open_service,
    print_json,
    print_pieces,
    print_problems,
    print_table,
    progress,
    read_file,
)
from app.core.errors import BadRequestError, ChartFileError, Problem
from app.core.log import HistoryFilter
from app.core.memory import Lists, Memory
from app.core.position import Archive, Goto, Happening, Reset
from app.diagram import THEMES, Form
from app.service import operate, reading
from app.service.condition import Condition
from app.service.operate import ImportRequest, import_chart
from app.service.pages import draw_chart
from app.service.past import get_past_status
from app.service.reading import as_csv, as_json_array, as_ndjson
from app.service.roll import RollQuery, Which, list_roll
from app.service.status import Status
from app.service.verifying import Head, Verification, list_logged_charts, verify

# The most urgent first.
CONDITIONS = [str(condition) for condition in Condition]
FORMATS = {"json": as_json_array, "csv": as_csv, "ndjson": as_ndjson}
HISTORY_HEADINGS = ("SEQ", "AT", "KIND", "FROM", "TO", "KEY", "VALUE", "MACHINE", "ACTOR", "REASON", "NOTE")
# Characters of a reason or a note that a table shows; --json and --csv have the whole text.
MAX_TEXT = 200

# What the table of `machines` shows of each, by the field's name.
ROLL_COLUMNS = {"working": ("machine", "fence", "claimed_at"), "reported": ("machine", "key", "reported_at", "note")}

REASON = click.option("--reason", required=True, type=WORDS, metavar="TEXT", help="Why; the log keeps it.")

REASON_OR_DRY_RUN = click.option(
    "--reason", type=WORDS, metavar="TEXT", help="Why; the log keeps it. Not needed with --dry-run."
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would be lost and change nothing.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("chart", short_help="Charts: lint, import, list, show, pause, resume, history, verify and more.")
def group() -> None:
    """Charts."""


# Chart files


@group.command("lint", epilog="Example: ./state_service chart lint charts/*.yaml")
@click.argument("files", nargs=-1, required=True)
@rosters_option("The lines of a roster: labels and values that no machine has are warnings, and promises are checked.")
@calendars_option("A calendar: it is read, and a chart that names one which is not given is warned of.")
@JSON
def lint(files: tuple[str, ...], roster_files: tuple[str, ...], calendar_files: tuple[str, ...], as_json: bool) -> None:
    """Check chart FILES without importing them; print each problem with its line and column. Exit 2 if there is one."""
    rosters, calendars = read_given(roster_files), read_calendars(calendar_files)
    checked = [_Checked(file, rosters, calendars) for file in files]
    if as_json:
        print_json([item.as_json() for item in checked])
    else:
        for item in checked:
            item.print()
    if any(item.problems for item in checked):
        sys.exit(USAGE)


class _Checked:
    """A chart file that was checked, against the rosters and calendars that are given: the chart, or its problems."""

    def __init__(self, file: str, rosters: Lists, calendars: Collection[str]) -> None:
        self.file = file
        self.parsed: chart_file.ParsedChart | None = None
        self.problems: tuple[Problem, ...] = ()
        self.warnings: tuple[Problem, ...] = ()
        name, now = Path(file).stem if file != "-" else "chart", datetime.now(UTC)
        try:
            parsed = chart_file.parse(read_file(file), default_name=name, now=now, rosters=rosters)
        except ChartFileError as error:
            self.problems = error.problems
            return
        self.parsed = parsed
        known = Memory(rosters)
        found = warn_of_sets(parsed.chart, parsed.sets, known, known.newest)
        missing = (*_list_missing(parsed, rosters), *_list_missing_calendars(parsed, calendars))
        self.warnings = tuple(sorted((*parsed.warnings, *missing, *found)))

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "chart": None if self.parsed is None else self.parsed.chart.name,
            "states": None if self.parsed is None else len(self.parsed.chart.states),
            "problems": [problem.as_json() for problem in self.problems],
            "warnings": [warning.as_json() for warning in self.warnings],
        }

    def print(self) -> None:
        print_problems(self.file, self.problems)
        if self.parsed is not None:
            print_problems(self.file, self.warnings, kind="warning")
            click.echo(f"{self.file}: {self.parsed.chart.name}, {len(self.parsed.chart.states)} states, fine")


def _list_missing(parsed: chart_file.ParsedChart, rosters: Lists) -> list[Problem]:
    """Return a warning for each roster that the chart goes by and that is not given, if others are."""
    given = f"given: {', '.join(rosters)}"
    missing = [(name, spot) for name, spot in parsed.rosters.items() if rosters and name not in rosters]
    return [
        Problem(spot.line, spot.column, f"no --roster has the lines of {name!r} ({given})") for name, spot in missing
    ]


def _list_missing_calendars(parsed: chart_file.ParsedChart, calendars: Collection[str]) -> list[Problem]:
    """Return a warning for each calendar that the chart names and that is not given, if others are."""
    given = f"given: {', '.join(calendars)}"
    missing = [(name, spot) for name, spot in parsed.calendars.items() if calendars and name not in calendars]
    return [
        Problem(spot.line, spot.column, f"no --calendar has the events of {name!r} ({given})") for name, spot in missing
    ]


@group.command("import", epilog="Example: ./state_service chart import charts/canary.yaml --dry-run")
@click.argument("file")
@click.option("--name", help="The chart's name, instead of the file's own.")
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="OLD:NEW",
    help="The state NEW takes over a state OLD that the file no longer has.",
)
@click.option("--dry-run", is_flag=True, help="Print what would happen and change nothing.")
@JSON
@click.pass_context
@exits_on_error
def import_(
    context: click.Context, file: str, name: str | None, maps: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Import a chart FILE: a new chart, or a new version of one that is running."""
    stem = None if file == "-" else Path(file).stem
    request = ImportRequest(read_file(file), name=name, default_name=stem, maps=maps, dry_run=dry_run)
    try:
        imported = import_chart(open_service(config_of(context)), request, current_author())
    except ChartFileError as error:
        print_problems(file, error.problems)
        sys.exit(USAGE)
    print_problems(file, imported.warnings, kind="warning")
    if as_json:
        print_json(imported.as_json())
        return
    click.echo(imported.as_text(), nl=False)


# Charts in the database


@group.command("list", epilog="Example: ./state_service chart list --json")
@JSON
@click.pass_context
@exits_on_error
def list_(context: click.Context, as_json: bool) -> None:
    """List every chart, the most urgent first, with its condition and why."""
    statuses = reading.list_statuses(open_service(config_of(context)))
    print_charts([status.as_json() for status in statuses], as_json=as_json)


def print_charts(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print statuses, as `as_json` gives them, as JSON or as a table, the most urgent first."""
    found = sorted(found, key=lambda item: CONDITIONS.index(item["condition"]))
    if as_json:
        print_json(found)
        return
    names = ("chart", "condition", "current_state", "run", "version", "because")
    headings = ("CHART", "CONDITION", "STATE", "RUN", "VERSION", "BECAUSE")
    print_table(headings, [[item[name] for name in names] for item in found])


@group.command("show", epilog="Example: ./state_service chart show states")
@click.argument("name")
@click.option("--at", type=Instant(), metavar="INSTANT", help="Where the chart stood then (ISO 8601, UTC).")
@JSON
@click.pass_context
@exits_on_error
def show(context: click.Context, name: str, at: datetime | None, as_json: bool) -> None:
    """Show the current state of the chart NAME, and what it waits for; with --at, as it was at that instant."""
    service = open_service(config_of(context))
    if at is None:
        _print_status(reading.get_status(service, name), as_json)
        return
    with progress(name) as show_progress:
        status = get_past_status(service, name, at, show_progress)
    _print_status(status, as_json)


@group.command("export", epilog="Example: ./state_service chart export states > states.yaml")
@click.argument("name")
@click.pass_context
@exits_on_error
def export(context: click.Context, name: str) -> None:
    """Print the chart NAME as a chart file, with its live values and current state."""
    click.echo(reading.export_chart(open_service(config_of(context)), name), nl=False)


@group.command("diagram", epilog="Example: ./state_service chart diagram states --format dot | dot -Tpng > states.png")
@click.argument("name")
@click.option("--format", "form", default="svg", show_default=True, type=click.Choice([str(form) for form in Form]))
@click.option(
    "--theme", default="light", show_default=True, type=click.Choice(list(THEMES)), help="The colours of an SVG."
)
@click.pass_context
@exits_on_error
def diagram(context: click.Context, name: str, form: str, theme: str) -> None:
    """Draw the chart NAME with its current state marked: SVG, Graphviz DOT or Mermaid."""
    print_pieces([draw_chart(open_service(config_of(context)), name, Form(form), THEMES[theme])])


@group.command("machines", epilog="Example: ./state_service chart machines kernel-rollout --state canary --is failed")
@click.argument("name")
@click.option("--state", type=NAME, help="The state; the current one if not given.")
@click.option("--run", type=NUMBER, help="The run; the current one if not given.")
@click.option("--visit", type=NUMBER, help="The visit, instead of the state's latest one.")
@click.option("--key", type=NAME, help="Only reports on this attribute.")
@click.option(
    "--is",
    "which",
    default="reported",
    show_default=True,
    type=click.Choice([str(which) for which in Which]),
    help="working: holds a slot, or held one when the chart moved on. done: its report is on the first attribute.",
)
@click.option("--missing", is_flag=True, help="The same as --is missing: expected, and not heard of.")
@click.option("--csv", "as_csv_", is_flag=True, help="Print CSV.")
@JSON
@click.pass_context
@exits_on_error
def machines(
    context: click.Context,
    name: str,
    state: str | None,
    run: int | None,
    visit: int | None,
    key: str | None,
    which: str,
    missing: bool,
    as_csv_: bool,
    as_json: bool,
) -> None:
    """List the machines of a visit of the chart NAME: those that reported, with key and time, or those of --is."""
    wanted = Which.MISSING if missing else Which(which)
    query = RollQuery(state=state, run=run, visit=visit, key=key, which=wanted)
    found = list_roll(open_service(config_of(context)), name, query)
    if as_csv_ and not as_json:
        click.echo(found.as_csv(), nl=False)
    else:
        print_machines(found.as_json(), wanted, as_json=as_json)


def print_machines(found: Mapping[str, Any], which: str, *, as_json: bool) -> None:
    """Print the machines of a visit, as `as_json` gives them: as JSON, as ids if they are missing, or as a table."""
    if as_json:
        print_json(found)
    elif "hint" in found:
        click.echo(found["hint"], err=True)
    elif which == Which.MISSING:
        print_pieces(f"{entry['machine']}\n" for entry in found["machines"])
    else:
        columns = ROLL_COLUMNS["working" if which == Which.WORKING else "reported"]
        rows = [[_cut(str(entry[column] or "")) for column in columns] for entry in found["machines"]]
        print_table([column.replace("_", " ").upper() for column in columns], rows)


# An operator's acts


@group.command("pause", epilog='Example: ./state_service chart pause kernel-rollout --reason "disk alarms in canary"')
@click.argument("name")
@REASON
@JSON
@click.pass_context
@exits_on_error
def pause(context: click.Context, name: str, reason: str, as_json: bool) -> None:
    """Pause the chart NAME: every question is answered no, and no guard is judged until `resume`."""
    _print_status(operate.pause(open_service(config_of(context)), name, reason, current_author()), as_json)


@group.command("resume", epilog='Example: ./state_service chart resume kernel-rollout --reason "disks replaced"')
@click.argument("name")
@REASON
@JSON
@click.pass_context
@exits_on_error
def resume(context: click.Context, name: str, reason: str, as_json: bool) -> None:
    """Resume the paused chart NAME, and judge its guards."""
    _print_status(operate.resume(open_service(config_of(context)), name, reason, current_author()), as_json)


@group.command("reset", epilog='Example: ./state_service chart reset kernel-rollout --reason "next month\'s kernel"')
@click.argument("name")
@REASON_OR_DRY_RUN
@DRY_RUN
@JSON
@click.pass_context
@exits_on_error
def reset(context: click.Context, name: str, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Start the next run of the chart NAME, in its initial state."""
    _act(context, name, Reset, Given(reason, dry_run, as_json))


@group.command("goto", epilog='Example: ./state_service chart goto kernel-rollout rollback --reason "it panics"')
@click.argument("name")
@click.argument("state", type=NAME)
@REASON_OR_DRY_RUN
@DRY_RUN
@JSON
@click.pass_context
@exits_on_error
def goto(context: click.Context, name: str, state: str, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Move the chart NAME to STATE, whatever its guards say."""
    _act(context, name, partial(Goto, state), Given(reason, dry_run, as_json))


@group.command("archive", epilog='Example: ./state_service chart archive kernel-rollout --reason "the fleet is gone"')
@click.argument("name")
@REASON_OR_DRY_RUN
@DRY_RUN
@JSON
@click.pass_context
@exits_on_error
def archive(context: click.Context, name: str, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Archive the chart NAME: it no longer answers, and its log stays. Importing the name again brings it back."""
    _act(context, name, Archive, Given(reason, dry_run, as_json))


@group.command("approve", epilog='Example: ./state_service chart approve kernel-rollout --reason "read and tested"')
@click.argument("name")
@REASON
@click.pass_context
@exits_on_error
def approve(context: click.Context, name: str, reason: str) -> None:
    """Approve what the chart NAME waits for: a report on the attribute `approved`, in your name."""
    _report(context, name, "approved", reason)


@group.command("reject", epilog='Example: ./state_service chart reject kernel-rollout --reason "not on a Friday"')
@click.argument("name")
@REASON
@click.pass_context
@exits_on_error
def reject(context: click.Context, name: str, reason: str) -> None:
    """Reject what the chart NAME waits for: a report on the attribute `rejected`, in your name."""
    _report(context, name, "rejected", reason)


def _report(context: click.Context, name: str, key: str, reason: str) -> None:
    service = open_service(config_of(context))
    print_approval(operate.approve(service, name, key, reason, current_author()).as_json())


def print_approval(answer: Mapping[str, Any]) -> None:
    """Print how many people have approved or rejected, and where the chart is now."""
    moved = "" if answer["state"] == answer["current_state"] else f", now in {answer['current_state']}"
    click.echo(f"{answer['chart']}: {answer['key']} {answer['value']}{moved}")


@group.command("open", epilog='Example: ./state_service chart open web --until 2030-01-31T22:00 --reason "CVE"')
@click.argument("name")
@click.option("--until", required=True, type=Instant(), metavar="INSTANT", help="When that ends (ISO 8601, UTC).")
@REASON
@JSON
@click.pass_context
@exits_on_error
def open_(context: click.Context, name: str, until: datetime, reason: str, as_json: bool) -> None:
    """Open the chart NAME until INSTANT, whatever its windows and calendars say. It ends by itself."""
    service = open_service(config_of(context))
    _print_status(operate.open_chart(service, name, until, reason, current_author()), as_json)


@group.command("evict", epilog='Example: ./state_service chart evict rolling-reboot web-07 --reason "it is scrap"')
@click.argument("name")
@click.argument("machine", type=MACHINE)
@REASON
@JSON
@click.pass_context
@exits_on_error
def evict(context: click.Context, name: str, machine: str, reason: str, as_json: bool) -> None:
    """Take away the slot that MACHINE holds in the chart NAME."""
    _print_status(operate.evict(open_service(config_of(context)), name, machine, reason, current_author()), as_json)


@dataclass(frozen=True, slots=True)
class Given:
    """The options that acts share which end the visit."""

    reason: str | None
    dry_run: bool
    as_json: bool


def _act(context: click.Context, name: str, make: Callable[[str], Happening], given: Given) -> None:
    service = open_service(config_of(context))
    if not given.dry_run:
        reason = operate.require_reason(given.reason, "--reason TEXT")
        _print_status(operate.act(service, name, make(reason), current_author()), given.as_json)
        return
    rehearsal = operate.rehearse(service, name, make(given.reason or ""), current_author())
    if given.as_json:
        print_json(rehearsal.as_json())
    else:
        click.echo(rehearsal.as_text(), nl=False)


def _print_status(status: Status, as_json: bool) -> None:
    if as_json:
        print_json(status.as_json())
    else:
        click.echo(status.as_text(), nl=False)


# The log


@group.command("history", epilog="Example: ./state_service chart history states --since 2026-01-31 --csv > states.csv")
@click.argument("name")
@click.option("--after", default=0, type=click.IntRange(0, SEQ.max), metavar="SEQ", help="Only rows after this seq.")
@click.option("--limit", type=SEQ, help="At most this many rows.")
@click.option("--kind", type=click.Choice(reading.list_kinds()), metavar="KIND", help="Only rows of this kind.")
@click.option("--machine", type=MACHINE, help="Only rows of this machine.")
@click.option("--since", type=Instant(), metavar="INSTANT", help="Only rows from this instant on (ISO 8601, UTC).")
@click.option("--until", type=Instant(), metavar="INSTANT", help="Only rows before this instant.")
@click.option("--json", "form", flag_value="json", help="Print JSON, one array.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, for a spreadsheet.")
@click.option("--ndjson", "form", flag_value="ndjson", help="Print JSON, one object a line.")
@click.pass_context
@exits_on_error
def history(
    context: click.Context,
    name: str,
    after: int,
    limit: int | None,
    kind: str | None,
    machine: str | None,
    since: datetime | None,
    until: datetime | None,
    form: str | None,
) -> None:
    """Print the log of the chart NAME, oldest row first; a log of any length takes little memory."""
    wanted = HistoryFilter(after=after, limit=limit, kind=kind, machine=machine, since=since, until=until)
    rows = reading.iterate_history(open_service(config_of(context)), name, wanted)
    if form is not None:
        print_pieces(FORMATS[form](rows))
    else:
        print_history(row.as_json() for row in rows)


def print_history(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print rows of a log, as `as_json` gives them, as a table; memory use does not grow with the rows."""
    print_table(HISTORY_HEADINGS, (_cells(row) for row in rows))


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("kind", "from_state", "to_state", "key", "value_after", "machine", "actor")
    note = row["note"] if row["machine"] else None
    return (row["seq"], _to_second(row["at"]), *(row[name] for name in names), _cut(row["reason"]), _cut(note))


def _cut(text: str | None) -> str:
    """Return a text in one line, cut to what a table shows."""
    line = " ".join((text or "").split())
    return line if len(line) <= MAX_TEXT else line[:MAX_TEXT] + "…"


def _to_second(at: str) -> str:
    return at[:19].replace("T", " ")


class _Head(click.ParamType[Head]):
    """The row that a log once ended with, as `SEQ:HASH`."""

    name = "SEQ:HASH"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        """Return the row; fail if the text is no such pair."""
        try:
            return Head.of_text(value)
        except BadRequestError as error:
            self.fail(str(error), param, ctx)


@group.command("verify", epilog="Example: ./state_service chart verify kernel-rollout")
@click.argument("names", nargs=-1)
@click.option(
    "--expect",
    type=_Head(),
    help="The log must have had this row, and must have it still: the service logs such heads.",
)
@JSON
@click.pass_context
@exits_on_error
def verify_(context: click.Context, names: tuple[str, ...], expect: Head | None, as_json: bool) -> None:
    """Replay and check the logs of the charts NAMES, or of all charts, and compare them with all tables.

    Exit 1 on a difference.
    """
    check_expected(names, expect)
    service = open_service(config_of(context))

    def verify_one(name: str) -> Verification:
        with progress(name) as show:
            return verify(service, name, show, expect)

    print_verified(map(verify_one, names or list_logged_charts(service)), as_json=as_json)


def check_expected(names: Sequence[str], expect: Head | None) -> None:
    """Raise click.UsageError if a row is expected, and not of one chart."""
    if expect is not None and len(names) != 1:
        raise click.UsageError("--expect needs the name of one chart")


def print_verified(verified: Iterable[Verification], *, as_json: bool) -> None:
    """Print each verification when it is done, or all of them as JSON. Exits 1 if one has found a difference."""
    done = []
    for found in verified:
        done.append(found)
        if not as_json:
            click.echo(found.as_text(), nl=False)
    if as_json:
        print_json([found.as_json() for found in done])
    if any(found.differences for found in done):
        sys.exit(NO)
