"""Datasets of reasoning-gym 0.1.25 that walk through a set of strings or symbols, here with a fixed order.

The order of such a set follows Python's hash seed, which is another in each process: the same seed gave another
task on each peer. Nothing else about these datasets is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from string import ascii_lowercase
from typing import Any

from reasoning_gym.algebra.polynomial_multiplication import PolynomialMultiplicationDataset
from reasoning_gym.algorithmic.isomorphic_strings import IsomorphicStringsDataset
from reasoning_gym.algorithmic.ransom_note import RansomNoteDataset
from reasoning_gym.algorithmic.word_ladder import WordLadderDataset


class _Letters(frozenset[str]):
    """A set that is walked through in alphabetical order."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))

    def __sub__(self, other: Iterable[object]) -> _Letters:
        return _Letters(super().__sub__(frozenset(other)))


class OrderedIsomorphicStrings(IsomorphicStringsDataset):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.letters = _Letters(ascii_lowercase)


class OrderedRansomNote(RansomNoteDataset):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.letters = _Letters(ascii_lowercase)


class OrderedWordLadder(WordLadderDataset):
    """The order of the neighbours decides which of several shortest ladders is the answer."""

    def _build_word_graph(self, word_length: int) -> dict[str, list[str]]:
        graph = super()._build_word_graph(word_length)
        return {word: sorted(neighbours) for word, neighbours in graph.items()}


class OrderedPolynomialMultiplication(PolynomialMultiplicationDataset):
    def _get_monomials(self, rng: Random) -> list[Any]:
        return sorted(super()._get_monomials(rng), key=str)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = super().__getitem__(idx)
        item["metadata"]["variables"].sort()
        return item


ORDERED: dict[str, type] = {
    "isomorphic_strings": OrderedIsomorphicStrings,
    "polynomial_multiplication": OrderedPolynomialMultiplication,
    "ransom_note": OrderedRansomNote,
    "word_ladder": OrderedWordLadder,
}
