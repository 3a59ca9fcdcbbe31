"""The phantom's pictures are what their table, masks and reports say, and the same again from the same seed."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builder.errors import SpecError
from builder.phantom import write_pictures


def test_pictures_are_what_masks_boxes_classes_and_reports_say(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert write_pictures(tmp_path / name, patients=7, seed=3).facts()["pictures"] == 7
    files = {p.relative_to(tmp_path / "a"): p.read_bytes() for p in (tmp_path / "a").rglob("*.*")}
    assert files == {p.relative_to(tmp_path / "b"): p.read_bytes() for p in (tmp_path / "b").rglob("*.*")}
    rows = list(csv.DictReader((tmp_path / "a" / "findings.csv").read_text().splitlines()))
    said = [json.loads(line) for line in (tmp_path / "a" / "reports.jsonl").read_text().splitlines()]
    assert [row["form"] for row in rows].count("nothing") == 2
    for row, report in zip(rows, said, strict=True):
        picture, mask = (np.asarray(Image.open(tmp_path / "a" / at / row["image"])) for at in ("images", "masks"))
        assert report["image"] == row["image"]
        assert row["form"] in report["text"]
        assert np.array_equal(picture >= 150, mask == 1)
        if row["form"] == "nothing":
            assert not mask.any()
            assert (row["x"], row["width"]) == ("", "")
            continue
        found_rows, found_columns = np.nonzero(mask)
        box = (found_columns.min(), found_rows.min(), np.ptp(found_columns) + 1, np.ptp(found_rows) + 1)
        assert box == tuple(int(row[name]) for name in ("x", "y", "width", "height"))
        assert (mask.sum() == 16 * 16) == (row["form"] == "square")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SpecError, match=r"--to: found files in .*, expected a new or empty folder"):
        write_pictures(tmp_path, patients=1, seed=1)
