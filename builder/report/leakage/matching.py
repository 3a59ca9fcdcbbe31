"""Whether the same image lies under two names: equal pixels, and images that are one another's crop, flip or copy.

Two steps, both on a small copy of each volume that knows no spacing, no window and no units: a screen that compares
every volume with every other one, and a confirmation that moves one over the other until they agree or do not.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.kernels.structure import fine_structure
from builder.report.leakage.prints import Print, Reals

Box = tuple[float, ...]

SCREEN = 10
CONFIRM = 16
"""Edges of the grids on which copies are screened and confirmed."""

THRESHOLD = 0.85
"""Correlation of fine structure from which two volumes count as one image, where ``THRESHOLDS`` has no other."""

THRESHOLDS: Mapping[str, float] = {}
"""The same by modality."""

ACROSS = 0.90
"""At least this where the modalities differ: a secondary capture of a CT, say."""

THIN, THIN_THRESHOLD = 4, 0.95
"""Volumes of fewer planes have little fine structure to tell them apart: at least this for them."""

SCREEN_THRESHOLD = 0.35
STARTS = 2
"""Flips tried for each pair that is confirmed."""

HOPELESS = 0.5
"""A fit still below this after the first round of steps is given up."""

NEIGHBOURS = 4
"""Only the nearest few volumes of each are confirmed, and only those the screen finds this similar."""

SMALLEST_CROP = 0.45
"""Shortest edge of a crop that is searched, as a share of the whole edge."""

SHARED_PLANES = 0.5
"""Share of the smaller volume's planes that lie in the other one too, from which they count as one image."""


@dataclass(frozen=True)
class Match:
    """Two volumes of different persons that show one image.

    ``exact`` when all pixels agree; ``planes`` is how many planes of one value and shape they share.
    """

    first: str
    second: str
    persons: tuple[str, str]
    splits: tuple[str | None, str | None]
    correlation: float
    exact: bool
    planes: int = 0


def find_matches(
    prints: Sequence[Print],
    *,
    thresholds: Mapping[str, float] = THRESHOLDS,
    threshold: float = THRESHOLD,
    neighbours: int = NEIGHBOURS,
) -> tuple[Match, ...]:
    """Pairs of volumes of different persons that show one image, most alike first.

    Equal volumes, and volumes of which one holds half of the other's planes or more, are found by their digests. Then
    every volume is compared with every other one on coarse grids, whole and as one of eleven crops, in all eight
    flips; the ``neighbours`` nearest are then confirmed by fitting the crop. A crop may keep as little as 45 % of an
    edge. Transposed and rotated copies are not found. Time grows with the square of the number of volumes; with
    ``neighbours`` 0 only digests are compared.

    Parameters
    ----------
    thresholds, threshold
        Correlation from which a pair counts, by modality, and for modalities that are not named; of two modalities
        the higher one, see ``limit``.
    """
    ordered = sorted(prints, key=lambda p: p.key)
    equal = _equal_planes(ordered)
    found = dict.fromkeys(equal, 1.0)
    by_modality = [thresholds.get(p.modality, threshold) for p in ordered]
    for whole, cropped, view, flip in _screened(ordered, neighbours) if neighbours else ():
        pair = (min(whole, cropped), max(whole, cropped))
        if found.get(pair, 0.0) < 1.0:
            found[pair] = max(found.get(pair, 0.0), _confirm(ordered[whole].small, ordered[cropped].small, view, flip))
    matches = [
        Match(
            a.key, b.key, (a.person_key, b.person_key), (a.split, b.split), round(c, 4), a.digest == b.digest,
            equal.get((i, j), 0),
        )
        for (i, j), c in found.items()
        for a, b in ((ordered[i], ordered[j]),)
        if (i, j) in equal or c >= limit(a, b, max(by_modality[i], by_modality[j]))
    ]  # fmt: skip
    return tuple(sorted(matches, key=lambda m: (-m.correlation, m.first, m.second)))


def limit(one: Print, other: Print, by_modality: float) -> float:
    """Correlation from which two volumes count as one image: more across modalities, and for thin volumes."""
    across = ACROSS if one.modality != other.modality else 0.0
    thin = THIN_THRESHOLD if min(len(one.planes), len(other.planes)) < THIN else 0.0
    return max(by_modality, across, thin)


def _equal_planes(prints: Sequence[Print]) -> dict[tuple[int, int], int]:
    """Pairs of different persons with equal pixels or enough planes in common, and how many planes that is."""
    shared: dict[tuple[int, int], int] = {}
    for names in ([(p.digest,) if p.planes else () for p in prints], [p.planes for p in prints]):
        holders: dict[Any, list[int]] = {}
        for i, held in enumerate(names):
            for name in held:
                holders.setdefault(name, []).append(i)
        counts: dict[tuple[int, int], int] = {}
        for members in holders.values():
            for pair in itertools.combinations(members, 2):
                counts[pair] = counts.get(pair, 0) + 1
        shared |= counts
    return {
        (i, j): min(n, len(prints[i].planes), len(prints[j].planes))
        for (i, j), n in shared.items()
        if prints[i].person_key != prints[j].person_key
        and (
            prints[i].digest == prints[j].digest
            or n >= SHARED_PLANES * min(len(prints[i].planes), len(prints[j].planes))
        )
    }


