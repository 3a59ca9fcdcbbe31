"""Domains and findings are counted once per case or series, however many samples it has."""

import pyarrow as pa

from builder.report.physics import physics, without_assumed_spacing

INDEX = pa.table(
    {
        "case_key": ["a", "a", "b", "c"],
        "domain": ["HU", "HU", "HU", "SUVbw"],
        "notes": [["jitter_mm=0.2"], ["jitter_mm=0.2"], ["jitter_mm=0.1", "face_risk"], []],
        "findings": [["ct_air=-700", "kvp=12"], ["ct_air=-700", "kvp=12"], ["ct_air=-650"], None],
    }
)
COHORT = pa.table({"header_findings": ["kvp=12; spacing=30", None, "kvp=300"]})


def test_every_case_is_counted_once() -> None:
    found = physics(INDEX, COHORT)
    assert found["domains"] == {"HU": 2, "SUVbw": 1}
    assert found["notes"] == {"face_risk": 1, "jitter_mm": 2}
    assert found["findings"] == [
        {"rule": "ct_air", "things": 2, "low": -700.0, "high": -650.0},
        {"rule": "kvp", "things": 1, "low": 12.0, "high": 12.0},
    ]
    assert [(row["rule"], row["things"]) for row in found["header_findings"]] == [("kvp", 2), ("spacing", 1)]


def test_tables_without_these_columns_give_no_entries() -> None:
    nothing = physics(INDEX.select(["case_key"]), pa.table({"series_key": ["s"]}))
    assert nothing == {"domains": {}, "notes": {}, "findings": [], "header_findings": []}


def test_codes_that_the_gate_withheld_are_not_counted() -> None:
    index = pa.table(
        {
            "case_key": ["a", "b"],
            "domain": ["SUVbw", None],
            "notes": [["resampled", None], [None]],
            "findings": [[None], ["clipped=0.5", None]],
        }
    )
    found = physics(index, pa.table({"case_key": ["a", "b"]}))
    assert found["notes"] == {"resampled": 1}
    assert found["findings"] == [{"rule": "clipped", "things": 1, "low": 0.5, "high": 0.5}]


def test_a_pixel_that_is_no_number_of_millimetres_has_no_spacing() -> None:
    index = pa.table({"case_key": ["a", "b", "b", "c"], "notes": [["pixel_spacing_unknown"], [], [], None]})
    rows = pa.table({"case_key": ["c", "b", "a", None], "spacing_row_mm": [0.5, 1.0, 1.0, 2.0], "rows": [9, 8, 7, 6]})
    told = without_assumed_spacing(rows, index)
    assert told["spacing_row_mm"].to_pylist() == [0.5, 1.0, None, 2.0]
    assert told.drop_columns("spacing_row_mm") == rows.drop_columns("spacing_row_mm")
