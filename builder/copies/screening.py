"""Find volumes that may be copies of each other, by comparing perceptual hashes of volumes and of their crops.

A hash is a grid of 8 x 8 x 8 values that say how much brighter, by rank, a place is than its surroundings. Every
volume is hashed whole in all orders of its axes, and as each of some hundred crops. Hashes of two volumes are compared
by their correlation in all eight flips. All values are whole numbers that are small enough for floating point to add
exactly, so scores do not depend on the processor or the number of threads.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
"""How many volumes are compared with all crops of a volume: the nearest by the spectra of a few crops."""

BLOCK, ROWS = 512, 16
"""How many volumes are compared with one volume, and with so many, at a time, which bounds memory."""

SPECTRUM = 4000
"""Norm of a spectrum. Its square is below 2 ** 24, as with hashes."""

HIGHEST = 18
"""Largest sum of squares of the three frequencies of a spectrum."""

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


Shorts = NDArray[np.int16]

FOUND = np.dtype([("whole", "<i4"), ("crop", "<i4"), ("score", "<f4"), ("starts", "<i2", (STARTS, 2))])
"""A volume, another one that may be a part of it, the score of their hashes, and the view and flip to start from."""


def candidates(prints: Sequence[Print], neighbours: int) -> Iterator[tuple[int, int, tuple[Start, ...]]]:
    """Yield (whole, cropped, starts) for the nearest volumes of other persons, with each volume in either role.

    Hashes of all crops are compared only for the ``PROMISING`` volumes whose spectra are nearest.
    """
    if len(prints) < 2:
        return
    persons = np.unique([p.person_key for p in prints], return_inverse=True)[1]
    plain = plain_hashes([p.small for p in prints])
    everybody = np.arange(len(prints))
    if len(prints) <= PROMISING:
        pairs = np.argwhere(persons[:, None] != persons)
    else:
        pairs = promising(everybody, [(everybody, quick_spectra([p.small for p in prints]))], persons)
    if not len(pairs):
        return
    found = [scored(prints[whole].small, whole, cropped, plain) for whole, cropped in by_whole(pairs)]
    yield from ((int(f["whole"]), int(f["crop"]), starts_of(f)) for f in nearest(np.concatenate(found), neighbours))


def plain_hash(small: Reals) -> Reals:
    """Return the (8, 8, 8) hash of a whole volume in whole numbers, or zeros if it has no structure."""
    return np.asarray(_hashes(small, _WHOLE)[0])


def plain_hashes(smalls: Sequence[Reals]) -> Shorts:
    """Return the (volume, 512) hashes of whole volumes."""
    return np.concatenate([_hashes(small, _WHOLE) for small in smalls]).reshape(len(smalls), -1).astype(np.int16)


def quick_spectra(smalls: Sequence[Reals]) -> Shorts:
    """Return the (volume, 32, 68) spectra of each volume and its larger crops; the first is of the whole volume."""
    return np.stack([_spectra(_views(small, _SOME)) for small in smalls])


def promising(own: Places, spectra: Iterable[tuple[Places, Shorts]], persons: Places) -> Places:
    """Return the (pair, 2) wholes and crops to compare: of each of our own volumes the nearest ones in either role.

    Parameters
    ----------
    own
        Numbers of the volumes whose partners are sought.
    spectra
        Numbers and spectra of all volumes, in any portions. Results do not depend on the portions.
    persons
        Person of every volume; volumes of one person are not compared.
    """
    held = list(spectra)
    wholes = np.zeros((len(persons), held[0][1].shape[2]), np.float32)
    for rows, some in held:
        wholes[rows] = some[:, 0]
    ours = np.zeros((len(own), *held[0][1].shape[1:]), np.int16)
    for rows, some in held:
        _, there, here = np.intersect1d(rows, own, return_indices=True)
        ours[here] = some[there]
    crops = _nearest_of(own, _alike(ours, wholes), persons)
    scores = np.empty((len(own), len(persons)), np.float32)
    for rows, some in held:
        scores[:, rows] = _alike(some, wholes[own]).T
    owners = _nearest_of(own, scores, persons)
    return np.unique(np.concatenate([crops, owners[:, ::-1]]), axis=0)


def _alike(views: Shorts, wholes: Reals) -> Reals:
    """Return the (volume, whole) largest product of a spectrum of a volume's views and that of a whole one."""
    out = np.empty((len(views), len(wholes)), np.float32)
    for first in range(0, len(views), ROWS):
        some = views[first : first + ROWS].astype(np.float32)
        rows = some.reshape(-1, some.shape[2])
        for at in range(0, len(wholes), BLOCK):
            products = rows @ wholes[at : at + BLOCK].T
            out[first : first + ROWS, at : at + BLOCK] = products.reshape(len(some), some.shape[1], -1).max(axis=1)
    return out


