"""An inventory that goes on from an earlier one is the same, byte for byte, as one that is merged of all parts."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from builder.imaging.stacks.options import VolumeOptions
from builder.model.parquet import parquet_bytes, read_parquet
from builder.planning import growing, inventory, merge
from builder.planning.inventory import Inventory, take_inventory
from builder.planning.surveying import take_survey
from builder.run.progress import SilentProgress
from builder.run.serial import SerialRunner
from builder.sources import Folder
from builder.stages import parts, survey
from builder.stages.boundary import Faults
from builder.storage import open_store
from tests.endtoend.trees import tree
from tests.planning.test_directories import media
from tests.synthetic import ct_series, to_bytes

Series = tuple[int, str, str, str]
SERIES = st.tuples(
    st.integers(1, 4),
    st.sampled_from(["A", "B"]),
    st.sampled_from(["a", "z"]),
    st.sampled_from(["", "", "same", "other"]),
)
"""Slices, kernel, the folder of the files, and whether they are there twice, with the same bytes or other ones."""
NAMES = ["notes.txt", "mask.nii", "cd-2", "cd-3", "cd-3-without-one", "report", "report-again", "report.zip"]
FILES = st.sets(st.sampled_from(NAMES))
ARCHIVES = st.tuples(st.dictionaries(st.integers(0, 12), SERIES, min_size=1), FILES)


def write(archive: Path, series: dict[int, Series], files: set[str], kept: Path) -> None:
    """Write an archive; what was written before, in this archive or another, comes back with its times."""
    shutil.rmtree(archive, ignore_errors=True)
    for number, (slices, kernel, folder, copies) in series.items():
        shutil.copytree(made(kept, number, slices, kernel), archive / folder / f"{number}")
        if copies:
            other = "C" if copies == "other" else kernel
            shutil.copytree(made(kept, number, slices, other), archive / "copies" / f"{number}")
    for name in files:
        place, kind, *_ = (kept / name, *name.split("-"))
        if not place.exists() and kind == "cd":
            media(place, int(name.split("-")[1]))
            if name.endswith("without-one"):
                min(p for p in place.rglob("*") if p.is_file() and p.name != "DICOMDIR").unlink()
        elif not place.exists():
            place.mkdir()
            (place / name).write_bytes(report() if name.startswith("report") else name.encode())
            if name.endswith(".zip"):
                with zipfile.ZipFile(place / name, "w") as archived:
                    archived.writestr("report", report())
        shutil.copytree(place, archive / f"files-{name}")


def report() -> bytes:
    """An annotation object."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    return to_bytes(dataset)


def made(kept: Path, number: int, slices: int, kernel: str) -> Path:
    place = kept / f"{number}-{slices}-{kernel}"
    if not place.exists():
        attributes = {"ConvolutionKernel": kernel}
        ct_series(
            place, slices=slices, shape=(4, 4), patient_id=f"P{number}", series=f"{number}", attributes=attributes
        )
    return place


def taken(archive: Path, private: Path, earlier: Inventory | None) -> tuple[Inventory, dict[str, str]]:
    return taken_of([Folder(url=str(archive))], private, earlier)


def taken_of(sources: Sequence[Folder], private: Path, earlier: Inventory | None) -> tuple[Inventory, dict[str, str]]:
    """An inventory with its survey, and the files of both without the receipt, which names parts in their order."""
    store = open_store(private, directory_mode=0o700)
    runner, progress, faults = SerialRunner(), SilentProgress(), Faults("stop")
    found = take_inventory(sources, store, runner=runner, progress=progress, faults=faults, earlier=earlier)
    take_survey(found, sources, VolumeOptions(), runner=runner, progress=progress, faults=faults)
    files = tree(Path(found.store.url))
    return found, {"receipt": repr((found.chunks, found.files, found.parts)), **files}


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Few rows make a part of the index and a chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "CHUNK_ROWS", (4, 12))
        patch.setattr(parts, "PART_FILES", (2, 8))
        yield


SOME: dict[int, Series] = {number: (1 + number % 3, "A", "a", "") for number in range(10)}


@settings(max_examples=12)
@example(states=[(SOME, set()), (SOME | {11: (2, "A", "a", "")}, set())])
@example(states=[(SOME, set()), ({**SOME, 3: (3, "A", "a", "")}, set()), ({**SOME, 3: (3, "B", "z", "")}, set())])
@example(states=[(SOME, {"cd-3"}), (SOME, {"cd-3-without-one"}), (SOME, {"cd-2", "notes.txt"})])
@example(states=[(SOME, set()), ({**SOME, 3: (1, "A", "a", "same")}, set()), ({**SOME, 3: (1, "A", "a", "")}, set())])
@example(states=[(SOME, set()), ({**SOME, 3: (1, "A", "a", "other")}, set()), ({**SOME, 3: (1, "A", "z", "")}, set())])
@example(states=[(SOME, {"report"}), (SOME, {"report", "report.zip"}), (SOME, {"report-again"})])
@given(states=st.lists(ARCHIVES, min_size=2, max_size=3))
def test_it_holds_what_one_from_nothing_holds(states: list[tuple[dict[int, Series], set[str]]]) -> None:
    with TemporaryDirectory() as folder:
        kept, earlier = Path(folder, "kept"), None
        kept.mkdir()
        for number, (series, files) in enumerate(states):
            write(Path(folder, "archive"), series, files, kept)
            earlier, grown = taken(Path(folder, "archive"), Path(folder, "grown"), earlier)
            _, anew = taken(Path(folder, "archive"), Path(folder, f"anew-{number}"), None)
            assert grown == anew


