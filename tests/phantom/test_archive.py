"""The archive is what its answer key says: recounted with pydicom, measured with SimpleITK and highdicom."""

import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydantic import TypeAdapter

from builder.errors import SpecError
from builder.extracts import AnyExtract
from builder.phantom import write_archive
from builder.phantom.warehouse import warehouse
from builder.planning.extracts import World
from tests.phantom.test_synthetic import dicom_faults
from tests.synthetic import suv_factor


def every_file(root: Path):
    """(name, bytes) of every file below a folder, those in zips too."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as packed:
                yield from ((f"{path}!{name}", packed.read(name)) for name in packed.namelist())
        else:
            yield str(path), path.read_bytes()


def tree_hash(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def objects(archive):
    """Series UID to datasets, of everything pydicom can read completely."""
    series = defaultdict(dict)
    for name, data in every_file(archive[0] / "archive"):
        if name.endswith((".txt", ".copy")) or "S07/" in name or "/007/" in name or "/00007/" in name:
            continue
        dataset = pydicom.dcmread(io.BytesIO(data))
        series[str(dataset.SeriesInstanceUID)][str(dataset.SOPInstanceUID)] = dataset
    return {uid: list(instances.values()) for uid, instances in series.items()}


def stack(instances):
    """Voxels after rescale and LPS affine of a series, by SimpleITK's series logic-free reader and plain arithmetic."""
    normal = np.cross(*np.array(instances[0].ImageOrientationPatient, float).reshape(2, 3))
    ordered = sorted(instances, key=lambda d: float(np.array(d.ImagePositionPatient, float) @ normal))
    first, last = (np.array(d.ImagePositionPatient, float) for d in (ordered[0], ordered[-1]))
    row, column = np.array(ordered[0].ImageOrientationPatient, float).reshape(2, 3)
    spacing = [float(v) for v in ordered[0].PixelSpacing]
    affine = np.eye(4)
    affine[:3, :3] = np.stack([(last - first) / (len(ordered) - 1), column * spacing[0], row * spacing[1]], axis=1)
    affine[:3, 3] = first
    voxels = np.stack(
        [d.pixel_array * float(d.get("RescaleSlope", 1)) + float(d.get("RescaleIntercept", 0)) for d in ordered]
    )
    return ordered, voxels, affine


def inside(lesion, affine, shape, scale=1.0):
    """(slice, row, column) bool by the answer key's closed form, written out once more."""
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    own = np.array(lesion["axes"]) @ (world - np.array(lesion["centre_mm"])[:, None])
    return (((own / (scale * np.array(lesion["semi_axes_mm"])[:, None])) ** 2).sum(axis=0) <= 1).reshape(shape)


def visits(truth):
    return [visit for person in truth["persons"] for visit in person["visits"]]


def frame(visit, uid):
    return next(f for f in visit["frames"] if f["frame_of_reference_uid"] == uid)


def test_counts_agree_with_an_independent_recount(archive):
    folder, summary, truth = archive
    kinds, seen = Counter(), set()
    for _, data in every_file(folder / "archive"):
        if data[128:132] != b"DICM":
            kinds["not DICOM"] += 1
            continue
        dataset = pydicom.dcmread(io.BytesIO(data))
        pixels = dataset.get("Rows", 0) * dataset.get("Columns", 0) * 2
        compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
        if dataset.SOPInstanceUID in seen:
            kinds["duplicate"] += 1
        elif dataset.Modality in ("CT", "MR", "PT") and not compressed and len(dataset.get("PixelData", b"")) < pixels:
            kinds["truncated"] += 1
        elif dataset.Modality in ("RTSTRUCT", "SEG"):
            kinds[dataset.Modality] += 1
        else:
            localizer = dataset.SeriesDescription == "Localizer"
            kinds[f"{dataset.Modality} {'localizer' if localizer else 'image'}"] += 1
        seen.add(dataset.SOPInstanceUID)
    assert dict(kinds) == truth["files"] == dict(summary.kinds)
    assert summary.files == sum(kinds.values())
    assert truth["files"]["duplicate"] == truth["files"]["truncated"] == truth["files"]["not DICOM"] == 1


