"""Every error that the service raises. A refused request is not an error: it is the value `Verdict.REFUSED`."""

from __future__ import annotations

from dataclasses import dataclass


class StateServiceError(Exception):
    """The base of all errors here. The text says what is wrong and may be shown to the client."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with a chart file, and its place; line and column count from 1.

    `story` shows how a promise of the chart can be broken, as a story file has it; it is empty for any other problem.
    """

    line: int
    column: int
    message: str
    story: str = ""

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"

    def as_json(self) -> dict[str, int | str]:
        """Return the problem as the HTTP interface and `--json` show it."""
        shown: dict[str, int | str] = {"line": self.line, "column": self.column, "message": self.message}
        return shown | ({"story": self.story} if self.story else {})


class ChartFileError(StateServiceError):
    """The chart file has problems; all of them are in `problems`, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class CalendarFileError(ChartFileError):
    """A calendar's text has problems, as `ChartFileError` has them."""


class CalendarNotFoundError(StateServiceError):
    """No calendar of that name, or no version of that number."""


class BadRequestError(StateServiceError):
    """A parameter is missing, repeated, malformed or does not fit the chart."""


class ChartNotFoundError(StateServiceError):
    """No chart of that name, or it is archived."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no chart named {name!r}")
        self.name = name


class RosterNotFoundError(StateServiceError):
    """No roster of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no roster named {name!r}")
        self.name = name


class NoDefaultChartError(StateServiceError):
    """A request was about the default chart, and there is no default chart."""


class VersionNotFoundError(StateServiceError):
    """The chart has no version of that number."""


class SubscriptionNotFoundError(StateServiceError):
    """There is no subscription of that name."""


class InvalidSubscriptionError(StateServiceError):
    """A subscription has a field that cannot be used, or its receiver may not be sent to."""


class ConflictError(StateServiceError):
    """The request is well formed, but the chart's current position does not allow it."""


class ReasonRequiredError(StateServiceError):
    """An operator's act came without a reason, which the log must have."""


class KeyReusedError(StateServiceError):
    """An Idempotency-Key was used again with another state, machine or attribute."""


class AttributeRangeError(ConflictError):
    """A func would move an attribute out of the signed 64-bit range."""


class TooManyWaitersError(StateServiceError):
    """The limit of waiting requests is reached; the client should try again later."""


class UnauthenticatedError(StateServiceError):
    """The request has no token, or its token is unknown or revoked."""


class ForbiddenError(StateServiceError):
    """The token's role or chart pattern does not allow this."""


class LogDamagedError(StateServiceError):
    """The log cannot be replayed: a row is missing, was changed, or contradicts the rows before it."""


class SettingError(StateServiceError):
    """A setting has a value that cannot be used; the service does not start."""


class DatabaseUnavailableError(StateServiceError):
    """The database is busy, unreachable, full, damaged or not migrated.

    `outcome` is "not_applied" if the transaction certainly did not commit, and "unknown" if the connection broke
    during the commit.
    """

    def __init__(self, message: str, outcome: str = "not_applied") -> None:
        super().__init__(message)
        self.outcome = outcome
