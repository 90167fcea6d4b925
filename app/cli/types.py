"""What an option's text may say, beyond what click knows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click

from app.chart_file.scalars import ScalarError, to_age, to_instant


class Age(click.ParamType[timedelta]):
    """A length of time, written as in a chart file."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the length of time. Fails as click wants it."""
        try:
            return to_age(str(value))
        except ScalarError as error:
            self.fail(str(error), param, ctx)


class Instant(click.ParamType[datetime]):
    """An ISO 8601 instant; without an offset it is UTC."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant. Fails as click wants it."""
        try:
            return to_instant(str(value))
        except ScalarError as error:
            self.fail(str(error), param, ctx)
