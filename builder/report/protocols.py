"""Count how each image of a case was acquired: scanner model, field strength, voltage, kernel and slice thickness."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa

from builder.model.canonical import Json
from builder.report.bias import table_one
from builder.report.people import one_row_each

BINS: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "magnetic_field_strength": ("T", (0, 1, 2, 4)),
    "kvp": ("kV", (0, 50, 90, 110, 130)),
    "slice_thickness_mm": ("mm", (0, 1, 2, 3, 5)),
}
"""Unit and edges of the bins of each number. A bin holds its upper edge: thicknesses are mostly whole millimetres."""

FACTS: Final = ("manufacturer_model", *BINS, "convolution_kernel", "kernel_type", "series_type")
"""What is counted of an image where the dataset holds it. The vendor is a group of the report beside these."""

MOST_LEVELS: Final = 8
"""Most values of a text that are told apart; of more, the rarest are one level together."""

Row = tuple[str, str | None, str]


def protocols(
    index: pa.Table, cohort: pa.Table, images: Sequence[str], *, splits: Sequence[str], mask_below: int = 0
) -> list[Json]:
    """Return one entry for each image of a case: its name, and its facts as entries of Table 1, which count persons.

    Parameters
    ----------
    index
        One row a sample, with the keys of case, person and series, ``split``, and ``NAME.series_key`` of other images.
    cohort
        The dataset's table of series, with ``serves`` and ``image_name``. What it withholds is not counted.
    images
        Names of the images of a case, the reference first; ``VISIT.NAME`` where it has visits.
    """
    if len(images) < 2 or "serves" not in cohort.column_names:
        return []
    keys = ["series_key", *(f"{name}.series_key" for name in images[1:])]
    cases = one_row_each(index, ["person_key", "split", *keys], key="case_key")
    rows = _rows(cohort)
    entries = []
    for image, key in zip(images, keys, strict=True):
        series = cases[key].to_pylist() if key in cases.column_names else [None] * cases.num_rows
        places = pa.array(
            [_place(rows, (c, image, s)) for c, s in zip(cases["case_key"].to_pylist(), series, strict=True)],
            pa.int64(),
        )
        facts = {
            name: _levels(name, cohort[name].take(places).to_pylist()) for name in FACTS if name in cohort.schema.names
        }
        told = {name: pa.array(values, pa.string()) for name, values in facts.items() if any(values)}
        table = pa.table({"person_key": cases["person_key"], "split": cases["split"], **told})
        persons = one_row_each(table, ["split", *told])
        for name in told:
            pooled = pa.array(_pooled(persons[name].to_pylist()), pa.string())
            persons = persons.set_column(persons.schema.get_field_index(name), name, pooled)
        entries.append({"image": image, "facts": table_one(persons, list(told), splits=splits, mask_below=mask_below)})
    return entries


def _rows(cohort: pa.Table) -> dict[Row, int]:
    """Return where the series of each case are: by case, name of the image without its visit, and series."""
    columns = (cohort[name].to_pylist() for name in ("serves", "image_name", "series_key"))
    found: dict[Row, int] = {}
    for row, (serves, image, series) in enumerate(zip(*columns, strict=True)):
        for case in serves or ():
            found[case, image, series] = row
            found.setdefault((case, None, series), row)  # the series may have another name in another case
    return found


def _place(rows: Mapping[Row, int], row: Row) -> int | None:
    case, image, series = row
    bare = (image or "").rpartition(".")[2]
    return rows.get((case, bare, series), rows.get((case, None, series)))


def _levels(name: str, values: Sequence[Any]) -> list[str | None]:
    """Return values as levels: numbers by their bin, texts as they are."""
    if name not in BINS:
        return [None if value is None else str(value) for value in values]
    unit, edges = BINS[name]
    names = [f"{low} to {high} {unit}" for low, high in pairwise(edges)] + [f"over {edges[-1]} {unit}"]
    known = [None if value is None or not value >= 0 else float(value) for value in values]  # NaN is not known either
    return [None if value is None else names[max(0, bisect_left(edges, value) - 1)] for value in known]


def _pooled(values: Sequence[str | None]) -> list[str | None]:
    """Return levels of persons with the rarest as one, where there are more than ``MOST_LEVELS``."""
    counts = Counter(value for value in values if value is not None)
    if len(counts) <= MOST_LEVELS:
        return list(values)
    kept = sorted(counts, key=lambda level: (-counts[level], level))[: MOST_LEVELS - 1]
    other = f"others ({len(counts) - len(kept)} values)"
    return [value if value is None or value in kept else other for value in values]
