"""Every option of PS3.15 E.3: what it leaves in released objects, and what the release says about it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.sequence import Sequence
from pydicom.uid import PositronEmissionTomographyImageStorage

from builder.deid import Deid
from builder.deid.identifiers import NOTHING_KNOWN, identifiers_in
from builder.deid.profile import DEFAULT_OPTIONS, METHOD_CODES, Option, Profile
from builder.deid.uids import UidMap
from builder.errors import PrivacyError
from builder.model.keyed import Key
from builder.release.cleaning import Rules, Whose, clean_object
from builder.release.harbor import HARBOR, identifiers_left
from builder.run.progress import SilentProgress
from builder.run.release import release
from tests.conftest import ROOT
from tests.endtoend.trees import KEY
from tests.release.test_release import NAMES, SPEC, objects_of, sources_of, write_person

uid_map = UidMap(Key(b"sixteen bytes and more"))
PERSON = "0123456789abcdefghjkmnpqrs"
IDENTITY = frozenset({
    Option.RETAIN_UIDS, Option.RETAIN_DEVICE_IDENTITY, Option.RETAIN_INSTITUTION_IDENTITY, Option.RETAIN_FULL_DATES,
})  # fmt: skip
KEPT = {
    Option.RETAIN_UIDS: ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"),
    Option.RETAIN_DEVICE_IDENTITY: ("DeviceSerialNumber", "StationName", "GantryID"),
    Option.RETAIN_INSTITUTION_IDENTITY: ("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName"),
    Option.RETAIN_FULL_DATES: ("StudyDate", "StudyTime", "SeriesDate", "AcquisitionDate", "ContentDate"),
}
STATED = {
    "DeviceSerialNumber": "SN-77412", "StationName": "CT99-OWL", "GantryID": "G-3", "DeviceUID": "1.2.840.99999.7",
    "InstitutionName": "Klinikum Ostwestfalen", "InstitutionAddress": "Lange Zeile 4\r\n33604 Bielefeld",
    "InstitutionalDepartmentName": "Radiologie 2", "DateOfLastCalibration": "20110301",
}  # fmt: skip


def write_stated(folder: Path) -> None:
    """A person whose objects state the devices and the institution."""
    write_person(folder, 0)
    for path in folder.rglob("*.dcm"):
        dataset = dcmread(path)
        for keyword, value in STATED.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options") / "archive"
    write_stated(folder / "0")
    return folder


def spec_of(archive: Path, options: frozenset[Option]) -> str:
    text = SPEC.format(archive=archive, retain="", remove="")
    text = text.replace("{train: 0.34, validation: 0.33, test: 0.33}", "{train: 1.0}")
    return text.replace("retain: []", f"retain: [], options: [{', '.join(sorted(options))}]")


@pytest.fixture(scope="module")
def out(archive: Path) -> Iterator[Path]:
    """A release that retains everything that an option retains."""
    spec = archive.parent / "spec.yaml"
    spec.write_text(spec_of(archive, IDENTITY | DEFAULT_OPTIONS - {Option.RETAIN_MODIFIED_DATES}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        release(spec, to=archive.parent / "out")
        yield archive.parent / "out"


def cleaned(source: Dataset, *options: Option) -> Dataset:
    known = identifiers_in((source,))
    return clean_object(source, Rules(Profile(frozenset(options)), uid_map), Whose(PERSON, -1000, known))


@pytest.mark.parametrize("option", sorted(IDENTITY))
def test_an_option_leaves_its_own_attributes_alone(archive: Path, option: Option) -> None:
    source = dcmread(next((archive / "0" / "ct").glob("*.dcm")))
    clean = cleaned(source, option)
    for owner, keywords in KEPT.items():
        for keyword in keywords:
            same = str(clean.get(keyword, "")) == str(source[keyword].value)
            assert same == (owner is option), (keyword, clean.get(keyword))
    assert METHOD_CODES[option] in {item.CodeValue for item in clean.DeidentificationMethodCodeSequence}
    assert clean.file_meta.MediaStorageSOPInstanceUID == clean.SOPInstanceUID
    assert (clean.PatientName, clean.PatientID, clean.PatientBirthDate) == (PERSON, PERSON, "")
    assert "DateOfLastCalibration" not in clean or option is Option.RETAIN_FULL_DATES


def test_dates_are_said_to_be_as_they_were(archive: Path) -> None:
    source = dcmread(next((archive / "0" / "ct").glob("*.dcm")))
    said = {
        option: cleaned(source, option).LongitudinalTemporalInformationModified
        for option in (Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES, Option.RETAIN_UIDS)
    }
    assert [*said.values()] == ["UNMODIFIED", "MODIFIED", "REMOVED"]


def test_what_is_no_uid_does_not_leave_as_one(archive: Path) -> None:
    source = dcmread(next((archive / "0" / "ct").glob("*.dcm")))
    with disable_value_validation():
        source.FrameOfReferenceUID = "QUENTLIN"
        assert cleaned(source, Option.RETAIN_UIDS).FrameOfReferenceUID == uid_map("QUENTLIN")


def test_a_uid_in_a_report_is_replaced_whatever_is_retained(archive: Path) -> None:
    """Table E.1-1 has no K for UID (0040,A124)."""
    source = dcmread(next((archive / "0").glob("report.dcm")))
    item = Dataset()
    item.ValueType, item.UID = "UIDREF", "1.2.3.4.5"
    source.ContentSequence = Sequence([item])
    clean = cleaned(source, Option.RETAIN_UIDS, Option.CLEAN_STRUCTURED_CONTENT)
    assert [content.UID for content in clean.ContentSequence] == [uid_map("1.2.3.4.5")]


def test_all_at_once_leave_and_nobody_is_named(out: Path, archive: Path) -> None:
    keywords = [keyword for owned in KEPT.values() for keyword in owned] + ["DateOfLastCalibration"]
    sources, found = {s.SOPInstanceUID: s for s in sources_of(archive)}, objects_of(out)
    assert {o.SOPInstanceUID for o in found} == sources.keys()
    for clean in found:
        source = sources[clean.SOPInstanceUID]
        assert [k for k in keywords if k in source and str(source[k].value) != str(clean.get(k))] == []
    secrets = [*NAMES[0].lower().split("^"), "hosp-0-"]
    for path in out.rglob("*"):
        said = path.read_bytes().lower() if path.is_file() else b""
        assert [secret for secret in secrets if secret.encode() in said] == [], path


def test_the_report_says_what_stays(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    manifest = json.loads((out / "release.json").read_text())
    assert manifest["lock"]["ps3_15"] == {"table": "2026c", "options": "2024d"}
    assert {m["code"] for m in report["methods"]} == {
        "113100", "113103", "113104", "113105", "113106", "113108", "113109", "113110", "113111", "113112",
    }  # fmt: skip
    stays = {row["letters"] for row in report["hipaa"] if row["stays"]}
    assert stays == {"B", "C", "L, M", "P, Q", "R"}
    page = (out / "report.html").read_text()
    assert all(row["found"] in page for row in report["hipaa"])


class Listening(SilentProgress):
    """Notes what is said, and how many objects lie in the release by then."""

    def __init__(self, out: Path) -> None:
        self.out, self.said = out, list[tuple[str, int]]()

    def say(self, message: str) -> None:
        self.said.append((message, len([*self.out.rglob("*.dcm")])))


def test_what_is_lost_is_said_before_anything_is_written(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    (tmp_path / "spec.yaml").write_text(spec_of(archive, frozenset({Option.RETAIN_MODIFIED_DATES})))
    heard = Listening(tmp_path / "out")
    release(tmp_path / "spec.yaml", to=tmp_path / "out", progress=heard)
    told = [(line, written) for line, written in heard.said if "SUV: lost" in line]
    assert len(told) == 1
    assert "PatientWeight in " in told[0][0]
    assert "kept by deid.options retain_patient_characteristics" in told[0][0]
    assert told[0][1] == 0
    lost = json.loads((tmp_path / "out" / "report.json").read_text())["lost"]
    assert [line.split(":")[0] for line in lost] == [line.split(": ")[1] for line, _ in heard.said if ": lost" in line]


def test_a_uid_that_states_a_number_of_the_patient_stops_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    write_person(tmp_path / "archive" / "0", 0)
    for path in (tmp_path / "archive").rglob("*.dcm"):
        dataset = dcmread(path)
        if "ct" in path.parts:
            dataset.PatientID = "7741209"
            dataset.SeriesInstanceUID = "1.2.840.99999.7741209.3"
            dataset.save_as(path)
        else:
            path.unlink()
    (tmp_path / "spec.yaml").write_text(spec_of(tmp_path / "archive", frozenset({Option.RETAIN_UIDS})))
    with pytest.raises(PrivacyError, match=r"objects\.csv"):
        release(tmp_path / "spec.yaml", to=tmp_path / "out")
    assert not (tmp_path / "out" / "release.json").exists()


def test_the_page_says_what_a_report_says() -> None:
    page = (ROOT / "docs" / "release.md").read_text()
    plain = page.replace("**", "")
    for row in identifiers_left(Deid(patient_key="${env:BUILDER_KEY}")):
        assert f"| {row['letters']} {row['identifiers']} | {row['found']}" in plain
    assert all(f"`{option}`" in page for option in Option)
    assert all(said in page for row in HARBOR for said in row.retained.values())


@pytest.mark.parametrize("dated", [True, False])
def test_pet_keeps_the_dates_that_it_must_have(archive: Path, *, dated: bool) -> None:
    """Series Date is of type 1 in PET (PS3.3 C.8.9.1): that of another day goes, and the study's stands there."""
    source = dcmread(next((archive / "0" / "ct").glob("*.dcm")))
    source.SeriesDate = source.AcquisitionDate = "19990101"
    options = frozenset(DEFAULT_OPTIONS) if dated else frozenset()
    clean = clean_object(source, Rules(Profile(options), uid_map), Whose(PERSON, -1000, NOTHING_KNOWN))
    assert "SeriesDate" not in clean
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
    clean = clean_object(source, Rules(Profile(options), uid_map), Whose(PERSON, -1000, NOTHING_KNOWN))
    assert clean.SeriesDate == (clean.StudyDate if dated else "19000101")
    assert clean.AcquisitionDate == ""


