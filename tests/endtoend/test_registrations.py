"""Images of other frames of reference: refused without a registration, and placed to 0.1 mm with one."""

import shutil
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK

import builder
from builder.errors import BuilderError
from builder.model.canonical import canonical_json
from builder.model.keyed import Key
from builder.model.parquet import read_parquet
from builder.phantom import write_sets
from builder.plan import recipe
from builder.planning.registrations import Placement
from builder.run.pipeline import build, plan
from builder.spec import DatasetSpec
from tests.endtoend.test_image_sets import blobs, spec
from tests.endtoend.trees import KEY
from tests.synthetic import box_contours, ct_series, mr_series, registration, rtstruct, uid

CT, MR = "modality == 'CT'", "modality == 'MR'"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


def rigid(angles: tuple[float, ...] = (0.05, -0.04, 0.2), shift: tuple[float, ...] = (6.0, -11.0, 4.5)) -> np.ndarray:
    """A turn and a shift as ITK makes them."""
    transform = SimpleITK.Euler3DTransform((0, 0, 0), *angles, shift)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.reshape(transform.GetMatrix(), (3, 3)), shift
    return matrix


def turned(image: pydicom.Dataset, matrix: np.ndarray, frame: str) -> pydicom.Dataset:
    """The image as a scanner with another frame of reference would have placed it: ``matrix`` leads back."""
    away = np.linalg.inv(matrix)
    first = away @ [*map(float, image.ImagePositionPatient), 1.0]
    image.ImagePositionPatient = [f"{v:.9g}"[:16] for v in first[:3]]
    across, down = np.reshape([float(v) for v in image.ImageOrientationPatient], (2, 3))
    image.ImageOrientationPatient = [f"{v:.9g}"[:16] for v in (*(away[:3, :3] @ across), *(away[:3, :3] @ down))]
    image.FrameOfReferenceUID = frame
    return image


def person(folder: Path, *, matrix: np.ndarray | None, name: str = "P1") -> tuple[Any, str]:
    """A CT and an MR of one anatomy; with a matrix the MR has a frame of its own. Return the CT and that frame."""
    where = folder / name
    made = blobs((9, 32, 32), (3.0, 1.0, 1.0), (-16.0, -16.0, -12.0))
    ct = ct_series(where, patient_id=name, origin=(-16.0, -16.0, -12.0), slices=9, voxels=made - 300)
    frame = uid("another", name)
    origin = (-15.0, -17.0, -13.0)
    voxels = blobs((12, 24, 24), (2.5, 1.5, 1.5), origin)
    options: dict[str, Any] = {"edit": lambda _, image: turned(image, matrix, frame)} if matrix is not None else {}
    mr = mr_series(
        where, patient_id=name, series="2", slices=12, shape=(24, 24), spacing=(2.5, 1.5, 1.5), origin=origin,
        voxels=voxels, **options,
    )  # fmt: skip
    if matrix is not None:
        # the structure is drawn where the scanner saw it
        mr.geometry.affine.setflags(write=True)
        mr.geometry.affine[...] = np.linalg.inv(matrix) @ mr.geometry.affine
        object.__setattr__(mr.geometry, "frame_of_reference", frame)
    rtstruct(mr, {"GTV": box_contours(mr.geometry, (3, 6, 6), (8, 14, 15))}, directory=where)
    return ct, frame


def registered(folder: Path, aligned: str = "registration", **blocks: Any) -> DatasetSpec:
    images = {"ct": {"select": CT}, "mr": {"select": MR, "aligned": aligned, **blocks.pop("image", {})}}
    labels = {"tumor": {"kind": "rtstruct", "on": "mr", "roi": {"tumor": "GTV"}}}
    return spec(folder, cohort={"case": "study", "images": images}, labels=labels, volumes={}, **blocks)


def the_sample(spec: DatasetSpec, to: Path) -> Any:
    build(spec, to=to)
    (sample,) = list(builder.open_dataset(to))
    return sample


