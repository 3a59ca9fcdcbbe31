"""The index: every file found is one row, for good and for bad input, and a second run reads only what changed."""

import io
import os
import shutil
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest

from builder.errors import CaseError, Reason, SourceError
from builder.headers.attributes import Window
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import INSTANCES
from builder.planning.duplicates import find_duplicates, part_with_verdicts, with_verdicts
from builder.protocols import Entry
from builder.sources import Folder, walking
from builder.stages import index, parts
from builder.stages.index import index_part, index_partition
from builder.stages.index_files import sha256_of
from builder.stages.parts import partition, plan_index
from builder.storage import open_store


def whole_index(folder: Path) -> pa.Table:
    source = Folder(url=str(folder))
    return pa.concat_tables([index_partition(source, 0, part) for part in partition(source.list())])


@pytest.mark.parametrize("archive", ["sts", "geometry", "segmentation", "odd", "tables"])
def test_every_corpus_file_is_one_row(corpus: Any, archive: str) -> None:
    folder = corpus(archive)
    table = whole_index(folder)
    assert table.schema.equals(INSTANCES)
    listed = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    assert sorted(table["path"].to_pylist()) == listed
    for row in table.select(["status", "reason", "detail", "sop_instance_uid", "header_sha256"]).to_pylist():
        assert row["status"] in ("instance", "file", "quarantined")
        assert (row["reason"] is not None) == (row["status"] == "quarantined")
        if row["status"] != "quarantined":
            assert row["header_sha256"]
        else:
            assert row["detail"]
            assert row["reason"] in {reason.value for reason in Reason}


def test_malformed_files_each_have_a_reason_or_a_row(corpus: Any) -> None:
    table = whole_index(corpus("odd") / "malformed" / "fuzz")
    statuses = Counter(table["status"].to_pylist())
    assert sum(statuses.values()) == 83
    assert statuses["instance"] >= 60
    uids = table.filter(pa.compute.equal(table["status"], "instance"))["sop_instance_uid"]
    assert uids.null_count == 0


def test_references_of_annotation_objects(corpus: Any) -> None:
    folder = corpus("sts") / "sts001_raw"
    table = whole_index(folder).to_pylist()
    images = {r["sop_instance_uid"] for r in table if r["modality"] == "PT"}
    (rtstruct,) = [r for r in table if r["modality"] == "RTSTRUCT"]
    assert set(rtstruct["referenced_sop_uids"]) >= images
    assert rtstruct["referenced_series_uids"] == sorted({r["series_uid"] for r in table if r["modality"] == "PT"})
    assert rtstruct["label_names"] == ["GTV_Mass", "GTV_Edema"]
    assert all(r["referenced_sop_uids"] == [] for r in table if r["modality"] == "PT")


def test_segments_by_highdicom(corpus: Any) -> None:
    import highdicom

    folder = corpus("segmentation") / "highdicom_seg_sr"
    rows = {r["path"]: r for r in whole_index(folder).to_pylist()}
    seg = highdicom.seg.segread(folder / "seg_image_ct_binary_overlap.dcm")
    row = rows["seg_image_ct_binary_overlap.dcm"]
    labels = [seg.get_segment_description(n).segment_label for n in seg.segment_numbers if n]
    assert row["label_names"] == labels
    assert set(row["referenced_sop_uids"]) == {uids[2] for uids in seg.get_source_image_uids()}


def test_texts_are_decoded_by_their_character_set(corpus: Any) -> None:
    folder = corpus("odd") / "odd_singles"
    checked = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in whole_index(folder).to_pylist():
            if row["status"] != "instance":
                continue
            dataset = pydicom.dcmread(folder / row["path"], stop_before_pixels=True, force=True)
            for keyword, name in (("PatientID", "patient_id"), ("StudyDescription", "study_description")):
                text = str(dataset.get(keyword) or "").strip()
                assert (row[name] or "") == text, row["path"]
                checked += not text.isascii()
    assert checked


def instance(folder: Path, name: str, **changes: Any) -> Path:
    from pydicom.data import get_testdata_file

    folder.mkdir(parents=True, exist_ok=True)
    source = get_testdata_file("CT_small.dcm")
    dataset = pydicom.dcmread(source)
    for attribute, value in changes.items():
        setattr(dataset, attribute, value)
    dataset.save_as(folder / name)
    return folder / name


def test_a_wrong_value_is_null_with_a_note(tmp_path: Path) -> None:
    path = instance(tmp_path, "a.dcm", SliceThickness="12345678")
    path.write_bytes(path.read_bytes().replace(b"12345678", b"nonsense"))
    (row,) = whole_index(tmp_path).to_pylist()
    assert row["status"] == "instance"
    assert row["slice_thickness"] is None
    assert row["detail"] == "slice_thickness: not a number"
    assert row["rows"] == 128


