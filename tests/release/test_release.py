"""A release of a small archive: what leaves, what is said, and whether it is the same whatever happens."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from highdicom.seg import segread
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from builder.deid.uids import is_registered
from builder.errors import LayoutError, PrivacyError, SpecError
from builder.phantom.headers import Subject
from builder.release import unit
from builder.release.science import SCIENCE
from builder.run.pipeline import build
from builder.run.release import release
from builder.storage import CRASH_VARIABLE
from tests.conftest import ROOT
from tests.endtoend.trees import KEY, command, environment, tree
from tests.synthetic import ct_series, pt_series, rtstruct, seg, uid

CAMPAIGN = date(2016, 3, 9)
SCANS = [date(2011, 3, 5), date(2012, 8, 19), date(2013, 1, 30)]
LATER = 41
"""Days from the first to the second visit of each person."""
NAMES = ["Quentlin^Orsolya", "Vandermolen^Aurelio", "Tasmajdanski^Ilse"]
SPEC = """
name: released
license: CC0-1.0
sources: [{{kind: folder, url: "{archive}"}}]
cohort: {{image: "modality in ['CT', 'PT']", labels: optional}}
labels: {{tumor: {{kind: rtstruct, roi: {{lesion: "(?i)gtv"}}}}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}", retain: [{retain}]}}
samples: {{kind: volumes}}
shards: {{fields: {{image: {{dtype: float32}}}}}}
splits: {{ratios: {{train: 0.34, validation: 0.33, test: 0.33}}, tested: {{labels: any}}}}
leaks: {{pixels: "off"}}
report: {{thumbnails: 0}}
release: {{remove: [{remove}]}}
"""
FROM_RELEASE = """
clinical:
  - url: "{archive}/../splits.csv"
    person_id: patient_id
    columns: {{released_split: {{from: split, type: category, levels: [train, validation, test]}}}}
"""
ALL = pytest.mark.skipif("BUILDER_RELEASES" not in os.environ, reason="long: make releases")
POINTS = (
    *("release.object:1", "release.object:17", "release.receipt:1", "release.receipt:3", "release.manifest:1"),
    *("write.before:40", "write.tmp:55", "write.fsynced:61", "write.renamed:70", "write.renamed:75"),
)
STORAGE = "1.2.840.10008.5.1.4.1.1."


def other(made: Any, sop_class: str, modality: str, name: str, **values: Any) -> Dataset:
    """An object of the stack's study that says little but what it refers to."""
    first = made.images[0]
    dataset = Dataset()
    dataset.file_meta = first.file_meta.copy()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        dataset[keyword] = first[keyword]
    dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "10", "77", "", ""
    dataset.SOPClassUID, dataset.Modality = STORAGE + sop_class, modality
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(name, made.series_uid)
    dataset.SeriesInstanceUID, dataset.SeriesNumber = uid(name, "series", made.series_uid), 20
    dataset.InstanceNumber, dataset.Manufacturer = 1, "ACME"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def write_person(folder: Path, number: int) -> None:
    """Two visits: CT with structures of a campaign, SEG, dose, report, key object, presentation state; then PET."""
    who = Subject(f"HOSP-{number}-471{number}9X", NAMES[number], birth_date=f"19{50 + number}0203")
    made = ct_series(
        folder / "ct", slices=4, shape=(16, 16), patient_id=who.patient_id, subject=who, date=f"{SCANS[number]:%Y%m%d}",
        attributes={"InstitutionName": "Klinikum Ostwestfalen", "StudyID": f"88{number}1"},
    )  # fmt: skip
    pt_series(
        folder / "pt", slices=4, shape=(16, 16), patient_id=who.patient_id, subject=who, study="2",
        date=f"{SCANS[number] + timedelta(days=LATER):%Y%m%d}",
    )  # fmt: skip
    square = np.array([(x, y, -9.0) for x, y in ((-8.0, -8.0), (8.0, -8.0), (8.0, 8.0), (-8.0, 8.0))])
    structures = rtstruct(made, {"GTV": [square]})
    structures.StructureSetDate = structures.SeriesDate = f"{CAMPAIGN:%Y%m%d}"
    structures.save_as(folder / "structures.dcm", enforce_file_format=True)
    mask = np.zeros((4, 16, 16), bool)
    mask[1:3, 4:9, 5:11] = True
    seg(made, {"Liver": mask}, directory=folder)
    there = item(
        ReferencedSOPClassUID=made.images[0].SOPClassUID, ReferencedSOPInstanceUID=made.images[0].SOPInstanceUID
    )
    absent = item(ReferencedSOPClassUID=there.ReferencedSOPClassUID, ReferencedSOPInstanceUID=uid("absent", number))
    series = item(SeriesInstanceUID=made.series_uid, ReferencedSOPSequence=Sequence([there, absent]))
    evidence = Sequence(
        [item(StudyInstanceUID=made.images[0].StudyInstanceUID, ReferencedSeriesSequence=Sequence([series]))]
    )
    of_series = item(SeriesInstanceUID=made.series_uid, ReferencedImageSequence=Sequence([there, absent]))
    objects = {
        "dose": other(made, "481.2", "RTDOSE", "dose", DoseUnits="GY", ReferencedRTPlanSequence=Sequence([
            item(ReferencedSOPClassUID=STORAGE + "481.5", ReferencedSOPInstanceUID=uid("plan", made.series_uid))])),
        "plan": other(made, "481.5", "RTPLAN", "plan", RTPlanLabel="plan", RTPlanGeometry="PATIENT"),
        "report": other(made, "88.11", "SR", "sr", CurrentRequestedProcedureEvidenceSequence=evidence,
                        CompletionFlag="COMPLETE", VerificationFlag="UNVERIFIED", ValueType="CONTAINER"),
        "key": other(made, "88.59", "KO", "ko", CurrentRequestedProcedureEvidenceSequence=evidence),
        "state": other(made, "11.1", "PR", "pr", ReferencedSeriesSequence=Sequence([of_series]), ContentLabel="A"),
    }  # fmt: skip
    for name, dataset in objects.items():
        dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True, implicit_vr=False, little_endian=True)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "archive"
    for number in range(len(SCANS)):
        write_person(folder / str(number), number)
    return folder


