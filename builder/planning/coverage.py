"""Report which names of ROIs and segments a plan's labels use and which they leave. The names stay private."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from builder.labels import AnyLabel
from builder.planning.rows import LinkRow, rows_of
from builder.storage import Store

NAMES = "label-names.csv"


def map_structures(
    labels: Mapping[str, AnyLabel], links: pa.Table, annotations: pa.Table, private: Store
) -> dict[str, Any]:
    """Count for each label that matches names by expressions the cases with each structure and the unmatched names.

    Every name is written with its matching structures to the private workspace (``label-names.csv``), unmatched names
    first. Names are free text of the archive and are never released.

    Parameters
    ----------
    links
        With schema LINKS: the included cases, and every object that was passed over because of its names.
    annotations
        With schema INSTANCES, and the names of each object.

    Returns
    -------
    dict
        Maps each label to ``cases``, ``names``, ``names_taken_by_none`` and ``structures`` (structure to number of
        cases).
    """
    named = annotations.column("label_names")
    # maps (label, name) to the cases whose objects have the name
    cases: dict[tuple[str, str], set[str]] = {}
    linked: dict[str, set[str]] = {}
    for row in rows_of(links, LinkRow):
        if row.label in labels and labels[row.label].structures_of("") is not None:
            linked.setdefault(row.label, set()).add(row.case_key)
            for name in named[row.annotation].as_py() or ():
                cases.setdefault((row.label, name), set()).add(row.case_key)
    taken = {pair: labels[pair[0]].structures_of(pair[1]) or () for pair in cases}
    if linked:
        _write_names(cases, taken, private)
    return {label: _facts(label, linked[label], cases, taken) for label in sorted(linked)}


def _facts(
    label: str,
    linked: set[str],
    cases: Mapping[tuple[str, str], set[str]],
    taken: Mapping[tuple[str, str], tuple[str, ...]],
) -> dict[str, Any]:
    mine = {pair: structures for pair, structures in taken.items() if pair[0] == label}
    found: dict[str, set[str]] = {}
    for pair, structures in mine.items():
        for structure in structures:
            found.setdefault(structure, set()).update(cases[pair])
    return {
        "cases": len(linked),
        "names": len(mine),
        "names_taken_by_none": sum(not structures for structures in mine.values()),
        "structures": {structure: len(found[structure]) for structure in sorted(found)},
    }


def _write_names(
    cases: Mapping[tuple[str, str], set[str]], taken: Mapping[tuple[str, str], tuple[str, ...]], private: Store
) -> None:
    sink = io.StringIO()
    rows = csv.writer(sink, lineterminator="\n")
    rows.writerow(["label", "name", "structures", "cases"])
    ordered = sorted(cases, key=lambda pair: (pair[0], bool(taken[pair]), -len(cases[pair]), pair[1]))
    rows.writerows([label, name, " ".join(taken[label, name]), len(cases[label, name])] for label, name in ordered)
    private.put(NAMES, sink.getvalue().encode())