def _nearest_of(own: Places, scores: Reals, persons: Places) -> Places:
    """Return pairs of our own volumes and the ``PROMISING`` ones with the highest scores; the first of equal ones."""
    pairs = []
    for number, row in zip(own.tolist(), scores, strict=True):
        others = np.flatnonzero(persons != persons[number])
        values = row[others]
        if len(others) > PROMISING:
            least = np.partition(values, -PROMISING)[-PROMISING]
            above = others[values > least]
            others = np.concatenate([above, others[values == least][: PROMISING - len(above)]])
        pairs.append(np.stack([np.full(len(others), number), others], axis=1))
    return np.concatenate(pairs)


def by_whole(pairs: Places) -> Iterator[tuple[int, Places]]:
    """Yield every volume of sorted pairs with its crops."""
    wholes, first = np.unique(pairs[:, 0], return_index=True)
    yield from zip(wholes.tolist(), np.split(pairs[:, 1], first[1:]), strict=True)


def scored(small: Reals, whole: int, cropped: Places, plain: Shorts) -> NDArray[Any]:
    """Return, as FOUND, the volumes whose hash is near that of a view of one volume.

    Parameters
    ----------
    small, whole
        The small copy of the volume, and its number.
    cropped
        Numbers of the volumes that may be parts of it: rows of ``plain``.
    """
    hashes = plain[cropped].astype(np.float32).reshape(-1, EDGE, EDGE, EDGE)
    scores, views = _compared(parts(_views(small, _ALL)), parts(hashes))
    flips = np.argsort(-scores, axis=1, kind="stable")[:, :STARTS]
    best = scores.max(axis=1) / np.float32(8 * UNIT * UNIT)
    near = best >= SCREEN_THRESHOLD
    found = np.empty(int(near.sum()), FOUND)
    found["whole"], found["crop"], found["score"] = whole, cropped[near], best[near]
    found["starts"] = np.stack([np.take_along_axis(views, flips, axis=1), flips], axis=2)[near]
    return found


def nearest(found: NDArray[Any], neighbours: int) -> NDArray[Any]:
    """Return the pairs that are among the nearest few of either volume, sorted."""
    kept = np.zeros(len(found), bool)
    for role, partner in (("whole", "crop"), ("crop", "whole")):
        order = np.lexsort([found[partner], -found["score"], found[role]])
        _, first, sizes = np.unique(found[role][order], return_index=True, return_counts=True)
        kept[order[np.arange(len(order)) - np.repeat(first, sizes) < neighbours]] = True
    return np.sort(found[kept], order=["whole", "crop"])


def starts_of(found: Any) -> tuple[Start, ...]:
    """Return where the fit of one pair of FOUND starts."""
    return tuple(Start(VIEWS[view][0], VIEWS[view][1], FLIPS[flip]) for view, flip in found["starts"].tolist())


def _compared(views: Reals, plain: Reals) -> tuple[Reals, Places]:
    """Return the (volume, flip) best score over all views, eight times a product of hashes, and its view."""
    blocks = [plain[:, at : at + BLOCK].transpose(0, 2, 1) for at in range(0, max(plain.shape[1], 1), BLOCK)]
    scores, places = zip(*(best_views(views @ block) for block in blocks), strict=True)
    return np.concatenate(scores), np.concatenate(places)


def _spectra(views: Reals) -> Shorts:
    """Return (view, 68) spectra in whole numbers with norm SPECTRUM: square roots of the size of low frequencies.

    A flip or an inversion changes only the signs of a cosine transform, so that one comparison serves for all flips.
    Whole weights make every sum exact.
    """
    waves = views.astype(np.float64)
    for _ in range(3):
        waves = np.tensordot(waves, _WAVES, axes=(1, 1))
    sizes = np.abs(waves.reshape(len(views), -1)[:, _LOW])
    total = sizes.sum(axis=1, keepdims=True)
    scale = np.where(total > 0, SPECTRUM / np.sqrt(np.maximum(total, 1)), 0)
    return np.asarray(np.rint(np.sqrt(sizes) * scale), dtype=np.int16)


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


def _waves() -> Doubles:
    """Return the (8, 8) weights of a cosine transform, in 256ths."""
    frequencies = np.arange(EDGE)[:, None]
    waves = np.cos(np.pi * (np.arange(EDGE) + 0.5) * frequencies / EDGE)
    return np.asarray(np.rint(256 * waves * np.where(frequencies > 0, 1, np.sqrt(0.5))))


_WHOLE, _SOME, _ALL = _ranges(PARTS[:1]), _ranges(PARTS[:FEW_PARTS]), _ranges(PARTS)

_WAVES = _waves()

_LOW = np.flatnonzero([0 < sum(n * n for n in wave) <= HIGHEST for wave in itertools.product(range(EDGE), repeat=3)])

VIEWS: tuple[tuple[tuple[int, int, int], tuple[float, ...]], ...] = (
    *((TURNS[0], (*(low for low, _ in box), *(high for _, high in box))) for box in itertools.product(PARTS, repeat=3)),
    *((turn, (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)) for turn in TURNS[1:]),
)
"""Order of the axes and box of every view."""
