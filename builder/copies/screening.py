"""Which volumes may be copies of which: a perceptual hash of several planes of each, against hashes of its crops.

A hash is of eight planes of 8 x 8 values along each axis: small values that say how much brighter, by rank, a place is
than what lies around it. Every volume is hashed whole, and as each of some hundred crops, in all orders of its axes;
hashes of two volumes are compared by their correlation in all eight flips. Everything is kept in whole numbers small
enough for floating point to add exactly, so no processor and no number of threads changes a score.
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
"""Planes of a hash along each axis."""

SMOOTH = EDGE / 5
"""Standard deviation, in planes, of what counts as around a place."""

UNIT = 1400
"""Length of a hash. Eight times its square is below 2 ** 24, up to where float32 holds every whole number."""

NOISE = 1000
"""Shorter ones (a thousandth of a rank) are of nothing but rounding."""

SCREEN_THRESHOLD = 0.42
"""Correlation of hashes from which two volumes are fitted."""

STARTS = 2
"""Flips tried for each pair that is fitted."""

PROMISING = 192
"""Volumes whose hashes are compared with those of all crops of a volume: the nearest by the hashes of few crops."""

BLOCK = 512
"""Volumes compared with one at a time."""

PARTS: tuple[tuple[float, float], ...] = (
    (0.0, 1.0),
    *((low, low + 0.82) for low in (0.0, 0.18, 0.09)),
    *((low, low + 0.64) for low in (0.0, 0.12, 0.24, 0.36)),
)
"""Parts of an axis that a crop may have kept, each within 0.08 of what it stands for."""

FEW_PARTS = 3
"""Of these, the first: those of the few crops."""

TURNS: tuple[tuple[int, int, int], ...] = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
"""Orders of the axes; all but the first are looked at whole only."""

FLIPS: tuple[tuple[int, int, int], ...] = tuple((a, b, c) for a, b, c in itertools.product((1, -1), repeat=3))


@dataclass(frozen=True)
class Start:
    """Where the fit of one volume to a part of another begins: order of the axes, the box, and the flip."""

    turn: tuple[int, int, int]
    box: tuple[float, ...]
    flip: tuple[int, int, int]


def candidates(prints: Sequence[Print], neighbours: int) -> Iterator[tuple[int, int, tuple[Start, ...]]]:
    """(whole, cropped, where to start): the nearest volumes of other persons of each volume, as a crop of it and it as
    a crop of them.

    Hashes of few crops are compared for all pairs, so time grows with the square of the number of volumes; hashes of
    all crops for the ``PROMISING`` nearest by those.
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


def _promising(prints: Sequence[Print], persons: Places, plain: Reals) -> list[Places]:
    """For each volume those of other persons that may be crops of it, in order."""
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
    """(volume, flip) best score over all views, eight times a product of hashes, and the view that has it."""
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
        """Nobody yet."""
        shape = (volumes, places)
        scores, partners = np.full(shape, -1, np.float32), np.full(shape, -1, np.int64)
        return cls(np.full(volumes, -1, np.float32), scores, partners, np.zeros((*shape, starts, 2), np.int64))

    def offer(self, volumes: Places, score: Reals, partner: int, starts: Places) -> None:
        """Put the partner in the place of each volume's worst one, where it is better."""
        better = score > self.lowest[volumes]
        changed = volumes[better]
        at = (changed, self.scores[changed].argmin(axis=1))
        self.scores[at], self.partners[at], self.starts[at] = score[better], partner, starts[better]
        self.lowest[changed] = self.scores[changed].min(axis=1)


def _starts(found: Places) -> tuple[Start, ...]:
    return tuple(Start(VIEWS[view][0], VIEWS[view][1], FLIPS[flip]) for view, flip in found.tolist())


@dataclass(frozen=True, eq=False)
class _Ranges:
    """Parts of an axis: how many, and the weights of its voxels in each plane of each part, sharp and blurred."""

    number: int
    averages: Doubles
    blurs: Doubles


def _views(small: Reals, ranges: _Ranges) -> Reals:
    """(view, 8, 8, 8) hashes of the crops of a volume, and of it whole with its axes in the other orders."""
    turned = [_hashes(small.transpose(turn), _WHOLE) for turn in TURNS[1:]]
    return np.concatenate([_hashes(small, ranges), *turned])


def _hashes(small: Reals, ranges: _Ranges) -> Reals:
    """(part ** 3, 8, 8, 8) hashes in whole numbers of length UNIT, zeros where there is no structure."""
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
    """(8, 32) share of the voxels of an axis in each eighth of a part of it."""
    cells = np.arange(SMALL)
    edges = (low + np.arange(EDGE + 1) / EDGE * (high - low)) * SMALL
    inside = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.maximum(inside, 0) / (edges[1:, None] - edges[:-1, None]))


def _blur() -> Doubles:
    """(8, 8) weights of a Gaussian of SMOOTH, cut at two deviations; ends repeat."""
    sources = np.arange(-2 * EDGE, 3 * EDGE)
    away = sources[None, :] - np.arange(EDGE)[:, None]
    weights = np.exp(-0.5 * (away / SMOOTH) ** 2) * (np.abs(away) <= 2 * SMOOTH)
    folded = np.zeros((EDGE, EDGE))
    for column, source in enumerate(np.clip(sources, 0, EDGE - 1)):
        folded[:, source] += weights[:, column]
    return np.asarray(folded / folded.sum(axis=1, keepdims=True))


def _in_256ths(weights: Doubles) -> Doubles:
    """Whole numbers that add up to 256 in each row."""
    whole = np.rint(weights * 256)
    whole[np.arange(len(whole)), weights.argmax(axis=1)] += 256 - whole.sum(axis=1)
    return whole


_WHOLE, _SOME, _ALL = _ranges(PARTS[:1]), _ranges(PARTS[:FEW_PARTS]), _ranges(PARTS)

VIEWS: tuple[tuple[tuple[int, int, int], tuple[float, ...]], ...] = (
    *((TURNS[0], (*(low for low, _ in box), *(high for _, high in box))) for box in itertools.product(PARTS, repeat=3)),
    *((turn, (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)) for turn in TURNS[1:]),
)
"""Order of the axes and box of every view."""