def test_cut_off_headers_and_pixels(tmp_path: Path) -> None:
    data = instance(tmp_path, "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(data[:-4096])
    (tmp_path / "b.dcm").write_bytes(data[:1400])
    cut_pixels, cut_header = whole_index(tmp_path).to_pylist()
    assert cut_pixels["detail"] == "pixel_data: cut off"
    assert (cut_header["status"], cut_header["reason"]) == ("quarantined", "unreadable")


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_object_without_a_uid_is_named_as_that(tmp_path: Path, name: str) -> None:
    instance(tmp_path, "a.dcm", **{name: ""})
    (row,) = whole_index(tmp_path).to_pylist()
    assert (row["status"], row["reason"]) == ("quarantined", "missing_uid")
    assert name[:5].lower() in row["detail"]


def test_limits_hold_on_hostile_headers(tmp_path: Path) -> None:
    head = bytes(128) + b"DICM" + b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"
    sequence = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff"
    deep = head + sequence + (b"\xfe\xff\0\xe0\xff\xff\xff\xff" + sequence) * 5000
    huge = head + b"\x08\0\x01\0OB\0\0\xf0\xff\xff\x7f"
    for name, data in {"deep": deep, "huge": huge}.items():
        (tmp_path / name).write_bytes(data)
    rows = whole_index(tmp_path).to_pylist()
    assert [row["status"] for row in rows] == ["quarantined"] * 2


def test_a_read_budget_bounds_the_time_of_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.headers.attributes.READ_LIMIT", 10)
    window = Window(lambda start, length: bytes(length), 1000)
    for _ in range(10):
        window.read(1)
    with pytest.raises(CaseError) as caught:
        window.read(1)
    assert caught.value.reason is Reason.TOO_LARGE


def test_sources_that_do_not_answer_are_retried_not_quarantined(tmp_path: Path) -> None:
    class Down(Folder):
        def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
            raise SourceError("no answer", host="h")

    instance(tmp_path, "a.dcm")
    source = Down(url=str(tmp_path))
    with pytest.raises(SourceError):
        index_partition(source, 0, list(source.list()))


def test_parts_depend_on_nearby_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_FILES", (16, 64))
    entries = [Entry(f"{n:05}", 1, "s") for n in range(2000)]
    before = set(partition(entries))
    after = set(partition([*entries[:1000], Entry("00999a", 1, "s"), *entries[1000:]]))
    assert [e for part in partition(entries) for e in part] == entries
    assert all(len(part) <= 64 for part in before)
    assert len(after - before) <= 3


def test_a_second_run_reads_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_FILES", (1, 1))
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        instance(tmp_path / "in", name, SOPInstanceUID=f"1.2.{ord(name[0])}")
    store = open_store(tmp_path / "work")
    source = Folder(url=str(tmp_path / "in"))
    plans = list(plan_index(source, 0, store=store))
    receipts = [index_part(plan, store=store) for plan in plans]
    assert sum(receipt.rows for receipt in receipts) == 3
    first = {plan.table: store.read(plan.table) for plan in plans}
    instance(tmp_path / "in", "b.dcm", SOPInstanceUID="1.2.99")
    calls: list[int] = []
    whole = index_partition
    monkeypatch.setattr(index, "index_partition", lambda *a, **k: calls.append(1) or whole(*a, **k))
    again = list(plan_index(source, 0, store=store))
    for plan in again:
        index_part(plan, store=store)
    assert len(calls) == 1
    assert len({plan.name for plan in again} & {plan.name for plan in plans}) == 2
    assert all(store.read(path) == data for path, data in first.items())
    table = pq.read_table(io.BytesIO(store.read(again[1].table)))
    assert table["sop_instance_uid"].to_pylist() == ["1.2.99"]


def test_a_second_listing_opens_only_files_that_may_be_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_FILES", (2, 2))
    for name in ("a/2.dcm", "a.dcm", "b/c/1.dcm", "b.dcm", "c.dcm", "d.dcm"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        instance(tmp_path / "in", name)
    (tmp_path / "in/b/note.txt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "in/b/two.zip", "w") as archive:
        archive.writestr("2.dcm", (tmp_path / "in/a.dcm").read_bytes())
    store, source = open_store(tmp_path / "work"), Folder(url=str(tmp_path / "in"))

    def opened() -> list[str]:
        found: list[str] = []

        def kind(path: bytes) -> str | None:
            found.append(path.decode().rpartition("/in/")[2])
            return archive_kind(path)

        monkeypatch.setattr(walking, "archive_kind", kind)
        for plan in list(plan_index(source, 0, store=store)):
            index_part(plan, store=store)
        return sorted(found)

    archive_kind = walking.archive_kind
    assert len(opened()) == 8
    assert opened() == ["b/two.zip"]
    shutil.rmtree(tmp_path / "in/a")
    (tmp_path / "in/b.dcm").write_bytes((tmp_path / "in/c.dcm").read_bytes())
    instance(tmp_path / "in", "b/a.dcm")
    os.utime(tmp_path / "in/d.dcm", ns=(1, 1))
    assert opened() == ["b.dcm", "b/a.dcm", "b/two.zip", "d.dcm"]
    assert opened() == ["b/two.zip"]
    (listed,) = (tmp_path / "work").glob("listed-*.json")
    listed.write_text('["')
    assert len(opened()) == 8, "what is damaged is not believed, and costs nothing else"
    assert opened() == ["b/two.zip"]


def test_rows_are_the_same_bytes_however_the_files_are_batched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(7):
        instance(tmp_path, f"{n}.dcm", SOPInstanceUID=f"1.2.{n}", InstitutionName="é" if n == 3 else "e")
    (tmp_path / "3b.txt").write_text("hello")
    one = parquet_bytes(whole_index(tmp_path))
    monkeypatch.setattr(index, "_BATCH", 2)
    assert parquet_bytes(whole_index(tmp_path).combine_chunks()) == one


def test_duplicates(tmp_path: Path) -> None:
    instance(tmp_path, "a.dcm", SOPInstanceUID="1.2.1")
    shutil.copy(tmp_path / "a.dcm", tmp_path / "b.dcm")
    pixels = pydicom.dcmread(tmp_path / "a.dcm").PixelData
    instance(tmp_path, "c.dcm", SOPInstanceUID="1.2.2")
    instance(tmp_path, "d.dcm", SOPInstanceUID="1.2.2", PixelData=pixels[::-1])  # same header, other pixels
    instance(tmp_path, "e.dcm", SOPInstanceUID="1.2.3")
    instance(tmp_path, "f.dcm", SOPInstanceUID="1.2.3", SliceThickness="9")
    instance(tmp_path, "g.dcm", SOPInstanceUID="1.2.4")
    table = whole_index(tmp_path)
    source = Folder(url=str(tmp_path))
    verdicts = find_duplicates([table.slice(0, 3), table.slice(3)], [source])
    assert verdicts.equals(find_duplicates([table.slice(3), table.slice(0, 3)], [source]))
    final = with_verdicts(table, verdicts)
    assert final.schema.equals(INSTANCES)
    assert read_parquet(part_with_verdicts(parquet_bytes(table), verdicts)).equals(final)
    unjudged = parquet_bytes(table.slice(6))
    assert part_with_verdicts(unjudged, verdicts) is unjudged
    found = {r["path"]: (r["status"], r["reason"]) for r in final.to_pylist()}
    conflict = ("quarantined", "duplicate_conflicting")
    assert found == {
        "a.dcm": ("instance", None),
        "b.dcm": ("duplicate", "duplicate_same_bytes"),
        "c.dcm": conflict,
        "d.dcm": conflict,
        "e.dcm": conflict,
        "f.dcm": conflict,
        "g.dcm": ("instance", None),
    }


def test_details_hold_no_identifier(corpus: Any) -> None:
    table = whole_index(corpus("odd"))
    rows = table.select(["detail", "patient_id", "sop_instance_uid", "path"]).to_pylist()
    for row in rows:
        for name in ("patient_id", "sop_instance_uid", "path"):
            value = row[name]
            assert not value or len(value) < 4 or value not in (row["detail"] or "")


def test_a_file_that_shrinks_while_hashed_is_set_aside_alone(corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Folder(url=str(corpus("sts") / "sts001_raw"), identity="content")
    entries = list(source.list())[:5]
    whole = sha256_of

    def shrunk(at: Folder, entry: Entry) -> str:
        if entry == entries[2]:
            raise CaseError(Reason.SOURCE_CHANGED, "shorter than listed")
        return whole(at, entry)

    monkeypatch.setattr(index, "sha256_of", shrunk)
    rows = index_partition(source, 0, entries).to_pylist()
    assert [row["path"] for row in rows] == [entry.path for entry in entries]
    assert [row["status"] for row in rows] == ["instance", "instance", "quarantined", "instance", "instance"]
    assert [row["content_sha256"] is None for row in rows] == [False, False, True, False, False]
    assert rows[2]["reason"] == Reason.SOURCE_CHANGED.value
