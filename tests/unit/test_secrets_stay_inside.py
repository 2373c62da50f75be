"""No secret reaches the journal or stderr: whichever way it takes, and whichever form it has."""

import contextlib
import io
import logging
import re
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.system import redaction
from swarmd.system.events import RedactingFilter, configure_logging, crashed, event, refused, set_context
from swarmd.system.events import context as context_fields
from swarmd.system.journal import JournalHandler
from swarmd.system.redaction import conceal, redact, redact_field
from swarmd.system.streams import LineStream, report_uncaught, tell_crash

FROM_A_FILE = "correct horse battery staple"
SECRETS = {
    "hub token": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "wallet key": "0x" + "4f" * 32,
    "url with password": "https://user:hunter2hunter2@example.org/x",
    "url with key": "https://chain.example.org/v2/aB3dEfGh1jKlMnOpQrStUvWx",
    "url with key in the query": "wss://chain.example.org/?apikey=aB3dEfGh1jKlMnOpQrStUvWx&x=1",
    "header": "Authorization: Bearer abcdef1234567890",
    "assignment": "password=hunter2hunter2",
    "repr of a dict": "{'api_key': 'hunter2hunter2'}",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\n" + "hunter2hunter2\n" * 60 + "-----END RSA PRIVATE KEY-----",
    "credential file": FROM_A_FILE,
}
HIDDEN = re.compile(
    "hunter2|abcdefghijklmnopqrstuvwxyzABCDEFGH|(4f){16}|aB3dEfGh1jKlMnOpQrStUvWx|abcdef1234567890|horse battery"
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("swarmd")]
    saved = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    known = redaction._known
    yield
    redaction._known = known
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    set_context(**dict.fromkeys(context_fields()))
    for logger, handlers, level, propagate in saved:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@contextlib.contextmanager
def writing(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Gives everything that was written since: the lines on stderr and the journal's records, byte by byte."""
    lines = io.StringIO()
    configure_logging("debug", lines)
    fields: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sink:
        sink.bind(str(tmp_path / "journal"))

        def send(record: Iterable[bytes]) -> None:
            fields.extend(record)

        journal = JournalHandler(context_fields, send, str(tmp_path / "journal"))
        journal.addFilter(RedactingFilter())
        # First, so that it gets the record as it was logged.
        logging.getLogger("swarmd").handlers.insert(0, journal)
        conceal(FROM_A_FILE + "\n")
        yield lambda: lines.getvalue() + b"\n".join(fields).decode()


def by_an_event(secret: str) -> None:
    event("started", f"with {secret} inside")


def by_an_events_fields(secret: str) -> None:
    deep = [secret, {"deep": (secret, {secret: 1})}]
    event("started", "x", one=secret, many=deep, raw=secret.encode(), error=OSError(secret))


def by_the_context(secret: str) -> None:
    set_context(phase=secret)
    event("started", "x")


def by_a_librarys_arguments(secret: str) -> None:
    logging.getLogger("some.library").warning("got %s and %r", secret, {"x": secret})


def by_a_library_that_formats_wrongly(secret: str) -> None:
    logging.getLogger("some.library").error("%d", secret)


def by_a_traceback(secret: str) -> None:
    try:
        raise OSError(f"cannot reach {secret}")
    except OSError:
        logging.getLogger("some.library").exception("failed")


def by_a_chain_of_tracebacks(secret: str) -> None:
    try:
        try:
            raise OSError(secret)
        except OSError as error:
            raise RuntimeError(f"again {secret}") from error
    except RuntimeError as error:
        error.add_note(secret)
        crashed(error)


def by_a_group_of_exceptions(secret: str) -> None:
    crashed(ExceptionGroup(secret, [ValueError(secret), OSError(secret)]))


def by_a_refusal(secret: str) -> None:
    refused(f"{secret} cannot be used:\nfile: {secret}\n{secret}", 78)


def by_a_stack(secret: str) -> None:
    logging.getLogger("some.library").warning("here", stack_info=True, extra={"event_details": secret})


def by_a_warning(secret: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(secret, UserWarning, stacklevel=1)


def by_a_print(secret: str) -> None:
    print("it is", secret, file=LineStream("stdout", 1))


def by_a_childs_last_lines(secret: str) -> None:
    tell_crash("scorer", -6, ["before", *secret.split("\n"), "after"])


def by_a_thread(secret: str) -> None:
    report_uncaught()

    def fail() -> None:
        raise OSError(secret)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def by_a_very_long_message(secret: str) -> None:
    for before in range(8150, 8193, 7):
        event("started", " " * before + secret)


WAYS = [value for name, value in sorted(globals().items()) if name.startswith("by_a") or name.startswith("by_t")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_no_secret_gets_out(way: Callable[[str], None], secret: str, tmp_path: Path) -> None:
    with writing(tmp_path) as written:
        way(secret)
        text = written()
    assert "MESSAGE=" in text and "swarmd:" in text, "nothing was written: the test shows nothing"
    assert not HIDDEN.search(text), HIDDEN.search(text)


def test_a_field_is_hidden_when_its_name_says_that_it_is_a_secret() -> None:
    fields = {"token": "short", "hub_token": b"abc", "api-key": "x", "private_key": "y", "deep": {"password": "z"}}
    shown = {name: redact_field(name, value) for name, value in fields.items()}
    assert shown == {"token": "***", "hub_token": "***", "api-key": "***", "private_key": "***",
                     "deep": {"password": "***"}}  # fmt: skip


def test_a_field_that_is_no_secret_stays_as_it_is() -> None:
    fields = {
        "tokens": 3200, "token_budget": 512, "tokens_per_s": 1.5, "token_file": "/etc/x", "token": 7, "fine": True,
        "no": None, "seconds": {"train": 1.5}, "list": [1, "two"],
    }  # fmt: skip
    assert {name: redact_field(name, value) for name, value in fields.items()} == fields


def test_a_stranger_cannot_write_lines_of_his_own_into_a_field() -> None:
    assert redact_field("reason", "x\nSWARMD_CAUSE=clean\x1b[2J") == "x\\nSWARMD_CAUSE=clean\\x1b[2J"
    assert redact_field("reason", {"a\nb": ["c\rd"]}) == {"a\\nb": ["c\\rd"]}


def test_the_lines_of_a_secret_file_are_hidden_one_by_one_and_words_are_not() -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, redaction, "_known", redaction._known)
        conceal("first-line-of-it\nsecond-line-of-it\nthe\n")
        assert redact("a second-line-of-it b first-line-of-it c the end") == "a *** b *** c the end"


LEAVES = st.none() | st.text() | st.integers() | st.binary()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_redaction_of_fields_takes_anything(value: object) -> None:
    redact_field("reason", value)
