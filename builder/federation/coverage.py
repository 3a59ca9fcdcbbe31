"""How far the structures of a spec take the names of ROIs and segments in a site's archive; no name ever leaves."""

from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa

from builder.errors import PrivacyError
from builder.federation.documents import Table
from builder.federation.tables import Column, count
from builder.federation.told import Teller
from builder.labels import AnyLabel
from builder.labels.label import MaskLabel
from builder.planning.rows import LinkRow, rows_of

NAME: Final = "coverage"


def structures(labels: Mapping[str, AnyLabel]) -> int:
    """Return how many structures the labels declare that take ROIs or segments by their names."""
    return sum(len(label.declared) for label in _named(labels).values())


def covered(labels: Mapping[str, AnyLabel], cohort: pa.Table, links: pa.Table, annotations: pa.Table) -> dict[str, int]:
    """Return how many structures of all labels take a name of any object of each person of the cohort.

    Parameters
    ----------
    cohort, links, annotations
        As a plan has them: series with ``case_key``, ``person_key`` and ``included``; which row of the annotations
        labels which case; and the names in each annotation.
    """
    named, names = _named(labels), annotations["label_names"]
    kept = cohort.filter(cohort["included"])
    person_of = dict(zip(*(kept[name].to_pylist() for name in ("case_key", "person_key")), strict=True))
    found: dict[str, set[tuple[str, str]]] = {person: set() for person in person_of.values()}
    for row in rows_of(links, LinkRow):
        if row.label in named and row.case_key in person_of:
            taken = (named[row.label].structures_of(name) or () for name in names[row.annotation].as_py() or ())
            found[person_of[row.case_key]].update((row.label, part) for parts in taken for part in parts)
    return {person: len(own) for person, own in found.items()}


def tell_coverage(teller: Teller, found: Mapping[str, int], most: int, withheld: list[str]) -> Iterator[Table]:
    """Yield the table, or add a line to ``withheld`` that says why it stays.

    It counts a person once, by how many structures are found. Numbers of each structure would tell who has a name that
    one expression takes and another, which is the same but for that name, does not.
    """
    if not most:
        return
    column = Column("structures", tuple(f"{n} of {most}" for n in range(most + 1)))
    counts = count((column,), ((f"{n} of {most}",) for n in found.values()))
    try:
        yield teller.table(NAME, counts, [(), (column.name,)])
    except PrivacyError:
        withheld.append(f"{NAME}: not told beside what was told before")


def _named(labels: Mapping[str, AnyLabel]) -> dict[str, MaskLabel]:
    return {n: v for n, v in labels.items() if isinstance(v, MaskLabel) and v.structures_of("") is not None}
