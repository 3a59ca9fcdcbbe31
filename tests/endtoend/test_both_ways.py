"""One set of checks, whichever way in: ``build`` and ``builder volumes`` give the same verdicts and the same voxels.

A build reads plain slices from index rows and pixel bytes, everything else from data sets that it de-identifies.
Each kind of damage is made in both forms, and ``assemble`` of the whole data sets is asked as a third.
"""

import hashlib
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

import builder
from builder.library.volumes import KEEP_ALL, write_volumes
from builder.run.pipeline import build
from tests import synthetic
from tests.endtoend.trees import KEY
from tests.imaging.test_multiframe import enhanced

Edit = Callable[[int, Dataset], None]
Verdicts = Counter[tuple[str, str]]

SPEC = """
name: ways
license: CC0-1.0
sources: [{kind: folder, url: "${tree}"}]
deid: {patient_key: "${env:BUILDER_KEY}"}
splits: {may_be_empty: [train, validation, test]}
max_lost: {cases: 1, persons: 1}
samples: {kind: volumes, chunk: [8, 32, 32]}
shards: {fields: {image: {dtype: float32}}}
"""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


def volumes_block() -> str:
    """The options of ``builder volumes`` as a spec's block."""
    asked = KEEP_ALL.model_dump(exclude_defaults=True)
    return "volumes: {" + ", ".join(f"{name}: {value}" for name, value in asked.items()) + "}\n"


def by_build(tree: Path, to: Path, blocks: str = "") -> Verdicts:
    """What became of every stack of a folder in a build: ``volume`` and a digest of its voxels, or a reason."""
    spec = to.with_suffix(".yaml")
    spec.write_text(SPEC + volumes_block() + blocks)
    build(spec, to=to, parameters={"tree": str(tree)})
    found: Verdicts = Counter()
    for sample in builder.open_dataset(to):
        found["volume", digest(sample.arrays["image"])] += 1
    (exclusions,) = to.rglob("exclusions.parquet")
    for row in pq.read_table(exclusions).to_pylist():
        if row["level"] in ("case", "series"):
            found["refused", row["reason"]] += 1
    return found


def by_volumes(tree: Path, to: Path) -> Verdicts:
    """The same by ``builder volumes``."""
    found: Verdicts = Counter()
    for row in write_volumes(tree, to).to_pylist():
        if row["file"] is None:
            found["refused", row["reason"]] += 1
            continue
        voxels = np.asarray(nibabel.load(to / row["file"]).dataobj)
        voxels = voxels[..., None] if voxels.ndim == 3 else voxels
        found["volume", digest(voxels.transpose(3, 2, 1, 0))] += 1
    return found


def digest(voxels: Any) -> str:
    array = np.ascontiguousarray(np.asarray(voxels), dtype="<f4")
    return f"{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"


def some(count: int, **values: Any) -> Edit:
    """Sets attributes of the first ``count`` slices; None deletes one."""

    def edit(index: int, dataset: Dataset) -> None:
        for keyword, value in values.items() if index < count else ():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)

    return edit


def lut(index: int, dataset: Dataset) -> None:
    """A Modality LUT that doubles, in the last slices only: the first one looks plain."""
    if index > 3:
        del dataset.RescaleSlope, dataset.RescaleIntercept
        item = Dataset()
        item.LUTDescriptor, item.ModalityLUTType = [4096, 0, 16], "HU"
        item.LUTData = np.arange(0, 8192, 2, dtype="<u2").tobytes()
        dataset.ModalityLUTSequence = Items([item])


REFUSED: dict[str, tuple[Edit, str]] = {
    "no slope in one slice": (some(1, RescaleSlope=None), "inconsistent_pixels"),
    "no intercept in some slices": (some(3, RescaleIntercept=None), "inconsistent_pixels"),
    "an empty intercept": (some(9, RescaleIntercept=""), "inconsistent_pixels"),
    "no rescale in one slice": (some(1, RescaleSlope=None, RescaleIntercept=None), "inconsistent_pixels"),
    "a slope of zero": (some(9, RescaleSlope="0"), "inconsistent_pixels"),
    "a slope beyond float32": (some(9, RescaleSlope="1e38"), "inconsistent_pixels"),
    "high bit below the stored bits": (some(9, HighBit=11), "undecodable_pixels"),
    "high bit zero": (some(1, HighBit=0), "undecodable_pixels"),
    "more stored than allocated": (some(9, BitsStored=20, HighBit=19), "undecodable_pixels"),
    "no stored bits": (some(2, BitsStored=0), "undecodable_pixels"),
    "12 allocated": (some(9, BitsAllocated=12, BitsStored=12, HighBit=11), "undecodable_pixels"),
    "nothing allocated": (some(1, BitsAllocated=None), "undecodable_pixels"),
    "a sign of two": (some(9, PixelRepresentation=2), "undecodable_pixels"),
    "a palette": (some(9, PhotometricInterpretation="PALETTE COLOR"), "inconsistent_pixels"),
}
"""Damage that pydicom writes, as its name: what does it, and why the series is refused."""

