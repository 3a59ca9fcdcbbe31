"""Find volumes that may be copies of each other, by comparing perceptual hashes of volumes and of their crops.

A hash is a grid of 8 x 8 x 8 values that say how much brighter, by rank, a place is than its surroundings. Every
volume is hashed whole in all orders of its axes, and as each of some hundred crops. Hashes of two volumes are compared
by their correlation in all eight flips. All values are whole numbers that are small enough for floating point to add
exactly, so scores do not depend on the processor or the number of threads.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builder.copies.prints import SMALL, Print, Reals
from builder.kernels.flips import best_views, parts

Doubles = NDArray[np.float64]
Places = NDArray[np.int64]

EDGE = 8
"""Values of a hash along each axis."""

SMOOTH = EDGE / 5
"""Standard deviation, in hash values, of the Gaussian that defines the surroundings of a place."""

UNIT = 1400
"""Norm of a hash. Eight times its square is below 2 ** 24, up to which float32 represents every whole number."""

NOISE = 1000
"""Structure with a smaller norm (a thousandth of a rank) is only rounding error and hashes to zeros."""

SCREEN_THRESHOLD = 0.42
"""Correlation of hashes from which two volumes are fitted."""

STARTS = 2
"""Flips tried for each pair that is fitted."""

PROMISING = 192
"""How many volumes are compared with all crops of a volume: the nearest by the hashes of a few crops."""

BLOCK = 512
"""How many volumes are compared with one volume at a time, which bounds memory."""

PARTS: tuple[tuple[float, float], ...] = (
    (0.0, 1.0),
    *((low, low + 0.82) for low in (0.0, 0.18, 0.09)),
    *((low, low + 0.64) for low in (0.0, 0.12, 0.24, 0.36)),
)
"""Parts of an axis that a crop may have kept; each stands for parts up to 0.08 away."""

FEW_PARTS = 3
"""How many of these, from the first, are used for the quick comparison with a few crops."""

TURNS: tuple[tuple[int, int, int], ...] = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
"""Orders of the axes; all but the first are compared for whole volumes only."""

FLIPS: tuple[tuple[int, int, int], ...] = tuple((a, b, c) for a, b, c in itertools.product((1, -1), repeat=3))


@dataclass(frozen=True)
class Start:
    """Where the fit of one volume to a part of another starts: order of the axes, box and flip."""

    turn: tuple[int, int, int]
    box: tuple[float, ...]
    flip: tuple[int, int, int]


def candidates(prints: Sequence[Print], neighbours: int) -> Iterator[tuple[int, int, tuple[Start, ...]]]:
    """Yield (whole, cropped, starts) for the nearest volumes of other persons, with each volume in either role.

    Hashes of a few crops are compared for all pairs, so time grows with the square of the number of volumes. Hashes of
    all crops are compared only for the ``PROMISING`` nearest.
    """
    if len(prints) < 2:
        return
    persons = np.unique([p.person_key for p in prints], return_inverse=True)[1]
    plain = parts(np.concatenate([_hashes(p.small, _WHOLE) for p in prints]))
    chosen: dict[tuple[int, int], tuple[Start, ...]] = {}
    as_crop = _Nearest.of(len(prints), neighbours, STARTS)
    for whole, cropped in enumerate(_promising(prints, persons, plain)):
        scores, views = _compared(parts(_views(prints[whole].small, _ALL)), plain[:, cropped])
        flips = np.argsort(-scores, axis=1, kind="stable")[:, :STARTS]
        starts = np.stack([np.take_along_axis(views, flips, axis=1), flips], axis=2)
        best = scores.max(axis=1) / np.float32(8 * UNIT * UNIT)
        as_crop.offer(cropped, best, whole, starts)
        for n in np.argsort(-best, kind="stable")[:neighbours].tolist():
            if best[n] >= SCREEN_THRESHOLD:
                chosen[whole, int(cropped[n])] = _starts(starts[n])
    for crop, place in np.argwhere(as_crop.scores >= SCREEN_THRESHOLD).tolist():
        chosen[int(as_crop.partners[crop, place]), crop] = _starts(as_crop.starts[crop, place])
    yield from ((whole, crop, chosen[whole, crop]) for whole, crop in sorted(chosen))


def plain_hash(small: Reals) -> Reals:
    """Return the (8, 8, 8) hash of a whole volume in whole numbers, or zeros if it has no structure."""
    return np.asarray(_hashes(small, _WHOLE)[0])


def _promising(prints: Sequence[Print], persons: Places, plain: Reals) -> list[Places]:
    """Return, for each volume, the volumes of other persons that may be crops of it, in order."""
    everybody = np.arange(len(prints))
    if len(prints) <= PROMISING:
        return [everybody[persons != person] for person in persons]
    found: list[list[int]] = [[] for _ in prints]
    as_crop, no_starts = _Nearest.of(len(prints), PROMISING, 0), np.zeros((len(prints), 0, 2), np.int64)
    for whole, p in enumerate(prints):
        scores, _ = _compared(parts(_views(p.small, _SOME)), plain)
        best = np.where(persons == persons[whole], -1, scores.max(axis=1)).astype(np.float32)
        as_crop.offer(everybody, best, whole, no_starts)
        found[whole] = [c for c in np.argsort(-best, kind="stable")[:PROMISING].tolist() if best[c] >= 0]
    for crop, place in np.argwhere(as_crop.scores >= 0).tolist():
        found[as_crop.partners[crop, place]].append(crop)
    return [np.unique(np.array(held, dtype=np.int64)) for held in found]


def _compared(views: Reals, plain: Reals) -> tuple[Reals, Places]:
    """Return the (volume, flip) best score over all views, eight times a product of hashes, and its view."""
    blocks = [plain[:, at : at + BLOCK].transpose(0, 2, 1) for at in range(0, max(plain.shape[1], 1), BLOCK)]
    scores, places = zip(*(best_views(views @ block) for block in blocks), strict=True)
    return np.concatenate(scores), np.concatenate(places)


@dataclass(frozen=True, eq=False)
class _Nearest:
    """The best few partners of every volume seen so far: (volume, place) scores, partners, and starts to try.

    ``lowest`` is the score of the worst one of each volume.
    """

    lowest: Reals
    scores: Reals
    partners: Places
    starts: Places

    @classmethod
    def of(cls, volumes: int, places: int, starts: int) -> "_Nearest":
        """Return an instance without partners."""
        shape = (volumes, places)
        scores, partners = np.full(shape, -1, np.float32), np.full(shape, -1, np.int64)
        return cls(np.full(volumes, -1, np.float32), scores, partners, np.zeros((*shape, starts, 2), np.int64))

    def offer(self, volumes: Places, score: Reals, partner: int, starts: Places) -> None:
        """Replace the worst partner of each volume with this one if it scores better."""
        better = score > self.lowest[volumes]
        changed = volumes[better]
        at = (changed, self.scores[changed].argmin(axis=1))
        self.scores[at], self.partners[at], self.starts[at] = score[better], partner, starts[better]
        self.lowest[changed] = self.scores[changed].min(axis=1)


def _starts(found: Places) -> tuple[Start, ...]:
    return tuple(Start(VIEWS[view][0], VIEWS[view][1], FLIPS[flip]) for view, flip in found.tolist())


@dataclass(frozen=True, eq=False)
class _Ranges:
    """Parts of an axis: their number, and the weights of voxels in each hash value of each part, sharp and blurred."""

    number: int
    averages: Doubles
    blurs: Doubles


def _views(small: Reals, ranges: _Ranges) -> Reals:
    """Return (view, 8, 8, 8) hashes of the crops of a volume, and of the whole volume in the other axis orders."""
    turned = [_hashes(small.transpose(turn), _WHOLE) for turn in TURNS[1:]]
    return np.concatenate([_hashes(small, ranges), *turned])


def _hashes(small: Reals, ranges: _Ranges) -> Reals:
    """Return (part ** 3, 8, 8, 8) hashes in whole numbers with norm UNIT, or zeros if there is no structure."""
    cube = np.rint((small.astype(np.float64) + 0.5) * 65535) - 32768
    fine = _folded(cube, ranges.averages) - _folded(cube, ranges.blurs)
    n = ranges.number
    fine = fine.reshape(n, EDGE, n, EDGE, n, EDGE).transpose(0, 2, 4, 1, 3, 5).reshape(n**3, -1)
    fine = np.rint(fine / 2**20)
    fine -= np.rint(fine.sum(axis=1, keepdims=True) / EDGE**3)
    length = np.sqrt(np.einsum("nv,nv->n", fine, fine))[:, None]
    scale = np.where(length >= NOISE, UNIT / np.maximum(length, 1), 0)
    return np.rint(fine * scale).astype(np.float32).reshape(-1, EDGE, EDGE, EDGE)


def _folded(cube: Doubles, weights: Doubles) -> Doubles:
    rows = weights @ cube.reshape(SMALL, -1)
    return np.asarray(np.matmul(weights, rows.reshape(-1, SMALL, SMALL)) @ weights.T)


def _ranges(found: Sequence[tuple[float, float]]) -> _Ranges:
    averages = np.concatenate([_averages(low, high) for low, high in found])
    blurs = np.concatenate([_blur() @ _averages(low, high) for low, high in found])
    return _Ranges(len(found), _in_256ths(averages), _in_256ths(blurs))


def _averages(low: float, high: float) -> Doubles:
    """Return the (8, 32) weights that average the voxels of an axis over each eighth of a part of it."""
    cells = np.arange(SMALL)
    edges = (low + np.arange(EDGE + 1) / EDGE * (high - low)) * SMALL
    inside = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.maximum(inside, 0) / (edges[1:, None] - edges[:-1, None]))


def _blur() -> Doubles:
    """Return the (8, 8) weights of a Gaussian of width SMOOTH, cut at two standard deviations; edge values repeat."""
    sources = np.arange(-2 * EDGE, 3 * EDGE)
    away = sources[None, :] - np.arange(EDGE)[:, None]
    weights = np.exp(-0.5 * (away / SMOOTH) ** 2) * (np.abs(away) <= 2 * SMOOTH)
    folded = np.zeros((EDGE, EDGE))
    for column, source in enumerate(np.clip(sources, 0, EDGE - 1)):
        folded[:, source] += weights[:, column]
    return np.asarray(folded / folded.sum(axis=1, keepdims=True))


def _in_256ths(weights: Doubles) -> Doubles:
    """Round weights to whole numbers that add up to 256 in each row."""
    whole = np.rint(weights * 256)
    whole[np.arange(len(whole)), weights.argmax(axis=1)] += 256 - whole.sum(axis=1)
    return whole


_WHOLE, _SOME, _ALL = _ranges(PARTS[:1]), _ranges(PARTS[:FEW_PARTS]), _ranges(PARTS)

VIEWS: tuple[tuple[tuple[int, int, int], tuple[float, ...]], ...] = (
    *((TURNS[0], (*(low for low, _ in box), *(high for _, high in box))) for box in itertools.product(PARTS, repeat=3)),
    *((turn, (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)) for turn in TURNS[1:]),
)
"""Order of the axes and box of every view."""
