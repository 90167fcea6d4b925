"""`chart wait` and `chart watch`: follow a chart, on the database or on a server."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from datetime import timedelta
from itertools import chain
from typing import Any

import click

from app.cli import remote
from app.cli.shared import NO, USAGE, Age, config_of, exits_on_error, fail, open_service
from app.core.errors import DatabaseUnavailableError, StateServiceError
from app.service.ask import Question, answer_all
from app.service.context import Service
from app.service.reading import get_status

# Exit code of `wait` if the time is up first.
TIME_IS_UP = 3
LOOK_SECONDS = 1.0
# Columns below which lines are not wrapped any narrower.
LEAST_COLUMNS = 20
# The conditions that an operator must look at.
COLOURS = {"failed": "red", "backing_out": "red", "at_the_edge": "yellow", "stuck": "yellow"}
# What may be over at the next look: a server that starts again, a database that fails over.
PASSING = (remote.UnreachableError, DatabaseUnavailableError)


class Follower:
    """Reads one chart again and again, from the service's database or from a server.

    Once it has read the chart it is patient: `look` then tells an error that may pass, and returns None.
    """

    def __init__(self, context: click.Context, name: str) -> None:
        self._name = name
        self._remote = remote.find_remote(context)
        self._service: Service | None = None if self._remote is not None else open_service(config_of(context))
        self._has_read = self._has_told = False

    def look(self, goal: str | None = None) -> tuple[dict[str, Any], bool] | None:
        """Return the chart's status, and whether the run has entered `goal`; None if it cannot be read now."""
        try:
            found = self.read(), goal is not None and self.has_reached(goal)
        except PASSING as error:
            if not self._has_read:
                raise
            if not self._has_told:
                click.echo(f"{self._name}: {error}; asking again until it answers", err=True)
            self._has_told = True
            return None
        self._has_read, self._has_told = True, False
        return found

    def read(self) -> dict[str, Any]:
        """Return the chart's status as JSON has it."""
        if self._service is None:
            assert self._remote is not None
            found: dict[str, Any] = self._remote.json("GET", remote.chart_path(self._name))
            return found
        return get_status(self._service, self._name).as_json()

    def has_reached(self, state: str) -> bool:
        """Return whether the run has entered `state`. Exits 2 if the chart has no such state."""
        if self._service is None:
            assert self._remote is not None
            path = remote.chart_path(self._name, "reached")
            answer = self._remote.json("GET", path, {"state": state}, accepted=(406,))
            reason, is_yes = answer["reason"], bool(answer["answer"] == "yes")
        else:
            (found,) = answer_all(self._service, [Question(chart=self._name, state=state, reached=True)])
            if isinstance(found, StateServiceError):
                raise found
            reason, is_yes = str(found.answer.reason), found.answer.is_yes
        if reason == "unknown_state":
            fail(f"chart {self._name!r} has no state {state!r}", USAGE)
        return is_yes


@click.command("wait", epilog="Example: ./state_service chart wait kernel-rollout --for end --timeout 2h")
@click.argument("name")
@click.option("--for", "goal", default="end", show_default=True, metavar="end|STATE", help="What to wait for.")
@click.option("--timeout", type=Age(), metavar="SPAN", help="How long at most, such as 2h; for ever by default.")
@click.pass_context
@exits_on_error
def wait(context: click.Context, name: str, goal: str, timeout: timedelta | None) -> None:
    """Wait until the chart NAME has ended, or has entered STATE in this run.

    Exit 0 if it ended well or entered STATE, 1 if it ended badly or without STATE, 3 if the time is up. A server or a
    database that does not answer for a while is asked again, once it has answered.
    """
    deadline = None if timeout is None else time.monotonic() + timeout.total_seconds()
    follower, last = Follower(context, name), ""
    while True:
        found = follower.look(None if goal == "end" else goal)
        if found is not None:
            status, has_reached = found
            if has_reached:
                return
            last = f"{status['current_state']}: {status['because']}"
            if status["is_final"]:
                click.echo(f"{name}: {status['condition']} in {last}", err=True)
                if goal == "end" and status["condition"] == "ended":
                    return
                sys.exit(NO)
        if deadline is not None and time.monotonic() >= deadline:
            click.echo(f"{name}: the time is up in {last}", err=True)
            sys.exit(TIME_IS_UP)
        left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, max(deadline - time.monotonic(), 0))
        time.sleep(left)


@click.command("watch", epilog="Example: ./state_service chart watch kernel-rollout")
@click.argument("name")
@click.pass_context
@exits_on_error
def watch(context: click.Context, name: str) -> None:
    """Show the chart NAME and what it waits for, again whenever that changes, until it has ended. Ctrl-C ends it.

    On a terminal the screen is drawn anew, in the terminal's width; elsewhere each change is one line.
    """
    follower, last = Follower(context, name), ""
    while True:
        found = follower.look()
        if found is None:
            time.sleep(LOOK_SECONDS)
            continue
        status, _ = found
        lines = _describe(status)
        if lines != last:
            if sys.stdout.isatty():
                click.clear()
            click.echo(lines if sys.stdout.isatty() else lines.replace("\n", "; "))
            last = lines
        if status["is_final"]:
            return
        time.sleep(LOOK_SECONDS)


def _describe(status: dict[str, Any]) -> str:
    """Return a status in a few lines; on a terminal they fit its width, and the condition's line stands out."""
    values = ", ".join(f"{key} {value}" for key, value in status["values"].items())
    lines = [
        f"{status['chart']}: {status['condition']} in {status['current_state']}, run {status['run']}",
        status["because"],
        f"{values or 'no attributes'}",
        f"waits for {status['waits_for']}",
    ]
    text = [line for line in lines if line]
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns, LEAST_COLUMNS)
        head, *rest = [textwrap.wrap(line, width) for line in text]
        if not os.environ.get("NO_COLOR"):
            head = [click.style(piece, fg=COLOURS.get(status["condition"]), bold=True) for piece in head]
        text = [*head, *chain.from_iterable(rest)]
    return "\n".join(text)


COMMANDS = (wait, watch)
