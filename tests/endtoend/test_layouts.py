"""Archives that are not DICOM through a whole build: each layout gives its images, persons and masks, all counted."""

import io
import json
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import builder
from builder.errors import OutcomeError, SpecError
from builder.library.scan.images import image_lines
from builder.run.pipeline import build, plan
from builder.run.progress import SilentProgress
from builder.run.scan import scan
from tests import synthetic
from tests.endtoend.trees import KEY
from tests.files.writers import STRAIGHT, lps_of, nifti, values, written_by_itk

SPEC = """
name: layouts
license: CC0-1.0
sources: [{{kind: folder, url: "{tree}", layout: {layout}}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}", reviewed: [DX]}}
samples: {{kind: volumes, chunk: [8, 16, 16]}}
splits: {{ratios: {{train: 1.0}}}}
"""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


class Told(SilentProgress):
    """Keeps what a build says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def made(folder: Path, layout: str, more: str = "") -> Any:
    """Build ``folder/tree`` and open the dataset."""
    spec = folder / "spec.yaml"
    spec.write_text(SPEC.format(tree=folder / "tree", layout=layout) + more)
    build(spec, to=folder / "out")
    return builder.open_dataset(folder / "out")


def ledger(folder: Path) -> Counter[tuple[str, str]]:
    """Count the files by status and reason."""
    version = (folder / "out" / "CURRENT").read_text().strip()
    table = pq.read_table(folder / "out" / "versions" / version / "ledger.parquet")
    return Counter(zip(table["status"].to_pylist(), (r or "" for r in table["reason"].to_pylist()), strict=True))


def images(dataset: Any) -> dict[bytes, Any]:
    return {np.ascontiguousarray(s["image"][0]).tobytes(): s for s in dataset}


def test_a_pattern_says_who_and_what_and_voxels_are_nibabels(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    paths = [
        nifti(tree / p / f"v{v}" / f"{p}_{name}.nii.gz", values(seed=len(p) * 10 + v + n), descrip=b"KOWALSKI^JAN")
        for p in ("kowalski", "nguyenvan") for v in (1, 2) for n, name in enumerate(("t1", "t1_post"))
    ]  # fmt: skip
    (tree / "kowalski" / "notes.txt").write_text("nothing")
    dataset = made(
        tmp_path, '{pattern: "{patient}/{visit}/{patient}_{image}.nii.gz", modality: MR}',
        "cohort: {image: \"image == 't1_post'\"}",
    )  # fmt: skip
    found = images(dataset)
    expected = [lps_of(path) for path in paths if path.name.endswith("t1_post.nii.gz")]
    assert set(found) == {np.ascontiguousarray(voxels).tobytes() for voxels, _ in expected}
    row = dataset.table.to_pylist()[0]
    assert row["modality"] == "MR"
    assert len({r["person_key"] for r in dataset.table.to_pylist()}) == 2
    assert ledger(tmp_path) == {("used", ""): 4, ("excluded", "not_selected"): 5}
    released = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()).lower()
    assert b"kowalski" not in released
    assert b"nguyenvan" not in released


def test_two_hospitals_whose_files_both_count_from_one_are_asked_for_their_sites(tmp_path: Path) -> None:
    """Their studies are named after the patients, so that they look like one patient's proves nothing."""
    tree = tmp_path / "tree"
    for n, (hospital, name) in enumerate((h, p) for h in ("east", "west") for p in ("001", "002")):
        nifti(tree / hospital / f"{name}_{hospital}.nii.gz", values(seed=n))
    layout = '{pattern: "{patient}_*.nii.gz", modality: MR}'
    one, two = (f'{{kind: folder, url: "{tree / h}", layout: {layout}}}' for h in ("east", "west"))
    text = SPEC.replace('sources: [{{kind: folder, url: "{tree}", layout: {layout}}}]', "sources: [{tree}]")
    spec = tmp_path / "spec.yaml"
    spec.write_text(text.format(tree=f"{one}, {two}"))
    with pytest.raises(SpecError, match=r"found 2 PatientIDs in several of the sources 0, 1 .* which state no site"):
        plan(spec, to=tmp_path / "out")
    for more, persons in (("persons: {shared_ids: true}", 2), ("", 4)):
        sited = f"{one}, {two}" if more else f"{one[:-1]}, site: east}}, {two[:-1]}, site: west}}"
        spec.write_text(text.format(tree=sited) + more)
        planned = plan(spec, to=tmp_path / "out")
        assert (len(planned.plan.splits), planned.plan.cohort.num_rows) == (persons, 4)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "a.nhdr", "a.hdr"])
