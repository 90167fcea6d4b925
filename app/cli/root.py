"""`./state_service`: the root command, which serves if no other command is given."""

from __future__ import annotations

import click

from app.cli import calendar, chart, database, lab, prove, roster, subscription, token
from app.cli.serve import serve
from app.cli.shared import exits_on_error, load_config

EXAMPLES = """
\b
Examples:
  ./state_service --chart charts/states.yaml
  ./state_service --chart a.yaml --chart b.yaml --port 8080 --database postgresql://state@db/state
  ./state_service chart lint charts/states.yaml
"""


@click.group(invoke_without_command=True, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--chart", "charts", multiple=True, metavar="FILE", help="A chart file to import; the first is the default chart."
)
@click.option(
    "--take-file", is_flag=True, help="Import a --chart file also if it has the text of an earlier version: a rollback."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="The port to listen on.")
@click.option("--database", metavar="URL", help="sqlite:///FILE or postgresql://…; else STATE_SERVICE_DATABASE_URL.")
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes; else STATE_SERVICE_WORKERS.")
@click.option("--debug", is_flag=True, help="Log more, and restart when the code changes.")
@click.option("--logger", metavar="FILE", help="A YAML file for Python's logging.config.dictConfig.")
@click.pass_context
@exits_on_error
def main(
    context: click.Context,
    charts: tuple[str, ...],
    take_file: bool,
    host: str,
    port: int,
    database: str | None,
    workers: int | None,
    debug: bool,
    logger: str | None,
) -> None:
    """Sequence work over many machines: serve charts over HTTP, or administer them.

    Without a COMMAND: migrates the database, imports the charts of --chart, and serves.
    """
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    context.obj = load_config(database_url=database, workers=workers, logger=logger, bind=bind)
    if context.invoked_subcommand is None:
        serve(context.obj, charts, host, debug=debug, take_file=take_file)


for command in (*lab.COMMANDS, prove.command):
    chart.group.add_command(command)
main.add_command(chart.group)
main.add_command(calendar.group)
main.add_command(database.group)
main.add_command(roster.group)
main.add_command(token.group)
main.add_command(subscription.group)