def test_a_rigidly_moved_copy_is_refused_alone_and_placed_by_its_registration_object(tmp_path: Path):
    person(tmp_path / "as", matrix=None)
    expected = the_sample(registered(tmp_path / "as", "frame"), tmp_path / "as-it-was")
    matrix = rigid()
    ct, frame = person(tmp_path / "in", matrix=matrix)
    for aligned in ("frame", "registration"):
        found = plan(registered(tmp_path / "in", aligned), to=tmp_path / "none").plan.cohort.to_pylist()
        assert [r["reason"] for r in found if r["modality"] == "CT"] == ["image_not_aligned"]
    registration(ct.geometry.frame_of_reference, {frame: matrix}, made=ct, directory=tmp_path / "in")
    sample = the_sample(registered(tmp_path / "in"), tmp_path / "data")
    assert np.abs(sample["image"] - expected["image"]).max() <= 1.01  # a number was rounded the other way
    assert np.mean(sample["image"] != expected["image"]) < 0.02
    assert np.mean(sample["tumor"] != expected["tumor"]) < 0.002
    assert "mr/registered" in sample.row["notes"]
    dataset = builder.open_dataset(tmp_path / "data")
    ledger = (tmp_path / "data" / "versions" / dataset.manifest.version / "ledger.parquet").read_bytes()
    statuses = Counter(read_parquet(ledger).column("status").to_pylist())
    assert statuses == {"used": 9 + 12, "label": 2}
    off = matrix.copy()
    off[0, 3] += 0.2
    registration(ct.geometry.frame_of_reference, {frame: off}, made=ct, directory=tmp_path / "in")  # the same file
    moved = the_sample(registered(tmp_path / "in"), tmp_path / "off")
    assert np.mean(moved["image"] != expected["image"]) > 0.02  # 0.2 mm are seen, so 0.1 mm were not exceeded


def test_a_registrar_finds_where_the_image_lies_and_says_how_far_it_moved(tmp_path: Path):
    person(tmp_path / "as", matrix=None)
    expected = the_sample(registered(tmp_path / "as", "frame"), tmp_path / "as-it-was")
    person(tmp_path / "in", matrix=rigid((0.02, -0.02, 0.08), (3.0, -4.0, 2.5)))
    found = registered(tmp_path / "in", image={"registrar": {"kind": "rigid", "spacing_mm": 1}})
    sample = the_sample(found, tmp_path / "data")
    both, either = (operate(sample["tumor"], expected["tumor"]).sum() for operate in (np.logical_and, np.logical_or))
    assert both / either > 0.9
    notes = dict(note.partition("=")[::2] for note in sample.row["notes"] if note.startswith("mr/"))
    assert notes["mr/registered"] == "rigid"
    assert 3 < float(notes["mr/registered_mm"]) < 8
    assert 3 < float(notes["mr/registered_degrees"]) < 8
    assert float(notes["mr/registered_gain"]) > 1
    options = {"kind": "rigid", "spacing_mm": 1, "most_mm": 40}
    again = registered(tmp_path / "in", image={"registrar": options})
    names = [recipe(s, key=Key(bytes.fromhex(KEY))) for s in (found, again)]
    assert names[0] != names[1]
    assert [f"SimpleITK=={version('SimpleITK')}"] in names[0]["versions"]
    few = registered(tmp_path / "in", image={"registrar": options | {"most_mm": 1}})
    with pytest.raises(BuilderError, match="image_not_aligned"):
        build(few, to=tmp_path / "none")


def test_the_object_may_register_the_reference_to_the_other_image(tmp_path: Path):
    matrix = rigid()
    ct, frame = person(tmp_path / "in", matrix=matrix)
    own = ct.geometry.frame_of_reference
    registration(frame, {own: np.linalg.inv(matrix), frame: np.eye(4)}, made=ct, directory=tmp_path / "in")
    one = plan(registered(tmp_path / "in"), to=tmp_path / "one").plan
    (case,) = one.cases
    assert np.allclose(np.reshape(case.partners[0].matrix, (4, 4)), matrix, atol=1e-4)


