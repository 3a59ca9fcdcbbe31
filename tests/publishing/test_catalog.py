"""Counts of values as facts."""

import pyarrow as pa

from builder.publishing.catalog import MOST_VALUES, _values
from builder.spec.blocks import ReportOptions


def test_frequent_values_are_told_and_the_rest_is_counted_together():
    column = pa.chunked_array([[f"v{i:02d}" for i in range(20) for _ in range(20 - i)] + [None]])
    told = [(v.value, v.count) for v in _values(column, ReportOptions())]
    assert told[:2] == [("v00", 20), ("v01", 19)]
    assert told[-1] == (f"{21 - MOST_VALUES} others", sum(range(1, 9)) + 1)
    assert sum(n or 0 for _, n in told) == len(column)


def test_one_small_cell_masks_the_column():
    column = pa.chunked_array([["F"] * 6 + ["M"] * 4])
    assert [(v.value, v.count) for v in _values(column, ReportOptions(mask_below=4))] == [("F", 6), ("M", 4)]
    assert [(v.value, v.count) for v in _values(column, ReportOptions(mask_below=5))] == [("F", None), ("M", None)]
