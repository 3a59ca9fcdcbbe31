"""Check whether anything that must stay within one split lies in two."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builder.model.canonical import Json

KEYS = ("person_key", "study_key", "series_key", "case_key", "frame_of_reference_key", "accession_key")
"""Columns whose every value must lie in a single split; columns that a table lacks are skipped."""


def crossings(rows: pa.Table, *, keys: Sequence[str] = KEYS) -> list[Json]:
    """Count, for every key column, its values and how many of them lie in more than one split.

    Parameters
    ----------
    rows
        One row per sample or series, with ``split``; rows without a split or a value are not compared.
    """
    entries = []
    for key in keys:
        if key not in rows.column_names:
            continue
        known = rows.select([key, "split"]).filter(pc.and_(pc.is_valid(rows[key]), pc.is_valid(rows["split"])))
        counted = known.group_by(key, use_threads=False).aggregate([("split", "count_distinct")])
        crossed = pc.sum(pc.greater(counted["split_count_distinct"], 1)).as_py() or 0
        entries.append({"key": key, "values": counted.num_rows, "in_two_splits": crossed})
    return entries


def published_split(rows: pa.Table) -> dict[str, Json]:
    """Return how far the split that an archive publishes divides its persons; nothing if it publishes none.

    Parameters
    ----------
    rows
        ``person_key`` and ``split_published`` of every series that is used.

    Returns
    -------
    dict
        ``published_split``, with ``images`` by split, ``persons``, and how many of them lie ``in_two_splits``.
    """
    known = rows.filter(pc.is_valid(rows["split_published"])).select(["person_key", "split_published"])
    if not known.num_rows:
        return {}
    images = Counter(known["split_published"].to_pylist())
    (crossed,) = crossings(known.rename_columns(["person_key", "split"]), keys=["person_key"])
    found = {"persons": crossed["values"], "in_two_splits": crossed["in_two_splits"]}
    return {"published_split": {"images": dict(sorted(images.items())), **found}}


def overlapping_samples(index: pa.Table) -> Json:
    """Count pairs of samples from different splits whose boxes overlap in one frame of reference.

    Parameters
    ----------
    index
        ``split``, ``frame_of_reference_key``, ``affine`` (16 numbers, row by row, to LPS mm), ``slices``, ``rows``
        and ``columns`` of every sample. Boxes are compared along the axes of the patient (LPS).

    Returns
    -------
    dict
        ``frames_of_reference``; ``shared``, how many of them lie in two splits; ``pairs``, compared in those; and
        ``in_two_splits``, how many of the pairs overlap.
    """
    counts = {"frames_of_reference": 0, "shared": 0, "pairs": 0, "in_two_splits": 0}
    needed = ("split", "frame_of_reference_key", "affine", "slices", "rows", "columns")
    if any(name not in index.column_names for name in needed):
        return counts
    known = index.filter(pc.is_valid(index["frame_of_reference_key"])).select(list(needed))
    splits = known.group_by("frame_of_reference_key", use_threads=False).aggregate([("split", "count_distinct")])
    shared = splits.filter(pc.greater(splits["split_count_distinct"], 1))["frame_of_reference_key"].to_pylist()
    counts |= {"frames_of_reference": splits.num_rows, "shared": len(shared)}
    for name in sorted(shared):
        rows = known.filter(pc.equal(known["frame_of_reference_key"], name)).to_pylist()
        boxes = [(row["split"], *_world_box(row)) for row in rows]
        for (one, low, high), (other, low_, high_) in combinations(boxes, 2):
            if one != other:
                counts["pairs"] += 1
                counts["in_two_splits"] += bool(np.all(low < high_) and np.all(low_ < high))
    return counts


def _world_box(row: Json) -> tuple[Any, Any]:
    """Return the lowest and highest corner of a sample in LPS mm, measured to the outer edges of its voxels."""
    affine = np.array(row["affine"]).reshape(4, 4)
    ends = [(-0.5, row[name] - 0.5) for name in ("slices", "rows", "columns")]
    corners = np.array([(z, y, x, 1.0) for z in ends[0] for y in ends[1] for x in ends[2]]) @ affine.T
    return corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)
