"""What a release says of HIPAA's 18 identifiers, which depends on the options that retain some of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from builder.deid import Deid
from builder.deid.profile import Option, Profile


@dataclass(frozen=True)
class Identifier:
    """Identifiers of 45 CFR 164.514(b)(2)(i), what becomes of them, and what an option leaves of them.

    Parameters
    ----------
    letters
        Their letters in that paragraph.
    found
        What is in the objects of a release under any profile.
    retained
        Maps an option to what it leaves.
    stays
        Whether something of them is left under every profile.
    """

    letters: str
    identifiers: str
    found: str
    retained: Mapping[Option, str] = field(default_factory=dict)
    stays: bool = False


_UIDS = "UIDs are those of the archive; many hold the serial number of a scanner, a date or a number of the examination"
HARBOR: Final = (
    Identifier("A", "names", "removed; PatientName is the pseudonym"),
    Identifier(
        "B", "places smaller than a state", "removed with every address, institution and department",
        {Option.RETAIN_INSTITUTION_IDENTITY: "institution, its address and departments stay"},
    ),
    Identifier(
        "C", "dates, ages above 89",
        "moved study by study or removed; ages only if retained, above 89 as 90",
        {Option.RETAIN_FULL_DATES: "true dates and times of examinations stay; dates of birth are removed",
         Option.RETAIN_UIDS: _UIDS},
    ),
    Identifier("D, E, F", "telephone, fax, e-mail", "removed; their shapes are taken out of labels and report text"),
    Identifier(
        "G to K", "social security, record, plan, account, licence numbers",
        "removed; PatientID is the pseudonym, AccessionNumber and StudyID are empty",
    ),
    Identifier(
        "L, M", "serials of vehicles and devices", "removed; models stay",
        {Option.RETAIN_DEVICE_IDENTITY: "serial numbers, names and UIDs of devices and stations stay",
         Option.RETAIN_UIDS: _UIDS},
    ),
    Identifier("N, O", "URLs and IP addresses", "removed"),
    Identifier(
        "P, Q", "biometrics, full-face photographs", "photographs are refused; faces in head scans stay", stays=True
    ),
    Identifier(
        "R", "any other unique number or code", "UIDs are keyed; the key stays with you",
        {Option.RETAIN_UIDS: _UIDS},
    ),
)  # fmt: skip
"""What docs/release.md says of a release with the options that a spec has by default."""


_FACES: Final = {
    "remove": "photographs are refused; faces that are found in head scans are removed",
    "refuse": "photographs, and head scans in which a face is found, are refused",
}


def identifiers_left(deid: Deid) -> Iterator[dict[str, Any]]:
    """Yield a row for each group of identifiers: what the objects of a release hold, and whether something stays."""
    for row in HARBOR:
        kept = [said for option, said in row.retained.items() if option in deid.profile.options]
        if row.letters == "P, Q" and deid.faces in _FACES:
            kept = [_FACES[deid.faces]]
        found = "; ".join(kept) or row.found
        yield {
            "letters": row.letters, "identifiers": row.identifiers, "found": found, "stays": bool(kept) or row.stays,
        }  # fmt: skip


_COLUMNS: Final = {
    Option.RETAIN_UIDS: ("study_uid", "series_uid", "sop_instance_uid", "frame_of_reference_uid"),
    Option.RETAIN_DEVICE_IDENTITY: ("device_serial_number", "station"),
    Option.RETAIN_INSTITUTION_IDENTITY: ("institution_name", "department"),
}


def columns_of(profile: Profile) -> frozenset[str]:
    """Return the columns of the index whose values leave, because an option retains what they hold."""
    return frozenset(name for option, names in _COLUMNS.items() if option in profile.options for name in names)
