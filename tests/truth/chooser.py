"""Choices of a drawn case: made by hypothesis, or repeated from the list of an earlier run."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Chooser:
    """Hands out choices and keeps them, so that a case can be written down and made again without hypothesis.

    Parameters
    ----------
    pick
        Gives a number from 0 to below its argument.
    """

    def __init__(self, pick: Callable[[int], int]) -> None:
        self._pick = pick
        self.made: list[int] = []

    def below(self, count: int) -> int:
        found = self._pick(count)
        self.made.append(found)
        return found

    def one(self, options: Sequence[T]) -> T:
        """One of some options; the plainest comes first, because hypothesis shrinks to it."""
        return options[self.below(len(options))]

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def flag(self, one_in: int = 2) -> bool:
        """True once in so many times."""
        return self.below(one_in) == one_in - 1

    def noise(self) -> np.random.Generator:
        """Random numbers for what has no structure: pixels and orders."""
        return np.random.default_rng(self.below(1 << 16))


def replayed(choices: Sequence[int]) -> Chooser:
    """The chooser that repeats choices; 0 where the list has come to its end or a choice no longer fits."""
    left = iter(choices)

    def pick(count: int) -> int:
        found = next(left, 0)
        return found if found < count else 0

    return Chooser(pick)
