"""Notes of the store without labels: those of hidden rows say nothing of labels, and rows without notes are passed."""

import pyarrow as pa

from builder.publishing.sequester import blanked

NOTES = [["intensity/clipped", None, "contours_repaired"], None, [None, "mask_empty"], ["mask_empty"]]


def test_hidden_rows_keep_only_what_is_said_of_the_image() -> None:
    notes = pa.array(NOTES, pa.list_(pa.string()))
    table = pa.table({"notes": notes, "grade": ["a", "b", "c", "d"], "row": [0, 1, 2, 3]})
    found = blanked(table, [True, True, True, False], {"row"})
    assert found["notes"].to_pylist() == [["intensity/clipped"], None, [], ["mask_empty"]]
    assert found["grade"].to_pylist() == [None, None, None, "d"]
    assert found["row"].to_pylist() == [0, 1, 2, 3]
