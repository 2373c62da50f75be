"""How the node ends: the exit codes that service managers and scripts rely on, and the errors behind them."""

from __future__ import annotations

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


class RestartableError(Exception):
    """Something that may be gone after a restart, such as a full disk or a lost device (exit 75)."""
