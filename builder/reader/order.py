"""The order of samples in an epoch: a pure function of (seed, epoch) that ranks and workers share and can resume.

An order is one list of sample positions for all ranks together. A global step takes the next ``batch_size * world``
positions, and rank ``r`` takes the ``r``-th part of them. The state of a training run is therefore (seed, epoch,
samples seen). It leads to the same next global sample even if the number of ranks or workers changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.errors import counted

Positions: TypeAlias = NDArray[np.int64]
Ends: TypeAlias = Literal["keep", "drop", "pad"]
SHARDS_MIXED = 16
"""Number of shards whose samples ``shard_shuffled`` mixes with one another."""


@dataclass(frozen=True)
class State:
    """The position of a run: its next global sample is number ``seen`` in the order of (seed, epoch).

    Parameters
    ----------
    selection
        Number that identifies the ordered samples (``Dataset.selection``); 0 if unknown. A state is refused for other
        samples, because ``seen`` would point to a different sample there.
    """

    seed: int = 0
    epoch: int = 0
    seen: int = 0
    selection: int = field(default=0, compare=False)

    def to_dict(self) -> dict[str, int]:
        """Return the state as plain numbers, for a checkpoint."""
        return asdict(self)

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> "State":
        """Read a state written by ``to_dict``. Raises ValueError if it is not one.

        ``selection`` may be absent, as it is in checkpoints of older releases.
        """
        wanted = {"seed", "epoch", "seen"}
        if set(document) - {"selection"} != wanted or any(int(v) < 0 for v in document.values()):
            expected = "seed, epoch, seen and selection, none negative"
            raise ValueError(f"state: found {dict(document)!r}, expected {expected}")
        return State(**{name: int(value) for name, value in document.items()})

    def of(self, selection: int, samples: int) -> "State":
        """Return this state with ``selection`` filled in. Raises ValueError if it belongs to another selection."""
        if self.selection not in (0, selection) or self.seen > samples:
            raise ValueError(
                f"state: found another selection of samples ({self.seen} seen), expected one of these {samples}; "
                "open the version and the subset that the run was started with, or begin a new epoch without a state"
            )
        return replace(self, selection=selection)


@dataclass(frozen=True, eq=False)
class Population:
    """The samples to put in order.

    Parameters
    ----------
    shards
        (sample,) number of the shard of each sample.
    weights
        (sample,) how often each sample should appear, relative to the others; None for once each.
    """

    shards: NDArray[np.int32]
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Deal:
    """How an order is divided into batches and ranks.

    Parameters
    ----------
    batch_size
        Samples per batch of one rank.
    world, rank
        Number of ranks that train together, and the number of this one.
    ends
        What to do with samples that do not fill the last global step: ``drop`` them, ``pad`` them with samples from
        the start of the order, or ``keep`` a smaller batch (one rank only).
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
        """Return the number of steps that every rank takes from ``seen`` to the end of an epoch of ``samples``."""
        left, taken = max(samples - seen, 0), self.batch_size * self.world
        return left // taken if self.ends == "drop" else -(-left // taken)

    def numbers(self, samples: int, *, step: int, seen: int = 0) -> Positions:
        """Return the places in the order of this rank's batch ``step``, counted from ``seen``.

        With ``pad``, places from ``samples`` on stand for places at the start of the order.
        """
        first = seen + (step * self.world + self.rank) * self.batch_size
        wanted = np.arange(first, first + self.batch_size)
        return wanted if self.ends == "pad" else wanted[wanted < samples]

    def after(self, state: State, *, samples: int, step: int) -> State:
        """Return the state after batch ``step``, counted from ``state``. The last batch leads to the next epoch."""
        seen = state.seen + (step + 1) * self.batch_size * self.world
        if step + 1 >= self.steps(samples, seen=state.seen):
            return replace(state, epoch=state.epoch + 1, seen=0)
        return replace(state, seen=seen)


Order: TypeAlias = Callable[[Population, int, int], Positions]


def sequential(population: Population, seed: int, epoch: int) -> Positions:
    """Keep the samples in the order of the index."""
    return np.arange(len(population.shards))


def shuffled(population: Population, seed: int, epoch: int) -> Positions:
    """Shuffle the samples so that every order is equally likely."""
    return np.argsort(_keys(len(population.shards), seed, epoch, salt=1), kind="stable")


