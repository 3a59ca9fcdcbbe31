"""Whether anything that must stay together lies in two splits."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Json = Any

KEYS = ("person_key", "study_key", "series_key", "case_key", "frame_of_reference_key", "accession_key")
"""Columns whose values belong to one split each, as far as a table has them."""


def crossings(rows: pa.Table, *, keys: Sequence[str] = KEYS) -> list[Json]:
    """For every key column: how many values it has, and how many of them lie in more than one split.

    Parameters
    ----------
    rows
        One row a sample or series, with ``split``; rows without a split or a value are not compared.
    """
    entries = []
    for key in keys:
        if key not in rows.column_names:
            continue
        known = rows.filter(pc.and_(pc.is_valid(rows[key]), pc.is_valid(rows["split"])))
        counted = known.group_by(key, use_threads=False).aggregate([("split", "count_distinct")])
        crossed = pc.sum(pc.greater(counted["split_count_distinct"], 1)).as_py() or 0
        entries.append({"key": key, "values": counted.num_rows, "in_two_splits": crossed})
    return entries
