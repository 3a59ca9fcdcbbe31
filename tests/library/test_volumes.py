"""``builder volumes``: a folder becomes NIfTI files and a table of verdicts, the same whatever the clock."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from nibabel.affines import apply_affine

from builder.errors import SpecError
from builder.library.volumes import verdict_lines, write_volumes
from tests import synthetic


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A CT series, a tilted one, one with a gap, and a file that is no DICOM."""
    folder = tmp_path / "archive"
    synthetic.ct_series(folder / "a", slices=4)
    synthetic.ct_series(folder / "b", slices=4, series="2", tilt_degrees=12.0)
    synthetic.ct_series(folder / "c", slices=6, series="3", missing=(2,))
    synthetic.ct_series(folder / "d", slices=4, series="4", repeated=(1,))
    (folder / "readme.txt").write_text("no image")
    return folder


def test_every_stack_has_a_verdict_and_what_can_be_shown_is_a_file(archive: Path, tmp_path: Path) -> None:
    table = write_volumes(archive, tmp_path / "out")
    rows = table.to_pylist()
    assert [(r["verdict"], r["reason"]) for r in rows] == [
        ("regular", None), ("sheared", None), ("gapped", "gapped"), ("duplicate_positions", "duplicate_positions"),
    ]  # fmt: skip
    assert rows[2]["file"] is None  # nothing is interpolated
    made = synthetic.ct_series(slices=4, series="2", tilt_degrees=12.0)
    image = nibabel.load(tmp_path / "out" / rows[1]["file"])
    np.testing.assert_array_equal(np.asarray(image.dataobj), made.voxels.transpose(2, 1, 0))
    corner = apply_affine(image.affine, [31, 31, 3]) * [-1, -1, 1]
    np.testing.assert_allclose(corner, made.geometry.to_world([[3, 31, 31]])[0], atol=1e-3)
    assert pq.read_table(tmp_path / "out" / "verdicts.parquet").equals(table)
    assert json.loads((tmp_path / "out" / "verdicts.json").read_text()) == rows
    files = json.loads((tmp_path / "out" / "files.json").read_text())
    assert sum(entry["files"] for entry in files) == 4 + 4 + 5 + 5 + 1
    assert len(list(verdict_lines(table))) == len(rows)


def test_the_same_folder_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_volumes(archive, tmp_path / name)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert first == second


def test_no_identifier_is_written(archive: Path, tmp_path: Path) -> None:
    write_volumes(archive, tmp_path / "out")
    made = synthetic.ct_series(slices=1)
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert made.series_uid.encode() not in content
        assert str(made.images[0].PatientName).encode() not in content


def test_a_path_that_is_no_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected a folder"):
        write_volumes(tmp_path / "absent", tmp_path / "out")


def test_a_folder_without_dicom_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.csv").write_text("a,b\n1,2\n")
    (line,) = verdict_lines(write_volumes(tmp_path / "in", tmp_path / "out"))
    assert line.startswith("no DICOM series was found")
