"""How the node ends: the exit codes that service managers and scripts rely on, and the errors behind them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXIT_OK = 0
"""Asked to stop, or the rounds that were asked for are done."""

EXIT_RESTART = 75
"""A fault that a restart may mend (EX_TEMPFAIL of sysexits.h)."""

EXIT_CONFIG = 78
"""A fault that only a person can mend: configuration, or an identity in use (EX_CONFIG of sysexits.h).
The unit names it in RestartPreventExitStatus=, so that a broken configuration does not restart for ever."""

EXIT_CREDENTIALS = 243
"""The service manager's own (EXIT_CREDENTIALS of systemd.exec(5)): the folder of credentials is gone or unreadable."""


class ConfigurationError(Exception):
    """Something a person has to change before the node can run; its message is shown as it is (exit 78)."""


@dataclass(frozen=True)
class SettingProblem:
    """One setting that turned out to be unusable when it was used. key: where, such as
    tasks.datasets[2].config.min_terms."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


class SettingsRefused(ConfigurationError):
    """Settings of the right form that cannot be used all the same; its message has one line for each of `problems`."""

    def __init__(self, problems: Iterable[SettingProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RestartableError(Exception):
    """Something that may be gone after a restart, such as a full disk or a lost device (exit 75)."""
