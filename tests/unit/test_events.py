"""The lines on stderr: one a message, no secrets, and only ours."""

import io
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.system.events import EVENTS, adopt_libraries, configure_logging, context, event, set_context
from swarmd.system.redaction import one_line, redact

ROOT = Path(__file__).resolve().parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("swarmd")]
    saved = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in saved:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def configured(level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level, stream)
    return stream


def test_an_event_is_one_line() -> None:
    out = configured()
    event("round_finished", "round 7: reward 0.44", round=7)
    assert out.getvalue() == "swarmd: round 7: reward 0.44\n"


def test_a_percent_sign_in_a_message_is_only_a_percent_sign() -> None:
    out = configured()
    event("round_finished", "100%s of 7%", round=7)
    assert out.getvalue() == "swarmd: 100%s of 7%\n"


def test_from_warning_up_the_priority_is_named() -> None:
    out = configured("debug")
    for priority in range(8):
        event("started", f"p{priority}", priority=priority)
    assert out.getvalue().splitlines() == [
        "swarmd: emergency: p0",
        "swarmd: alert: p1",
        "swarmd: critical: p2",
        "swarmd: error: p3",
        "swarmd: warning: p4",
        "swarmd: p5",
        "swarmd: p6",
        "swarmd: p7",
    ]


def test_a_terminal_gets_the_time_and_a_journal_does_not() -> None:
    stream = Terminal()
    configure_logging("info", stream)
    event("started", "hello")
    event("started", "careful", priority=4)
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d hello", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: careful", second)