RAW: dict[str, tuple[bytes, bytes, str]] = {
    "comma in the slope": (b"\x28\x00\x53\x10DS\x04\x001.0 ", b"\x28\x00\x53\x10DS\x04\x001,0 ", "inconsistent_pixels"),
    "words as slope": (b"\x28\x00\x53\x10DS\x04\x001.0 ", b"\x28\x00\x53\x10DS\x04\x00one ", "inconsistent_pixels"),
    "no number as slope": (b"\x28\x00\x53\x10DS\x04\x001.0 ", b"\x28\x00\x53\x10DS\x04\x00nan ", "inconsistent_pixels"),
    "two slopes": (b"\x28\x00\x53\x10DS\x04\x001.0 ", b"\x28\x00\x53\x10DS\x04\x001\\2 ", "inconsistent_pixels"),
    "text as bits stored": (b"\x28\x00\x01\x01US\x02\x00", b"\x28\x00\x01\x01LO\x02\x00", "undecodable_pixels"),
}
"""Bytes of a file, what replaces them, and why the series is refused."""


def make(folder: Path, edit: Edit | None, encoding: str) -> list[Path]:
    """A CT of a person named as its folder; its pixels are encoded before the header is made to contradict itself."""
    person = f"WAY{zlib.crc32(folder.name.encode())}"
    made = synthetic.ct_series(patient_id=person, slices=6, slope=1.0, encoding=encoding)
    for index, image in enumerate(made.images):
        image.RescaleSlope = "1.0"
        if edit is not None:
            edit(index, image)
    return list(synthetic.write_all(made.images, folder))


def verdicts_of(tree: Path, to: Path) -> dict[str, str]:
    """Folder to ``volume`` or the reason, once both ways gave the same."""
    expected = by_volumes(tree, to / "volumes")
    assert by_build(tree, to / "dataset") == expected
    rows = pq.read_table(to / "volumes" / "verdicts.parquet").to_pylist()
    return {row["folder"]: row["reason"] or "volume" for row in rows}


@pytest.mark.parametrize("encoding", ["explicit", "rle"])
def test_contradictions_are_refused_whichever_way_in(tmp_path: Path, encoding: str) -> None:
    for name, (edit, _) in REFUSED.items():
        make(tmp_path / "tree" / name, edit, encoding)
    make(tmp_path / "tree" / "sound", None, encoding)
    make(tmp_path / "tree" / "a table in later slices", lut, encoding)
    found = verdicts_of(tmp_path / "tree", tmp_path)
    expected = {name: reason for name, (_, reason) in REFUSED.items()}
    assert found == expected | {"sound": "volume", "a table in later slices": "volume"}


@pytest.mark.parametrize("encoding", ["explicit", "rle"])
def test_numbers_that_cannot_be_read_are_refused_whichever_way_in(tmp_path: Path, encoding: str) -> None:
    expected = {"sound": "volume"}
    for name, (found, written, reason) in RAW.items():
        for which, slices in (("of one", (2,)), ("of all", range(6))):
            paths = make(tmp_path / "tree" / f"{name} {which}", None, encoding)
            expected[f"{name} {which}"] = reason
            for path in (paths[k] for k in slices):
                assert path.read_bytes().count(found) == 1
                path.write_bytes(path.read_bytes().replace(found, written))
    for missing in (1, 100, 2047):
        path = make(tmp_path / "tree" / f"cut by {missing}", None, "explicit")[-1]
        path.write_bytes(path.read_bytes()[:-missing])
        expected[f"cut by {missing}"] = "undecodable_pixels"
    make(tmp_path / "tree" / "sound", None, encoding)
    assert verdicts_of(tmp_path / "tree", tmp_path) == expected


