"""`./state_service chart pause` and the like: what an operator does to a chart, each with a reason."""

from __future__ import annotations

import click

from app.cli.chart import JSON, group
from app.cli.context import config_of, current_author, open_service, reporting
from app.cli.printing import print_json
from app.service import acts
from app.service.status import Status

REASON = click.option("--reason", required=True, metavar="TEXT", help="Why; the log keeps it.")


@group.command("pause", epilog='Example: ./state_service chart pause kernel-rollout --reason "disk alarms in canary"')
@click.argument("name")
@REASON
@JSON
@click.pass_context
@reporting
def pause(context: click.Context, name: str, reason: str, as_json: bool) -> None:
    """Hold the chart NAME: every question is answered no, and its clock stands still."""
    _say(acts.pause(open_service(config_of(context)), name, reason, current_author()), as_json)


@group.command("resume", epilog='Example: ./state_service chart resume kernel-rollout --reason "disks replaced"')
@click.argument("name")
@REASON
@JSON
@click.pass_context
@reporting
def resume(context: click.Context, name: str, reason: str, as_json: bool) -> None:
    """Let the paused chart NAME go on, and judge its guards again."""
    _say(acts.resume(open_service(config_of(context)), name, reason, current_author()), as_json)


@group.command("reset", epilog='Example: ./state_service chart reset kernel-rollout --reason "next month\'s kernel"')
@click.argument("name")
@REASON
@JSON
@click.pass_context
@reporting
def reset(context: click.Context, name: str, reason: str, as_json: bool) -> None:
    """Begin the next run of the chart NAME, in its initial state."""
    _say(acts.reset(open_service(config_of(context)), name, reason, current_author()), as_json)


@group.command("goto", epilog='Example: ./state_service chart goto kernel-rollout rollback --reason "it panics"')
@click.argument("name")
@click.argument("state")
@REASON
@JSON
@click.pass_context
@reporting
def goto(context: click.Context, name: str, state: str, reason: str, as_json: bool) -> None:
    """Send the chart NAME to STATE, whatever its guards say."""
    _say(acts.goto(open_service(config_of(context)), name, state, reason, current_author()), as_json)


@group.command("archive", epilog='Example: ./state_service chart archive kernel-rollout --reason "the fleet is gone"')
@click.argument("name")
@REASON
@JSON
@click.pass_context
@reporting
def archive(context: click.Context, name: str, reason: str, as_json: bool) -> None:
    """Put the chart NAME away: it answers no more, its log stays. Importing the name again brings it back."""
    _say(acts.archive(open_service(config_of(context)), name, reason, current_author()), as_json)


@group.command("evict", epilog='Example: ./state_service chart evict rolling-reboot web-07 --reason "it is scrap"')
@click.argument("name")
@click.argument("machine")
@REASON
@JSON
@click.pass_context
@reporting
def evict(context: click.Context, name: str, machine: str, reason: str, as_json: bool) -> None:
    """Take the slot that MACHINE holds of the chart NAME away from it."""
    _say(acts.evict(open_service(config_of(context)), name, machine, reason, current_author()), as_json)


def _say(status: Status, as_json: bool) -> None:
    if as_json:
        print_json(status.as_json())
    else:
        click.echo(status.as_text(), nl=False)