def test_every_vendor_modality_and_syntax_is_there(objects):
    found = {(d.Manufacturer, d.Modality) for instances in objects.values() for d in instances}
    assert {m for m, _ in found if m != "Phantom"} == {
        "GE MEDICAL SYSTEMS",
        "SIEMENS",
        "Philips",
        "Philips Medical Systems",
        "TOSHIBA",
        "CANON_MEC",
    }
    assert {modality for _, modality in found} == {"CT", "MR", "PT", "RTSTRUCT", "SEG"}
    syntaxes = {d.file_meta.TransferSyntaxUID.name for instances in objects.values() for d in instances}
    assert len(syntaxes) == 4, syntaxes


def test_one_object_of_each_kind_is_valid(archive, objects, tmp_path):
    kinds = {}
    for instances in objects.values():
        d = instances[0]
        kinds.setdefault(
            (d.Modality, d.get("Manufacturer"), str(d.get("SeriesDescription")), d.file_meta.TransferSyntaxUID), d
        )
    assert len(kinds) >= 15
    for number, dataset in enumerate(kinds.values()):
        path = tmp_path / f"{number}.dcm"
        dataset.save_as(path)
        assert dicom_faults(path) == [], dataset.Modality


def test_images_show_the_lesions_of_the_answer_key(objects, archive):
    checked = Counter()
    for visit in visits(archive[2]):
        for modality, uid in visit["series"].items():
            ordered, voxels, affine = stack(objects[uid])
            factor = suv_factor(ordered[0]) if modality == "PT" else 1.0
            for lesion in frame(visit, ordered[0].FrameOfReferenceUID)["lesions"]:
                core = inside(lesion, affine, voxels.shape, 0.95)
                shell = inside(lesion, affine, voxels.shape, 1.6) & ~inside(lesion, affine, voxels.shape, 1.1)
                if core.sum() < 10:
                    continue
                mean, around = voxels[core].mean() * factor, np.median(voxels[shell]) * factor
                if modality == "CT":
                    assert mean == pytest.approx(lesion["hounsfield"], abs=4 * 20 / np.sqrt(core.sum()) + 0.5)
                elif modality == "PT":
                    assert mean == pytest.approx(lesion["suv"], rel=0.08)
                else:
                    assert mean > 1.2 * around
                assert abs(mean - around) > {"CT": 20, "PT": 0.5, "MR": 50}[modality]
                checked[modality] += 1
    assert min(checked[m] for m in ("CT", "MR", "PT")) >= 2


def test_contours_lie_on_the_lesions_and_enclose_their_volume(objects, archive):
    checked = 0
    for visit in visits(archive[2]):
        for instances in objects.values():
            struct = instances[0]
            if struct.Modality != "RTSTRUCT" or struct.StudyInstanceUID != visit["study_uid"]:
                continue
            target = struct.ReferencedFrameOfReferenceSequence[0]
            images = target.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID
            ordered, _, affine = stack(objects[images])
            normal = np.cross(*np.array(ordered[0].ImageOrientationPatient, float).reshape(2, 3))
            thickness = abs(affine[:3, 0] @ normal)
            rois = {r.ROINumber: r.ROIName for r in struct.StructureSetROISequence}
            drawn = {rois[r.ReferencedROINumber]: r.get("ContourSequence", []) for r in struct.ROIContourSequence}
            for lesion in frame(visit, target.FrameOfReferenceUID)["lesions"]:
                volume = 0.0
                for contour in drawn[lesion["roi"]]:
                    points = np.array(contour.ContourData, float).reshape(-1, 3)
                    own = (points - lesion["centre_mm"]) @ np.array(lesion["axes"]).T / np.array(lesion["semi_axes_mm"])
                    np.testing.assert_allclose((own**2).sum(axis=1), 1.0, atol=1e-4)
                    image = next(
                        d
                        for d in ordered
                        if d.SOPInstanceUID == contour.ContourImageSequence[0].ReferencedSOPInstanceUID
                    )
                    offset = (points - np.array(image.ImagePositionPatient, float)) @ normal
                    assert np.abs(offset).max() < 1e-3
                    edges = np.roll(points, -1, axis=0)
                    volume += abs(np.cross(points, edges).sum(axis=0) @ normal) / 2 * thickness
                # the midpoint rule over a quadratic section: at most h^2 / 2R^2 off, and always within the bound
                shortest = min(lesion["semi_axes_mm"])
                assert volume == pytest.approx(lesion["volume_mm3"], rel=0.01 + (thickness / shortest) ** 2 / 2)
                checked += 1
    assert checked >= 10