def shard_shuffled(population: Population, seed: int, epoch: int) -> Positions:
    """Shuffle the shards, and then the samples within each group of ``SHARDS_MIXED`` neighbouring shards.

    Only a few objects are read at a time, at the price of a less thorough shuffle (see ``shuffle_quality``).
    """
    groups = _groups(population, seed, epoch)
    return np.lexsort((_keys(len(groups), seed, epoch, salt=2), groups))


def balanced(population: Population, seed: int, epoch: int) -> Positions:
    """Draw as many samples as there are, each as often as its weight demands, in random order.

    This is systematic resampling: a sample that should appear ``x`` times in an epoch appears floor(x) or ceil(x)
    times, and ``x`` times on average over epochs. Source: Kitagawa, J. Comput. Graph. Stat. 5 (1996), 1-25.
    """
    count = len(population.shards)
    if population.weights is None or count == 0:
        return shuffled(population, seed, epoch)
    weights = population.weights
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError("weights: found negative, missing or only zero weights, expected finite numbers from 0 up")
    # The samples are shuffled first, so that neighbours in the index are not drawn together
    line = np.argsort(_keys(count, seed, epoch, salt=3), kind="stable")
    ends = np.cumsum(weights[line])
    offset = float(_keys(1, seed, epoch, salt=4)[0] >> np.uint64(11)) / 2.0**53
    ticks = (np.arange(count) + offset) * (ends[-1] / count)
    last = np.flatnonzero(weights[line])[-1]  # the last tick can round up to the very end
    drawn = line[np.minimum(np.searchsorted(ends, ticks, side="right"), last)]
    return np.asarray(drawn[np.argsort(_keys(count, seed, epoch, salt=5), kind="stable")])


ORDERS: Mapping[str, Order] = {
    "sequential": sequential,
    "shuffled": shuffled,
    "shard_shuffled": shard_shuffled,
    "balanced": balanced,
}


def class_weights(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return (sample,) weights that make every distinct value equally frequent.

    Samples whose value is missing (None or NaN) belong to no class: they get weight 0 and are not drawn. Raises
    ValueError if no sample has a value.
    """
    known = np.array([value is not None and value == value for value in values], dtype=bool)
    if len(known) and not known.any():
        raise ValueError(
            f"weights: found no value in any of {counted(len(known), 'sample')}, expected classes to balance"
        )
    names = np.array([repr(value) for value, has in zip(values, known, strict=True) if has])
    weights = np.zeros(len(known))
    if len(names):
        _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
        weights[known] = 1.0 / counts[inverse]
    return weights


def shuffle_quality(population: Population, seed: int, epoch: int) -> float:
    """Return how close ``shard_shuffled`` comes to ``shuffled``, from 0 to 1.

    The figure is the mean share of all samples with which a sample is mixed.
    """
    count = len(population.shards)
    if count == 0:
        return 1.0
    _, sizes = np.unique(_groups(population, seed, epoch), return_counts=True)
    return float((sizes.astype(np.float64) ** 2).sum() / count**2)


def random_numbers(seed: int, epoch: int, *, positions: Positions, salt: int) -> NDArray[np.uint64]:
    """Return one 64-bit random number per position.

    It depends on nothing but the arguments, so that crops are the same on any rank.
    """
    with np.errstate(over="ignore"):
        base = _mix(_mix(_mix(np.uint64(seed)) ^ np.uint64(epoch)) ^ np.uint64(salt))
        return np.asarray(_mix(base ^ _mix(positions.astype(np.uint64))), dtype=np.uint64)


def _keys(count: int, seed: int, epoch: int, *, salt: int) -> NDArray[np.uint64]:
    return random_numbers(seed, epoch, positions=np.arange(count), salt=salt)


def _groups(population: Population, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return (sample,) the number of the group of shards in which each sample is mixed, in the order of the epoch."""
    _, shard = np.unique(population.shards, return_inverse=True)
    count = int(shard.max()) + 1 if len(shard) else 0
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(_keys(count, seed, epoch, salt=6), kind="stable")] = np.arange(count)
    return np.asarray(rank[shard] // SHARDS_MIXED)


def _mix(value: Any) -> Any:
    """Apply the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

    NumPy's own generators may change between releases; this gives the same numbers on every platform and NumPy.
    """
    with np.errstate(over="ignore"):
        value = (value + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
