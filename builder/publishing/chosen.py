"""Choose the samples that a report shows: the largest and smallest label, odd cases, and one of each group."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builder.model.classes import is_class
from builder.report.labels import is_volume, title
from builder.report.people import is_number, levels, numbers
from builder.report.shift import GEOMETRY, INTENSITIES, by_modality
from builder.report.wording import short, words

ODD = 5.0
"""Distance from the median, in robust standard deviations (1.4826 times the median absolute deviation), from which a
case is odd."""
MOST_ODD = 3
MOST_LEVELS = 8
"""A group with more levels is not shown level by level."""
MOST_NAMED = 6
"""Most names in a caption."""


def choose(index: pa.Table, count: int, groups: Sequence[str] = ()) -> dict[int, str]:
    """Return the rows of the index to show and why, at most ``count``, the telling ones first.

    Of each case the sample with most of its labels stands for it. What is left of ``count`` is spread over the rest.
    """
    if not index.num_rows or count < 1:
        return {}
    rows = _one_a_case(index)
    cases = index.take(pa.array(rows)).append_column("row_of_index", pa.array(rows))
    found: dict[int, str] = {}
    for place, why in (*_by_size(cases), *_odd(cases), *_by_group(cases, groups)):
        if rows[place] in found:
            found[rows[place]] += f", {why}"
        elif len(found) < count:
            found[rows[place]] = why
    others = [row for row in range(index.num_rows) if row not in found]
    room = min(count - len(found), len(others))
    spread = sorted({round(i * (len(others) - 1) / max(1, room - 1)) for i in range(room)})
    return found | {others[place]: "" for place in spread}


def caption(row: Mapping[str, Any], schema: pa.Schema) -> str:
    """Return the classes, structures, boxes and points of a sample in a few words."""
    said = [f"{words(f.name.removeprefix('label.'))}: {row[f.name]}" for f in schema if is_class(f) if _told(row, f)]
    pairs = zip(row.get("class_names") or (), row.get("class_values") or (), strict=False)
    said += [f"{name}: {value}" for name, value in pairs if value is not None] if not said else []
    voxels = zip(row.get("segment_names") or (), row.get("segment_voxels") or (), strict=False)
    said += dict.fromkeys(_structure(name) for name, number in voxels if number)
    for kind in ("box", "landmark"):
        names = row.get(f"{kind}_names") or ()
        said += dict.fromkeys(own or n for n, own in zip(names, row.get(f"{kind}_classes") or names, strict=False))
    return ", ".join(said[:MOST_NAMED]) + (f" and {len(said) - MOST_NAMED} more" if len(said) > MOST_NAMED else "")


def _told(row: Mapping[str, Any], field: pa.Field) -> bool:
    return row.get(field.name) is not None


def _structure(name: str) -> str:
    label, _, segment = name.partition("/")
    return label if segment in ("", label) else f"{label} / {segment}"


def _one_a_case(index: pa.Table) -> list[int]:
    """Return for each case, by its key, the row of the sample with the most foreground."""
    best: dict[str, tuple[int, int]] = {}
    voxels = index["foreground_voxels"].to_pylist() if "foreground_voxels" in index.column_names else []
    for row, case in enumerate(index["case_key"].to_pylist()):
        size = (voxels[row] or 0) if voxels else 0
        if case not in best or size > best[case][0]:
            best[case] = (size, row)
    return [best[case][1] for case in sorted(best)]


def _by_size(cases: pa.Table) -> Iterator[tuple[int, str]]:
    sizes = {name: numbers(cases[name]) for name in cases.column_names if is_volume(name)}
    known = {name: np.flatnonzero(np.nan_to_num(values) > 0) for name, values in sizes.items()}
    for name in sorted(known, key=lambda name: (-len(known[name]), name))[:2]:
        held, values = known[name], sizes[name]
        if len(held) > 1:
            structure = " / ".join(dict.fromkeys(title(name).split(" / ")))  # tumor / tumor is tumor
            yield int(held[values[held].argmax()]), f"largest {structure}"
            yield int(held[values[held].argmin()]), f"smallest {structure}"


def _odd(cases: pa.Table) -> Iterator[tuple[int, str]]:
    """Yield the cases whose geometry or intensities are furthest from those of the others of their modality."""
    far: list[tuple[float, int, str]] = []
    places = {row: place for place, row in enumerate(cases["row_of_index"].to_pylist())}
    for _, part in by_modality(cases):
        home = [places[row] for row in part["row_of_index"].to_pylist()]
        for name in (*GEOMETRY, *INTENSITIES):
            if name not in part.column_names or not is_number(part[name].type):
                continue
            values = numbers(part[name])
            middle = np.nanmedian(values) if np.isfinite(values).any() else np.nan
            spread = 1.4826 * np.nanmedian(np.abs(values - middle)) if np.isfinite(middle) else 0.0
            if spread > 0:
                away = np.nan_to_num(np.abs(values - middle) / spread)
                worst = int(away.argmax())
                far.append((-float(away[worst]), home[worst], f"odd {words(name)}: {short(float(values[worst]))}"))
    yield from ((place, why) for away, place, why in sorted(far)[:MOST_ODD] if away <= -ODD)


def _by_group(cases: pa.Table, groups: Sequence[str]) -> Iterator[tuple[int, str]]:
    for name in groups:
        if name not in cases.column_names:
            continue
        coded = levels(pc.cast(cases[name], pa.string()) if pa.types.is_boolean(cases[name].type) else cases[name])
        if 2 <= len(coded.names) <= MOST_LEVELS:
            for code, level in enumerate(coded.names):
                yield int(np.flatnonzero(coded.codes == code)[0]), f"{words(name)} {level}"
