"""DICOMDIR: files it lists that are not there are accounted for."""

import gc
import shutil
import warnings
import zipfile
from pathlib import Path

import pyarrow as pa
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.fileset import FileSet

from builder.model.tables import INSTANCES
from builder.planning.directories import missing_files
from builder.sources import Folder
from builder.stages.index import index_partition


def media(folder: Path, count: int) -> Path:
    """A file-set written by pydicom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pydicom leaves its folder to the garbage collector
        made = FileSet()
        for number in range(count):
            dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
            made.add(dataset)
        made.write(folder)
        del made
        gc.collect()
    return folder


def indexed(folder: Path) -> tuple[Folder, pa.Table]:
    source = Folder(url=str(folder))
    return source, index_partition(source, 0, list(source.list()))


def test_complete_media_miss_nothing(tmp_path: Path) -> None:
    source, table = indexed(media(tmp_path / "cd", 3))
    assert sorted(zip(table["format"].to_pylist(), table["status"].to_pylist(), strict=True)) == [
        ("dicom", "instance"),
        ("dicom", "instance"),
        ("dicom", "instance"),
        ("dicomdir", "file"),
    ]
    found = missing_files(lambda: [table.slice(0, 2), table.slice(2)], [source])
    assert found.num_rows == 0
    assert found.schema.equals(INSTANCES)


def test_what_is_listed_and_absent_is_a_row(tmp_path: Path) -> None:
    folder = media(tmp_path / "cd", 3)
    gone = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR")[1]
    gone.unlink()
    source, table = indexed(folder)
    (row,) = missing_files(lambda: [table], [source]).to_pylist()
    assert row["path"] == gone.relative_to(folder).as_posix()
    assert (row["status"], row["reason"]) == ("quarantined", "source_missing")


def test_lower_case_copies_and_archives(tmp_path: Path) -> None:
    folder = media(tmp_path / "cd", 2)
    for path in sorted((p for p in folder.rglob("*") if p.name != "DICOMDIR"), key=lambda p: -len(p.parts)):
        path.rename(path.with_name(path.name.lower()))
    source, table = indexed(folder)
    assert missing_files(lambda: [table], [source]).num_rows == 0
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "cd.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, f"disc/{path.relative_to(folder)}")
    source, table = indexed(packed)
    assert missing_files(lambda: [table], [source]).num_rows == 0
    shutil.rmtree(packed)


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_a_directory_that_lists_places_outside_is_not_followed(tmp_path: Path) -> None:
    folder = media(tmp_path / "cd", 1)
    dataset = pydicom.dcmread(folder / "DICOMDIR")
    for record in dataset.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["..", "SECRET"]
    dataset.save_as(folder / "DICOMDIR")
    source, table = indexed(folder)
    assert missing_files(lambda: [table], [source]).num_rows == 0
