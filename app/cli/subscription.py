"""`./state_service subscription`: who is told of which rows of the log."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from app.cli.shared import NO, config_of, current_author, exits_on_error, open_service, print_json, print_table
from app.service import subscriptions
from app.service.subscriptions import FORMATS

# What a server answers, and what `as_json` gives.
Fields = Mapping[str, Any]


@click.group(
    "subscription",
    short_help="Webhooks: set, list, show, test, deliveries, delete.",
    epilog="Example: ./state_service subscription list",
)
def group() -> None:
    """Subscriptions: receivers that are told of rows of the log by webhook (docs/notify.md)."""


@group.command("set", epilog="Example: ./state_service subscription set pager --url https://hooks.example.org/x")
@click.argument("name")
@click.option("--url", required=True, help="The receiver; its host must be in STATE_SERVICE_WEBHOOK_HOSTS.")
@click.option("--secret", help="Signs the webhooks; if left out, a new subscription gets one, which is printed.")
@click.option("--charts", multiple=True, metavar="PATTERN", help="Charts to tell of (default: all). Repeatable.")
@click.option("--kind", "kinds", multiple=True, help="Kinds of rows, and condition:failed and the like. Repeatable.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="event", show_default=True, help="The body.")
@click.pass_context
@exits_on_error
def set_(
    context: click.Context,
    name: str,
    url: str,
    secret: str | None,
    charts: tuple[str, ...],
    kinds: tuple[str, ...],
    form: str,
) -> None:
    """Make the subscription NAME, or change it."""
    lists = {key: list(value) for key, value in (("charts", charts), ("kinds", kinds)) if value}
    wanted = subscriptions.read_wanted({"url": url, "secret": secret, "format": form, **lists})
    done = subscriptions.put_subscription(open_service(config_of(context)), name, wanted, current_author())
    print_put(name, done.as_json(), is_new=done.is_new)


def print_put(name: str, found: Fields, *, is_new: bool) -> None:
    """Print what became of a subscription, and its secret if the service has made one."""
    click.echo(f"{name}: {'made' if is_new else 'changed'}", err=True)
    if "secret" in found:
        click.echo("Shown only once, for the receiver:", err=True)
        click.echo(found["secret"])


@group.command("list", epilog="Example: ./state_service subscription list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@exits_on_error
def list_(context: click.Context, as_json: bool) -> None:
    """List every subscription; never a secret."""
    found = subscriptions.list_subscriptions(open_service(config_of(context)))
    print_subscriptions([one.as_json() for one in found], as_json=as_json)


def print_subscriptions(found: Sequence[Fields], *, as_json: bool) -> None:
    """Print subscriptions as JSON or as a table."""
    if as_json:
        print_json(found)
        return
    rows = [[one["name"], one["url"], " ".join(one["charts"]), " ".join(one["kinds"]), one["format"]] for one in found]
    print_table(["NAME", "URL", "CHARTS", "KINDS", "FORMAT"], rows)


@group.command("show", epilog="Example: ./state_service subscription show pager")
@click.argument("name")
@click.pass_context
@exits_on_error
def show(context: click.Context, name: str) -> None:
    """Print the subscription NAME as JSON, without its secret."""
    print_json(subscriptions.get_subscription(open_service(config_of(context)), name).as_json())


@group.command("delete", epilog="Example: ./state_service subscription delete pager")
@click.argument("name")
@click.pass_context
@exits_on_error
def delete(context: click.Context, name: str) -> None:
    """Delete the subscription NAME and the list of its deliveries."""
    subscriptions.delete_subscription(open_service(config_of(context)), name)
    click.echo(f"{name}: deleted")


@group.command("test", epilog="Example: ./state_service subscription test pager")
@click.argument("name")
@click.pass_context
@exits_on_error
def test(context: click.Context, name: str) -> None:
    """Send a webhook of the kind `test` to NAME now; exit 1 if it is not delivered."""
    print_test(name, subscriptions.send_test(open_service(config_of(context)), name).as_json())


def print_test(name: str, delivery: Fields) -> None:
    """Print what came of a test. Exits 1 if it was not delivered."""
    if not delivery["delivered"]:
        click.echo(f"{name}: not delivered: {delivery['error']}", err=True)
        sys.exit(NO)
    answered = "" if delivery["status"] is None else f", the receiver answered {delivery['status']}"
    click.echo(f"{name}: delivered{answered}")


@group.command("deliveries", epilog="Example: ./state_service subscription deliveries pager --limit 20")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@exits_on_error
def deliveries(context: click.Context, name: str, limit: int, as_json: bool) -> None:
    """List what was sent to NAME, newest first."""
    found = subscriptions.list_deliveries(open_service(config_of(context)), name, limit)
    print_deliveries([one.as_json() for one in found], as_json=as_json)


def print_deliveries(found: Sequence[Fields], *, as_json: bool) -> None:
    """Print deliveries as JSON or as a table."""
    if as_json:
        print_json(found)
        return
    names = ("at", "webhook_id", "kind", "attempt", "status", "error")
    print_table([item.upper() for item in names], [[one[item] for item in names] for one in found])