@pytest.fixture(scope="module")
def make(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Release the archive into a new folder."""

    def made(name: str, *, retain: str = "", spec: str = "", key: str = KEY) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "spec.yaml").write_text(spec or SPEC.format(archive=archive, retain=retain, remove=""))
        patch.setenv("BUILDER_KEY", key)
        release(folder / "spec.yaml", to=folder / "out")
        return folder / "out"

    with pytest.MonkeyPatch.context() as patch:
        yield made


@pytest.fixture(scope="module")
def out(make: Callable[..., Path]) -> Path:
    return make("released")


def objects_of(out: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(out.rglob("*.dcm"))]


def sources_of(archive: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(archive.rglob("*.dcm"))]


def every(dataset: Dataset, keyword: str) -> Iterator[Any]:
    yield from (e.value for e in dataset.iterall() if e.keyword == keyword)


def test_every_kind_leaves_and_every_file_is_counted(out: Path, archive: Path) -> None:
    with (out / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    files = [*archive.rglob("*.dcm")]
    assert len(rows) == len([*out.rglob("*.dcm")]) == len(files)
    assert {row["kind"] for row in rows} == {"image", "SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "KO", "PR"}
    ledger = pq.read_table(out / "ledger.parquet").to_pylist()
    assert len(ledger) == len(files)
    assert {row["status"] for row in ledger} == {"used", "label"}
    told = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, capture_output=True, check=False)
    assert told.returncode == 0, told.stdout


def test_no_identifier_is_anywhere(out: Path, archive: Path) -> None:
    secrets = {"quentlin", "orsolya", "vandermolen", "aurelio", "tasmajdanski", "ostwestfalen", "hosp-"}
    for source in sources_of(archive):
        for element in source.iterall():
            if element.VR == "UI" and element.value and not is_registered(str(element.value)):
                secrets.add(str(element.value))
    secrets |= {f"{day + timedelta(days=d):%Y%m%d}" for day in SCANS for d in (0, LATER)} | {f"{CAMPAIGN:%Y%m%d}"}
    for path in out.rglob("*"):
        if path.is_file():
            said = path.read_bytes().lower() + str(path).encode()
            assert [secret for secret in secrets if secret.encode() in said] == [], path


def test_an_object_states_who_and_what_was_done(out: Path) -> None:
    expected = {"113100", "113103", "113104", "113105", "113107", "113108", "113111"}
    for clean in objects_of(out):
        assert clean.PatientID == clean.PatientName
        assert len(clean.PatientID) == 26
        assert clean.PatientIdentityRemoved == "YES"
        stated = clean.DeidentificationMethodCodeSequence
        assert {code.CodeValue for code in stated} == expected
        assert all(code.CodeMeaning == getattr(codes.CID7050, _name(code)).meaning for code in stated)
        assert "PatientAge" not in clean
        assert not clean.get("PatientSex")
        assert not clean.get("PatientBirthDate")
        assert clean.preamble == b"\0" * 128
        assert clean.file_meta.MediaStorageSOPInstanceUID == clean.SOPInstanceUID
        assert {e.keyword for e in clean.file_meta} <= {
            "FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID",
            "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID", "ImplementationVersionName",
        }  # fmt: skip


def _name(code: Dataset) -> str:
    return next(n for n in dir(codes.CID7050) if getattr(codes.CID7050, n).value == code.CodeValue)


def test_pixels_keep_their_bytes(out: Path, archive: Path) -> None:
    pixels = sorted(s.PixelData for s in sources_of(archive) if "PixelData" in s)
    assert sorted(c.PixelData for c in objects_of(out) if "PixelData" in c) == pixels


def test_every_reference_points_to_what_leaves(out: Path) -> None:
    objects = objects_of(out)
    known = {str(o.SOPInstanceUID) for o in objects} | {str(o.StudyInstanceUID) for o in objects}
    found = [str(uid) for o in objects for uid in every(o, "ReferencedSOPInstanceUID")]
    assert set(found) <= known
    assert len(found) > 30
    with (out / "objects.csv").open() as file:
        removed = {row["kind"]: int(row["references_removed"]) for row in csv.DictReader(file)}
    assert {kind for kind, count in removed.items() if count} == {"SR", "KO", "PR"}


def test_a_mask_and_a_dose_find_their_images(out: Path) -> None:
    for mask in (path for path in out.rglob("*.dcm") if dcmread(path).Modality == "SEG"):
        read = segread(mask)
        images = {str(o.SOPInstanceUID) for o in objects_of(out) if o.Modality == "CT"}
        assert {
            str(i.ReferencedSOPInstanceUID) for i in read.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        } <= images
    plans = {str(o.SOPInstanceUID) for o in objects_of(out) if o.Modality == "RTPLAN"}
    doses = {
        str(uid) for o in objects_of(out) if o.Modality == "RTDOSE" for uid in every(o, "ReferencedSOPInstanceUID")
    }
    assert doses == plans


def test_dciodvfy_finds_no_new_error(out: Path, archive: Path) -> None:
    tool = Path(sys.executable).parent / "dciodvfy"

    def errors(path: Path) -> set[str]:
        said = subprocess.run([tool, path], capture_output=True, text=True, check=False, errors="replace")
        return {line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")}

    one = {dcmread(path, stop_before_pixels=True).SOPClassUID: path for path in (archive / "0").rglob("*.dcm")}
    released = {dcmread(path, stop_before_pixels=True).SOPClassUID: path for path in out.rglob("*.dcm")}
    assert len(one) == len(released) == 9
    assert [errors(released[sop_class]) - errors(path) for sop_class, path in one.items()] == [set()] * 9


def test_the_report_says_what_measurements_need(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    rows = {row["attribute"]: (row["objects"], row["kept"]) for row in report["science"]}
    assert rows["RadionuclideTotalDose"] == (12, 12)
    assert rows["PatientWeight"] == (30, 30)


def test_the_page_names_every_attribute_that_is_looked_for() -> None:
    page = (ROOT / "docs" / "release.md").read_text()
    assert [a.keyword for a in SCIENCE if a.keyword.split(" (")[0] not in page] == []


def _days(out: Path) -> dict[str, list[date]]:
    """Person to the days of the two visits."""
    found: dict[str, set[date]] = {}
    for clean in objects_of(out):
        day = date.fromisoformat(clean.StudyDate)
        found.setdefault(str(clean.PatientID), set()).add(day)
    return {who: sorted(days) for who, days in found.items()}


def test_times_inside_a_study_stay_and_between_visits_do_not(out: Path, archive: Path) -> None:
    starts = {
        (c.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime, c.SeriesTime, c.AcquisitionTime)
        for source in (sources_of(archive), objects_of(out))
        for c in source
        if c.Modality == "PT"
    }
    assert len(starts) == 1
    assert all((days[-1] - days[0]).days != LATER for days in _days(out).values())


def test_between_visits_days_stay_where_they_are_retained(make: Callable[..., Path], archive: Path) -> None:
    days = _days(make("days", retain="study_day"))
    assert [(d[-1] - d[0]).days for d in days.values()] == [LATER] * len(SCANS)
    moved = {(d[0] - scan).days for d in days.values() for scan in SCANS}
    assert 0 not in moved


def test_who_knows_the_day_of_a_campaign_learns_no_scan(out: Path) -> None:
    """All structures were drawn on one day; had it moved with the study, its place would tell the study's true date."""
    for clean in objects_of(out):
        if clean.Modality == "RTSTRUCT":
            near = [date.fromisoformat(v) for k in ("StructureSetDate", "SeriesDate") for v in every(clean, k) if v]
            assert all(day.year == 1900 for day in near)
            assert clean.StructureSetDate == ""


def test_the_same_bytes_again_and_nothing_to_do(
    out: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tree(make("again")) == tree(out)
    monkeypatch.setenv("BUILDER_KEY", KEY)
    assert release(out.parent / "spec.yaml", to=out).done.unchanged


def test_another_release_needs_another_folder(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    changed = out.parent / "other.yaml"
    changed.write_text((out.parent / "spec.yaml").read_text().replace("remove: []", "remove: [Manufacturer]"))
    before = tree(out)
    with pytest.raises(LayoutError, match="other inputs"):
        release(changed, to=out)
    assert tree(out) == before


def test_a_folder_with_something_in_it_is_left_alone(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(SpecError, match="empty folder"):
        release(out.parent / "spec.yaml", to=tmp_path / "mine")


def test_stopped_and_continued(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle of the second person, a release continues after the first, and to the same bytes."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    spec, passed = out.parent / "spec.yaml", Counter[str]()

    def stop(name: str) -> None:
        passed[name] += 1
        if passed["release.object"] == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unit, "checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            release(spec, to=tmp_path / "out")
    assert not (tmp_path / "out" / "release.json").exists()
    assert release(spec, to=tmp_path / "out").resumed == 1
    assert tree(tmp_path / "out") == tree(out)


@ALL
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_continued(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    spec = out.parent / "spec.yaml"
    killed = subprocess.run(
        command("release", spec, "--to", tmp_path / "out"), env={**environment(), CRASH_VARIABLE: point},
        capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -9
    assert not (tmp_path / "out" / "release.json").exists()
    monkeypatch.setenv("BUILDER_KEY", KEY)
    release(spec, to=tmp_path / "out")
    assert tree(tmp_path / "out") == tree(out)


def test_what_names_another_person_stops_it(make: Callable[..., Path], archive: Path, tmp_path: Path) -> None:
    """The name of one person in an object of another passes the walk, which knows that person alone."""
    copy = tmp_path / "archive"
    for path in (*archive.glob("[02]/ct/*.dcm"), *archive.glob("[02]/structures.dcm")):
        target = copy / path.relative_to(archive)
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset = dcmread(path)
        if path.name == "structures.dcm":
            dataset.ManufacturerModelName = "Tasmajdanski Ilse"
        dataset.save_as(target)
    text = SPEC.format(archive=copy, retain="", remove="")
    text = text.replace("{train: 0.34, validation: 0.33, test: 0.33}", "{train: 1.0}")
    with pytest.raises(PrivacyError, match=r"attribute ManufacturerModelName.*release: \{remove"):
        make("named", spec=text)


@ALL
def test_a_build_from_the_release_is_the_same_dataset(
    out: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from builder.reader import open_dataset

    monkeypatch.setenv("BUILDER_KEY", KEY)
    build(out.parent / "spec.yaml", to=tmp_path / "direct")
    text = SPEC.format(archive=out / "dicom", retain="", remove="") + FROM_RELEASE.format(archive=out / "dicom")
    held = "hold_out: [{column: released_split, values: [validation], split: validation}, "
    held += "{column: released_split, values: [test], split: test}]"
    text = text.replace(
        "ratios: {train: 0.34, validation: 0.33, test: 0.33}, tested: {labels: any}", f"ratios: {{train: 1.0}}, {held}"
    )
    (tmp_path / "spec.yaml").write_text(text)
    build(tmp_path / "spec.yaml", to=tmp_path / "indirect")
    direct, indirect = (_samples(open_dataset(str(tmp_path / name))) for name in ("direct", "indirect"))
    assert len(direct) == len(SCANS) * 2
    assert direct == indirect


def _samples(dataset: Any) -> list[tuple[str, bytes, bytes]]:
    found = []
    for split in ("train", "validation", "test"):
        part = dataset.split(split)
        found += [(split, part[n]["image"].tobytes(), part[n]["tumor"].tobytes()) for n in range(len(part))]
    return sorted(found)
