"""The lines the node writes: one event, one line on stderr, and nothing secret or multi-line in it.

Everything goes through the logger "swarmd". The fields of an event stay on its log record (`event_kind`,
`event_fields`) for a handler that writes structured journal entries.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from swarmd.system.redaction import one_line, redact

EVENTS = frozenset(
    {
        "started",
        "ready",
        "stopping",
        "stopped",
        "round_finished",
        "evaluated",
        "record_rejected",
        "child_replaced",
        "memory_stepped_down",
        "checkpoint_saved",
        "checkpoint_restored",
        "checkpoint_damaged",
        "checkpoint_failed",
        "history_damaged",
        "learning_stalled",
        "learning_collapsed",
        "model_chosen",
    }
)

NOTICE = 25
logging.addLevelName(NOTICE, "NOTICE")

# Priorities as in syslog(3): 0 emergency ... 7 debug.
_LEVELS = (logging.CRITICAL,) * 3 + (logging.ERROR, logging.WARNING, NOTICE, logging.INFO, logging.DEBUG)
_NAMES = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
_NAMED_LEVELS = dict(zip(_NAMES, _LEVELS, strict=True))

_LONGEST_MESSAGE = 8 * 1024
_LONGEST_TRACEBACK = 64 * 1024

_log = logging.getLogger("swarmd")


def event(kind: str, message: str, /, *, priority: int = 6, **fields: object) -> None:
    """Writes one event: `message` for people, `fields` for machines, `priority` as in syslog(3).

    ValueError for a kind that is not in EVENTS (each has its place in the catalog) or a priority not in 0..7.
    """
    if kind not in EVENTS:
        raise ValueError(f"{kind!r} is not a kind of event; the kinds are {', '.join(sorted(EVENTS))}")
    if not 0 <= priority <= 7:
        raise ValueError(f"priority {priority} is not in 0..7")
    _log.log(
        _LEVELS[priority],
        "%s",
        message,
        extra={"event_kind": kind, "event_priority": priority, "event_fields": fields},
    )


class RedactingFilter(logging.Filter):
    """Attached to a handler: bounds, redacts and flattens every record that passes through it."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = _text(record)
        if len(text) > _LONGEST_MESSAGE:
            text = text[:_LONGEST_MESSAGE] + " ..."
        record.msg, record.args = one_line(redact(text)), None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text[-_LONGEST_TRACEBACK:])
        fields = getattr(record, "event_fields", None)
        if fields:
            record.event_fields = {k: redact(v) if isinstance(v, str) else v for k, v in fields.items()}
        return True


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # A library's message whose arguments don't fit its format: shown as it is.
        return f"{record.msg} {record.args!r}"


class LineFormatter(logging.Formatter):
    """`swarmd: message`, on a terminal `HH:MM:SS message`; from warning up with the name of the priority.

    No time elsewhere: the journal, Docker and the like add their own.
    """

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def formatMessage(self, record: logging.LogRecord) -> str:
        source = time.strftime("%H:%M:%S", time.localtime(record.created)) if self._terminal else "swarmd:"
        return f"{source} {_severity(record)}{record.getMessage()}"


def _severity(record: logging.LogRecord) -> str:
    if record.levelno < logging.WARNING:
        return ""
    priority = getattr(record, "event_priority", None)
    if priority is None:
        priority = 2 if record.levelno >= logging.CRITICAL else 3 if record.levelno >= logging.ERROR else 4
    return f"{_NAMES[priority]}: "


class _Forwarder(logging.Handler):
    """Sends what other libraries log on to our logger, as DEBUG, with the name of the source."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] == "swarmd" or not _log.isEnabledFor(logging.DEBUG):
            return
        message = f"{record.name}: {_severity(record)}{_text(record)}"
        _log.debug("%s", message, exc_info=record.exc_info)


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Makes the "swarmd" logger write to `stream` (stderr), and sends everybody else's lines to its DEBUG.

    level: one of syslog's names, "debug" to "emergency" (else ValueError). Call again to change it.
    """
    if level not in _NAMED_LEVELS:
        raise ValueError(f"{level!r} is not a log level; the levels are {', '.join(_NAMES)}")
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.setFormatter(LineFormatter(terminal=target.isatty()))
    handler.addFilter(RedactingFilter())
    _log.handlers[:] = [handler]
    _log.propagate = False
    _log.setLevel(_NAMED_LEVELS[level])
    root = logging.getLogger()
    root.handlers[:] = [_Forwarder()]
    root.setLevel(logging.DEBUG if _log.isEnabledFor(logging.DEBUG) else logging.WARNING)
    logging.captureWarnings(True)
    adopt_libraries()


def adopt_libraries() -> None:
    """Removes the handlers that libraries gave their own loggers, so that their lines reach our DEBUG only.

    They do so when they are imported (hivemind, transformers, datasets): call this again after the imports.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.split(".")[0] != "swarmd":
            logger.handlers[:] = []
            logger.propagate = True
