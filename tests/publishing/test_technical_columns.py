"""An identifier in a technical attribute, or a technical term as an identifier, costs no build and is not published."""

from pathlib import Path

import pydicom
import pytest

from builder.run.pipeline import build
from tests.endtoend.published import everything
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

SPEC = """
name: technical
license: CC0-1.0
sources: [{{kind: folder, url: "{archive}", site: north}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}", retain: [site, sex]}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 1.0}}}}
report: {{thumbnails: 2}}
"""
ATTRIBUTES = (
    *("Manufacturer", "ManufacturerModelName", "BodyPartExamined", "ConvolutionKernel", "SoftwareVersions"),
    *("ImageType", "PatientPosition", "PhotometricInterpretation", "RescaleType", "SequenceName", "Units"),
    *("ScanningSequence", "ProtocolName", "StationName", "LossyImageCompression", "PatientSex"),
)
IDENTIFIERS = ("PatientName", "PatientID", "AccessionNumber", "PatientBirthDate", "InstitutionName")
TERMS = ("AXIAL", "ORIGINAL", "PRIMARY", "SIEMENS", "SOMATOM DEFINITION", "B30f", "CHEST", "STANDARD", "HFS", "train")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    return tmp_path / "archive"


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_an_identifier_in_a_technical_attribute_is_dropped(archive: Path) -> None:
    """Each attribute of somebody holds somebody's name, number, date, place or UID."""
    secrets: set[str] = set()
    for number, attribute in enumerate(ATTRIBUTES):
        ct_series(archive / str(number), slices=4, shape=(8, 8), patient_id=f"QX{number:04d}7731", voxels=None)
        for path in (archive / str(number)).rglob("*.dcm"):
            dataset = pydicom.dcmread(path)
            dataset.PatientName, dataset.AccessionNumber = f"Zelazny^Quimby{number}", f"ACC{number:03d}55512"
            dataset.PatientBirthDate, dataset.InstitutionName = f"19610{1 + number % 9}17", "Tillmouth Infirmary"
            held = str(dataset[IDENTIFIERS[number % len(IDENTIFIERS)]].value)[:16]
            value = [*list(dataset.get("ImageType", []))[:2], held] if attribute == "ImageType" else held
            setattr(dataset, attribute, value)
            dataset.save_as(path)
            secrets |= {held.lower(), "zelazny", "tillmouth", "infirmary"}
    _build(archive)
    for place, text in everything(archive.parent / "dataset"):
        assert not [s for s in secrets if s.encode() in text.lower()], place


def test_a_technical_term_may_be_the_name_or_number_of_somebody(archive: Path) -> None:
    """What stands in closed vocabularies is no identifier, whoever is called so."""
    for number, term in enumerate(TERMS):
        ct_series(archive / str(number), slices=4, shape=(8, 8), patient_id=term, voxels=None)
        for path in (archive / str(number)).rglob("*.dcm"):
            dataset = pydicom.dcmread(path)
            dataset.PatientName, dataset.AccessionNumber = f"{term}^AXIAL", term[:16]
            dataset.ImageType, dataset.Manufacturer = ["ORIGINAL", "PRIMARY", "AXIAL"], "SIEMENS"
            dataset.ManufacturerModelName, dataset.ConvolutionKernel = "SOMATOM Definition AS", "B30f"
            dataset.BodyPartExamined, dataset.PatientPosition = "CHEST", "HFS"
            dataset.save_as(path)
    _build(archive)
    said = b"".join(text for _, text in everything(archive.parent / "dataset"))
    assert b"SOMATOM Definition AS" in said
    assert b"AXIAL" in said


def _build(archive: Path) -> None:
    spec = archive.parent / "spec.yaml"
    spec.write_text(SPEC.format(archive=archive))
    build(spec, to=archive.parent / "dataset")
