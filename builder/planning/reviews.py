"""Read what a person entered into a table that ``builder review`` drew."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from builder.errors import SpecError
from builder.labels import AnyLabel
from builder.storage import read_at

COLUMNS = ("case_key", "finding", "value", "correct", "text")
"""Columns of the table. The text is only for the person and is not read back."""

ANSWERS = {"yes": True, "y": True, "1": True, "no": False, "n": False, "0": False}


def read_reviews(labels: Mapping[str, AnyLabel]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """Read the findings that were judged, by label: ``case_key``, ``finding``, ``value``, ``correct``; no text.

    Raises
    ------
    SpecError
        When a review is not a table that ``draw`` wrote, or an answer is neither yes nor no.
    """
    return {name: _read(reader.review, name) for name, reader in sorted(labels.items()) if reader.review}


def _read(url: str, label: str) -> tuple[Mapping[str, Any], ...]:
    rows = list(csv.DictReader(io.StringIO(read_at(url).decode("utf-8-sig"))))
    if rows and not set(COLUMNS[:4]) <= set(rows[0]):
        raise SpecError(f"labels.{label}.review: found the columns {sorted(rows[0])}, expected {list(COLUMNS[:4])}")
    judged = []
    for number, row in enumerate(rows, 2):
        answer = row["correct"].strip().lower()
        if answer and answer not in ANSWERS:
            detail = f"row {number}: found {answer!r} in correct, expected yes, no or nothing"
            raise SpecError(f"labels.{label}.review: {detail}")
        if answer:
            judged.append({**{c: row[c] for c in COLUMNS[:3]}, "correct": ANSWERS[answer]})
    return tuple(judged)
