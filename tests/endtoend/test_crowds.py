"""Crowds-Cure from its table to the report: every line, a consensus for each series, and the clinical tables of TCGA.

Every seventh person of the table is built (BUILDER_CROWD_SHARE=1: everybody, which takes minutes).

No image of these patients is at hand, so blank CT slices stand in for them: the table's own series, instances and
patients, each series with the pixel spacing at which its lines have the lengths the table states.
"""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, RLELossless

import builder
from builder.run.pipeline import build
from tests.endtoend.trees import KEY, ROOT

SPEC = ROOT / "specs" / "crowds-cure.yaml"
TABLE = "CrowdsCureCancer2017Annotations.csv"
CANCERS = ("kirc", "ov", "lihc", "luad")
SHARE = int(os.environ.get("BUILDER_CROWD_SHARE", "7"))
FEWEST_SLICES = 3
WIDTH = 512
BLANK = encapsulate([(1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + b"\x81\x00" * (4 * WIDTH)])
"""A frame of 512 x 512 zeros: one RLE segment (PS3.5 G), runs of 128."""

Row = dict[str, str]


def _write_series(folder: Path, rows: Sequence[Row]) -> None:
    """One series of the table: a blank slice an instance that somebody drew on, in the order of the slices."""
    ratios = [
        float(r["length"]) / np.hypot(float(r["end_x"]) - float(r["start_x"]), float(r["end_y"]) - float(r["start_y"]))
        for r in rows
    ]
    named = sorted({(int(float(r["sliceIndex"])), r["instanceUID"]) for r in rows})
    uids = [uid for _, uid in named] + [f"2.25.1{hash_of(rows[0])}{i}" for i in range(FEWEST_SLICES - len(named))]
    folder.mkdir(parents=True)
    for number, uid in enumerate(uids):
        slice_ = Dataset()
        slice_.update(_header(rows[0], uid, number, float(np.median(ratios))))
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID
        slice_.file_meta.MediaStorageSOPInstanceUID = UID(uid)
        slice_.file_meta.TransferSyntaxUID = RLELossless
        slice_.PixelData = BLANK
        slice_["PixelData"].is_undefined_length = True
        slice_.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def hash_of(row: Row) -> str:
    """Digits that belong to a series."""
    return row["seriesUID"].rsplit(".", 1)[-1][:20]


def _header(row: Row, uid: str, number: int, spacing: float) -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = UID(row["SOPClassUID"]), UID(uid)
    header.StudyInstanceUID, header.SeriesInstanceUID = UID(row["StudyInstanceUID"]), UID(row["seriesUID"])
    header.PatientID, header.Modality, header.StudyDate = row["patientID"], "CT", row["StudyDate"]
    header.InstanceNumber, header.FrameOfReferenceUID = number + 1, UID(row["seriesUID"])
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 5.0 * number], [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.SliceThickness = [f"{spacing:.14g}"] * 2, 5
    header.Rows = header.Columns = WIDTH
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
    header.BitsAllocated, header.BitsStored, header.HighBit = 8, 8, 7
    header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 1, 0, "HU"
    return header


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, corpus: Any) -> tuple[Path, dict[str, list[Row]]]:
    home = tmp_path_factory.mktemp("crowds")
    tables = corpus("tables") / "tables"
    (home / "tables").mkdir()
    for cancer in CANCERS:
        shutil.copy(tables / f"tcga_clinical_patient_{cancer}.txt", home / "tables")
    with (tables / TABLE).open(newline="") as file:
        lines = list(csv.DictReader(file))
    persons = set(sorted({row["patientID"] for row in lines})[::SHARE])
    series: dict[str, list[Row]] = {}
    with (home / "tables" / TABLE).open("w", newline="") as file:
        kept = csv.DictWriter(file, lines[0])
        kept.writeheader()
        for row in lines:
            if row["patientID"] in persons:
                kept.writerow(row)
                series.setdefault(row["seriesUID"], []).append(row)
    for number, rows in enumerate(series.values()):
        _write_series(home / "images" / f"{number:03d}", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        folders = {"images": str(home / "images"), "tables": str(home / "tables")}
        build(SPEC, to=home / "out", parameters=folders)
    return home / "out", series


def test_every_line_is_there_and_every_series_has_its_consensus(built: tuple[Path, dict[str, list[Row]]]) -> None:
    home, series = built
    data = builder.open_dataset(home)
    lines, stated = 0, []
    for sample in data.table.to_pylist():
        names = list(zip(sample["measurement_names"], sample["measurement_quantities"], strict=True))
        values = dict(zip(range(len(names)), sample["measurement_values"], strict=True))
        lines += names.count(("line/length", "long_axis"))
        assert names.count(("lesion/length", "long_axis")) == 1
        stated += [values[i] for i, name in enumerate(names) if name == ("line/length", "long_axis_stated")]
        assert sample["evidence.lesion.tier"] == "crowd"
        assert len(sample["evidence.lesion.readers"]) == sample["label.lesion.readers"] >= 2
    assert (len(data), lines) == (len(series), sum(map(len, series.values())))
    assert sorted(stated) == pytest.approx(sorted(float(r["length"]) for rows in series.values() for r in rows))


def test_the_report_has_the_agreement_and_the_clinical_match(built: tuple[Path, dict[str, list[Row]]]) -> None:
    (path,) = built[0].glob("versions/*/report/report.json")
    document = json.loads(path.read_text())
    (entry,) = document["agreement"]
    table = entry["lines"]
    rows = [row for rows in built[1].values() for row in rows]
    persons, readers = ({row[column] for row in rows} for column in ("patientID", "annotator"))
    found = (table["lines"], table["cases"], table["persons"], table["readers_in_all"])
    assert found == (len(rows), len(built[1]), len(persons), len(readers))
    assert table["consensus_of"] == len(built[1])
    assert 0.2 < table["icc"]["low"] < table["icc"]["value"] < table["icc"]["high"] < 0.95
    sheets = [(built[0].parent / "tables" / f"tcga_clinical_patient_{cancer}.txt").read_text() for cancer in CANCERS]
    known = [{person for person in persons if person in sheet} for sheet in sheets]
    assert [t["matched"] for t in document["clinical"]] == list(map(len, known))
    matched = len(set().union(*known))
    assert document["clinical_persons"] == {"matched": matched, "persons": len(persons)}
    page = (path.parent / "index.html").read_text()
    assert f"{matched} of {len(persons)}" in page


def test_no_annotator_and_no_patient_leaves(built: tuple[Path, dict[str, list[Row]]]) -> None:
    home, series = built
    published = b"".join(p.read_bytes() for p in home.rglob("*") if p.suffix in (".json", ".html", ".parquet"))
    names = {row[column] for rows in series.values() for row in rows for column in ("annotator", "patientID")}
    assert not any(name.encode() in published for name in names)
