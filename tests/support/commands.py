"""The command line, run in this process."""

from __future__ import annotations

from dataclasses import dataclass

from click.testing import CliRunner, Result

from app.cli.root import main


@dataclass
class Commands:
    """The command line on a database."""

    database_url: str

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None, **settings: str) -> Result:
        """Run a command; fails where it exits otherwise than with `code`."""
        environment: dict[str, str | None] = {
            "STATE_SERVICE_DATABASE_URL": self.database_url,
            **{f"STATE_SERVICE_{name.upper()}": value for name, value in settings.items()},
        }
        result = CliRunner().invoke(main, list(arguments), env=environment, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result
