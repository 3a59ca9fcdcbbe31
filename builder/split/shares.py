"""Exact shares before they are rounded: parts of persons, as whole numbers of ``scale``-ths."""

import numpy as np

from builder.split.problem import Integers


def reachable(exact: Integers, held: Integers, scale: int) -> Integers:
    """Return (cell, split) the shares nearest to the exact ones that leave everybody where previous versions put them.

    Newcomers are poured like water into the splits that lack most: ``held + max(0, level - (held - exact))``.
    """
    reached = held.copy()
    for cell in np.flatnonzero(exact.sum(axis=1) > held.sum(axis=1)).tolist():
        newcomers = int(exact[cell].sum() - held[cell].sum())
        excess = held[cell] - exact[cell]
        ranked = np.argsort(excess, kind="stable")
        for wet in range(1, len(ranked) + 1):
            level, left = divmod(newcomers + int(excess[ranked[:wet]].sum()), wet)
            if wet == len(ranked) or level <= excess[ranked[wet]]:
                break
        poured = np.maximum(0, level - excess)
        poured[ranked[:left]] += 1  # parts of a person that no level divides; none when the scale is a multiple
        reached[cell] = held[cell] + poured
    return reached


def spread(share: Integers, sizes: Integers, scale: int) -> Integers:
    """Return (part, split) the share of a whole divided over its parts in proportion to their sizes.

    Parameters
    ----------
    share
        (split,) share of the whole; it sums to all its persons, in ``scale``-ths.
    sizes
        (part,) persons of each part.

    Notes
    -----
    Every row sums to its persons and every column to the share. A place is less than ``len(share) + len(sizes)``
    ``scale``-ths from its exact part, and equal to it where that is a whole number of ``scale``-ths everywhere.
    """
    everybody = int(sizes.sum())
    if not everybody:
        return np.zeros((len(sizes), len(share)), dtype=np.int64)
    parts = np.asarray(share[None, :] * sizes[:, None] // everybody)
    short = sizes * scale - parts.sum(axis=1)
    lacking = share - parts.sum(axis=0)
    for part in np.flatnonzero(short).tolist():
        for split in np.flatnonzero(lacking).tolist():
            given = min(int(short[part]), int(lacking[split]))
            parts[part, split] += given
            short[part] -= given
            lacking[split] -= given
    return parts