@pytest.mark.parametrize("kind", ["contradiction", "other frames", "scaled", "another person"])
def test_objects_that_do_not_place_the_image_are_refused(tmp_path: Path, kind: str):
    matrix = rigid()
    ct, frame = person(tmp_path / "in", matrix=matrix)
    own = ct.geometry.frame_of_reference
    expected = "no Spatial Registration object"
    if kind == "contradiction":
        registration(own, {frame: matrix}, made=ct, directory=tmp_path / "in")
        other = rigid(shift=(6.0, -11.0, 9.5))
        registration(own, {frame: other, uid("more"): np.eye(4)}, made=ct, directory=tmp_path / "in", name="reg2")
        expected = "found 2 registrations of the same frames that contradict each other"
    elif kind == "other frames":
        registration(own, {uid("more"): matrix}, made=ct, directory=tmp_path / "in")
    elif kind == "scaled":
        scaled = np.diag([1.2, 1.2, 1.2, 1.0])
        registration(own, {frame: matrix @ scaled}, made=ct, directory=tmp_path / "in")
        expected = "scales, shears or mirrors"
    else:
        stranger = ct_series(patient_id="P9")
        registration(own, {frame: matrix}, made=stranger, directory=tmp_path / "in")
    cohort = plan(registered(tmp_path / "in"), to=tmp_path / "data").plan.cohort.to_pylist()
    (row,) = [r for r in cohort if r["modality"] == "CT"]
    assert row["reason"] == "image_not_aligned"
    assert expected in row["detail"]


def test_itk_transform_files_place_images_and_their_folder_stays_private(tmp_path: Path):
    matrix = rigid()
    person(tmp_path / "in", matrix=matrix)
    person(tmp_path / "in", matrix=matrix, name="P2")
    fixed_to_moving = np.linalg.inv(matrix)
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(fixed_to_moving[:3, :3].ravel())
    transform.SetTranslation(fixed_to_moving[:3, 3])
    (tmp_path / "moves").mkdir()
    SimpleITK.WriteTransform(transform, str(tmp_path / "moves" / "P1.tfm"))
    files = {"transform_files": str(tmp_path / "moves" / "{patient}.tfm")}
    made = registered(tmp_path / "in", image=files)
    rows = plan(made, to=tmp_path / "plan").plan.cohort.to_pylist()
    details = [r["detail"] for r in rows if r["reason"] == "image_not_aligned"]
    assert details == ["image mr: found no file of the name that transform_files gives, expected one"]
    sample = the_sample(made, tmp_path / "data")
    person(tmp_path / "as", matrix=None)
    expected = the_sample(registered(tmp_path / "as", "frame"), tmp_path / "as-it-was")
    assert np.abs(sample["image"] - expected["image"]).max() <= 1.01
    assert b"moves" not in canonical_json(builder.open_dataset(tmp_path / "data").manifest.spec)


def test_transform_files_need_a_person_and_a_registration(tmp_path: Path):
    with pytest.raises(ValueError, match=r"found neither \{patient\} nor \{series\}"):
        registered(tmp_path, image={"transform_files": "x.tfm"})
    with pytest.raises(ValueError, match="transform_files with aligned: frame"):
        registered(tmp_path, "frame", image={"transform_files": "{patient}.tfm"})
    with pytest.raises(ValueError, match="visits: found registrar with aligned: frame, expected aligned: registration"):
        brains(tmp_path, aligned="frame", registrar={"kind": "rigid"})
    with pytest.raises(ValueError, match=r"visits.transform_files: found neither \{patient\} nor \{series\}"):
        brains(tmp_path, aligned="registration", transform_files="{visit}.tfm")
    with pytest.raises(ValueError, match="visits: found registrar with transform_files"):
        brains(tmp_path, aligned="registration", transform_files="{patient}.tfm", registrar={"kind": "rigid"})


