"""Statistics of a joint report out of the tables of receipts, each between bounds that hold the pooled number."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

from builder.errors import LayoutError
from builder.federation.counting import EDGES, HISTOGRAM, MOST, PAIR, kind_of
from builder.federation.documents import Receipt, Table
from builder.federation.estimates import (
    Estimate,
    association,
    detectable,
    difference,
    mean_of_known,
    precision,
    quantile_of_known,
    share,
)
from builder.federation.exclusions import NAME as EXCLUSIONS
from builder.federation.tables import ANY
from builder.federation.tallies import Tally, merge, part, tally
from builder.federation.told import disclosed
from builder.model.canonical import Json

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
ASSUMED: Final = 0.9
"""Sensitivity that power is computed for, as in the report of one site."""


def statistics(receipts: Mapping[str, Receipt], splits: Iterable[str]) -> list[Json]:
    """Return what the tables of all sites say together.

    Parameters
    ----------
    splits
        Those of the plan, in order; quantities are compared between the first and each other one.

    Returns
    -------
    list
        One entry a table: ``without`` lists sites that did not tell how many persons it counts, or lack it.
        Each number has ``low`` and ``high``, between which the number computed from all rows of the other sites lies.
    """
    names = dict.fromkeys(t.name for site in sorted(receipts) for t in tables_of(receipts[site]) if t.columns)
    found: list[Json] = []
    for name in names:
        own = {site: _tally(receipt, name) for site, receipt in sorted(receipts.items())}
        without = [site for site, told in own.items() if told is None]
        try:
            joint = merge(own.values())
        except LayoutError:
            # nobody told a total, or the sites count by other levels
            found.append({"table": name, "persons": None, "without": list(own)})
            continue
        quantity = name.removeprefix(HISTOGRAM)
        entry: dict[str, Json] = {"table": name, "persons": joint.total, "without": list(without)}
        if name.startswith(HISTOGRAM) and kind_of(quantity) in EDGES:
            entry |= _of_quantity(joint, quantity, list(splits))
        elif name.startswith(PAIR):
            entry |= {"association": _association(joint)}
        elif name == EXCLUSIONS:
            entry |= {"outcomes": _of_outcomes(joint)}
        else:
            entry |= _of_levels(joint)
        found.append(entry)
    return found


def tables_of(receipt: Receipt) -> list[Table]:
    """Return all tables of a receipt."""
    return [receipt.strata, *receipt.tables]


def _tally(receipt: Receipt, name: str) -> Tally | None:
    table = next((t for t in tables_of(receipt) if t.name == name), None)
    return None if table is None else tally(disclosed(table, receipt.k))


def _of_quantity(joint: Tally, quantity: str, splits: list[str]) -> dict[str, Json]:
    """Return mean and quantiles over all splits and in each, and how far the means of splits lie apart."""
    kind = kind_of(quantity)
    edges = (*EDGES[kind], MOST[kind])
    groups = {split: part(joint, split) for split in (ANY, *splits)}
    known = {split: own for split, own in groups.items() if own is not None and own.total}
    means = {split: mean_of_known(own, edges) for split, own in known.items()}
    first = splits[0] if splits else ANY
    return {
        "quantity": quantity,
        "splits": [
            {
                "split": split,
                "persons": own.total,
                "mean": _ends(means[split]),
                "quantiles": {f"{q:g}": _ends(quantile_of_known(own, edges, q)) for q in QUANTILES},
                "from_first": _ends(difference(means[split], means[first]))
                if split not in (ANY, first) and first in means
                else None,
            }
            for split, own in known.items()
        ],
    }


def _of_levels(joint: Tally) -> dict[str, Json]:
    """Return shares, what each level can show, and the association of the levels with the split."""
    columns = [column.name for column in joint.columns]
    found = {"association": _association(joint) if len(columns) == 2 else None}
    rows: list[Json] = []
    for pattern in sorted(joint.ranges):
        if columns[0] != "split" or pattern[0] != ANY or set(pattern) == {ANY}:
            continue  # shares within a split are in the tables
        own, interval = share(joint, pattern)
        rows.append(
            {
                "levels": list(pattern[1:]),
                "share": _ends(own),
                "interval": _ends(interval),
                "half_width": _ends(precision(joint, pattern, ASSUMED)),
                "detectable": _ends(detectable(joint, pattern, ASSUMED)),
            }
        )
    return {**found, "columns": columns[1:], "levels": rows}


def _association(joint: Tally) -> Json:
    return {"of": [column.name for column in joint.columns], "cramers_v": _ends(association(joint))}


def _of_outcomes(joint: Tally) -> list[Json]:
    """Return how many persons of all sites each outcome has, and which share of the candidates."""
    rows: list[Json] = []
    for level in joint.columns[0].levels:
        low, high = joint.ranges[(level,)]
        own, interval = share(joint, (level,))
        found = {"low": low, "high": high}
        rows.append({"outcome": level, "persons": found, "share": _ends(own), "interval": _ends(interval)})
    return rows


def _ends(found: Estimate) -> Json:
    """Return the bounds; null where there is none."""
    low, high = (None if math.isinf(end) or math.isnan(end) else end for end in (found.low, found.high))
    return {"low": low, "high": high}