def test_segments_hold_the_voxels_whose_centres_are_inside(objects, archive):
    by_study = {visit["study_uid"]: visit for visit in visits(archive[2])}
    checked = 0
    for instances in objects.values():
        if instances[0].Modality != "SEG":
            continue
        seg = highdicom.seg.Segmentation.from_dataset(instances[0])
        source = seg.ReferencedSeriesSequence[0].SeriesInstanceUID
        ordered, _, affine = stack(objects[str(source)])
        labels = {seg.get_segment_description(n).segment_label: n for n in seg.segment_numbers}
        uids = [d.SOPInstanceUID for d in ordered]
        frames = seg.get_pixels_by_source_instance(
            uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        for lesion in frame(by_study[seg.StudyInstanceUID], ordered[0].FrameOfReferenceUID)["lesions"]:
            if lesion["segment"] not in labels:
                continue
            mask = frames[..., list(seg.segment_numbers).index(labels[lesion["segment"]])].astype(bool)
            expected = inside(lesion, affine, mask.shape)
            assert (mask != expected).sum() <= 2  # header decimals may move a centre that lies on the surface
            voxel = abs(np.linalg.det(affine[:3, :3]))
            assert mask.sum() * voxel == pytest.approx(lesion["volume_mm3"], rel=0.35)
            checked += 1
    assert checked >= 5


def test_simpleitk_reads_the_compressed_and_the_implicit_series(archive, objects):
    folder, _, truth = archive
    for person, modality in ((7, "CT"), (8, "CT")):
        visit = truth["persons"][person - 1]["visits"][0]
        instances = objects[visit["series"][modality]]
        ordered, voxels, affine = stack(instances)
        names = {d.SOPInstanceUID: n for n, d in _named(folder, person)}
        image = SimpleITK.ReadImage([names[d.SOPInstanceUID] for d in ordered], SimpleITK.sitkFloat64)
        np.testing.assert_allclose(SimpleITK.GetArrayFromImage(image), voxels)
        np.testing.assert_allclose(image.GetOrigin(), affine[:3, 3], atol=1e-4)


def _named(folder, person):
    for path in sorted((folder / "archive").rglob("*")):
        if f"PH-{person:04d}" in str(path) and path.is_file() and path.suffix != ".zip":
            yield str(path), pydicom.dcmread(path, stop_before_pixels=True)


def test_identities(archive, objects):
    folder, _, truth = archive
    rows = list(csv.DictReader((folder / "aliases.csv").read_text().splitlines()))
    aliases = {row["Alias"]: row["Patient ID"] for row in rows}
    by_study = defaultdict(set)
    for instances in objects.values():
        by_study[instances[0].StudyInstanceUID].add(instances[0].PatientID)
    shared = [ids for ids in by_study.values() if len(ids) > 1]
    assert len(shared) == 1
    aliased = next(p for p in truth["persons"] if set(aliases) & set(p["patient_ids"]))
    assert len(aliased["visits"]) == 2
    assert {i for v in aliased["visits"] for i in v["patient_ids"]} == {*aliases, *aliases.values()}
    expected = {i for p in truth["persons"] for i in p["patient_ids"]}
    assert set().union(*by_study.values()) == expected
    assert len(expected) == len(truth["persons"]) + 2


def test_the_broken_series_lacks_one_slice(archive, objects):
    gaps = []
    for instances in objects.values():
        if instances[0].get("SeriesDescription") == "Recon 2":
            z = sorted(float(d.ImagePositionPatient[2]) for d in instances)
            gaps.append(np.round(np.diff(z) / np.median(np.diff(z)), 3))
    assert len(gaps) == 1
    assert sorted(set(gaps[0])) == [1.0, 2.0]
    assert (gaps[0] == 2.0).sum() == 1


def test_clinical_table_has_its_gaps(archive):
    folder, _, truth = archive
    rows = list(csv.reader((folder / "clinical.csv").read_text().splitlines()))
    ids = [row[0] for row in rows[1:-1]]
    assert len(ids) == truth["clinical"]["rows"] == 10
    assert rows[-1][0].startswith("*")
    assert not any(rows[-1][1:])
    assert "PH-0010" not in ids  # imaged, but not in the table
    assert "PH-9001" in ids  # in the table, but not imaged
    for index, column in enumerate(rows[0][1:-1], start=1):
        missing = sum(row[index] in ("", "--", "N/A", "999") for row in rows[1:-1])
        assert missing == truth["clinical"]["missing_cells"][column]
    assert sum(truth["clinical"]["missing_cells"].values()) >= 3


def test_same_bytes_in_another_process_time_zone_and_hash_seed(tmp_path):
    write_archive(tmp_path / "here", patients=2)
    code = "import sys, pathlib, builder.phantom as p; p.write_archive(pathlib.Path(sys.argv[1]), patients=2)"
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "77"}
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True, env=environment, cwd=root)
    assert tree_hash(tmp_path / "here") == tree_hash(tmp_path / "there")
    write_archive(tmp_path / "other", patients=2, seed=1)
    assert tree_hash(tmp_path / "here") != tree_hash(tmp_path / "other")


