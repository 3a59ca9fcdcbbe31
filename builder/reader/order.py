"""In which order samples come: pure functions of (seed, epoch), dealt to ranks and workers, resumable anywhere.

An order is one list of sample positions for all ranks together. A global step takes the next ``batch_size * world`` of
it, rank ``r`` the ``r``-th part of these. So the state of a training run is (seed, epoch, samples seen): whatever the
number of ranks and workers before and after, the next global sample is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Positions: TypeAlias = NDArray[np.int64]
Ends: TypeAlias = Literal["keep", "drop", "pad"]
SHARDS_MIXED = 16
"""Shards whose samples ``shard_shuffled`` mixes with one another."""


@dataclass(frozen=True)
class State:
    """Where a run stands: the next global sample is number ``seen`` of the order of (seed, epoch).

    Parameters
    ----------
    selection
        A number that names the samples the order is of (``Dataset.selection``); 0 when it is not known. A state is
        refused for other samples, because number ``seen`` means something else there.
    """

    seed: int = 0
    epoch: int = 0
    seen: int = 0
    selection: int = field(default=0, compare=False)

    def to_dict(self) -> dict[str, int]:
        """As plain numbers, for a checkpoint."""
        return asdict(self)

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> "State":
        """The inverse of ``to_dict``; checkpoints of older releases lack ``selection``. Raises ValueError."""
        wanted = {"seed", "epoch", "seen"}
        if set(document) - {"selection"} != wanted or any(int(v) < 0 for v in document.values()):
            expected = "seed, epoch, seen and selection, none negative"
            raise ValueError(f"state: found {dict(document)!r}, expected {expected}")
        return State(**{name: int(value) for name, value in document.items()})

    def of(self, selection: int, samples: int) -> "State":
        """This state for a selection of so many samples. Raises ValueError when it belongs to another selection."""
        if self.selection not in (0, selection) or self.seen > samples:
            raise ValueError(
                f"state: found another selection of samples ({self.seen} seen), expected one of these {samples}; "
                "open the version and the subset that the run was started with, or begin a new epoch without a state"
            )
        return replace(self, selection=selection)


@dataclass(frozen=True, eq=False)
class Population:
    """What is to be ordered.

    Parameters
    ----------
    shards
        (sample,) number of the shard of each sample.
    weights
        (sample,) how often each sample should come, relative to the others; None for once each.
    """

    shards: NDArray[np.int32]
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Deal:
    """How an order is dealt.

    Parameters
    ----------
    batch_size
        Samples of a batch of one rank.
    world, rank
        Number of ranks that train together, and which of them this is.
    ends
        What happens to the samples that do not fill a global step: ``drop`` them, ``pad`` with the first of the
        order, or ``keep`` a smaller batch (one rank only).
    """

    batch_size: int
    world: int = 1
    rank: int = 0
    ends: Ends = "keep"

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= self.rank < self.world:
            raise ValueError(f"found {self}, expected batch_size >= 1 and 0 <= rank < world")
        if self.ends not in ("keep", "drop", "pad"):
            raise ValueError(f"ends: found {self.ends!r}, expected 'keep', 'drop' or 'pad'")
        if self.ends == "keep" and self.world > 1:
            raise ValueError("ends: found 'keep' with several ranks, expected 'drop' or 'pad' for equal steps on all")

    def steps(self, samples: int, *, seen: int = 0) -> int:
        """Steps of every rank from ``seen`` to the end of an epoch of ``samples``."""
        left, taken = max(samples - seen, 0), self.batch_size * self.world
        return left // taken if self.ends == "drop" else -(-left // taken)

    def numbers(self, samples: int, *, step: int, seen: int = 0) -> Positions:
        """Places in the order of this rank's batch ``step`` after ``seen``; from ``samples`` on they mean its start."""
        first = seen + (step * self.world + self.rank) * self.batch_size
        wanted = np.arange(first, first + self.batch_size)
        return wanted if self.ends == "pad" else wanted[wanted < samples]

    def after(self, state: State, *, samples: int, step: int) -> State:
        """The state once batch ``step`` after ``state`` is done; the last one leads to the next epoch."""
        seen = state.seen + (step + 1) * self.batch_size * self.world
        if step + 1 >= self.steps(samples, seen=state.seen):
            return replace(state, epoch=state.epoch + 1, seen=0)
        return replace(state, seen=seen)


Order: TypeAlias = Callable[[Population, int, int], Positions]


