"""Plant a recognisable token in every identifying attribute, so that a test can search any output for it."""

import re
from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from builder.errors import SpecError

LONGEST_TOKEN = 12
"""Longest token: with a few more characters it must fit a Short String (16 characters, PS3.5 6.2)."""

_TEXT = [
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "Occupation",
    "AdditionalPatientHistory",
    "PatientComments",
    "ImageComments",
    "StudyComments",
    "RequestedProcedureDescription",
    "AdmittingDiagnosesDescription",
    "DeviceSerialNumber",
    "MilitaryRank",
    "BranchOfService",
    "PatientReligiousPreference",
    "CountryOfResidence",
    "RegionOfResidence",
    "IssuerOfPatientID",
    "PerformedProcedureStepID",
    "OtherPatientIDs",
    "PerformedProcedureStepDescription",
    "CommentsOnThePerformedProcedureStep",
    "DerivationDescription",
    "AcquisitionComments",
    "ReferringPhysicianAddress",
    "ReferringPhysicianTelephoneNumbers",
    "CurrentPatientLocation",
    "MedicalRecordLocator",
    "Allergies",
    "MedicalAlerts",
    "SpecialNeeds",
    "PatientState",
    "RequestingService",
    "DetectorID",
    "GantryID",
    "DeviceDescription",
    "ReasonForStudy",
    "InterpretationText",
]
_NAMES = [
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "NameOfPhysiciansReadingStudy",
    "OperatorsName",
    "PhysiciansOfRecord",
    "RequestingPhysician",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ResponsiblePerson",
    "ScheduledPerformingPhysicianName",
]


def checked_token(token: str) -> str:
    """Return the token. Raises SpecError unless it is 4 to 12 capital letters and digits, which all attributes hold."""
    if not re.fullmatch(rf"[A-Z0-9]{{4,{LONGEST_TOKEN}}}", token):
        raise SpecError(
            f"canary: found {len(token)} characters, expected 4 to {LONGEST_TOKEN} capital letters and digits"
        )
    return token


def planter(token: str | None) -> Callable[[Dataset], None]:
    """Return a function that plants the token in a dataset, or does nothing when there is no token."""
    return _leave if token is None else lambda dataset: plant(dataset, token)


def plant(dataset: Dataset, token: str) -> None:
    """Write the token into every attribute that names a person, an institution or a visit, nested and private too."""
    for keyword in _TEXT:
        setattr(dataset, keyword, token)
    for keyword in _NAMES:
        setattr(dataset, keyword, f"{token}^Doctor")
    dataset.ResponsiblePersonRole = "PARENT"
    other = Dataset()
    other.PatientID = f"{token}-OTHER"
    other.TypeOfPatientID = "TEXT"
    dataset.OtherPatientIDsSequence = Sequence([other])
    request = Dataset()
    request.RequestedProcedureID = request.ScheduledProcedureStepID = token
    request.RequestedProcedureDescription = request.ScheduledProcedureStepDescription = token
    dataset.RequestAttributesSequence = Sequence([request])
    block = dataset.private_block(0x0099, token, create=True)
    block.add_new(0x01, "LO", f"{token} private")
    block.add_new(0x02, "UT", f"{token} note")
    block.add_new(0x03, "OB", f"{token} in bytes ".encode().ljust(32))
    for keyword in ("StructureSetLabel", "ContentLabel"):
        if keyword in dataset:
            setattr(dataset, keyword, token)
    for keyword in ("StructureSetName", "StructureSetDescription", "ContentDescription"):
        if "StructureSetROISequence" in dataset or keyword in dataset:
            setattr(dataset, keyword, token)
    if "ContentCreatorName" in dataset or "SegmentSequence" in dataset:
        dataset.ContentCreatorName = f"{token}^Reader"
    _plant_in_structures(dataset, token)


def _plant_in_structures(dataset: Dataset, token: str) -> None:
    for roi in dataset.get("StructureSetROISequence", []):
        roi.ROIName = f"{roi.ROIName} {token}"
        roi.ROIDescription = token
    for observation in dataset.get("RTROIObservationsSequence", []):
        observation.ROIInterpreter = f"{token}^Reader"
        observation.ROIObservationLabel = token
    for segment in dataset.get("SegmentSequence", []):
        segment.SegmentLabel = f"{segment.SegmentLabel} {token}"
        segment.SegmentDescription = token
        segment.TrackingID = token
        segment.TrackingUID = "2.25.1"


def _leave(dataset: Dataset) -> None:
    """Do nothing, because there is no token."""
