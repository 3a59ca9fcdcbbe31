"""Find volumes that may be copies of each other, by comparing perceptual hashes of volumes and of their crops.

A hash is a grid of 8 x 8 x 8 values that say how much brighter, by rank, a place is than its surroundings. Every
volume is hashed whole in all orders of its axes, and as each of some hundred crops. Hashes of two volumes are compared
by their correlation in all eight flips. Their values are whole numbers that are small enough for floating point to add
exactly, so scores do not depend on the processor or the number of threads.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.copies import lists as index
from builder.copies.lists import Lists, centres_of, labels_of, sampled
from builder.copies.prints import SMALL, Print, Reals
from builder.kernels.best import Best
from builder.kernels.flips import best_views, parts
from builder.kernels.hashes import EDGE, crop_hashes

Doubles = NDArray[np.float64]
Places = NDArray[np.int64]

SMOOTH = EDGE / 5
"""Standard deviation, in hash values, of the Gaussian that defines the surroundings of a place."""

UNIT = 1400
"""Norm of a hash. Eight times its square is below 2 ** 24, up to which float32 represents every whole number."""

NOISE = 0.001
"""Structure with a smaller norm, in ranks, is only rounding error and hashes to zeros."""

SCREEN_THRESHOLD = 0.42
"""Correlation of hashes from which two volumes are fitted."""

STARTS = 2
"""Flips tried for each pair that is fitted."""

PROMISING, PAIRS = 192, 2**18
"""Of how many volumes a volume may be a crop, at least, and of how many all may be together: the nearest by spectra."""

BLOCK, ROWS = 512, 16
"""How many volumes are compared with one volume, and with so many, at a time, which bounds memory."""

SPECTRUM = 4000
"""Norm of a spectrum. Its square is below 2 ** 24, as with hashes."""

DEVIATION = 1000
"""What a standard deviation of a frequency becomes before a spectrum gets its norm."""

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

MANY_PARTS = (0, 1, 2, 3, 4, 7)
"""Which of these are used where each volume is compared with the likest of many volumes only."""

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


def candidates(prints: Sequence[Print], neighbours: int) -> NDArray[Any]:
    """Return, as FOUND, the pairs of the nearest volumes of other persons, with each volume in either role.

    Hashes of all crops are compared only for the volumes whose spectra are nearest.
    """
    if len(prints) < 2 or not neighbours:
        return np.empty(0, FOUND)
    smalls = [p.small for p in prints]
    persons = np.unique([p.person_key for p in prints], return_inverse=True)[1]
    plain = plain_hashes(smalls)
    if few(len(prints)):
        pairs = np.argwhere(persons[:, None] != persons)
    else:
        spectra = quick_spectra(smalls)
        spectra = standardised(spectra, moments(spectra))
        everybody, lists = np.arange(len(prints)), None
        if len(prints) >= index.LISTED:
            centres = centres_of(spectra[:: sampled(len(prints))], len(prints), SPECTRUM)
            lists = Lists(centres, labels_of(spectra, centres))
        pairs = promising(everybody, spectra[:, 0], [(everybody, spectra)], persons, lists=lists)
    found = [scored(smalls[whole], whole, cropped, plain) for whole, cropped in by_whole(pairs)] if len(pairs) else []
    return nearest(np.concatenate([np.empty(0, FOUND), *found]), neighbours)


def most_owners(volumes: int) -> int:
    """Return of how many others each of so many volumes is examined as a crop: of all if there are few."""
    return max(PROMISING, PAIRS // max(volumes, 1))


def few(volumes: int) -> bool:
    """Return whether so many volumes are all compared with each other."""
    return most_owners(volumes) >= volumes


def plain_hash(small: Reals) -> Reals:
    """Return the (8, 8, 8) hash of a whole volume in whole numbers, or zeros if it has no structure."""
    return np.asarray(views_of(small, _WHOLE)[0])


def plain_hashes(smalls: Sequence[Reals]) -> Shorts:
    """Return the (volume, 512) hashes of whole volumes."""
    return np.stack([plain_hash(small) for small in smalls]).reshape(len(smalls), -1).astype(np.int16)


def quick_spectra(smalls: Sequence[Reals]) -> Shorts:
    """Return the (volume, 32, 68) spectra of each volume and its larger crops; the first is of the whole volume."""
    return np.stack([_spectra(views_of(small, _SOME)) for small in smalls])


def moments(spectra: Shorts) -> Places:
    """Return the number of spectra, and sums and sums of squares of each frequency: whole numbers that can be added."""
    rows = spectra.reshape(-1, spectra.shape[-1]).astype(np.int64)
    rows = rows[rows.any(axis=1)]
    return np.concatenate([[len(rows)], rows.sum(axis=0), (rows * rows).sum(axis=0)])


def standardised(spectra: Shorts, whole: Places) -> Shorts:
    """Return spectra of which every frequency has mean 0 and one deviation over all volumes, again with norm SPECTRUM.

    All volumes have much alike, which says nothing of copies. Zeros stay zeros.

    Parameters
    ----------
    whole
        The ``moments`` of all volumes.
    """
    frequencies = spectra.shape[-1]
    means, squares = np.split(whole[1:] / max(int(whole[0]), 1), [frequencies])
    deviations = np.sqrt(np.maximum(squares - means * means, 1))
    out = np.empty(spectra.shape, np.int16)
    for some, into in zip(spectra, out, strict=True):
        apart = np.rint((some - means) * (DEVIATION / deviations))
        apart *= some.any(axis=-1, keepdims=True)
        lengths = np.sqrt((apart * apart).sum(axis=-1, keepdims=True))
        into[:] = np.rint(apart * (SPECTRUM / np.maximum(lengths, 1)))
    return out


def promising(
    own: Places,
    wholes: Shorts,
    spectra: Iterable[tuple[Places, Shorts]],
    persons: Places,
    *,
    lists: Lists | None = None,
) -> Places:
    """Return the (pair, 2) wholes and crops to compare: of each of our own volumes those that it is likest a crop of.

    Where all are compared, spectra do not matter; elsewhere those with less than nothing in common are left out.

    Parameters
    ----------
    own, wholes
        Numbers of the volumes whose owners are sought, and their own spectra.
    spectra
        Numbers and spectra of all volumes, in any portions. Results do not depend on the portions.
    persons
        Person of every volume; volumes of one person are not compared.
    lists
        Which views are compared with which volumes; without, all with all.
    """
    most = min(most_owners(len(persons)), len(persons))
    lowest = 0.0 if most < len(persons) else -2.0 * SPECTRUM**2
    best = Best.of(len(own), most, owners=len(persons), lowest=lowest)
    sought, barred = wholes.astype(np.float32), (persons, persons[own])
    met = partial(_met, columns=len(own)) if lists is None else partial(lists.met, near=lists.near(wholes))
    for rows, some in spectra:
        for owners, views, columns in met(rows, some):
            for at in range(0, len(views), BLOCK):  # a list may hold very many views, as of volumes without structure
                some_views = views[at : at + BLOCK].astype(np.float32)
                best.add(some_views @ sought[columns].T, owners[at : at + BLOCK], columns, barred)
    found = best.pairs()
    return np.stack([found[:, 0], own[found[:, 1]]], axis=1)


def _met(rows: Places, spectra: Shorts, columns: int) -> Iterator[tuple[Places, Shorts, Places]]:
    """Yield some views with their owners, and some columns, until each has met all others."""
    for first in range(0, len(rows), ROWS):
        some = spectra[first : first + ROWS]
        views, owners = some.reshape(-1, some.shape[2]), np.repeat(rows[first : first + ROWS], some.shape[1])
        for at in range(0, columns, BLOCK):
            yield owners, views, np.arange(at, min(at + BLOCK, columns))


def by_whole(pairs: Places) -> Iterator[tuple[int, Places]]:
    """Yield every volume of pairs with its crops."""
    pairs = pairs[np.lexsort([pairs[:, 1], pairs[:, 0]])]
    wholes, first = np.unique(pairs[:, 0], return_index=True)
    yield from zip(wholes.tolist(), np.split(pairs[:, 1], first[1:]), strict=True)


def scored(small: Reals, whole: int, cropped: Places, plain: Shorts) -> NDArray[Any]:
    """Return, as FOUND, the volumes whose hash is near that of a view of one volume.

    Parameters
    ----------
    small, whole
        The small copy of the volume, and its number.
    cropped
        Numbers of the volumes that may be parts of it: rows of ``plain``, which has one for every volume.
    """
    hashes = plain[cropped].astype(np.float32).reshape(-1, EDGE, EDGE, EDGE)
    ranges, numbers = (_ALL, np.arange(len(VIEWS))) if few(len(plain)) else (_MANY, MANY_VIEWS)
    scores, views = _compared(parts(views_of(small, ranges)), parts(hashes))
    flips = np.argsort(-scores, axis=1, kind="stable")[:, :STARTS]
    best = scores.max(axis=1) / np.float32(8 * UNIT * UNIT)
    near = best >= SCREEN_THRESHOLD
    found = np.empty(int(near.sum()), FOUND)
    found["whole"], found["crop"], found["score"] = whole, cropped[near], best[near]
    found["starts"] = np.stack([np.take_along_axis(numbers[views], flips, axis=1), flips], axis=2)[near]
    return found


def nearest(found: NDArray[Any], neighbours: int) -> NDArray[Any]:
    """Return the pairs that are among the nearest few of either volume, sorted."""
    kept = [_among_nearest(found, *roles, neighbours) for roles in (("whole", "crop"), ("crop", "whole"))]
    return np.sort(found[kept[0] | kept[1]], order=["whole", "crop"])


def fitted_first(chosen: NDArray[Any], volumes: int) -> NDArray[np.bool_]:
    """Return which pairs are fitted in any case: of many volumes, each as a crop of the nearest one.

    Only if that agrees well enough are the other near ones worth a fit, because copies are nearer than strangers.
    """
    return np.ones(len(chosen), bool) if few(volumes) else _among_nearest(chosen, "crop", "whole", 1)


def _among_nearest(found: NDArray[Any], role: str, partner: str, neighbours: int) -> NDArray[np.bool_]:
    """Return which pairs are among the nearest few of the volumes in one role."""
    order = np.lexsort([found[partner], -found["score"], found[role]])
    _, first, sizes = np.unique(found[role][order], return_index=True, return_counts=True)
    kept = np.zeros(len(found), bool)
    kept[order[np.arange(len(order)) - np.repeat(first, sizes) < neighbours]] = True
    return kept


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


def views_of(small: Reals, ranges: Reals) -> Reals:
    """Return (view, 8, 8, 8) hashes of the crops of a volume, and of the whole volume in the other axis orders."""
    return crop_hashes(small, ranges, _BLUR, least=NOISE, norm=UNIT)


def _ranges(found: Sequence[tuple[float, float]]) -> Reals:
    """Return the (part, 8, 32) weights of the voxels of an axis in each hash value of each part of it."""
    return np.stack([_averages(low, high) for low, high in found]).astype(np.float32)


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


def _waves() -> Doubles:
    """Return the (8, 8) weights of a cosine transform, in 256ths."""
    frequencies = np.arange(EDGE)[:, None]
    waves = np.cos(np.pi * (np.arange(EDGE) + 0.5) * frequencies / EDGE)
    return np.asarray(np.rint(256 * waves * np.where(frequencies > 0, 1, np.sqrt(0.5))))


_BLUR = _blur().astype(np.float32)

_WHOLE, _SOME, _ALL = _ranges(PARTS[:1]), _ranges(PARTS[:FEW_PARTS]), _ranges(PARTS)

_MANY = _ranges([PARTS[n] for n in MANY_PARTS])

_WAVES = _waves()

_LOW = np.flatnonzero([0 < sum(n * n for n in wave) <= HIGHEST for wave in itertools.product(range(EDGE), repeat=3)])

VIEWS: tuple[tuple[tuple[int, int, int], tuple[float, ...]], ...] = (
    *((TURNS[0], (*(low for low, _ in box), *(high for _, high in box))) for box in itertools.product(PARTS, repeat=3)),
    *((turn, (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)) for turn in TURNS[1:]),
)
"""Order of the axes and box of every view."""

MANY_VIEWS = np.flatnonzero([n >= len(PARTS) ** 3 or set(np.unravel_index(n, (len(PARTS),) * 3)) <= set(MANY_PARTS)
                              for n in range(len(VIEWS))])  # fmt: skip