@dataclass(frozen=True, eq=False)
class _Nearest:
    """The best few partners of every volume seen so far: (volume, place) scores, partners, and starts to try."""

    scores: Reals
    partners: NDArray[np.int64]
    starts: NDArray[np.int8]

    @classmethod
    def of(cls, volumes: int, places: int) -> "_Nearest":
        """Nobody yet."""
        shape = (volumes, places)
        return cls(np.full(shape, -1, np.float32), np.full(shape, -1, np.int64), np.zeros((*shape, STARTS, 2), np.int8))

    def offer(self, volume: NDArray[np.int64], score: Reals, partner: NDArray[np.int64], starts: Any) -> None:
        """Put each partner in the place of the volume's worst one, where it is better. One offer a volume."""
        worst = self.scores[volume].argmin(axis=1)
        better = score > self.scores[volume, worst]
        at = (volume[better], worst[better])
        self.scores[at], self.partners[at], self.starts[at] = score[better], partner[better], starts[better]


def _screened(prints: Sequence[Print], neighbours: int) -> Iterator[tuple[int, int, int, int]]:
    """(whole, cropped, view, flip): the nearest volumes of other persons of each volume, taken as a crop of them."""
    if len(prints) < 2:
        return
    persons = np.unique([p.person_key for p in prints], return_inverse=True)[1]
    plain = np.stack([_describe(p.small, VIEWS[0], FLIPS[0], SCREEN) for p in prints])
    everybody = np.arange(len(prints))
    as_whole = _Nearest.of(len(prints), neighbours)
    as_crop = _Nearest.of(len(prints), neighbours)
    for whole, p in enumerate(prints):
        cubes = (_describe(p.small, view, FLIPS[0], SCREEN).reshape((SCREEN,) * 3) for view in VIEWS)
        views = np.stack([cube[:: f[0], :: f[1], :: f[2]].reshape(-1) for cube in cubes for f in FLIPS])
        alike = np.round(np.abs(views @ plain.T), 4)  # equal for any number of BLAS threads
        by_flip = alike.reshape(len(VIEWS), len(FLIPS), -1)
        flips = np.argsort(-by_flip.max(axis=0), axis=0, kind="stable")[:STARTS]
        starts = np.stack([np.take_along_axis(by_flip.argmax(axis=0), flips, axis=0).T, flips.T], axis=2)
        best = np.where(persons == persons[whole], -1, alike.max(axis=0)).astype(np.float32)
        as_crop.offer(everybody, best, np.full(len(prints), whole), starts)
        nearest = np.argsort(-best, kind="stable")[:neighbours]
        as_whole.scores[whole, : len(nearest)] = best[nearest]
        as_whole.partners[whole, : len(nearest)] = nearest
        as_whole.starts[whole, : len(nearest)] = starts[nearest]
    chosen = {(w, c): s for w, c, s in _pairs(as_whole)} | {(w, c): s for c, w, s in _pairs(as_crop)}
    for whole, cropped in sorted(chosen):
        for view, flip in chosen[whole, cropped]:
            yield whole, cropped, view, flip


def _pairs(nearest: _Nearest) -> Iterator[tuple[int, int, list[list[int]]]]:
    for volume, place in np.argwhere(nearest.scores >= SCREEN_THRESHOLD).tolist():
        yield volume, int(nearest.partners[volume, place]), nearest.starts[volume, place].tolist()


def _confirm(whole: Reals, cropped: Reals, view: int, flip: int) -> float:
    """Largest correlation of fine structure over boxes of ``whole`` near a view: coordinate search, halving steps."""
    target = _describe(cropped, VIEWS[0], FLIPS[flip], CONFIRM)
    box, step = list(VIEWS[view]), 0.1
    best = _alike(whole, box, target)
    while step > 0.01:
        moved = False
        for edge, direction in itertools.product(range(6), (step, -step)):
            trial = list(box)
            trial[edge] += direction
            if not _allowed(trial):
                continue
            score = _alike(whole, trial, target)
            if score > best + 1e-6:
                best, box, moved = score, trial, True
        if best < HOPELESS:
            break
        step = step if moved else step / 2
    return best


def _alike(whole: Reals, box: Sequence[float], target: Reals) -> float:
    return abs(float(_describe(whole, tuple(box), FLIPS[0], CONFIRM) @ target))


def _allowed(box: Sequence[float]) -> bool:
    edges = [high - low for low, high in zip(box[:3], box[3:], strict=True)]
    return min(box[:3]) >= -0.06 and max(box[3:]) <= 1.06 and min(edges) >= SMALLEST_CROP


VIEWS: tuple[Box, ...] = (
    (0.0, 0.0, 0.0, 1.0, 1.0, 1.0),
    *((*start, *(s + 0.8 for s in start)) for start in itertools.product((0.0, 0.2), repeat=3)),
    (0.1, 0.1, 0.1, 0.9, 0.9, 0.9),
    (0.18, 0.18, 0.18, 0.82, 0.82, 0.82),
)
"""Boxes (low and high of each axis, as shares of it) a crop is looked for in first."""

FLIPS: tuple[tuple[int, int, int], ...] = tuple((a, b, c) for a, b, c in itertools.product((1, -1), repeat=3))


def _describe(small: Reals, box: Box, flip: tuple[int, int, int], edge: int) -> Reals:
    """Fine structure of a box on an ``edge`` cube as a vector of length 1 (0 where there is none)."""
    fine = fine_structure(small, box, edge).reshape((edge,) * 3)
    return np.ascontiguousarray(fine[:: flip[0], :: flip[1], :: flip[2]]).reshape(-1)
