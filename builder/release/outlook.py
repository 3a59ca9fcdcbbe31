"""What measurements will lose, told before anything is written: one object of each series is cleaned and compared."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from builder.deid.identifiers import identifiers_in
from builder.errors import CaseError, Reason
from builder.headers.boundary import elements_as
from builder.imaging.parse import parse_instance
from builder.release.cleaning import Rules, Whose, clean_object
from builder.release.objects import Unit
from builder.release.science import found_in, lint, table_of
from builder.sources import AnySource
from builder.stages.listed import Listed, bring, read_object

MOST_LOOKED_AT = 200
"""Series that are looked at; where there are more, they are taken evenly from all persons."""


def outlook(units: Sequence[Unit], sources: tuple[AnySource, ...], rules: Rules) -> tuple[int, list[str]]:
    """Return how many series were looked at, and a line for each use that loses an attribute.

    An object that cannot be read says nothing here: the run accounts for it.
    """
    series = [(unit, row) for unit in units for row in _one_each(unit.objects)]
    chosen = [*islice(series, 0, None, max(-(-len(series) // MOST_LOOKED_AT), 1))]
    tallies: list[dict[str, tuple[int, int]]] = []
    for unit, row in chosen:
        try:
            tallies.append(_tally(unit, row, sources, rules))
        except CaseError:
            continue
    return len(tallies), [*lint(table_of(tallies))]


def _one_each(objects: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the row of one object of each series."""
    seen: set[object] = set()
    for row in objects.to_pylist():
        if row["series_uid"] not in seen:
            seen.add(row["series_uid"])
            yield row


def _tally(unit: Unit, row: dict[str, Any], sources: tuple[AnySource, ...], rules: Rules) -> dict[str, tuple[int, int]]:
    bring(pa.Table.from_pylist([row], schema=unit.objects.schema), sources)
    source = parse_instance(read_object(Listed.of(row), sources))
    with elements_as(Reason.UNREADABLE):
        stated = found_in(source)
        whose = Whose(unit.person, row["shift_days"], identifiers_in((source,)))
        kept = stated & found_in(clean_object(source, rules, whose))
    return {str(place): (1, int(place in kept)) for place in stated}
