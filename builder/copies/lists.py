"""An index over spectra: views lie in lists of alike ones, and a volume is compared with the nearest lists only.

Lists belong to centres, which are means of a sample of views. All sums are of whole numbers, so that lists depend on
nothing but the set of volumes.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Shorts = NDArray[np.int16]
Places = NDArray[np.int64]

LISTED = 16384
"""From so many volumes on, spectra lie in lists; fewer are all compared with each other."""

PROBED = 64
"""How many lists, the nearest ones, a volume is compared with."""

ROOTS, SAMPLE, ROUNDS = 5, 2, 2
"""Lists for each root of the number of volumes, volumes of the sample for each list, and how often means are taken."""

ROWS = 8192
"""How many views are compared with all centres at a time, which bounds memory."""

WHOLES = 1024
"""The same of whole volumes, of which the order of all centres is held too."""


@dataclass(frozen=True, eq=False)
class Lists:
    """The (list, 68) centres, and the (volume, view) list of every view of every volume."""

    centres: Shorts
    labels: NDArray[np.int32]

    def near(self, wholes: Shorts) -> Places:
        """Return the (whole, some) lists that are nearest to each spectrum of a whole volume."""
        turned = self.centres.astype(np.float32).T
        near = np.empty((len(wholes), min(PROBED, len(self.centres))), np.int64)
        for at in range(0, len(wholes), WHOLES):
            products = wholes[at : at + WHOLES].astype(np.float32) @ turned
            near[at : at + WHOLES] = np.argsort(-products, axis=1, kind="stable")[:, :PROBED]
        return near

    def met(self, rows: Places, spectra: Shorts, near: Places) -> Iterator[tuple[Places, Shorts, Places]]:
        """Yield, list by list, its views of some volumes with their owners, and the wholes that it is near to.

        Parameters
        ----------
        rows, spectra
            Numbers of the volumes, and their (volume, view, 68) spectra.
        near
            What ``near`` gives for the wholes.
        """
        asked = np.argsort(near, axis=None, kind="stable")
        labels, lists = self.labels[rows].reshape(-1), np.arange(len(self.centres) + 1)
        order = np.argsort(labels, kind="stable")
        views = spectra.reshape(-1, spectra.shape[2])
        wholes = np.searchsorted(near.reshape(-1)[asked], lists)
        members = np.searchsorted(labels[order], lists)
        for (first, last), (low, high) in zip(itertools.pairwise(members), itertools.pairwise(wholes), strict=True):
            if first < last and low < high:
                held = order[first:last]
                yield rows[held // spectra.shape[1]], views[held], asked[low:high] // near.shape[1]


def sampled(volumes: int) -> int:
    """Return which volumes give centres their sample: those whose number this divides."""
    return max(1, volumes // (SAMPLE * lists_of(volumes)))


def lists_of(volumes: int) -> int:
    """Return how many lists there are for so many volumes."""
    return ROOTS * isqrt(volumes)


def centres_of(sample: Shorts, volumes: int, norm: int) -> Shorts:
    """Return the centres of the (volume, view, 68) spectra of a sample: means of the views nearest to each."""
    views = sample.reshape(-1, sample.shape[-1])
    centres = views[:: max(1, len(views) // lists_of(volumes))][: lists_of(volumes)]
    for _ in range(ROUNDS):
        sums = np.zeros(centres.shape, np.int64)
        np.add.at(sums, labels_of(views, centres), views)
        lengths = np.sqrt((sums * sums).sum(axis=1, keepdims=True))
        means = np.rint(norm * sums / np.maximum(lengths, 1)).astype(np.int16)
        centres = np.where(lengths > 0, means, centres)
    return centres


def labels_of(views: Shorts, centres: Shorts) -> NDArray[np.int32]:
    """Return the list of each of (..., 68) spectra."""
    rows, turned = views.reshape(-1, views.shape[-1]), centres.astype(np.float32).T
    found = [(rows[at : at + ROWS].astype(np.float32) @ turned).argmax(axis=1) for at in range(0, len(rows), ROWS)]
    return np.concatenate([np.empty(0, np.int64), *found]).astype(np.int32).reshape(views.shape[:-1])
