"""How many newcomers of each site and stratum go to each split, so that the ratios hold over all sites together."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builder.errors import SpecError
from builder.federation.pooling import Pools
from builder.federation.tables import Integers, Pattern
from builder.model.keyed import Key
from builder.split.options import whole_shares
from builder.split.problem import Problem
from builder.split.rounding import round_shares
from builder.split.shares import reachable, spread


@dataclass(frozen=True)
class Quotas:
    """Newcomers of each site, by stratum and split.

    Parameters
    ----------
    splits
        The splits of the ratios in their order, then those of held-out sites.
    patterns
        Strata and pools, as in ``Pools``.
    counts
        Site to (pattern, split) persons.
    """

    splits: tuple[str, ...]
    patterns: tuple[Pattern, ...]
    counts: Mapping[str, tuple[tuple[int, ...], ...]]


def quotas(
    pools: Pools,
    ratios: Mapping[str, float],
    *,
    seed: int,
    held: Mapping[str, Sequence[Mapping[str, int]]] | None = None,
    held_out: Mapping[str, str] | None = None,
) -> Quotas:
    """Return whole persons for each site, stratum and split.

    Parameters
    ----------
    pools
        Newcomers of each site.
    ratios
        Split to share; the shares sum to 1.
    seed
        Decides between equals; nothing is random.
    held
        Site to one mapping a pattern: persons whom earlier versions put into each split. They stay, and newcomers fill
        what they leave open.
    held_out
        Site to the split that all its persons go to; they count in no share.

    Returns
    -------
    Quotas
        Each row sums to the newcomers of its site and stratum. Each stratum, summed over the sites, and the total are
        at the floor or ceiling of their share (with ``held``, of what is reachable of it), and so is each site in each
        stratum of its own part; each site as a whole is as near to its share as the search gets it.

    Raises
    ------
    SpecError
        If the ratios do not sum to 1, or a site is held out that offered nothing.
    """
    try:
        names, shares = whole_shares(ratios)
    except ValueError as error:
        raise SpecError(f"splits.{error}") from error
    out = dict(held_out or {})
    absent = sorted(set(out) - set(pools.persons))
    if absent:
        raise SpecError(f"held out: found the site {absent[0]!r}, expected one of {sorted(pools.persons)}")
    dealt = [site for site in sorted(pools.persons) if site not in out]
    sizes = np.array([pools.persons[site] for site in dealt], dtype=np.int64).reshape(len(dealt), len(pools.patterns))
    before = np.zeros((len(pools.patterns), len(names)), dtype=np.int64)
    for site in dealt:
        for row, numbers in zip(before, (held or {}).get(site, ()), strict=False):
            row += [numbers.get(name, 0) for name in names]
    counts = _rounded(sizes, before, shares, [(site, p) for site in dealt for p in pools.patterns], seed)
    splits = tuple(dict.fromkeys([*names, *out.values()]))
    found = {site: _rows(counts[n], splits) for n, site in enumerate(dealt)}
    for site, split in out.items():
        found[site] = tuple(tuple(n if name == split else 0 for name in splits) for n in pools.persons[site])
    return Quotas(splits, pools.patterns, found)


def _rounded(
    sizes: Integers, before: Integers, shares: tuple[int, ...], names: list[tuple[str, Pattern]], seed: int
) -> Integers:
    """Return (site, stratum, split) persons, from the sizes and the persons of earlier versions in each stratum."""
    sites, strata = sizes.shape
    parts = math.lcm(*range(1, len(shares) + 1)) if before.any() and len(shares) <= 10 else 1
    scale, ratio = sum(shares) * parts, np.array(shares, dtype=np.int64) * parts
    exact = (sizes.sum(axis=0) + before.sum(axis=1))[:, None] * ratio[None, :]
    goals = reachable(exact, before * scale, scale) - before * scale
    cells = (
        np.stack([spread(goals[s], sizes[:, s], scale) for s in range(strata)], axis=1) if strata else exact[None, :0]
    )
    flat = cells.reshape(sites * strata, len(shares))
    total = goals.sum(axis=0)
    key = Key(hashlib.sha256(f"quotas {seed}".encode()).digest())
    order = np.array([key.number("quota", site, *pattern) >> 1 for site, pattern in names], dtype=np.int64)
    problem = Problem(
        shares=flat,
        scale=scale,
        stratum_of=np.tile(np.arange(strata), sites),
        levels_of=np.repeat(np.arange(sites), strata)[:, None],
        targets=cells.sum(axis=1),
        total=total,
        keep_total=(total // scale, -(-total // scale)),
        order=order,
    )
    return round_shares(problem).reshape(sites, strata, len(shares))


def _rows(counts: Integers, splits: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    wider = np.zeros((len(counts), len(splits)), dtype=np.int64)
    wider[:, : counts.shape[1]] = counts
    return tuple(tuple(row) for row in wider.tolist())
