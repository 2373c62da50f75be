"""Who publishes another's completions as its own.

A copy teaches nothing that the original did not teach, and lets a node that computes nothing pass for one that does.
But equal texts are no proof of copying, and an honest peer must not be punished for one:

- Short answers are equal by themselves: two models that know it both write `<answer>3</answer>`. So are the loops of a
  model that has not learned yet, however long. A text counts as evidence only if it holds much (its length when
  compressed): some fifty tokens of prose. Even where each is 80 % certain, two models agree in all of them once in
  70 000 times.
- One such text can still be an accident, where the model is nearly sure and the question is the same. So it takes two
  different ones in a group, and half of those that are evidence, all with one and the same other peer.
- Whoever reads a record can publish a copy before the original reaches us, so within a round nobody knows who copied.
  Such a group is dropped, since its content is there already, and held against nobody (`copied`). Only what was in our
  hands before the round in which it is published again proves something (`republished`), and one round more is left
  between, for clocks that differ.
"""

from __future__ import annotations

import zlib
from collections import Counter, OrderedDict
from collections.abc import Sequence, Set
from hashlib import blake2b
from threading import Lock

from swarmd.network.refusals import Reason, Refused

_SHORTEST_EVIDENCE = 64
_LEAST_CONTENT = 128
"""Characters of a text, and bytes that are left of it when compressed, from which on it is evidence."""

_LEAST_COPIES = 2
_MOST_KEPT = 32_768  # four megabytes or so
_ROUNDS_KEPT = 16


class Copies:
    """The digests of the texts admitted in the last 16 rounds (at most 32 768), with who published them first.

    For any number of threads.
    """

    def __init__(self) -> None:
        self._first: OrderedDict[bytes, tuple[str, int]] = OrderedDict()
        self._lock = Lock()

    def check(self, peer_id: str, round: int, evidence: Set[bytes]) -> None:
        """Raises Refused for a group that this peer published for `round` and that is another's.

        evidence: the `distinctive` digests of its completions.
        """
        if len(evidence) < _LEAST_COPIES:
            return
        with self._lock:
            origins = [self._first[digest] for digest in evidence if digest in self._first]
        from_others = Counter(origin for origin, _ in origins if origin != peer_id)
        for origin, copies in from_others.most_common(1):
            if copies >= _LEAST_COPIES and 2 * copies >= len(evidence):
                known_since = max(gathered for who, gathered in origins if who == origin)
                reason = Reason.REPUBLISHED if known_since + 1 < round else Reason.COPIED
                raise Refused(reason, f"{copies} of its texts are those of {origin}, gathered in round {known_since}")

    def remember(self, peer_id: str, gathered_in: int, evidence: Set[bytes]) -> None:
        """Takes down whose these texts are. gathered_in: the round in which this node got them."""
        with self._lock:
            for digest in evidence:
                self._first.setdefault(digest, (peer_id, gathered_in))
            while self._first and (
                len(self._first) > _MOST_KEPT or next(iter(self._first.values()))[1] < gathered_in - _ROUNDS_KEPT
            ):
                self._first.popitem(last=False)

    def __len__(self) -> int:
        return len(self._first)


def distinctive(completions: Sequence[str]) -> set[bytes]:
    """The digests of those completions that hold enough to be evidence."""
    digests = set()
    for text in completions:
        if len(text) >= _SHORTEST_EVIDENCE:
            content = text.encode("utf-8", "surrogatepass")
            if len(zlib.compress(content, 1)) >= _LEAST_CONTENT:
                digests.add(blake2b(content, digest_size=16).digest())
    return digests