@pytest.mark.parametrize("thickness", ["4.5", None])
def test_a_slice_alone_in_its_run_has_the_axis_that_it_states(
    tmp_path: Path, thickness: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = KEEP_ALL.model_copy(update={"gapped": "split"})
    block = volumes_block().replace("}", ", gapped: split}")
    monkeypatch.setattr("tests.endtoend.test_both_ways.volumes_block", lambda: block)
    stated = {"SliceThickness": thickness, "SpacingBetweenSlices": None}
    synthetic.ct_series(tmp_path / "tree", slices=8, missing=(5, 6), attributes=stated)
    rows = write_volumes(tmp_path / "tree", tmp_path / "volumes", options=asked).to_pylist()
    assert [row["reason"] for row in rows] == [None, None if thickness else "unknown_geometry"]
    found = by_build(tmp_path / "tree", tmp_path / "dataset")
    assert sorted(kind for kind, _ in found.elements()) == sorted("volume" if r["file"] else "refused" for r in rows)
    samples = builder.open_dataset(tmp_path / "dataset")
    lengths = {sample.row["slices"]: sample.row["spacing_slice_mm"] for sample in samples}
    assert lengths == ({5: 3.0, 1: 4.5} if thickness else {5: 3.0})


def test_an_image_of_other_channels_costs_nobody_else(tmp_path: Path) -> None:
    for number in range(6):
        options = {"times": 2} if number in (1, 4) else {}
        synthetic.mr_series(tmp_path / "tree" / f"p{number}", patient_id=f"CHAN{number}", slices=3, **options)
    found = by_build(tmp_path / "tree", tmp_path / "dataset")
    assert Counter(kind for kind, _ in found.elements()) == {"volume": 4, "refused": 2}
    (exclusions,) = (tmp_path / "dataset").rglob("exclusions.parquet")
    rows = [row for row in pq.read_table(exclusions).to_pylist() if row["level"] in ("case", "series")]
    assert {(row["stage"], row["reason"]) for row in rows} == {("cohort", "inconsistent_pixels")}
    assert all("found 2 channels, expected 1" in row["detail"] for row in rows)


def cleaned(tree: Path) -> list[str]:
    """Series with values that only de-identification reads: their reasons."""
    frames = enhanced()
    frames.PatientID = "WAY1"
    as_text = synthetic.to_bytes(frames).replace(b"\x28\x00\x08\x00IS", b"\x28\x00\x08\x00LO")
    packed = synthetic.ct_series(patient_id="WAY2", slices=3, encoding="rle").images
    as_numbers = [synthetic.to_bytes(image).replace(b"\x08\x00\x08\x00CS", b"\x08\x00\x08\x00FD") for image in packed]
    for name, content in (("frames", as_text), *((f"packed{n}", data) for n, data in enumerate(as_numbers))):
        (tree / name).write_bytes(content)
    return ["inconsistent_pixels", "unreadable"]


def test_what_only_deidentification_reads_is_refused_by_volumes_too(tmp_path: Path) -> None:
    (tree := tmp_path / "tree").mkdir()
    reasons = cleaned(tree)
    synthetic.ct_series(tree / "sound", patient_id="WAY3", slices=4)
    found = by_build(tree, tmp_path / "dataset")
    assert found == by_volumes(tree, tmp_path / "volumes")
    assert sorted(reason for kind, reason in found.elements() if kind == "refused") == reasons


def test_both_ask_the_same_image_of_a_native_series(tmp_path: Path) -> None:
    """One image is parsed whole, whatever the order of files; its class has a VR that pydicom does not know."""
    for damaged in range(3):
        made = synthetic.ct_series(patient_id=f"ASK{damaged}", slices=3, shape=(16, 16 + damaged))
        (folder := tmp_path / "tree" / f"s{damaged}").mkdir(parents=True)
        for index, image in enumerate(made.images):
            content = synthetic.to_bytes(image)
            if index == damaged:
                content = content.replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x16\x00XX")
            (folder / f"{2 - index}.dcm").write_bytes(content)
    found = by_build(tmp_path / "tree", tmp_path / "dataset")
    assert found == by_volumes(tmp_path / "tree", tmp_path / "volumes")
    assert sum(found.values()) == 3
    assert found["refused", "unreadable"] == 1


@pytest.mark.parametrize(("tag", "verdict"), [(0x00081111, "volume"), (0x00089092, "refused")])
def test_damage_counts_in_sequences_that_deidentification_enters(tmp_path: Path, tag: int, verdict: str) -> None:
    """It removes Referenced Performed Procedure Step Sequence and keeps Referenced Image Evidence Sequence."""
    made = enhanced()
    made.add_new(tag, "OB", b"\1\2\3\4")
    made.PatientID = "WAY1"
    written = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, b"OB")
    content = synthetic.to_bytes(made).replace(written, written[:4] + b"SQ")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "image.dcm").write_bytes(content)
    synthetic.ct_series(tmp_path / "tree" / "sound", patient_id="WAY2", slices=4)
    found = by_build(tmp_path / "tree", tmp_path / "dataset")
    assert found == by_volumes(tmp_path / "tree", tmp_path / "volumes")
    assert sorted(kind for kind, _ in found.elements()) == sorted(["volume", verdict])