def test_canary_is_everywhere_or_nowhere(tmp_path, archive):
    token = "CANARY7QX"
    assert not any(b"CANARY" in data or "CANARY" in name for name, data in every_file(archive[0]))
    write_archive(tmp_path / "c", patients=6, canary=token)
    files = [(n, d) for n, d in every_file(tmp_path / "c" / "archive") if d[128:132] == b"DICM"]
    assert len(files) > 100
    for name, data in files:
        assert all(token in part for part in name.rpartition("archive/")[2].split("!")[-1].split("/")[-1:])
        assert data.count(token.encode()) >= 50
    for dataset in (pydicom.dcmread(io.BytesIO(data)) for _, data in files[::40]):
        for keyword in (
            "PatientName",
            "PatientID",
            "InstitutionName",
            "AccessionNumber",
            "StudyDescription",
            "SeriesDescription",
            "ReferringPhysicianName",
            "PatientComments",
            "StationName",
        ):
            assert token in str(dataset[keyword].value)
        assert any(e.tag.is_private and token in str(e.value) for e in dataset)
    assert token in (tmp_path / "c" / "clinical.csv").read_text()
    table = list(csv.DictReader((tmp_path / "c" / "clinical.csv").read_text().splitlines()))
    assert all(token in row["Patient ID"] and token in row["Notes"] for row in table[:-1])


@pytest.mark.parametrize("arguments", [{"patients": 0}, {"size": "huge"}, {"canary": "no!"}])
def test_bad_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(SpecError):
        write_archive(tmp_path / "x", **arguments)


def test_a_full_folder_is_refused(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(SpecError, match="empty"):
        write_archive(tmp_path)


def test_the_warehouse_is_of_the_archives_persons_and_studies(archive):
    folder, _, truth = archive
    held = warehouse(truth["persons"])
    assert truth["phenotypes"] == {"cancer_within_a_year": dict(held.truth)}
    found = {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "warehouse").rglob("*.*")}
    assert found == held.files
    visits = [visit for person in truth["persons"] for visit in person["visits"]]
    studies = {visit["study_uid"]: visit["date"] for visit in visits}
    for block in ({"kind": "fhir", "resource": "ImagingStudy"}, {"kind": "omop", "table": "image_occurrence"}):
        url = str(folder / "warehouse" / block["kind"])
        table = TypeAdapter(AnyExtract).validate_python({"url": url, **block}).take(World()).table
        pairs = zip(table["study_uid"].to_pylist(), table["date"].to_pylist(), strict=True)
        assert {uid: day.replace("-", "") for uid, day in pairs} == studies
