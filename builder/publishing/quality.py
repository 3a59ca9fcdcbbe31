"""Compute the figures of quality of a dataset, and what its test split shares with its training split."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.catalog.facts import PLACES
from builder.catalog.figures import FigureFacts, OverlapFacts
from builder.model.tables import used_rows
from builder.report.people import SEVERAL, one_row_each
from builder.report.protocols import FACTS
from builder.spec import DatasetSpec
from builder.split import TRUE_DATE

OF_ACQUISITION = ("modality", "body_part", "manufacturer", "manufacturer_model", *FACTS[1:])
"""Attributes of the images whose completeness is told."""

DEVICE = ("manufacturer", "manufacturer_model")
PROTOCOL = tuple(name for name in FACTS if name != "manufacturer_model")


def figures(
    tables: tuple[pa.Table, pa.Table], totals: Mapping[str, int], spec: DatasetSpec, last: int | None
) -> tuple[FigureFacts, ...]:
    """Return figures of completeness, uniqueness, validity, consistency and timeliness.

    Completeness counts the known cells of what is told of persons and of how images were acquired; uniqueness the files
    that are no copy of another, and consistency the persons whose samples do not contradict each other.

    Parameters
    ----------
    tables
        The index, and the published rows of the cohort that a case uses.
    totals
        Those of the manifest: files by status.
    last
        The year of the last study, where years are told.
    """
    index, included = tables
    names = [n for n in dict.fromkeys(("sex", "age_years", *PLACES, *spec.clinical_columns)) if n in index.column_names]
    persons = one_row_each(index, names)
    told = [persons[name] for name in names]
    acquired = [included[name] for name in OF_ACQUISITION if name in included.column_names]
    files = {name.removeprefix("files."): n for name, n in totals.items() if name.startswith("files.")}
    total = sum(files.values())
    found = [
        _figure("completeness", "values known of persons", *_known(told), spec),
        _figure("completeness", "attributes known of series", *_known(acquired), spec),
        _figure("validity", "files that were not quarantined", _rest(files, "quarantined"), total, spec),
        _figure("uniqueness", "files that are no copy of another", _rest(files, "duplicate"), total, spec),
        _figure("consistency", "values of persons that agree over their samples", *_agreeing(told), spec),
    ]
    published = spec.catalog.published
    if last is not None and published is not None:
        age = int(published[:4]) - last
        found.append(FigureFacts("timeliness", "from the last study to the publication", age, None, "a"))
    return tuple(f for f in found if f.of != 0)


def independence(
    index: pa.Table, cohort: pa.Table, spec: DatasetSpec, splits: tuple[str, str] = ("train", "test")
) -> tuple[OverlapFacts, ...]:
    """Return for person, site, device, protocol and period how many cases of one split have a value that another has.

    A level that the dataset does not hold is left out; periods are years, and told only with ``catalog.years: ranges``.

    Parameters
    ----------
    cohort
        The plan's, with the private dates.
    splits
        The one to learn from, and the one to compare with it.
    """
    train, test = splits
    columns = [n for n in dict.fromkeys(("split", "person_key", "site", *DEVICE, *PROTOCOL)) if n in index.column_names]
    cases = one_row_each(index, columns, key="case_key")
    found = []
    for level, values in _levels(cases, cohort, spec):
        homes = cases["split"].to_pylist()
        sides = {name: [v for v, s in zip(values, homes, strict=True) if s == name] for name in splits}
        there = {value for value in sides[train] if value is not None}
        known = [value for value in sides[test] if value is not None]
        alike = sum(value in there for value in known)
        if not sides[train] or not known:
            continue
        hidden = any(0 < n < spec.report.mask_below for n in (alike, len(known) - alike, len(sides[test]) - len(known)))
        told = (None, None, None) if hidden else (len(there & set(known)), len(known), alike)
        found.append(OverlapFacts(level, train, test, told[0], len(sides[test]), told[1], told[2]))
    return tuple(found)


def _levels(cases: pa.Table, cohort: pa.Table, spec: DatasetSpec) -> Iterator[tuple[str, Sequence[Any]]]:
    yield "person", cases["person_key"].to_pylist()
    for level, columns in (("site", ("site",)), ("device", DEVICE), ("protocol", PROTOCOL)):
        there = [name for name in columns if name in cases.column_names]
        if there:
            rows = zip(*(cases[name].to_pylist() for name in there), strict=True)
            yield level, [row if any(v is not None for v in row) else None for row in rows]
    if spec.catalog.years == "ranges":
        used = used_rows(cohort).select(["case_key", TRUE_DATE]).to_pylist()
        years = {row["case_key"]: row[TRUE_DATE].year for row in used if row[TRUE_DATE] is not None}
        yield "period", [years.get(case) for case in cases["case_key"].to_pylist()]


def _figure(dimension: str, about: str, count: int, of: int, spec: DatasetSpec) -> FigureFacts:
    small = any(0 < n < spec.report.mask_below for n in (count, of - count))
    return FigureFacts(dimension, about, None if small else count, of)


def _known(columns: Sequence[pa.ChunkedArray]) -> tuple[int, int]:
    return sum(len(c) - c.null_count for c in columns), sum(len(c) for c in columns)


def _agreeing(columns: Sequence[pa.ChunkedArray]) -> tuple[int, int]:
    """Return the known texts of persons that are one value, and all known ones."""
    texts = [c.drop_null() for c in columns if pa.types.is_string(c.type)]
    several = sum(pc.sum(pc.equal(c, SEVERAL)).as_py() or 0 for c in texts)
    known = sum(len(c) for c in texts)
    return known - several, known


def _rest(files: Mapping[str, int], status: str) -> int:
    return sum(n for name, n in files.items() if not name.startswith(status))