def sequential(population: Population, seed: int, epoch: int) -> Positions:
    """As the index has them."""
    return np.arange(len(population.shards))


def shuffled(population: Population, seed: int, epoch: int) -> Positions:
    """Every order of the samples is as likely."""
    return np.argsort(_keys(len(population.shards), seed, epoch, salt=1), kind="stable")


def shard_shuffled(population: Population, seed: int, epoch: int) -> Positions:
    """Shards in random order, and samples mixed within ``SHARDS_MIXED`` neighbouring shards: few objects at a time.

    See ``shuffle_quality`` for what is lost.
    """
    groups = _groups(population, seed, epoch)
    return np.lexsort((_keys(len(groups), seed, epoch, salt=2), groups))


def balanced(population: Population, seed: int, epoch: int) -> Positions:
    """As many samples as there are, each as often as its weight says, in random order.

    Systematic resampling: a sample whose share is ``x`` of the epoch comes floor(x) or ceil(x) times, and over epochs
    ``x`` times on average. Source: Kitagawa, J. Comput. Graph. Stat. 5 (1996), 1-25.
    """
    count = len(population.shards)
    if population.weights is None or count == 0:
        return shuffled(population, seed, epoch)
    weights = population.weights
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError("weights: found negative, missing or only zero weights, expected finite numbers from 0 up")
    # samples are lined up in random order first, so that neighbours in the index are not drawn together
    line = np.argsort(_keys(count, seed, epoch, salt=3), kind="stable")
    ends = np.cumsum(weights[line])
    offset = float(_keys(1, seed, epoch, salt=4)[0] >> np.uint64(11)) / 2.0**53
    ticks = (np.arange(count) + offset) * (ends[-1] / count)
    last = np.flatnonzero(weights[line])[-1]  # the last tick can round up to the end
    drawn = line[np.minimum(np.searchsorted(ends, ticks, side="right"), last)]
    return np.asarray(drawn[np.argsort(_keys(count, seed, epoch, salt=5), kind="stable")])


ORDERS: Mapping[str, Order] = {
    "sequential": sequential,
    "shuffled": shuffled,
    "shard_shuffled": shard_shuffled,
    "balanced": balanced,
}


def class_weights(values: Sequence[Any]) -> NDArray[np.float64]:
    """(sample,) weights that make every distinct value as frequent as any other.

    A missing value (None or NaN) is no class: its samples get the weight 0 and are not drawn. Raises ValueError when
    no sample has a value.
    """
    known = np.array([value is not None and value == value for value in values], dtype=bool)
    if len(known) and not known.any():
        raise ValueError(f"weights: found no value in any of {len(known)} samples, expected classes to balance")
    names = np.array([repr(value) for value, has in zip(values, known, strict=True) if has])
    weights = np.zeros(len(known))
    if len(names):
        _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
        weights[known] = 1.0 / counts[inverse]
    return weights


def shuffle_quality(population: Population, seed: int, epoch: int) -> float:
    """How near ``shard_shuffled`` is to ``shuffled``, 0 to 1: the mean share of all samples that one is mixed with."""
    count = len(population.shards)
    if count == 0:
        return 1.0
    _, sizes = np.unique(_groups(population, seed, epoch), return_counts=True)
    return float((sizes.astype(np.float64) ** 2).sum() / count**2)


def random_numbers(seed: int, epoch: int, *, positions: Positions, salt: int) -> NDArray[np.uint64]:
    """One 64-bit number a position that depends on nothing else: for crops that are the same on any rank."""
    with np.errstate(over="ignore"):
        base = _mix(_mix(_mix(np.uint64(seed)) ^ np.uint64(epoch)) ^ np.uint64(salt))
        return np.asarray(_mix(base ^ _mix(positions.astype(np.uint64))), dtype=np.uint64)


def _keys(count: int, seed: int, epoch: int, *, salt: int) -> NDArray[np.uint64]:
    return random_numbers(seed, epoch, positions=np.arange(count), salt=salt)


def _groups(population: Population, seed: int, epoch: int) -> NDArray[np.int64]:
    """(sample,) number of the group of shards it is mixed in; groups in the order they come."""
    _, shard = np.unique(population.shards, return_inverse=True)
    count = int(shard.max()) + 1 if len(shard) else 0
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(_keys(count, seed, epoch, salt=6), kind="stable")] = np.arange(count)
    return np.asarray(rank[shard] // SHARDS_MIXED)


def _mix(value: Any) -> Any:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), the same on every platform and NumPy."""
    with np.errstate(over="ignore"):
        value = (value + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
