"""Histograms of a report: their bins, what is pooled, and levels in the order that their column states."""

import re

import numpy as np
import pyarrow as pa
import pytest

from builder.report.histograms import histograms
from builder.report.ordinal import in_stated_order
from builder.report.plots import histogram

PERSONS = pa.table(
    {"person_key": [f"p{n}" for n in range(30)], "age_years": [float(20 + n) for n in range(28)] + [90.0, None]}
)


def cases(rows: int = 30) -> pa.Table:
    spacing = np.repeat([0.5, 1.0, 2.5], [14, 14, 2])[:rows]
    return pa.table(
        {
            "case_key": [f"c{n}" for n in range(rows)],
            "modality": ["CT"] * (rows // 2) + ["MR"] * (rows - rows // 2),
            "spacing_row_mm": spacing,
            "intensity_median": [float(n) for n in range(rows)],
            "rows": [512] * rows,
        }
    )


def found(entries, quantity: str, modality: str):
    (entry,) = [e for e in entries if (e["quantity"], e["modality"]) == (quantity, modality)]
    return entry


def test_modalities_are_apart_and_ages_are_those_of_persons():
    entries = histograms(cases(), PERSONS)
    assert {e["modality"] for e in entries if e["of"] == "cases"} == {"CT", "MR"}
    assert sum(found(entries, "intensity_median", "CT")["counts"]) == 15
    assert found(entries, "rows", "CT") == {
        "quantity": "rows", "modality": "CT", "of": "cases", "known": 15, "missing": 0,
        "edges": [500.0, 600.0], "counts": [15],
    }  # fmt: skip
    ages = found(entries, "age_years", "")
    assert (ages["known"], ages["missing"]) == (29, 1)
    assert ages["edges"] == [20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert ages["counts"] == [10, 10, 8, 0, 0, 0, 0, 1]
    assert "90 and above: 1" in str(histogram(ages))


@pytest.mark.parametrize("below", [2, 3, 5, 12])
def test_small_bins_are_pooled(below):
    full = pa.table({"person_key": PERSONS["person_key"], "age_years": PERSONS["age_years"].fill_null(44.0)})
    entries = histograms(cases(), full, mask_below=below)
    assert entries
    for entry in entries:
        assert all(count == 0 or count >= below for count in entry["counts"]), entry
        assert sum(entry["counts"]) == entry["known"]
        assert len(entry["edges"]) == len(entry["counts"]) + 1
    none = [e for e in histograms(cases(), PERSONS, mask_below=below) if e["of"] == "persons"]
    assert none == [], "the bins would tell by difference that one age is missing"
    assert histograms(cases(6), full.slice(0, 1), mask_below=5) == []


def test_values_that_only_their_digits_tell_apart_are_one():
    spacing = [0.9765625, 0.97656250000001] * 4
    (entry,) = histograms(pa.table({"case_key": list("abcdefgh"), "spacing_row_mm": spacing}), PERSONS.select([0]))
    assert (entry["edges"], entry["counts"]) == (pytest.approx([0.9, 1.0]), [8])
    (entry,) = histograms(pa.table({"case_key": ["a", "b"], "rows": [0, 0]}), PERSONS.select([0]))
    assert (entry["edges"], entry["counts"]) == ([0.0, 1.0], [2])


def test_areas_are_numbers_when_bins_are_unequal():
    entry = {"quantity": "rows", "edges": [0.0, 10.0, 40.0], "counts": [10, 30]}
    heights = re.findall(r'<rect [^>]*height="([0-9.]+)"', str(histogram(entry)))
    assert heights[0] == heights[1], "30 in a bin three times as wide"


def test_levels_stand_in_the_order_that_is_stated():
    rows = [{"level": name} for name in ("High", "Low", "Medium", "missing")]
    crossed = {"columns": ["grade", "sex"], "levels": [["High", "Low"], ["F", "M"]], "cells": [1, 2, 3, 4]}
    parts = {part: [] for part in ("attrition", "labels", "representativeness")}
    document = {**parts, "table_one": [{"column": "grade", "levels": rows}, {"column": "x", "levels": rows}],
                "intersections": [crossed]}  # fmt: skip
    told = in_stated_order(document, {"grade": ["Low", "Medium", "High"]})
    assert [row["level"] for row in told["table_one"][0]["levels"]] == ["Low", "Medium", "High", "missing"]
    assert told["table_one"][1]["levels"] == rows
    assert told["intersections"][0]["levels"] == [["Low", "High"], ["F", "M"]]
    assert told["intersections"][0]["cells"] == [3, 4, 1, 2]
