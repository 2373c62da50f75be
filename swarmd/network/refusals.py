"""Why a stranger's record is not used: one word for each reason, by which refusals are counted and shown."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reasons, in the order in which a record meets them. They stand in the status and must not change."""

    # While it is decoded (network.dialects).
    TOO_LARGE = "too-large"
    WRONG_KEY = "wrong-key"
    NOT_DECODABLE = "not-decodable"
    WRONG_SHAPE = "wrong-shape"
    OTHER_VERSION = "other-version"
    OTHER_SECRET = "other-secret"
    OTHER_PEER = "other-peer"
    BAD_SIGNATURE = "bad-signature"
    OTHER_ROUND = "other-round"
    WRONG_BATCH_ID = "wrong-batch-id"
    TOO_MANY_GROUPS = "too-many-groups"
    TOO_MANY_COMPLETIONS = "too-many-completions"
    COMPLETION_TOO_LONG = "completion-too-long"
    # Whose it is, and when it came (network.admission).
    UNSIGNED = "unsigned"
    EXPIRED = "expired"
    EXPIRES_TOO_LATE = "expires-too-late"
    OLD_ROUND = "old-round"
    FUTURE_ROUND = "future-round"
    DUPLICATE = "duplicate"
    QUOTA_PEER = "quota-peer"
    QUOTA_ADDRESS = "quota-address"
    QUOTA_ROUND = "quota-round"
    QUARANTINED = "quarantined"
    # What is in it.
    UNKNOWN_TASK = "unknown-task"
    OTHER_TASK = "other-task"
    HELD_OUT = "held-out"
    TOO_FEW_COMPLETIONS = "too-few-completions"
    COPIED = "copied"
    REPUBLISHED = "republished"
    NO_TIME = "no-time"
    IMPLAUSIBLE = "implausible"
    UNSCORED = "unscored"


class Refused(Exception):
    """A record, or a part of it, that is not used. Hits nobody but its sender.

    The message is for the log. What a stranger wrote goes into it through `shown` alone.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


def shown(text: str, most: int = 40) -> str:
    """A stranger's text for a log: its first `most` characters in quotes, ASCII, control characters escaped."""
    return ascii(text[:most]) + ("..." if len(text) > most else "")
