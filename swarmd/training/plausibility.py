"""Could a model in the state of ours have written this? What peers send is held against what this node sampled itself.

A peer's reward is computed here and cannot be lied about, but its text can be anything around a right answer: what no
policy wrote, teaches a policy nothing it could use, and whoever sends it may want it to be learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

IMPLAUSIBLE = "implausible"
"""The reason code of a peer's group that is not trained on since one of its completions is."""
TOO_LONG = "too-long"
"""That of one with a completion much longer than what this node writes. Apart, since it is no sign of ill will: peers
with larger models think at greater length."""

# Robust standard deviations under the median of own completions. On normal values one in 3.5 million lies so far out;
# completions' log-probs have a longer tail, which is what the lower bounds of the scale are for.
MOST_DEVIATIONS = 5.0
# A policy that is sure of itself writes nearly the same each time. A peer that is a few hundred updates behind or
# ahead of it is honest all the same, and its text lies some tenths of a nat lower. With five deviations a completion
# may be 2.5 nats a token (12 times) less likely than the median of own ones: random text is 5 to 11 nats below. The
# embedded model and itself 180 updates later refuse none of each other's completions; the least likely of 192 has 0.8
# nats to spare. After 40 updates at 16 times its learning rate a third and more are refused: that is another policy.
LEAST_MEAN_DEVIATION = 0.5
# The tenth least likely of the tokens: single tokens vary far more than means, also in honest text, where each choice
# between words of like meaning costs a nat or two; text put in front of an answer, or behind it, has these at 10 to 20.
LEAST_DECILE_DEVIATION = 1.5
# Longest completions that are taken whatever the own ones' length is: a policy that has come to answer in three
# tokens must be able to learn from others that there is more to say.
LEAST_LONGEST = 64
# A completion that is too long costs its whole group. Without a margin an honest peer of like mind would lose one group
# of eight in ten to five (lengths log-normal, 32 to 128 own completions); with this one, one in seventeen at most for
# lengths that spread like those of texts (sigma 0.3 to 0.8).
LONGEST_MARGIN = 1.5
_TO_STANDARD_DEVIATION = 1.4826  # of the median absolute deviation, on normal values
_LONGEST_SHARE = 0.99
_LOW_SHARE = 0.1


@dataclass(frozen=True)
class Plausibility:
    """The bounds that this node's own completions of the round set.

    least_mean: of a completion's mean log-prob a token; least_decile: of its lowest decile (`low_decile`), both in
    nats; longest: in tokens, the end token included.
    """

    least_mean: float
    least_decile: float
    longest: int

    @classmethod
    def of(cls, own: Sequence[Sequence[float]], max_new_tokens: int) -> Plausibility | None:
        """The bounds, from the log-probs of each own completion's tokens under the policy that sampled them, which is
        the one that is trained: a round makes one step on fresh completions. None where there are none.

        max_new_tokens: where own sampling stops; nothing longer is ever plausible.
        """
        own = [logprobs for logprobs in own if logprobs]
        if not own:
            return None
        by_length = sorted(map(len, own))
        usual = by_length[math.ceil(_LONGEST_SHARE * len(by_length)) - 1]
        return cls(
            least_mean=_lower_bound([mean(logprobs) for logprobs in own], LEAST_MEAN_DEVIATION),
            least_decile=_lower_bound([low_decile(logprobs) for logprobs in own], LEAST_DECILE_DEVIATION),
            longest=min(max(int(LONGEST_MARGIN * usual), LEAST_LONGEST), max_new_tokens),
        )

    def too_long(self, tokens: int) -> bool:
        """Whether a completion of so many tokens is refused unread."""
        return tokens > self.longest

    def likely(self, logprobs: Sequence[float]) -> bool:
        """Whether a completion whose tokens have these log-probs under the own policy may be trained on."""
        # So written that NaN, which fits no bound, is none.
        return mean(logprobs) >= self.least_mean and low_decile(logprobs) >= self.least_decile


def mean(logprobs: Sequence[float]) -> float:
    return math.fsum(logprobs) / len(logprobs)


def low_decile(logprobs: Sequence[float]) -> float:
    """The log-prob that a tenth of the tokens do not exceed; with less than ten tokens the lowest of all."""
    return sorted(logprobs)[max(0, math.ceil(_LOW_SHARE * len(logprobs)) - 1)]


def _lower_bound(values: Sequence[float], least_deviation: float) -> float:
    middle = median(values)
    deviation = _TO_STANDARD_DEVIATION * median(abs(value - middle) for value in values)
    return middle - MOST_DEVIATIONS * max(deviation, least_deviation)
