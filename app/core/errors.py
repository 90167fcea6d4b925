"""Every error the service raises. What a machine may not do is a value (`Verdict.REFUSED`), never one of these."""

from __future__ import annotations

from dataclasses import dataclass


class StateServiceError(Exception):
    """The root of the tree; its text names the culprit and is fit to show to the caller."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a chart file, where it stands (line and column count from 1)."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"

    def as_json(self) -> dict[str, int | str]:
        """The problem as the HTTP interface and `--json` give it."""
        return {"line": self.line, "column": self.column, "message": self.message}


class ChartFileError(StateServiceError):
    """The chart file has problems; all of them are in `problems`, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class BadRequestError(StateServiceError):
    """A parameter is missing, repeated, malformed or does not fit the chart."""


class ChartNotFoundError(StateServiceError):
    """No chart of that name, or it is archived."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no chart named {name!r}")
        self.name = name


class NoDefaultChartError(StateServiceError):
    """A question was put to the default chart and there is none."""


class VersionNotFoundError(StateServiceError):
    """The chart has no version of that number."""


class ConflictError(StateServiceError):
    """The request is well formed but the chart's present position does not allow it."""


class ReasonRequiredError(StateServiceError):
    """An operator's act came without the reason that the log must keep."""


class KeyReusedError(StateServiceError):
    """An Idempotency-Key came again with another state, machine or attribute."""


class AttributeRangeError(ConflictError):
    """A func would carry an attribute out of the signed 64-bit range."""


class TooManyWaitersError(StateServiceError):
    """The limit of held requests is reached; the caller should come back."""


class UnauthenticatedError(StateServiceError):
    """No token, or one that is unknown or revoked."""


class ForbiddenError(StateServiceError):
    """The token's role or chart pattern does not allow this."""


class LogDamagedError(StateServiceError):
    """The log cannot be replayed: a row is missing, foreign or contradicts its chart."""


class SettingError(StateServiceError):
    """A setting has a value that cannot be used; the service does not start."""


class DatabaseUnavailableError(StateServiceError):
    """The database is busy, away, full, damaged or not migrated.

    `outcome` is "not_applied" where the transaction certainly did not commit, "unknown" where the
    connection broke during the commit.
    """

    def __init__(self, message: str, outcome: str = "not_applied") -> None:
        super().__init__(message)
        self.outcome = outcome