def test_attributes_that_are_younger_than_the_dictionary(archive: Path) -> None:
    """Coded diagnoses stay, cleaned; sex parameters only with ``sex``; dates move, and go where they are far away."""
    source = dcmread(next((archive / "0" / "ct").glob("*.dcm")))
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "M-88903", "SRT", "Leiomyosarcoma Quentlin"
    far, near = Dataset(), Dataset()
    far.add_new(0x0040A034, "DT", "19990101")
    near.add_new(0x0040A034, "DT", f"{source.StudyDate}0800")
    source.add_new(0x00081301, "SQ", Sequence([code]))
    source.add_new(0x00100043, "SQ", Sequence([far, near]))
    source.add_new(0x00100012, "LT", "Quentlin")
    source.add_new(0x00102162, "UC", "Quentlin")
    options = frozenset(DEFAULT_OPTIONS)
    whose = Whose(PERSON, -1000, NOTHING_KNOWN)
    clean = clean_object(source, Rules(Profile(options), uid_map, retain=frozenset({"sex"})), whose)
    assert [item.CodeValue for item in clean[0x00081301].value] == ["M-88903"]
    assert "Quentlin" not in str(clean)
    moved = [item.get(0x0040A034) for item in clean[0x00100043].value]
    assert [None if m is None else str(m.value)[:8] for m in moved] == [None, clean.StudyDate]
    assert 0x00100043 not in clean_object(source, Rules(Profile(options), uid_map), whose)
    assert 0x00100012 not in clean
    assert 0x00102162 not in clean
