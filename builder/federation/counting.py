"""Persons of one site to tables of counts: their levels by the lists of spec and policy, quantities by fixed edges."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import PrivacyError
from builder.federation.documents import Table
from builder.federation.tables import Column, Counts, count
from builder.federation.told import Repeater, Teller
from builder.split.joint import level_of

UNITS: Final[Mapping[str, tuple[float, ...]]] = {
    "HU": (-3072, -1024, -1000, -950, -700, -200, -100, -50, 0, 50, 100, 150, 200, 300, 500, 1000, 2000, 3072),
    "SUVbw": (0, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 50),
    "stored": (-32_768, 0, 1, 10, 50, 100, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10_000, 30_000),
}
"""Edges of the limits that ``clip_percent`` gives an image, by the unit of its values (``ValueDomain``)."""

CLIPS: Final = ("clip_low", "clip_high")
"""Quantities of those limits; their unit follows: ``clip_low of HU``."""

EDGES: Final[Mapping[str, tuple[float, ...]]] = {
    "age_years": (0, 18, 30, 40, 50, 60, 70, 80, 90),
    "spacing_slice_mm": (0, 0.5, 1, 1.5, 2, 3, 4, 5, 7.5, 10),
    "spacing_row_mm": (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 4),
    "slices": (0, 1, 20, 50, 100, 200, 500, 1000),
    "intensity_median": (-1024, -900, -700, -300, -100, 0, 40, 80, 150, 300, 1000),
    "label_ml": (0, 0.1, 1, 3, 10, 30, 100, 300, 1000, 3000),
    **{f"{end} of {unit}": edges for end in CLIPS for unit, edges in UNITS.items()},
}
"""Edges of histograms. A bin holds values from its lower edge up to, but without, its upper edge.

Of several numbers the smallest of a person counts. A quantity of a structure is called ``label_ml of LABEL.STRUCTURE``,
by the names that the spec has for both.
"""

BUILT: Final = ("intensity_median", "label_ml")
"""Quantities that only a build knows: receipts tell them. An offer tells ``MEASURED`` where images are measured for it.
"""

MEASURED: Final = ("label_ml", *(f"{end} of {unit}" for end in CLIPS for unit in UNITS))
"""Quantities that are measured for an offer, in images and labels."""

MOST: Final[Mapping[str, float]] = {
    "age_years": 120,
    "spacing_slice_mm": 50,
    "spacing_row_mm": 20,
    "slices": 10_000,
    "intensity_median": 65_535,
    "label_ml": 100_000,
    **{f"{end} of {unit}": 10_000 if unit == "SUVbw" else 65_535 for end in CLIPS for unit in UNITS},
}
"""Where the last bin of a quantity is taken to end; larger values are taken to lie there."""

HISTOGRAM: Final = "histogram of "
"""How the name of a histogram's table begins."""

PAIR: Final = "pair of "
"""How the name of a table begins that crosses two columns."""


def column_of(name: str, levels: Sequence[str]) -> Column:
    """Return a column whose last level also holds everybody whose value is missing or not listed.

    A level for them alone would mostly be empty, and what hides an empty one hides others with it.
    """
    return Column(name, (*levels[:-1], f"{levels[-1]} or other"))


def unstated(names: Iterable[str], table: pa.Table) -> list[str]:
    """Return a line for each column and quantity that was asked for and that a table of the site does not have."""
    return [f"{name}: the tables of the site have no such column" for name in names if name not in table.column_names]


def kind_of(quantity: str) -> str:
    """Return the name by which ``EDGES`` knows a quantity: ``label_ml`` for that of any structure."""
    return quantity if quantity in EDGES else quantity.partition(" of ")[0]


def with_sizes(index: pa.Table, sizes: Mapping[str, str]) -> pa.Table:
    """Return samples with the size of each structure in ml, null where there is none.

    Parameters
    ----------
    sizes
        Name of the quantity to the column of its volume in cubic millimetres, which lacks where no case has it: that
        nobody has it is a number like others.
    """
    for quantity, column in sizes.items():
        known = column in index.column_names
        values = pc.divide(index[column], 1000.0) if known else pa.nulls(index.num_rows, pa.float64())
        index = index.append_column(quantity, values)
    return index