@pytest.fixture(scope="module")
def moved_visit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, pydicom.Dataset]:
    """A brain of the phantom as it is, in ``as``, and with its second visit moved, in ``in``; and by which matrix.

    Also returns a slice of the T1 of that visit, as it was.
    """
    folder = tmp_path_factory.mktemp("visits")
    write_sets(folder / "as", patients=1, visits=2)
    home, matrix = folder / "as" / "brain" / "PHB-001", rigid((0.03, -0.02, 0.06), (5.0, -6.0, 4.0))
    for path in sorted(home.rglob("*.dcm")):
        image = pydicom.dcmread(path)
        if image.Modality == "MR":
            target = folder / "in" / path.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            frame = str(image.FrameOfReferenceUID)
            (turned(image, matrix, frame) if path.parent.name == "2" else image).save_as(target)
    return folder, matrix, pydicom.dcmread(home / "2" / "t1-001.dcm")


def brains(folder: Path, **visits: Any) -> DatasetSpec:
    """Two visits on the grid of the first one's T1; the T1c and the FLAIR lie where the T1 of their visit does."""
    words = {"t1": "T1 SE AX", "t1c": "T1 SE AX POST GD", "flair": "FLAIR AX"}
    images: dict[str, Any] = {name: {"select": f"series_description == '{text}'"} for name, text in words.items()}
    images["t1c"]["aligned"] = "grid"
    cohort = {"case": "person", "visits": {"names": ["before", "after"], **visits}, "images": images}
    steps = [{"kind": "resample", "spacing_mm": [5.0, 3.5, 3.5]}, {"kind": "intensity", "dtype": "float32"}]
    return spec(folder, cohort=cohort, labels={}, volumes={}, transforms=steps)


