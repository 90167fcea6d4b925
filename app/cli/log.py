"""`./state_service chart history`, `verify` and `machines`: what happened, whether it adds up, and who has reported."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from app.cli.chart import JSON, group
from app.cli.context import NO, config_of, open_service, reporting
from app.cli.printing import print_json, print_pieces, print_table, progress
from app.cli.types import Instant
from app.core.position import Kind
from app.service import reading
from app.service.authors import HashedRow, HistoryFilter
from app.service.exports import as_csv, as_json_array, as_ndjson
from app.service.machines import list_machines
from app.service.verify import list_logged_charts, verify

FORMATS = {"json": as_json_array, "csv": as_csv, "ndjson": as_ndjson}
HEADINGS = ("SEQ", "AT", "KIND", "FROM", "TO", "KEY", "VALUE", "MACHINE", "ACTOR", "REASON")
MAX_REASON = 200


@group.command("history", epilog="Example: ./state_service chart history states --since 2026-01-31 --csv > states.csv")
@click.argument("name")
@click.option("--after", default=0, type=click.IntRange(0), metavar="SEQ", help="Only rows after this one.")
@click.option("--limit", type=click.IntRange(1), help="At most so many rows.")
@click.option("--kind", type=click.Choice([str(kind) for kind in Kind]), metavar="KIND", help="Only rows of this kind.")
@click.option("--machine", help="Only rows of this machine.")
@click.option("--since", type=Instant(), metavar="INSTANT", help="Only rows from this instant on (ISO 8601, UTC).")
@click.option("--until", type=Instant(), metavar="INSTANT", help="Only rows before this instant.")
@click.option("--json", "form", flag_value="json", help="Print JSON, one array.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, for a spreadsheet.")
@click.option("--ndjson", "form", flag_value="ndjson", help="Print JSON, an object a line.")
@click.pass_context
@reporting
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
    """The log of the chart NAME, oldest first; any number of rows takes little memory."""
    wanted = HistoryFilter(after, limit, kind, machine, since, until)
    rows = reading.iterate_history(open_service(config_of(context)), name, wanted)
    if form is not None:
        print_pieces(FORMATS[form](rows))
    else:
        print_table(HEADINGS, (_line(row) for row in rows))


def _line(logged: HashedRow) -> tuple[Any, ...]:
    row = logged.row
    # The whole of it is in --json and --csv.
    reason = row.reason if row.reason is None or len(row.reason) <= MAX_REASON else row.reason[:MAX_REASON] + "…"
    at = f"{row.at:%Y-%m-%d %H:%M:%S}"
    return (
        row.seq,
        at,
        row.kind,
        row.from_state,
        row.to_state,
        row.key,
        row.value_after,
        row.machine,
        row.actor,
        reason,
    )


@group.command("machines", epilog="Example: ./state_service chart machines kernel-rollout --state canary --missing")
@click.argument("name")
@click.option("--state", help="The state; without it the current one.")
@click.option("--missing", is_flag=True, help="Those of the roster that have not reported, instead of those that have.")
@JSON
@click.pass_context
@reporting
def machines(context: click.Context, name: str, state: str | None, missing: bool, as_json: bool) -> None:
    """Who reported in the latest visit of a state of the chart NAME, on which key, and when."""
    found = list_machines(open_service(config_of(context)), name, state, only_missing=missing)
    if as_json:
        print_json(found.as_json(only_missing=missing))
    elif missing:
        click.echo(found.as_text(only_missing=True), nl=False)
    else:
        rows = [(item.machine, item.key, f"{item.reported_at:%Y-%m-%d %H:%M:%S}") for item in found.reports]
        print_table(("MACHINE", "KEY", "REPORTED AT"), rows)


@group.command("verify", epilog="Example: ./state_service chart verify kernel-rollout")
@click.argument("names", nargs=-1)
@JSON
@click.pass_context
@reporting
def verify_(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Replay the log of the charts NAMES (of all without any) and check it and its chain; exit 1 if it differs."""
    service = open_service(config_of(context))
    verified = []
    for name in names or list_logged_charts(service):
        with progress(name) as show:
            verified.append(verify(service, name, show))
        if not as_json:
            click.echo(verified[-1].as_text(), nl=False)
    if as_json:
        print_json([found.as_json() for found in verified])
    if any(found.differences for found in verified):
        sys.exit(NO)
