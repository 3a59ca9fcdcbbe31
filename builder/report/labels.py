"""Summarise the labels in every split: how many cases have each label, and how large the labels are."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builder.model.canonical import Json
from builder.report.bias import difference_of_means, proportion
from builder.report.people import MISSING, is_measured, is_number, levels, numbers

_VOLUME = re.compile(r"label\.(?P<name>.+)\.volume_mm3$")


def label_statistics(
    cases: pa.Table, labels: Sequence[str], *, splits: Sequence[str], mask_below: int = 0
) -> list[Json]:
    """Return one entry per label column: presence and size, or counts of its levels, in each split and overall.

    Parameters
    ----------
    cases
        One row per case with ``split`` and the label columns. A missing volume or a volume of zero counts as absent;
        other columns of a label (``label.tumor.gtv.planes``) say how the label was made.
    """
    split_of = np.array(cases["split"].to_pylist(), dtype=object)
    members = {**{s: split_of == s for s in splits}, "all": np.isin(split_of, list(splits))}
    entries = []
    for name in labels:
        if name not in cases.column_names:
            continue
        column = cases[name]
        if is_number(column.type) and is_measure(name):
            entries.append(_measure(name, numbers(column), members, mask_below))
        elif is_number(column.type):
            entries.append(_sizes(name, numbers(column), members, mask_below))
        else:
            entries.append(_levels(name, column, members, mask_below))
    return entries


AGREEMENT = (
    *("dice", "hd95_mm", "sensitivity", "specificity"),
    *("median_difference_mm", "lines_within_two_slices_fraction"),
)
"""Last parts of the names of measures that say how well the readers of a label agree."""


def agreement_by_group(cases: pa.Table, groups: Sequence[str], *, mask_below: int = 0) -> list[Json]:
    """Return one entry per measure of agreement and group: count and quartiles of the cases in each level.

    ``p`` comes from the Kruskal-Wallis test over levels with at least two cases. If readers agree less in one group,
    its labels are worse, and so a model will appear to perform worse there.
    """
    columns = sorted(c for c in cases.column_names if c.startswith("label.") and c.rsplit(".", 1)[-1] in AGREEMENT)
    entries = []
    for name in columns:
        values = numbers(cases[name])
        for group in groups:
            if group not in cases.column_names or is_measured(cases[group]):
                continue
            coded = levels(cases[group])
            inside = {n: values[(coded.codes == i) & ~np.isnan(values)] for i, n in enumerate(coded.names)}
            enough = [v for n, v in inside.items() if n != MISSING and len(v) >= max(2, mask_below)]
            tested = len(enough) > 1 and len(np.unique(np.concatenate(enough))) > 1
            entries.append(
                {
                    "measure": name.removeprefix("label."),
                    "group": group,
                    "levels": [{"level": n, **_quartiles(v, mask_below)} for n, v in inside.items()],
                    "p": _kruskal(enough) if tested else None,
                }
            )
    return entries


def _kruskal(groups: Sequence[Any]) -> float:
    from scipy import stats

    return float(stats.kruskal(*groups).pvalue)


def _quartiles(known: Any, mask_below: int) -> Json:
    if 0 < len(known) < mask_below:
        return {"count": None, "q1": None, "median": None, "q3": None}
    q1, median, q3 = np.quantile(known, [0.25, 0.5, 0.75]).tolist() if len(known) else (None, None, None)
    return {"count": len(known), "q1": q1, "median": median, "q3": q3}


def is_measure(name: str) -> bool:
    """Return whether a column describes how a label was made rather than what it says."""
    return name.startswith("label.") and not _VOLUME.match(name)


def is_volume(name: str) -> bool:
    """Return whether a column holds the volume of a structure in a case."""
    return _VOLUME.match(name) is not None


def outcomes(persons: pa.Table, labels: Sequence[str]) -> dict[str, Any]:
    """Return labels as yes, no or unknown (null) for each person, the form that sensitivity and AUC need.

    A label column with two levels becomes one outcome, and a volume counts as present or absent; other columns are
    left out. The name of an outcome says what counts as yes.
    """
    found: dict[str, Any] = {}
    for name in labels:
        if name not in persons.column_names:
            continue
        if is_measure(name) and is_number(persons[name].type):
            continue
        column = persons[name]
        if _VOLUME.match(name):
            present = pc.greater(pc.fill_null(column.cast(pa.float64()), 0.0), 0.0)
            found[f"{title(name)} present"] = present.to_pylist()
            continue
        known = sorted({v for v in column.to_pylist() if v is not None and v == v}, key=str)
        if len(known) == 2:
            yes = known[1]
            found[f"{name} = {yes}"] = [None if v is None or v != v else v == yes for v in column.to_pylist()]
    return found


def title(name: str) -> str:
    """Return ``tumor / gtv`` for ``label.tumor.gtv.volume_mm3``, and other column names unchanged."""
    match = _VOLUME.match(name)
    return " / ".join(match["name"].split(".")) if match else name


def _measure(name: str, values: Any, members: Any, mask_below: int) -> Json:
    table = {}
    for split, who in members.items():
        known = values[who][~np.isnan(values[who])]
        enough = len(known) >= max(1, mask_below)
        q1, median, q3 = np.quantile(known, [0.25, 0.5, 0.75]).tolist() if enough else (None, None, None)
        above = int((known > 0).sum())
        few = 0 < above < mask_below or 0 < len(known) - above < mask_below
        table[split] = {
            "count": len(known),
            "above_zero": None if few else above,
            "q1": q1,
            "median": median,
            "q3": q3,
        }
    return {"label": name, "title": name.removeprefix("label."), "kind": "measure", "splits": table}


def _sizes(name: str, values: Any, members: Any, mask_below: int) -> Json:
    table = {}
    for split, who in members.items():
        inside = values[who]
        present = inside[np.nan_to_num(inside) > 0]
        few = 0 < len(present) < mask_below or 0 < len(inside) - len(present) < mask_below
        shown = proportion(len(present), len(inside), hidden=few)
        enough = len(present) >= max(1, mask_below)
        q1, median, q3 = np.quantile(present, [0.25, 0.5, 0.75]).tolist() if enough else (None, None, None)
        table[split] = {"cases": len(inside), **shown, "q1": q1, "median": median, "q3": q3}
    sizes = [v[np.nan_to_num(v) > 0] for v in (values[who] for s, who in members.items() if s != "all")]
    gaps = [difference_of_means(a, b) for i, a in enumerate(sizes) for b in sizes[i + 1 :]]
    volume = _VOLUME.match(name) is not None
    return {
        "label": name,
        "title": title(name),
        "kind": "sizes",
        "unit": "mm3" if volume else "",
        "splits": table,
        "difference": max((g for g in gaps if g is not None), default=None),
    }


def _levels(name: str, column: Any, members: Any, mask_below: int) -> Json:
    coded = levels(column)
    counts = {s: np.bincount(coded.codes[who], minlength=len(coded.names)) for s, who in members.items()}
    rows = [
        {
            "level": level,
            "cells": {
                s: proportion(int(c[i]), int(c.sum()), hidden=bool(0 < c[i] < mask_below)) for s, c in counts.items()
            },
        }
        for i, level in enumerate(coded.names)
    ]
    return {"label": name, "title": title(name), "kind": "levels", "unit": "", "levels": rows}