@pytest.fixture(scope="module")
def unmoved(moved_visit: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        home = moved_visit[0] / "as" / "brain" / "PHB-001"
        return the_sample(brains(home, aligned="assumed"), tmp_path_factory.mktemp("unmoved") / "data")


def test_a_transform_file_places_a_whole_visit_by_its_reference(moved_visit: Any, unmoved: Any, tmp_path: Path):
    folder, matrix, first = moved_visit
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(np.linalg.inv(matrix)[:3, :3].ravel())
    transform.SetTranslation(np.linalg.inv(matrix)[:3, 3])
    SimpleITK.WriteTransform(transform, str(tmp_path / f"{first.SeriesInstanceUID}.h5"))
    files = str(tmp_path / "{series}.h5")
    sample = the_sample(brains(folder / "in", aligned="registration", transform_files=files), tmp_path / "data")
    assert np.abs(sample["image"] - unmoved["image"]).max() <= 1.01
    assert np.mean(sample["image"] != unmoved["image"]) < 0.02
    placed = {f"after.{name}/registered" for name in ("t1", "t1c", "flair")}
    assert {note for note in sample.row["notes"] if "registered" in note} == placed
    told = canonical_json(builder.open_dataset(tmp_path / "data").manifest.spec)
    assert b"transform_files" in told
    assert str(tmp_path).encode() not in told


def test_an_image_is_placed_in_its_visit_first_and_then_with_it():
    own, visit = rigid((0.1, 0, 0), (5.0, 0, 0)), rigid((0, 0.3, 0.2), (0, -7.0, 2.0))
    found = Placement(tuple(own.ravel()), (4, 2)).then(Placement(tuple(visit.ravel()), (2, 9)))
    assert np.allclose(np.reshape(found.matrix, (4, 4)), visit @ own)
    assert found.rows == (4, 2, 9)


def test_a_registration_object_places_all_images_of_a_visit(moved_visit: Any, tmp_path: Path):
    folder, matrix, first = moved_visit
    index = pydicom.dcmread(next((folder / "in" / "1").glob("t1-*")), stop_before_pixels=True)
    made = type("Made", (), {"images": [index]})
    frames = {str(first.FrameOfReferenceUID): matrix}
    where = shutil.copytree(folder / "in", tmp_path / "in")
    alone = plan(brains(where, aligned="registration"), to=tmp_path / "none").plan
    details = {r["detail"] for r in alone.cohort.to_pylist() if r["rule"] == "visits"}
    assert not alone.cases
    assert any("image after.t1: found two frames of reference and no Spatial" in (d or "") for d in details)
    registration(str(index.FrameOfReferenceUID), frames, made=made, directory=where)  # type: ignore[arg-type]
    (case,) = plan(brains(where, aligned="registration"), to=tmp_path / "data").plan.cases
    for partner in case.partners:
        if partner.name.startswith("after."):
            assert np.allclose(np.reshape(partner.matrix, (4, 4)), matrix, atol=1e-6)
        else:
            assert partner.matrix == ()


def test_a_registrar_places_a_whole_visit_by_its_reference(moved_visit: Any, unmoved: Any, tmp_path: Path):
    registrar = {"kind": "rigid", "spacing_mm": 3}
    made = brains(moved_visit[0] / "in", aligned="registration", registrar=registrar)
    sample = the_sample(made, tmp_path / "data")
    for found, expected in zip(sample["image"][3:], unmoved["image"][3:], strict=True):
        astray = np.abs(np.roll(expected, 1, axis=2) - expected).mean()  # by one voxel of 3.5 mm
        assert np.abs(found - expected).mean() < 0.2 * astray
    notes = dict(note.partition("=")[::2] for note in sample.row["notes"] if "registered" in note)
    assert notes["after.t1/registered"] == "rigid"
    assert notes["after.flair/registered"] == notes["after.t1c/registered"] == ""
    assert float(notes["after.t1/registered_degrees"]) == pytest.approx(4.0, abs=0.5)
    assert not any("misaligned" in finding for finding in sample.row["findings"])
    names = [recipe(s, key=Key(bytes.fromhex(KEY))) for s in (made, brains(moved_visit[0], aligned="registration"))]
    assert [f"SimpleITK=={version('SimpleITK')}"] in names[0]["versions"]
    assert names[0] != names[1]


def test_sarcoma_mr_is_refused_in_another_frame_and_placed_with_a_registration_object(corpus, tmp_path: Path):
    """The issue's own case: the MR of a sarcoma patient, moved rigidly, on the grid of the CT."""
    home = corpus("sts") / "sts_cohort"
    source = next(p for p in sorted(home.iterdir()) if (p / "CT").is_dir() and any(p.glob("MR*")))
    matrix, where = rigid(), tmp_path / "in"
    for folder, moved in ((source / "CT" / "image", None), (next(source.glob("MR*")) / "image", matrix)):
        for path in sorted(folder.glob("*.dcm")) or sorted(folder.iterdir()):
            image = pydicom.dcmread(path)
            for name, change in (("as", None), ("in", moved)):
                target = tmp_path / name / folder.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                turned(image, change, uid("moved")).save_as(target) if change is not None else image.save_as(target)
    images = {
        "ct": {"select": CT},
        "mr": {"select": MR, "aligned": "registration", "within_days": 90},
    }
    steps = [{"kind": "resample", "spacing_mm": [4.0, 3.0, 3.0]}, {"kind": "intensity", "dtype": "float32"}]
    blocks: dict[str, Any] = {"labels": {}, "volumes": {}, "transforms": steps}
    made = spec(where, cohort={"case": "person", "images": images}, **blocks)
    (reason,) = {r["reason"] for r in plan(made, to=tmp_path / "none").plan.cohort.to_pylist() if r["modality"] == "CT"}
    assert reason == "image_not_aligned"
    first = pydicom.dcmread(next((where / "CT").iterdir()), stop_before_pixels=True)
    ct = type("Made", (), {"images": [first]})
    registration(str(first.FrameOfReferenceUID), {uid("moved"): matrix}, made=ct, directory=where)  # type: ignore[arg-type]
    sample = the_sample(made, tmp_path / "data")
    images["mr"] = {"select": MR, "within_days": 90}
    alone = spec(tmp_path / "as", cohort={"case": "person", "images": images}, **blocks)
    expected = the_sample(alone, tmp_path / "was")
    assert np.ptp(expected["image"][1]) > 100
    assert np.abs(sample["image"][1] - expected["image"][1]).max() <= 0.01 * float(np.ptp(expected["image"][1]))