def test_every_volume_format_is_an_image_with_its_grid(tmp_path: Path, name: str) -> None:
    path = tmp_path / "tree" / "p1" / name
    if name == "a.hdr":
        path.parent.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Pair(values(), STRAIGHT), path)
    else:
        written_by_itk(path, values().T)
    (sample,) = made(tmp_path, f'{{pattern: "{{patient}}/{name}", modality: CT, values: HU}}')
    expected, affine = lps_of(path)
    assert np.array_equal(sample["image"][0], expected)
    (row,) = builder.open_dataset(tmp_path / "out").table.to_pylist()
    assert np.allclose(np.array(row["affine"]).reshape(4, 4), affine, atol=1e-5)
    assert ledger(tmp_path) == {("used", ""): len([*path.parent.iterdir()])}


def decathlon(root: Path, cases: int, *, absent: int = 0) -> None:
    listed = [f"c_{n:03d}.nii.gz" for n in range(1, cases + absent + 1)]
    for n, name in enumerate(listed[:cases]):
        nifti(root / "imagesTr" / name, values(seed=n))
        nifti(root / "labelsTr" / name, (values(seed=n) % 3).astype("uint8"))
    nifti(root / "imagesTs" / "c_900.nii.gz", values(seed=900))
    document = {
        "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a", "2": "b"},
        "training": [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in listed],
        "test": ["./imagesTs/c_900.nii.gz"],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(document))


MASK = 'labels: {m: {kind: mask, match: "{label}", values: {1: a, 2: b}}}\n'


def test_msd_reads_dataset_json_and_reports_what_is_absent(tmp_path: Path) -> None:
    root = tmp_path / "tree" / "Task99_Test"
    decathlon(root, 3, absent=2)
    (root / "imagesTr" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(40))
    (root / "imagesTr" / "._c_001.nii.gz").write_bytes(b"\0\5\x16\7" + bytes(40))
    (root / "imagesTr" / "c_empty.nii.gz").write_bytes(b"")
    dataset = made(tmp_path, "msd", MASK + "cohort: {labels: optional}\n")
    assert len(dataset) == 4
    for sample in dataset:
        expected = sample["image"][0] % 3
        if sample["m"].any():
            assert np.array_equal(sample["m"][0], expected == 1)
            assert np.array_equal(sample["m"][1], expected == 2)
    assert ledger(tmp_path) == {
        ("used", ""): 4, ("label", ""): 3, ("excluded", "not_selected"): 1,
        ("quarantined", "source_missing"): 2, ("quarantined", "not_dicom"): 3,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["data.tar.gz", "data.zip"])
def test_a_layout_holds_inside_an_archive(tmp_path: Path, name: str) -> None:
    """dataset.json, images and masks are members; the layout's paths count from the folder that the archive lies in."""
    decathlon(tmp_path / "made" / "Task 7", 2, absent=1)
    (tmp_path / "tree").mkdir()
    shutil.make_archive(
        str(tmp_path / "tree" / "data"), {"data.zip": "zip", "data.tar.gz": "gztar"}[name], tmp_path / "made"
    )
    dataset = made(tmp_path, "msd", MASK)
    assert len(dataset) == 2
    for sample in dataset:
        assert np.array_equal(sample["m"][0], sample["image"][0] % 3 == 1)
    assert ledger(tmp_path)["used", ""] == ledger(tmp_path)["label", ""] == 2
    assert ledger(tmp_path)["quarantined", "source_missing"] == 1


