"""JSON files beside images, as dcm2niix and BIDS write them: their entries become the columns of a DICOM header."""

import math
from collections.abc import Mapping
from typing import Any

LONGEST = 256

TEXTS = {
    "Modality": "modality",
    "Manufacturer": "manufacturer",
    "ManufacturersModelName": "manufacturer_model",
    "DeviceSerialNumber": "device_serial_number",
    "SoftwareVersions": "software_versions",
    "InstitutionName": "institution_name",
    "BodyPartExamined": "body_part_examined",
    "BodyPart": "body_part_examined",
    "StudyDescription": "study_description",
    "SeriesDescription": "series_description",
    "ProtocolName": "protocol_name",
    "ImageType": "image_type",
    "ScanOptions": "scan_options",
    "ScanningSequence": "scanning_sequence",
    "SequenceName": "sequence_name",
    "PatientPosition": "patient_position",
    "ConvolutionKernel": "convolution_kernel",
    "ContrastBolusIngredient": "contrast_bolus_agent",
    "AccessionNumber": "accession_number",
    "Units": "units",
}
"""BIDS keys to columns of INSTANCES. StudyInstanceUID and PatientID of a sidecar are not taken: the layout says who."""

NUMBERS = {
    "EchoTime": ("echo_time", 1000.0),
    "RepetitionTime": ("repetition_time", 1000.0),
    "InversionTime": ("inversion_time", 1000.0),
    "FlipAngle": ("flip_angle", 1.0),
    "MagneticFieldStrength": ("magnetic_field_strength", 1.0),
    "SliceThickness": ("slice_thickness", 1.0),
    "SpacingBetweenSlices": ("spacing_between_slices", 1.0),
    "KVP": ("kvp", 1.0),
    "bValue": ("b_value", 1.0),
}
"""BIDS keys to columns, with what turns the unit of BIDS (seconds) into that of DICOM (milliseconds)."""

WHOLE = {"SeriesNumber": "series_number", "AcquisitionNumber": "acquisition_number", "EchoNumber": "echo_number"}
UNITS = {"bq/ml": "BQML", "g/ml": "GML", "suv": "GML"}
ABSENT = frozenset({"", "n/a", "na", "unknown", "none"})


def header_columns(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of INSTANCES for the entries of a sidecar that have one, and whose values have its type."""
    found: dict[str, Any] = {}
    for key, column in TEXTS.items():
        value = sidecar.get(key)
        text = "\\".join(map(str, value)) if isinstance(value, list) else value
        if isinstance(text, str) and text.strip().lower() not in ABSENT and len(text) <= LONGEST:
            found[column] = text.strip()
    for key, (column, factor) in NUMBERS.items():
        number = sidecar.get(key)
        if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
            found[column] = float(number) * factor
    for key, column in WHOLE.items():
        number = sidecar.get(key)
        if isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**31:
            found[column] = number
    if "units" in found:
        found["units"] = UNITS.get(found["units"].lower(), found["units"])
    return found


def age_text(text: str) -> str | None:
    """Return an age in years as DICOM writes it (PS3.5 6.2), whole years of ``34.5`` and ``89+`` too."""
    try:
        years = float(text.strip().rstrip("+"))
    except ValueError:
        return None
    return f"{int(years):03d}Y" if 0 <= years < 150 else None


def sex_code(text: str) -> str | None:
    """Return DICOM's code of a sex, or None for what names none."""
    return {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M", "o": "O", "other": "O"}.get(text.strip().lower())


def day_text(text: str) -> str | None:
    """Return an ISO date or date and time as DICOM writes a date."""
    digits = text.strip()[:10].replace("-", "")
    return digits if len(digits) == 8 and digits.isdigit() else None