def test_sources_change_places_and_what_they_leave_out(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    write(tmp_path / "archive", SOME, {"report.zip"}, tmp_path / "kept")
    write(tmp_path / "other", {20: (3, "A", "a", "")}, {"notes.txt"}, tmp_path / "kept")
    one, other = (Folder(url=str(tmp_path / name)) for name in ("archive", "other"))
    fewer = Folder(url=one.url, exclude=("a/3/*",))
    earlier = None
    for number, sources in enumerate(([one, other], [other, one], [other, fewer], [one, one], [one])):
        earlier, grown = taken_of(sources, tmp_path / "grown", earlier)
        assert grown == taken_of(sources, tmp_path / f"anew-{number}", None)[1]


def test_copies_are_compared_again_where_a_source_lies_elsewhere(tmp_path: Path) -> None:
    """Another folder holds other pixels under the same headers, sizes and times."""
    (tmp_path / "kept").mkdir()
    write(tmp_path / "archive", {3: (2, "A", "a", "")}, set(), tmp_path / "kept")
    other, copies = (shutil.copytree(tmp_path / "archive", tmp_path / name) for name in ("other", "copies"))
    file = next(path for path in sorted(other.rglob("*")) if path.is_file())
    times = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    one, moved, again = (Folder(url=str(place)) for place in (tmp_path / "archive", other, copies))
    earlier, _ = taken_of([one, again], tmp_path / "grown", None)
    _, grown = taken_of([moved, again], tmp_path / "grown", earlier)
    assert grown == taken_of([moved, again], tmp_path / "anew", None)[1]


def test_what_did_not_change_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One series comes: all is not merged again, and chunks with other series are neither judged nor compared."""
    series: dict[int, Series] = dict.fromkeys(range(40), (3, "A", "a", ""))
    (tmp_path / "kept").mkdir()
    write(tmp_path / "archive", series, set(), tmp_path / "kept")
    before, _ = taken(tmp_path / "archive", tmp_path / "grown", None)
    write(tmp_path / "archive", {**series, 50: (2, "A", "a", "")}, set(), tmp_path / "kept")

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("everything was merged")

    judged: list[int] = []
    judge, split = survey._drafted, survey._surveyed
    splits: list[int] = []

    def see(chunk: Any, **options: Any) -> Any:
        judged.append(chunk.num_rows)
        return judge(chunk, **options)

    def see_split(instances: Any, *rest: Any) -> Any:
        splits.append(instances.num_rows)
        return split(instances, *rest)

    monkeypatch.setattr(inventory, "_merge", never)
    monkeypatch.setattr(survey, "_drafted", see)
    monkeypatch.setattr(survey, "_surveyed", see_split)
    after, _ = taken(tmp_path / "archive", tmp_path / "grown", before)
    same = set(before.chunks) & set(after.chunks)
    assert len(before.chunks) > 8
    assert len(after.chunks) - len(same) == len(judged) <= 3
    assert splits == [2]


def test_what_lies_beside_the_images_is_not_opened_if_it_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    write(tmp_path / "archive", SOME, {"notes.txt", "mask.nii"}, tmp_path / "kept")
    before, _ = taken(tmp_path / "archive", tmp_path / "grown", None)
    write(tmp_path / "archive", {**SOME, 11: (4, "A", "a", "")}, {"notes.txt", "mask.nii"}, tmp_path / "kept")
    written: list[str] = []
    monkeypatch.setattr(growing, "keep_rows", lambda store, name, table: written.append(name))
    _, grown = taken(tmp_path / "archive", tmp_path / "grown", before)
    assert written == []
    assert grown == taken(tmp_path / "archive", tmp_path / "anew", None)[1]


def test_more_rows_beside_the_images_than_fit_into_memory_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    write(tmp_path / "archive", SOME, set(), tmp_path / "kept")
    notes = tmp_path / "archive" / "notes"
    notes.mkdir()
    for number in range(60):
        (notes / f"{number:02d}.txt").write_bytes(b"note")
    before, _ = taken(tmp_path / "archive", tmp_path / "grown", None)
    (notes / "60.txt").write_bytes(b"note")
    monkeypatch.setattr(growing, "MOST_ROWS", 40)
    calls = merges(monkeypatch)
    taken(tmp_path / "archive", tmp_path / "grown", before)
    assert len(calls) == 1


def merges(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that grows whenever everything is merged."""
    calls: list[object] = []
    whole = inventory._merge
    monkeypatch.setattr(inventory, "_merge", lambda *a, **k: calls.append(a) or whole(*a, **k))
    return calls


def test_parts_with_other_columns_are_not_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release reads other attributes, and every part of the index anew."""
    (tmp_path / "kept").mkdir()
    write(tmp_path / "archive", SOME, set(), tmp_path / "kept")
    before, _ = taken(tmp_path / "archive", tmp_path / "grown", None)
    digests = {}
    for name in before.parts:
        part = tmp_path / "grown" / "index" / f"{name}.parquet"
        part.write_bytes(parquet_bytes(read_parquet(part.read_bytes()).drop_columns("kvp")))
        digests[name] = hashlib.sha256(part.read_bytes()).hexdigest()
    monkeypatch.setattr(parts, "VERSION", parts.VERSION + 1)
    calls = merges(monkeypatch)
    _, grown = taken(tmp_path / "archive", tmp_path / "grown", replace(before, parts=digests))
    assert len(calls) == 1
    assert grown == taken(tmp_path / "archive", tmp_path / "anew", None)[1]


@pytest.mark.parametrize(
    "change",
    ["too many rows", "a part is gone", "a part has other rows", "a chunk is gone", "a chunk lost a row", "no table"],
)
def test_everything_is_merged_where_it_cannot_go_on(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    write(tmp_path / "archive", SOME, set(), tmp_path / "kept")
    before, _ = taken(tmp_path / "archive", tmp_path / "grown", None)
    write(tmp_path / "archive", {**SOME, 11: (4, "A", "a", ""), 1: (4, "B", "a", "")}, set(), tmp_path / "kept")
    if change == "too many rows":
        monkeypatch.setattr(growing, "MOST_ROWS", 3)
    if change == "a part is gone":
        for part in (tmp_path / "grown" / "index").glob("*.parquet"):
            part.unlink()
        for receipt in (tmp_path / "grown" / "index").glob("*.json"):
            receipt.unlink()
    if change == "a part has other rows":
        before = Inventory(before.store, before.chunks, before.files, parts=dict.fromkeys(before.parts, "0"))
    chunk = Path(before.store.url, before.chunks[-2])
    if change == "a chunk is gone":
        chunk.unlink()
    if change == "a chunk lost a row":
        chunk.write_bytes(parquet_bytes(read_parquet(chunk.read_bytes()).slice(1)))
    if change == "no table":
        Path(before.store.url, "leftovers.parquet").write_bytes(b"")
    calls = merges(monkeypatch)
    _, grown = taken(tmp_path / "archive", tmp_path / "grown", before)
    assert len(calls) == 1
    assert grown == taken(tmp_path / "archive", tmp_path / "anew", None)[1]


def test_a_file_is_read_once_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave to read changes neither the size nor the time of a file, so nothing in the listing tells."""
    archive, real = tmp_path / "archive", os.open
    for number in range(6):
        ct_series(archive / f"{number}", slices=2, shape=(4, 4), patient_id=f"P{number}", series=f"{number}")
    closed = min((archive / "3").iterdir())

    def refusing(path: Any, *given: Any, **named: Any) -> int:
        if os.fsencode(path).endswith(os.fsencode(closed.relative_to(archive))):
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **named)

    with monkeypatch.context() as patch:  # root may read any file
        patch.setattr(os, "open", refusing)
        before, _ = taken(archive, tmp_path / "grown", None)
        again, _ = taken(archive, tmp_path / "grown", before)
    assert before.leftovers(columns=["reason"])["reason"].to_pylist() == ["unreadable"]
    assert again.store.url == before.store.url
    now, grown = taken(archive, tmp_path / "grown", again)
    assert now.leftovers().num_rows == 0
    assert sum(now.chunk(number).num_rows for number in range(len(now.chunks))) == 12
    assert taken(archive, tmp_path / "anew", None)[1] == grown


def test_files_without_a_series_come_and_go(tmp_path: Path) -> None:
    for number in range(6):
        shutil.copytree(made(tmp_path / "kept", number, 2, "A"), tmp_path / f"archive/{number}")
    before, _ = taken(tmp_path / "archive", tmp_path / "private", None)
    nameless = tmp_path / "archive/nameless.dcm"
    header = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    del header.SeriesInstanceUID
    nameless.write_bytes(to_bytes(header))
    came, files = taken(tmp_path / "archive", tmp_path / "private", before)
    assert files == taken(tmp_path / "archive", tmp_path / "other", None)[1]
    nameless.unlink()
    _, files = taken(tmp_path / "archive", tmp_path / "private", came)
    assert files == taken(tmp_path / "archive", tmp_path / "another", None)[1]