def with_measures(rows: pa.Table, measured: pa.Table, sizes: Mapping[str, str]) -> pa.Table:
    """Return series with what was measured of their cases, null where that is nothing.

    Parameters
    ----------
    rows
        With ``case_key``.
    measured
        One row a case: ``case_key``, ``unit``, ``clip_low`` and ``clip_high`` in this unit, and the volumes of
        structures.
    sizes
        As ``with_sizes`` takes them.
    """
    place = {case: n for n, case in enumerate(measured["case_key"].to_pylist())}
    own = measured.take(pa.array([place.get(case) for case in rows["case_key"].to_pylist()], pa.int64()))
    for unit in UNITS:
        in_unit = pc.fill_null(pc.equal(own["unit"], unit), False)
        for end in CLIPS:
            rows = rows.append_column(f"{end} of {unit}", pc.if_else(in_unit, own[end], None))
    for column in sizes.values():
        if column in own.column_names:
            rows = rows.append_column(column, own[column])
    return with_sizes(rows, sizes)


def prefixes(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the first none, one, two, ... of the names."""
    return [(), *accumulate(((name,) for name in names), lambda one, more: (*one, *more))]


def tell_total(teller: Teller | Repeater, persons: int) -> Table:
    """Tell how many persons there are; every other table is judged with this number."""
    return teller.table("total", count((), [()] * persons), [()])


def tell_levels(
    teller: Teller | Repeater,
    name: str,
    persons: pa.Table,
    columns: Mapping[str, Sequence[str]],
    *,
    by: Sequence[str] = (),
) -> Table:
    """Tell a table of persons, one row each; ``by`` are the splits where it is also told by split."""
    asked = prefixes(list(columns))
    if by:
        asked = [*asked, *(("split", *names) for names in asked)]
    return teller.table(name, counts_of(persons, columns, by=by), asked)


def tell_pair(
    teller: Teller | Repeater,
    persons: pa.Table,
    pair: tuple[str, str],
    columns: Mapping[str, Sequence[str]],
    withheld: list[str],
) -> Iterator[Table]:
    """Yield the table that crosses two columns or quantities, or add a line to ``withheld`` that says why it stays.

    It is told after the tables of both, so that these keep their numbers.
    """
    title = f"{PAIR}{pair[0]} and {pair[1]}"
    levels: dict[str, Sequence[str]] = {}
    for name in pair:
        if name in columns:
            levels[name] = columns[name]
        elif kind_of(name) in EDGES and name in persons.column_names:
            persons, bins = binned(persons, name)
            levels |= bins
        else:
            withheld.append(f"{title}: nothing of {name} is told")
            return
    try:
        yield teller.table(title, counts_of(persons, levels), [(), pair[:1], pair[1:], pair])
    except PrivacyError:
        withheld.append(f"{title}: beside what is told it would tell of few persons, or is too fine to be proved")


def counts_of(persons: pa.Table, columns: Mapping[str, Sequence[str]], *, by: Sequence[str] = ()) -> Counts:
    """Return how many persons, one row each, have each level of the columns; by split, where ``by`` names them."""
    own = [column_of(column, levels) for column, levels in columns.items()]
    cells: list[Iterable[Any]] = [
        [level_of(value, column.levels) for value in persons[column.name].to_pylist()] for column in own
    ]
    if by:
        own = [Column("split", tuple(by)), *own]
        cells = [persons["split"].to_pylist(), *cells]
    rows = zip(*cells, strict=True) if cells else iter([()] * persons.num_rows)
    return count(own, rows)


def binned(persons: pa.Table, quantity: str) -> tuple[pa.Table, dict[str, list[str]]]:
    """Return persons with a quantity as the name of its bin, and the names."""
    edges = EDGES[kind_of(quantity)]
    names = [*(f"{a:g} to {b:g}" for a, b in pairwise(edges)), f"{edges[-1]:g} and above"]
    cells = [
        None if value is None or not value >= edges[0] else names[sum(edge <= value for edge in edges) - 1]
        for value in persons[quantity].to_pylist()
    ]
    place = persons.schema.get_field_index(quantity)
    return persons.set_column(place, quantity, pa.array(cells, pa.string())), {quantity: names}
