"""Measure how well readers agree: mask overlap, kappa of classes and ICC of lengths, with intervals over persons."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.model.canonical import Json
from builder.report.reliability import bootstrap, cohen_kappa, icc_one_way, icc_two_way

MOST_READERS = 20
"""How many readers are listed one by one (those with the most cases); pooled figures use all readers."""

FEWEST_SHARED = 10
"""Fewest cases that two readers must both have judged for their kappa to be reported."""


@dataclass(frozen=True)
class _Reading:
    person: str
    case: str
    reader: str
    quantity: str
    value: str


def agreement(index: pa.Table, consensus: Mapping[str, Mapping[str, Any]], *, seed: int) -> list[Json]:
    """Return one entry for each consensus in the spec.

    Parameters
    ----------
    index
        One row per sample, with the measures of masks and the readings of classes and lines.
    consensus
        Maps each name to its ``method`` and ``of``, as in the spec.
    seed
        Seed of the bootstrap, which draws whole persons 1,000 times.
    """
    entries = []
    for name, block in consensus.items():
        readings = _readings(index, name)
        of_lines = block["method"] == "lines"
        entries.append(
            {
                "name": name,
                "method": block["method"],
                "of": list(block["of"]),
                "masks": _masks(index, name, seed),
                "classes": [] if of_lines else _classes(index, name, readings, seed),
                "lines": _lines(index, name, readings, seed) if of_lines else None,
            }
        )
    return entries


def _masks(index: pa.Table, name: str, seed: int) -> list[Json]:
    """Return one entry per structure: each reader against the consensus, and each pair of readers."""
    pattern = re.compile(
        rf"label\.{re.escape(name)}\.(?P<structure>.+)\.(?P<who>[^.]+)\.(?P<figure>sensitivity|specificity|dice|hd95_mm)"
    )
    found: dict[str, dict[str, dict[str, Json]]] = {}
    for column in index.column_names:
        match = pattern.fullmatch(column)
        if match is None:
            continue
        persons, values = _cases(index, column)
        interval = _interval(persons, lambda rows, v=values: float(v[rows].mean()), seed)  # type: ignore[misc]
        row = found.setdefault(match["structure"], {}).setdefault(match["who"], {"cases": 0})
        row[match["figure"]] = interval
        row["cases"] = max(row["cases"], len(values))
    return [
        {
            "structure": structure,
            "readers": [{"reader": who, **figures} for who, figures in parts.items() if "~" not in who],
            "pairs": [{"readers": who.split("~"), **figures} for who, figures in parts.items() if "~" in who],
        }
        for structure, parts in sorted(found.items())
    ]


def _classes(index: pa.Table, name: str, readings: Sequence[_Reading], seed: int) -> list[Json]:
    settled = _settled(index, name)
    entries = []
    for finding in sorted({r.quantity for r in readings}):
        said: dict[str, dict[str, str]] = {}
        person_of = {}
        for r in readings:
            if r.quantity == finding:
                said.setdefault(r.reader, {})[r.case] = r.value
                person_of[r.case] = r.person
        truth = {case: value for (case, f), value in settled.items() if f == finding}
        busiest = sorted(said, key=lambda reader: (-len(said[reader]), reader))[:MOST_READERS]
        entries.append(
            {
                "finding": finding,
                "readers_in_all": len(said),
                "cases": len({c for values in said.values() for c in values}),
                "readers": [_one_reader(reader, said[reader], truth, person_of, seed) for reader in busiest],
                "pairs": _pairs(busiest, said, person_of, seed),
            }
        )
    return entries


def _one_reader(
    reader: str, said: Mapping[str, str], truth: Mapping[str, str], person_of: Mapping[str, str], seed: int
) -> Json:
    """Compare a reader with the consensus: share of equal answers, and for two classes sensitivity, specificity."""
    cases = sorted(set(said) & set(truth))
    persons = [person_of[c] for c in cases]
    values, right = np.array([said[c] for c in cases]), np.array([truth[c] for c in cases])
    levels = sorted({*said.values(), *truth.values()})
    row: Json = {"reader": reader, "cases": len(cases)}
    if cases:
        row["alike"] = _interval(persons, lambda rows: float(np.mean(values[rows] == right[rows])), seed)
    if cases and len(levels) == 2:
        yes = "positive" if "positive" in levels else levels[1]
        sick = right == yes
        row["sensitivity"] = _interval(persons, lambda rows: _share(values[rows], right[rows], sick[rows]), seed)
        row["specificity"] = _interval(persons, lambda rows: _share(values[rows], right[rows], ~sick[rows]), seed)
    return row


def _pairs(
    readers: Sequence[str], said: Mapping[str, Mapping[str, str]], person_of: Mapping[str, str], seed: int
) -> list[Json]:
    pairs = []
    for a, b in itertools.combinations(sorted(readers), 2):
        cases = sorted(set(said[a]) & set(said[b]))
        if len(cases) < FEWEST_SHARED:
            continue
        first, second = np.array([said[a][c] for c in cases]), np.array([said[b][c] for c in cases])
        kappa = _interval(
            [person_of[c] for c in cases],
            lambda rows, x=first, y=second: cohen_kappa(x[rows].tolist(), y[rows].tolist()),  # type: ignore[misc]
            seed,
        )
        pairs.append({"readers": [a, b], "cases": len(cases), "kappa": kappa})
    return pairs


def _lines(index: pa.Table, name: str, readings: Sequence[_Reading], seed: int) -> Json:
    """Return the agreement of lengths: the ICC of all readers, and how far each busy reader is from the consensus."""
    if not readings:
        return None
    fused = _fused_lengths(index, name)
    persons = [r.person for r in readings]
    lengths = np.array([float(r.value) for r in readings])
    cases, subject = np.unique([r.case for r in readings], return_inverse=True)
    several = np.bincount(subject)[subject] > 1
    counts = Counter(r.reader for r in readings)
    busiest = sorted(counts, key=lambda reader: (-counts[reader], reader))[:MOST_READERS]
    differences = np.array([float(r.value) - fused.get(r.case, np.nan) for r in readings])
    known = np.isfinite(differences)
    return {
        "lines": len(readings),
        "cases": len(cases),
        "cases_of_several": len(set(subject[several].tolist())),
        "persons": len(set(persons)),
        "readers_in_all": len(counts),
        "consensus_of": len(fused),
        "icc": _interval(persons, lambda rows: icc_one_way(lengths[rows], _redrawn(subject, rows)), seed)
        if several.any() and len(cases) > 1
        else None,
        "icc_two_way": _complete_icc(readings, seed),
        "off_mm": _interval(
            np.array(persons)[known].tolist(), lambda rows: float(np.median(np.abs(differences[known][rows]))), seed
        )
        if known.any()
        else None,
        "readers": [_bias(reader, readings, differences, seed) for reader in busiest],
    }


def _bias(reader: str, readings: Sequence[_Reading], differences: NDArray[np.float64], seed: int) -> Json:
    mine = np.array([i for i, r in enumerate(readings) if r.reader == reader and np.isfinite(differences[i])], np.int64)
    row: Json = {"reader": reader, "lines": len(mine), "cases": len({readings[i].case for i in mine})}
    if len(mine):
        values = differences[mine]
        row["bias_mm"] = _interval(
            [readings[i].person for i in mine], lambda rows: float(np.median(values[rows])), seed
        )
    return row


def _complete_icc(readings: Sequence[_Reading], seed: int) -> Json:
    """Return ICC(2,1) if every reader measured every case exactly once, else None: it is undefined with gaps."""
    cell = Counter((r.case, r.reader) for r in readings)
    cases, readers = sorted({c for c, _ in cell}), sorted({r for _, r in cell})
    if len(cases) < 2 or len(readers) < 2 or len(cell) != len(cases) * len(readers) or max(cell.values()) > 1:
        return None
    values = np.zeros((len(cases), len(readers)))
    person_of = {}
    for r in readings:
        values[cases.index(r.case), readers.index(r.reader)] = float(r.value)
        person_of[r.case] = r.person
    return _interval([person_of[c] for c in cases], lambda rows: icc_two_way(values[rows]), seed)


def _redrawn(subject: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the subjects of the drawn rows. A person drawn twice counts as two subjects, as the bootstrap requires."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    copies = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
    number = np.empty(len(rows), np.int64)
    number[order] = copies
    return np.asarray(subject[rows] * (int(copies.max(initial=0)) + 1) + number)


def _share(said: NDArray[Any], truth: NDArray[Any], who: NDArray[np.bool_]) -> float:
    return float(np.mean(said[who] == truth[who])) if who.any() else float("nan")


def _interval(persons: Sequence[str], statistic: Callable[[NDArray[np.int64]], float], seed: int) -> Json:
    found = bootstrap(persons, statistic, seed=seed)
    return {"value": found.value, "low": found.low, "high": found.high, "persons": found.persons}


def _cases(index: pa.Table, column: str) -> tuple[list[str], NDArray[np.float64]]:
    """Return the person and value of every case that has a value, sorted by case key."""
    rows = index.select(["case_key", "person_key", column]).to_pylist()
    cases = {row["case_key"]: (row["person_key"], row[column]) for row in rows if row[column] is not None}
    ordered = [cases[key] for key in sorted(cases)]
    return [person for person, _ in ordered], np.array([value for _, value in ordered], dtype=np.float64)


def _readings(index: pa.Table, name: str) -> list[_Reading]:
    """Return the readings of a consensus, once per case: every sample of a case repeats them."""
    if "reading_labels" not in index.column_names:
        return []
    columns = ("case_key", "person_key", "reading_labels", "reading_readers", "reading_quantities", "reading_values")
    seen: dict[str, list[_Reading]] = {}
    for case, person, labels, *lists in zip(*(index.column(c).to_pylist() for c in columns), strict=True):
        if case not in seen:
            said = zip(labels or (), *(part or () for part in lists), strict=True)
            mine = [rest for label, *rest in said if label == name and rest[-1] is not None]
            seen[case] = [_Reading(person, case, *rest) for rest in mine]
    return [reading for case in sorted(seen) for reading in seen[case]]


def _settled(index: pa.Table, name: str) -> dict[tuple[str, str], str]:
    rows = index.select(["case_key", "class_names", "class_values"]).to_pylist()
    return {
        (row["case_key"], finding.removeprefix(f"{name}/")): value
        for row in rows
        for finding, value in zip(row["class_names"] or (), row["class_values"] or (), strict=True)
        if finding.startswith(f"{name}/") and value is not None
    }


def _fused_lengths(index: pa.Table, name: str) -> dict[str, float]:
    rows = index.select(["case_key", "measurement_names", "measurement_values"]).to_pylist()
    return {
        row["case_key"]: value
        for row in rows
        for label, value in zip(row["measurement_names"] or (), row["measurement_values"] or (), strict=True)
        if label == f"{name}/length"
    }
