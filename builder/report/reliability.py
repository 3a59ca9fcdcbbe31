"""Measure how reliable readers are: kappa of classes, ICC of measurements, and bootstrap intervals over persons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval."""

    value: float
    low: float
    high: float
    persons: int


def cohen_kappa(a: Sequence[object], b: Sequence[object]) -> float:
    """Return the agreement of two readers beyond chance; NaN if both always give the same single class.

    References
    ----------
    Cohen 1960, doi:10.1177/001316446002000104.
    """
    classes = sorted({*a, *b}, key=repr)
    first, second = (np.array([classes.index(v) for v in values]) for values in (a, b))
    observed = float(np.mean(first == second))
    chance = sum(float(np.mean(first == k)) * float(np.mean(second == k)) for k in range(len(classes)))
    return (observed - chance) / (1 - chance) if chance < 1 else float("nan")


def icc_two_way(values: NDArray[np.float64]) -> float:
    """Return ICC(2,1) of complete (subject, reader) values: absolute agreement of single readers drawn at random.

    References
    ----------
    Shrout, Fleiss 1979, doi:10.1037/0033-2909.86.2.420.
    """
    subjects, readers = values.shape
    mean = values.mean()
    between = readers * ((values.mean(axis=1) - mean) ** 2).sum() / (subjects - 1)
    judges = subjects * ((values.mean(axis=0) - mean) ** 2).sum() / (readers - 1)
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + mean
    error = (rest**2).sum() / ((subjects - 1) * (readers - 1))
    return float((between - error) / (between + (readers - 1) * error + readers * (judges - error) / subjects))


def icc_one_way(values: ArrayLike, subjects: ArrayLike) -> float:
    """Return ICC(1,1), which allows each subject any number of any readers, as in crowd-sourcing.

    References
    ----------
    Shrout, Fleiss 1979; unequal group sizes by Donner, Koval 1980, doi:10.2307/2530491.
    """
    numbers = np.asarray(values, dtype=np.float64)
    names, index = np.unique(np.asarray(subjects), return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    means = np.bincount(index, weights=numbers) / sizes
    between = (sizes * (means - numbers.mean()) ** 2).sum() / (len(names) - 1)
    within = ((numbers - means[index]) ** 2).sum() / (len(numbers) - len(names))
    usual = (len(numbers) - (sizes**2).sum() / len(numbers)) / (len(names) - 1)
    return float((between - within) / (between + (usual - 1) * within))


def bootstrap(
    persons: Sequence[str],
    statistic: Callable[[NDArray[np.int64]], float],
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return a figure with its percentile interval, from whole persons drawn with replacement.

    Persons are drawn rather than rows because the rows of one person are not independent.

    Parameters
    ----------
    persons
        Person of each row.
    statistic
        Takes row numbers, each as often as its person was drawn, and returns the figure.
    seed
        Seed of the draws. Persons are sorted by name first, so the order of rows does not matter.
    """
    names, index = np.unique(np.asarray(persons), return_inverse=True)
    rows = [np.flatnonzero(index == k) for k in range(len(names))]
    generator = np.random.Generator(np.random.Philox(seed))
    figures = []
    for _ in range(draws):
        chosen = generator.integers(0, len(names), len(names))
        figures.append(statistic(np.concatenate([rows[k] for k in chosen])))
    finite = [f for f in figures if np.isfinite(f)]
    tail = (1 - level) / 2
    low, high = np.quantile(finite, [tail, 1 - tail]) if finite else (np.nan, np.nan)
    return Interval(statistic(np.arange(len(persons))), float(low), float(high), len(names))