@pytest.mark.parametrize(("level", "seen"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_level_decides_what_is_seen(level: str, seen: int) -> None:
    out = configured(level)
    for priority in (7, 6, 4):
        event("started", "x", priority=priority)
    assert len(out.getvalue().splitlines()) == seen


def test_the_level_can_be_changed_without_doubling_the_lines() -> None:
    configured("debug")
    out = configured("info")
    event("started", "once")
    assert out.getvalue() == "swarmd: once\n"


def test_unknown_kinds_levels_and_priorities_are_refused() -> None:
    with pytest.raises(ValueError, match="'round_finnished' is not a kind of event"):
        event("round_finnished", "x")
    with pytest.raises(ValueError, match="'loud' is not a log level"):
        configure_logging("loud")
    with pytest.raises(ValueError, match="priority 8"):
        event("started", "x", priority=8)


def test_every_promised_kind_is_there() -> None:
    promised = {"started", "ready", "stopping", "stopped", "round_finished", "record_rejected"}
    promised |= {"child_replaced", "memory_stepped_down", "learning_stalled", "learning_collapsed"}
    promised |= {"checkpoint_saved", "checkpoint_restored", "checkpoint_damaged", "checkpoint_failed"}
    promised |= {"model_chosen", "hung", "reloaded", "reload_refused", "service_stopped", "crashed", "refused"}
    assert promised <= EVENTS


def test_fields_stay_on_the_record_redacted() -> None:
    configured()
    seen: list[logging.LogRecord] = []

    class Journal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logging.getLogger("swarmd").addHandler(Journal())
    event("round_finished", "x", round=7, url="https://user:secret@host/")
    fields = vars(seen[0])
    assert fields["event_kind"] == "round_finished"
    assert fields["event_fields"] == {"round": 7, "url": "https://***@host/"}


def test_strangers_text_cannot_begin_a_line_or_steer_the_terminal() -> None:
    out = configured()
    event("record_rejected", "peer says: x\nswarmd: fake\r\x1b[2J\u2028\u202ey")
    assert out.getvalue() == "swarmd: peer says: x\\nswarmd: fake\\r\\x1b[2J\\u2028\\u202ey\n"


@given(st.text(st.characters(), max_size=200))
def test_any_text_is_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    line.encode()  # no lone surrogates
    if text.isprintable():
        assert line == text


def test_a_long_message_is_cut() -> None:
    out = configured()
    event("record_rejected", "x" * 1_000_000)
    assert len(out.getvalue()) < 10_000


SECRETS = [
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "0x" + "4f" * 32,
    "https://user:hunter2hunter2@example.org/x",
    "https://chain.example.org/v2/aB3dEfGh1jKlMnOpQrStUvWx",
    "wss://chain.example.org/?apikey=aB3dEfGh1jKlMnOpQrStUvWx&x=1",
    "Authorization: Bearer abcdef1234567890",
    "password=hunter2hunter2",
    "{'api_key': 'hunter2hunter2'}",
    "-----BEGIN RSA PRIVATE KEY-----\nhunter2hunter2\n-----END RSA PRIVATE KEY-----",
]
HIDDEN = re.compile(
    "hunter2|abcdefghijklmnopqrstuvwxyzABCDEFGH|(4f){32}|aB3dEfGh1jKlMnOpQrStUvWx|abcdef1234567890"
)


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_never_get_out(secret: str) -> None:
    out = configured("debug")
    event("started", f"with {secret} inside")
    logging.getLogger("somelib").warning("got %s", secret)
    logging.getLogger("swarmd").error("%r", [secret])
    try:
        raise OSError(f"cannot reach {secret}")
    except OSError:
        logging.getLogger("swarmd").exception("failed")
    assert "***" in out.getvalue()
    assert not HIDDEN.search(out.getvalue())


@pytest.mark.parametrize(
    "text",
    [
        "round 7: reward 0.44, 3200 tokens/s, tokens: 123456789",
        "eos_token: <|im_end|>, pad token id 151643",
        "checkpoint /var/lib/swarmd/checkpoints/round-00000123 saved",
        "peer 12D3KooWQv8nT4BfGJ1ZxZrK7Uu1QyBxgXNhEJ3cZ2Qy7dT5aR9p at /ip4/10.0.0.1/tcp/38331",
        "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct/resolve/main/config.json",
        "address 0x" + "4f" * 20,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(st.sampled_from(":/?=&@.-_ha0fBearertokn'\" \n"), max_size=3000))
def test_redaction_takes_any_text(text: str) -> None:
    assert isinstance(redact(text), str)


def test_other_libraries_speak_at_debug_with_their_name() -> None:
    out = configured("debug")
    logging.getLogger("somelib.net").error("lost %d peers", 3)
    assert out.getvalue() == "swarmd: somelib.net: error: lost 3 peers\n"
    out = configured("info")
    logging.getLogger("somelib.net").error("lost %d peers", 3)
    assert out.getvalue() == ""


def test_a_library_with_a_handler_of_its_own_is_adopted() -> None:
    out = configured("debug")
    own = io.StringIO()
    library = logging.getLogger("loudlib")
    library.addHandler(logging.StreamHandler(own))
    library.propagate = False
    adopt_libraries()
    logging.getLogger("loudlib.deep").warning("look at me")
    assert own.getvalue() == ""
    assert out.getvalue() == "swarmd: loudlib.deep: warning: look at me\n"


def test_a_library_that_formats_wrongly_is_shown_all_the_same() -> None:
    out = configured("debug")
    logging.getLogger("somelib").warning("%d of %d", "many")
    assert out.getvalue() == "swarmd: somelib: warning: %d of %d ('many',)\n"


def test_python_warnings_go_the_same_way() -> None:
    out = configured("debug")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old\nthing", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert len(out.getvalue().splitlines()) == 1
    assert "py.warnings: warning: " in out.getvalue()
    assert "old\\nthing" in out.getvalue()


REAL_LIBRARY = """
import sys
sys.path.insert(0, sys.argv[1])
from swarmd.system.startup import prepare_process
prepare_process()
from swarmd.system.events import adopt_libraries, configure_logging, event
configure_logging("debug")
from huggingface_hub.utils import logging as hub
adopt_libraries()
hub.get_logger("huggingface_hub.some").warning("of the hub")
event("ready", "ready")
"""


def test_a_real_library_is_adopted() -> None:
    command = [sys.executable, "-c", REAL_LIBRARY, str(ROOT)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    assert [line for line in lines if line.endswith("of the hub")] == [
        "swarmd: huggingface_hub.some: warning: of the hub"
    ]
    assert all(line.startswith("swarmd: ") for line in lines), lines
    assert lines[-1] == "swarmd: ready"


def test_the_name_of_a_level_is_ours_when_a_library_has_renamed_it() -> None:
    out = configured("debug")
    logging.addLevelName(logging.WARNING, "WARN")  # as hivemind does
    try:
        logging.getLogger("somelib").warning("x")
    finally:
        logging.addLevelName(logging.WARNING, "WARNING")
    assert out.getvalue() == "swarmd: somelib: warning: x\n"


@pytest.fixture
def no_context() -> Iterator[None]:
    yield
    set_context(**dict.fromkeys(context()))


@pytest.mark.usefixtures("no_context")
def test_the_context_keeps_what_is_not_named_and_none_takes_away() -> None:
    set_context(round=7, phase="train", url="https://user:hunter2hunter2@host/")
    set_context(phase="share")
    assert context() == {"round": 7, "phase": "share", "url": "https://***@host/"}
    set_context(url=None, never="x", phase=None)
    set_context(never=None)
    assert context() == {"round": 7}


def test_a_librarys_line_is_told_with_its_place_and_source() -> None:
    configured("debug")
    seen: list[logging.LogRecord] = []

    class Journal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logging.getLogger("swarmd").addHandler(Journal())
    logging.getLogger("somelib.net").warning("x")
    event("started", "y")
    assert [record.pathname for record in seen] == [__file__, __file__]
    assert [record.funcName for record in seen] == [test_a_librarys_line_is_told_with_its_place_and_source.__name__] * 2
    assert vars(seen[0])["event_source"] == "somelib.net"


def test_a_library_that_would_be_quiet_is_heard_at_debug() -> None:
    out = configured("debug")
    logging.getLogger("quietlib").setLevel(logging.ERROR)  # as transformers does with its own
    adopt_libraries()
    logging.getLogger("quietlib.deep").info("after all")
    assert out.getvalue() == "swarmd: quietlib.deep: after all\n"


def test_an_argument_that_cannot_be_written_ends_nobody() -> None:
    class Unwritable:
        def __str__(self) -> str:
            raise RuntimeError("not to be written")

        __repr__ = __str__

    out = configured("debug")
    for message, argument in (("got %s", Unwritable()), ("got %d", Unwritable()), (Unwritable(), "x")):
        logging.getLogger("somelib").warning(message, argument)
    assert len(out.getvalue().splitlines()) == 3
    assert "[RuntimeError in writing" in out.getvalue()


def test_the_nodes_last_words_are_told_even_before_the_log_is_set_up() -> None:
    program = "from swarmd.system.events import crashed, refused\nrefused('no:\\na\\nb', 78)\ncrashed(OSError('gone'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.splitlines() == [
        "swarmd: error: no:", "a", "b", "swarmd: critical: the node ends: OSError: gone", "OSError: gone",
    ]  # fmt: skip