def test_nnunet_names_channels_and_holds_out_the_published_test_set(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for folder, case, seed in (("Tr", "c_1", 0), ("Tr", "c_2", 10), ("Ts", "c_3", 20)):
        for channel in range(2):
            nifti(root / f"images{folder}" / f"{case}_{channel:04d}.nii.gz", values(seed=seed + channel))
        nifti(root / f"labels{folder}" / f"{case}.nii.gz", (values(seed=seed) % 3).astype("uint8"))
    facts = {"channel_names": {"0": "T1w", "1": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(facts))
    splits = "{ratios: {train: 1.0}, hold_out: [{split: test, column: split_published, values: [test]}]}"
    text = MASK + "cohort: {image: \"image == 'CT'\"}\n"
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        SPEC.format(tree=root, layout="nnunet").replace("{ratios: {train: 1.0}}", splits) + text
    )  # fmt: skip
    build(spec, to=tmp_path / "out")
    found = images(builder.open_dataset(tmp_path / "out"))
    assert set(found) == {np.ascontiguousarray(values(seed=s).T).tobytes() for s in (1, 11, 21)}
    table = builder.open_dataset(tmp_path / "out").table
    assert Counter(table["split"].to_pylist()) == {"train": 2, "test": 1}
    assert set(table["modality"].to_pylist()) == {"CT"}


def test_bids_tables_and_inherited_sidecars_become_columns(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for sub in ("01", "02"):
        nifti(root / f"sub-{sub}" / "ses-a" / "anat" / f"sub-{sub}_ses-a_T1w.nii.gz", values(seed=int(sub)))
        nifti(root / "derivatives" / "x" / f"sub-{sub}" / "anat" / f"sub-{sub}_desc-l_mask.nii.gz", values() % 2)
    nifti(root / "derivatives" / "x" / "sub-01" / "anat" / "sub-01_T1w.nii.gz", values(seed=7))
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    (root / "T1w.json").write_text('{"Manufacturer": "GE", "EchoTime": 0.004, "MagneticFieldStrength": 3}')
    (root / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.json").write_text('{"Manufacturer": "Siemens"}')
    (root / "participants.tsv").write_text("participant_id\tsex\tage\nsub-01\tF\t34\nsub-02\tmale\tn/a\n")
    dataset = made(
        tmp_path, "bids",
        "cohort: {rules: [{name: field, keep: magnetic_field_strength == 3}]}\n"
        'labels: {m: {kind: mask, match: "derivatives/x/{patient}/anat/{patient}_desc-l_mask.nii.gz", values: {1: a}}}',
    )  # fmt: skip
    rows = sorted(dataset.table.to_pylist(), key=lambda row: row["vendor"])
    assert [(r["vendor"], r["modality"]) for r in rows] == [("GE", "MR"), ("Siemens", "MR")]
    assert ledger(tmp_path)["used", ""] == 2


def test_one_file_a_structure_says_what_an_empty_file_means(tmp_path: Path) -> None:
    root = tmp_path / "tree" / "s1"
    nifti(root / "ct.nii.gz", values())
    nifti(root / "seg" / "liver.nii.gz", (values() % 2).astype("uint8"))
    nifti(root / "seg" / "lobe_left.nii.gz", (values() % 5 == 0).astype("uint8"))
    nifti(root / "seg" / "lobe_right.nii.gz", (values() % 5 == 1).astype("uint8"))
    nifti(root / "seg" / "brain.nii.gz", np.zeros((5, 4, 3), "uint8"))
    layout = '{pattern: "{patient}/ct.nii.gz", modality: CT, values: HU}'
    label = (
        'labels: {{o: {{kind: mask, match: "{{folder}}/seg/{{structure}}.nii.gz", empty_file: {empty}, '
        "structures: {{liver: liver, lung: [lobe_left, lobe_right], brain: brain}}}}}}\n"
    )
    (sample,) = made(tmp_path, layout, label.format(empty="not_annotated"))
    expected = values().T
    assert np.array_equal(sample["o"][0], expected % 2)
    assert np.array_equal(sample["o"][1], (expected % 5 == 0) | (expected % 5 == 1))
    assert not sample["o"][2].any()
    with pytest.raises(SpecError, match="empty_file"):
        made(tmp_path, layout, label.format(empty="absent").replace("empty_file: absent, ", ""))


def test_a_table_of_paths_reports_dead_and_outside_paths(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    nifti(root / "data" / "a.nii.gz", values(seed=1))
    nifti(root / "data" / "a_m.nii.gz", (values(seed=1) % 3).astype("uint8"))
    nifti(tmp_path / "beyond.nii.gz", values(seed=3))
    (root / "lists").mkdir()
    (root / "lists" / "cases.csv").write_text(
        "id,scan,mask\n1,../data/a.nii.gz,../data/a_m.nii.gz\n2,../data/gone.nii.gz,\n3,../../beyond.nii.gz,\n4,,\n"
    )
    layout = "{table: lists/cases.csv, path: scan, patient: id, labels: mask, modality: MR}"
    (sample,) = made(tmp_path, layout, MASK)
    assert np.array_equal(sample["image"][0], values(seed=1).T)
    assert np.array_equal(sample["m"][0], values(seed=1).T % 3 == 1)
    assert ledger(tmp_path) == {
        ("used", ""): 1, ("label", ""): 1, ("quarantined", "source_missing"): 2, ("excluded", "not_selected"): 1,
    }  # fmt: skip
    with pytest.raises(SpecError, match="no column who"):
        made(tmp_path, layout.replace("patient: id", "patient: who"))


def test_pictures_in_a_zip_need_a_reviewer_and_a_scale_to_be_resampled(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 16), dtype=np.uint8)
    (tmp_path / "tree").mkdir()
    with zipfile.ZipFile(tmp_path / "tree" / "all.zip", "w") as archive:
        for n, plane in enumerate(pixels):
            sink = io.BytesIO()
            Image.fromarray(np.dstack([plane] * 3)).save(sink, "PNG")
            archive.writestr(f"img/0000{n}_000.png", sink.getvalue())
            sink = io.BytesIO()
            Image.fromarray((plane > 200).astype(np.uint8) * 255).save(sink, "PNG")
            archive.writestr(f"seg/0000{n}_000.png", sink.getvalue())
    layout = '{pattern: "img/{patient:[0-9]+}_{visit}.png", modality: DX}'
    more = 'volumes: {projection: keep}\nlabels: {m: {kind: mask, match: "seg/{stem}.png", values: {255: opacity}}}\n'
    dataset = made(tmp_path, layout, more)
    assert set(images(dataset)) == {plane[None].tobytes() for plane in pixels}
    for sample in dataset:
        assert np.array_equal(sample["m"][0], sample["image"][0] > 200)
    resample = more + "transforms: [{kind: resample, spacing_mm: [null, 0.3, 0.3]}]\n"
    with pytest.raises(OutcomeError, match="unknown pixel spacing"):
        made(tmp_path, layout, resample)
    assert len(made(tmp_path, layout.replace("DX}", "DX, pixel_spacing_mm: [0.15, 0.15]}"), resample)) == 2


def test_a_picture_is_refused_until_somebody_says_that_it_was_looked_at(tmp_path: Path) -> None:
    """A PNG has no header that could say whether a name is burned in."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16), dtype=np.uint8)
    (tmp_path / "tree").mkdir()
    Image.fromarray(pixels).save(tmp_path / "tree" / "p1.png")
    spec = tmp_path / "spec.yaml"
    text = SPEC.format(tree=tmp_path / "tree", layout='{pattern: "{patient}.png", modality: DX}')
    spec.write_text(text.replace(", reviewed: [DX]", "") + "volumes: {projection: keep}\n")
    with pytest.raises(OutcomeError, match="burned_in_annotation"):
        build(spec, to=tmp_path / "out")


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """A CT as DICOM, and what dcm2niix makes of it, in one tree; with it another NIfTI on the same grid."""
    tree = tmp_path / "tree"
    noise = np.random.default_rng(5).integers(-900, 900, (8, 32, 32)).astype(float)
    synthetic.ct_series(tree / "dicom", patient_id="P1", study="s", series="s", frame="f", voxels=noise)
    (tree / "nii").mkdir()
    command = [dcm2niix.bin, "-z", "y", "-b", "n", "-f", "P1_ct", "-o", str(tree / "nii"), str(tree / "dicom")]
    subprocess.run(command, check=True, capture_output=True)
    twin = nibabel.load(tree / "nii" / "P1_ct.nii.gz")
    other = np.asarray(twin.dataobj)[::-1].astype("int16")
    nibabel.save(nibabel.Nifti1Image(other, twin.affine), tree / "nii" / "P2_ct.nii.gz")
    return tree


@pytest.mark.parametrize("prefer", ["dicom", "files", "keep"])
def test_a_nifti_twin_of_a_dicom_series_is_a_duplicate(twins: Path, tmp_path: Path, prefer: str) -> None:
    layout = '{pattern: "nii/{patient}_{image}.nii.gz", modality: CT, values: HU}'
    dataset = made(tmp_path, layout, f"cohort: {{twins: {prefer}}}\n")
    found = ledger(tmp_path)
    left = {"dicom": 1, "files": 8, "keep": 0}[prefer]
    assert found["duplicate", "duplicate_format"] == left
    assert found["used", ""] == 10 - left
    if prefer == "keep":
        first, second, third = (np.sort(np.asarray(s["image"]).ravel()) for s in dataset)
        assert np.array_equal(first, second)
        assert np.array_equal(first, third)
    assert len(dataset) == (3 if prefer == "keep" else 2)


@pytest.mark.parametrize(("action", "samples"), [("split", 2), ("keep", 1)])
def test_volumes_along_a_fourth_axis_are_time_points(tmp_path: Path, action: str, samples: int) -> None:
    voxels = values((6, 5, 4, 2))
    nifti(tmp_path / "tree" / "p1.nii.gz", voxels)
    layout = '{pattern: "{patient}.nii.gz", modality: MR}'
    dataset = made(tmp_path, layout, f"volumes: {{time_series: {action}}}\n")
    assert len(dataset) == samples
    found = np.concatenate([sample["image"] for sample in dataset])
    expected = {volume.tobytes() for volume in voxels.T}
    assert {np.ascontiguousarray(volume).tobytes() for volume in found} == expected
    assert ledger(tmp_path) == {("used", ""): 1}


def test_files_that_are_no_scalar_volume_are_refused_by_name(tmp_path: Path) -> None:
    """Vectors are no time points, and the plan says what is wrong with a file, as ``builder explain`` does later."""
    tree = tmp_path / "tree"
    nifti(tree / "plain.nii", values((6, 5, 4)))
    nifti(tree / "vector.nii", values((6, 5, 4, 1, 2)), intent_code=1007)
    nifti(tree / "both.nii", values((6, 5, 4, 3, 2)))
    spec = tmp_path / "spec.yaml"
    layout = '{pattern: "{patient}.nii", modality: MR}'
    spec.write_text(SPEC.format(tree=tree, layout=layout) + "volumes: {time_series: split}\n")
    told = Told()
    build(spec, to=tmp_path / "out", progress=told)
    assert len(builder.open_dataset(tmp_path / "out")) == 1
    said = "\n".join(told.lines)
    both = "found a NIfTI of shape (6, 5, 4, 3, 2), time points (axis 4) of vectors (axis 5)"
    assert f"1 NIfTI file set aside: {both}" in said
    assert "no source reads" not in said
    home = tmp_path / "out" / "versions" / (tmp_path / "out" / "CURRENT").read_text().strip()
    left = {(row["reason"], row["detail"]) for row in pq.read_table(home / "exclusions.parquet").to_pylist()}
    assert "not_an_image" in {reason for reason, _ in left}
    assert ("unreadable", f"{both}, expected one number a voxel") in left
    shown = {line.strip() for line in image_lines(scan([str(tree)]).image_files, "")}
    assert "1 nifti: 2 values a voxel (vector) of 4 x 5 x 6 i2, 2.5 x 0.8 x 1.2 mm, such as vector.nii" in shown
