"""Write the splits of a version in the formats of other tools."""

import json
from typing import Any

import pyarrow as pa

from builder.model.layout import EXPORTS
from builder.spec import DatasetSpec
from builder.split import csv_text, leave_one_out, nnunet_splits


def export_files(spec: DatasetSpec, splits: pa.Table, index: pa.Table) -> dict[str, bytes]:
    """Return the files of ``exports/``: ``splits.csv``, ``splits_final.json`` (nnU-Net) and ``leave_one_out.json``.

    Cases are named by their sample keys, as ``export_nnunet`` of the reader names its files. ``splits_final.json``
    holds the folds of the spec, repeat by repeat, or else train and validation as one fold. A MONAI datalist is not
    included, because it refers to image files that do not exist yet; ``export_datalist`` writes both.
    """
    files = {"splits.csv": csv_text(splits.drop_columns(["members", "folds"]))}
    if index.num_rows:
        cases = pa.table({"case_key": index["sample_key"], "person_key": index["person_key"]})
        files["splits_final.json"] = nnunet_splits(cases, _folds(splits) if spec.splits.folds is not None else splits)
        if spec.splits.leave_one_out is not None and spec.splits.leave_one_out in index.column_names:
            files["leave_one_out.json"] = _left_out(index, spec.splits.leave_one_out)
    return {f"{EXPORTS}/{name}": text.encode() for name, text in files.items()}


def _folds(splits: pa.Table) -> pa.Table:
    """Return one row per person and repeat with its fold, as ``builder.split.folds`` does."""
    rows = [
        {"person_key": row["person_key"], "repeat": repeat, "fold": fold}
        for row in splits.select(["person_key", "folds"]).to_pylist()
        for repeat, fold in enumerate(row["folds"] or ())
    ]
    return pa.Table.from_pylist(
        rows, schema=pa.schema([("person_key", pa.string()), ("repeat", pa.int32()), ("fold", pa.int32())])
    )


def _left_out(index: pa.Table, column: str) -> str:
    """Return, for every value of the column, the samples to test on and those of persons who never have the value."""
    found = leave_one_out(_values(index, column), column)
    samples: dict[str, list[str]] = {}
    for key, person in zip(index["sample_key"].to_pylist(), index["person_key"].to_pylist(), strict=True):
        samples.setdefault(person, []).append(key)
    document = {}
    for value in sorted(set(found["fold"].to_pylist())):
        tested = {p for p, v in zip(*(found[c].to_pylist() for c in ("person_key", "fold")), strict=True) if v == value}
        document[value] = {
            "train": sorted(k for p, keys in samples.items() if p not in tested for k in keys),
            "test": sorted(k for p in tested for k in samples[p]),
        }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _values(index: pa.Table, column: str) -> pa.Table:
    """Return each person with all values of the column."""
    found: dict[str, list[Any]] = {}
    for person, value in zip(index["person_key"].to_pylist(), index[column].to_pylist(), strict=True):
        held = found.setdefault(person, [])
        if value not in held:
            held.append(value)
    keys = sorted(found)
    return pa.table({"person_key": pa.array(keys, pa.string()), column: pa.array([found[k] for k in keys])})
