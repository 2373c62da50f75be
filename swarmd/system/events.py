"""The lines the node writes: one event, one line on stderr or one record in the journal, and nothing secret in it.

Everything goes through the logger "swarmd". The fields of an event stay on its log record (`event_kind`,
`event_fields`), where the journal's handler finds them.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import TextIO

from swarmd.system.journal import journal_handler
from swarmd.system.redaction import one_line, redact, redact_field

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
        "hung",
        "reloaded",
        "reload_refused",
        "service_stopped",
        "crashed",
        "refused",
        "joined",
        "disagreement",
        "network_down",
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
# Secrets are looked for before a text is cut: half a key is no key any more that could be recognised.
_MARGIN = 16 * 1024

_log = logging.getLogger("swarmd")
_context: dict[str, object] = {}
_context_lock = threading.Lock()


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
        stacklevel=2,
    )


def crashed(error: BaseException) -> None:
    """Writes the node's last words on a fault that nobody foresaw: a `crashed` event with the whole traceback."""
    if not _log.handlers:
        configure_logging()
    fields = {"error": type(error).__name__, "reason": str(error)}
    extra = {"event_kind": "crashed", "event_priority": 2, "event_fields": fields}
    _log.critical("the node ends: %s", f"{type(error).__name__}: {error}", exc_info=error, extra=extra, stacklevel=2)


def refused(message: str, exit_code: int) -> None:
    """Writes why the node does not run, or no longer: a `refused` event. message: may have several lines."""
    if not _log.handlers:
        configure_logging()
    # Before it is cut in two: a key may have many lines.
    first, _, details = redact(message).partition("\n")
    fields = {"reason": message, "exit_code": exit_code}
    extra = {"event_kind": "refused", "event_priority": 3, "event_fields": fields, "event_details": details}
    _log.error("%s", first, extra=extra, stacklevel=2)


def set_context(**fields: object) -> None:
    """Fields that every later record carries besides its own, such as round=7, phase="train"; None takes one away.

    Fields not named keep their value; an event's own field of the same name wins. For any thread.
    """
    with _context_lock:
        for name, value in fields.items():
            if value is None:
                _context.pop(name, None)
            else:
                _context[name] = redact_field(name, value)


def context() -> dict[str, object]:
    """The fields of `set_context` as they stand now (a copy)."""
    with _context_lock:
        return dict(_context)


class RedactingFilter(logging.Filter):
    """Attached to a handler: bounds, redacts and flattens every record that passes through it."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = redact(_text(record)[: _LONGEST_MESSAGE + _MARGIN])
        if len(text) > _LONGEST_MESSAGE:
            text = text[:_LONGEST_MESSAGE] + " ..."
        record.msg, record.args = one_line(text), None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if details := getattr(record, "event_details", ""):
            record.exc_text = details
        record.exc_text = _lines(record.exc_text)
        record.stack_info = _lines(record.stack_info)
        fields = getattr(record, "event_fields", None)
        if fields:
            record.event_fields = {name: redact_field(name, value) for name, value in fields.items()}
        return True


def _lines(text: str | None) -> str | None:
    """A traceback or the like: its lines stay lines, each without secrets and control characters."""
    if not text:
        return None
    text = redact(text[-_LONGEST_TRACEBACK - _MARGIN :])[-_LONGEST_TRACEBACK:]
    return "\n".join(map(one_line, text.splitlines()))


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # A library's message whose arguments don't fit its format: shown as it is.
        return f"{record.msg} {_shown(record.args)}"
    except Exception as error:
        # An argument that does not let itself be written: a log line must not end the node.
        return f"{_shown(record.msg)} [{type(error).__name__} in writing its arguments]"


def _shown(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception as error:
        # As above.
        return f"[{type(error).__name__} in writing a {type(value).__name__}]"


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
        # With the place in the library, not this one.
        _log.handle(
            _log.makeRecord(
                _log.name, logging.DEBUG, record.pathname, record.lineno, "%s", (message,), record.exc_info,
                record.funcName, {"event_source": record.name}, record.stack_info,
            )  # fmt: skip
        )


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Makes the "swarmd" logger write to `stream`, and sends everybody else's lines to its DEBUG.

    stream: by default the journal, where stderr leads there (swarmd.system.journal), else stderr.

    level: one of syslog's names, "debug" to "emergency" (else ValueError). Call again to change it.
    """
    if level not in _NAMED_LEVELS:
        raise ValueError(f"{level!r} is not a log level; the levels are {', '.join(_NAMES)}")
    handler = (journal_handler(context) if stream is None else None) or _stream_handler(stream or sys.stderr)
    handler.addFilter(RedactingFilter())
    _log.handlers[:] = [handler]
    _log.propagate = False
    _log.setLevel(_NAMED_LEVELS[level])
    root = logging.getLogger()
    root.handlers[:] = [_Forwarder()]
    root.setLevel(logging.DEBUG if _log.isEnabledFor(logging.DEBUG) else logging.WARNING)
    logging.captureWarnings(True)
    adopt_libraries()


def _stream_handler(stream: TextIO | None) -> logging.Handler:
    target = stream or open(os.devnull, "w")  # noqa: SIM115 - a process that was started without a stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(LineFormatter(terminal=target.isatty()))
    return handler


def adopt_libraries() -> None:
    """Removes the handlers that libraries gave their own loggers, so that their lines reach our DEBUG only, and has
    those that would be quiet speak, so that `log.level: debug` shows them.

    They do so when they are imported (hivemind, transformers, datasets): call this again after the imports.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.split(".")[0] != "swarmd":
            logger.handlers[:] = []
            logger.propagate = True
            if "." not in name and logger.level > logging.INFO:
                # Not lower: torch would trace each of its steps, at the cost of the training's speed.
                logger.setLevel(logging.INFO)
