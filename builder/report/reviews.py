"""Compute the error rate of labels, with its interval, from a second reading of a sample of cases."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from builder.model.canonical import Json
from builder.report.bias import proportion


def reviews(index: pa.Table, judged: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Json]:
    """Return an entry per reviewed label: findings judged and wrong, overall and each, with 95 % Wilson intervals.

    Findings whose value in the dataset has changed since the review are counted as stale and left out.
    """
    columns = ["case_key", "class_names", "class_values"]
    said: dict[tuple[str, str], str] = {}
    for row in index.select(columns).to_pylist() if judged else ():
        for name, value in zip(row["class_names"] or (), row["class_values"] or (), strict=True):
            said[row["case_key"], name] = value
    return [_entry(label, rows, said) for label, rows in sorted(judged.items())]


def _entry(label: str, rows: Sequence[Mapping[str, Any]], said: Mapping[tuple[str, str], str]) -> Json:
    fresh = [row for row in rows if said.get((row["case_key"], f"{label}/{row['finding']}")) == row["value"]]
    findings = sorted({row["finding"] for row in fresh})
    return {
        "label": label,
        "cases": len({row["case_key"] for row in fresh}),
        "stale": len(rows) - len(fresh),
        **_errors(fresh),
        "findings": [{"finding": f, **_errors([r for r in fresh if r["finding"] == f])} for f in findings],
    }


def _errors(rows: Sequence[Mapping[str, Any]]) -> Json:
    wrong = sum(not row["correct"] for row in rows)
    shown = proportion(wrong, len(rows))
    return {"judged": len(rows), "wrong": wrong, "rate": shown["share"], "low": shown["low"], "high": shown["high"]}
