"""Finding the answer in a completion: a twin of reasoning_gym.utils.extract_answer that takes linear time.

The original (reasoning-gym 0.1.25) tries a regular expression at every opening tag and scans to the end from each:
160 kB of opening tags cost it more than five CPU seconds.
"""

from __future__ import annotations

MAX_ANSWER_CHARS = 8192
"""Longer answers are not scored: some scorers take quadratic time."""

_OPENING = "<answer>"
_CLOSING = "</answer>"


def extract_answer(completion: str) -> str | None:
    """The text of the last answer, without white space around it; None where there is no complete one.

    As in the original, an answer runs from an opening tag to the next closing tag, whatever stands between them
    (other opening tags included), and the search goes on behind the closing tag.
    """
    answer = None
    position = 0
    while True:
        start = completion.find(_OPENING, position)
        if start < 0:
            break
        end = completion.find(_CLOSING, start + len(_OPENING))
        if end < 0:
            break
        answer = completion[start + len(_OPENING) : end]
        position = end + len(_CLOSING)
    return None if answer is None else answer.strip()
