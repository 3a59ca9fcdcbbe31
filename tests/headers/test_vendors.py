"""Vendor names as they occur in public archives."""

import pytest

from builder.headers.vendors import normalise, unmapped


@pytest.mark.parametrize(
    ("raw", "vendor"),
    [
        ("SIEMENS", "Siemens"),
        ("Siemens HealthCare GmbH", "Siemens"),
        ("SIEMENS / MIMvista", "Siemens"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("GE_MEDICAL_SYSTEMS", "GE"),
        ('"GE Healthcare"', "GE"),
        ("GEMS", "GE"),
        ("Philips Medical Systems, Inc.", "Philips"),
        ("PICKER International, Inc.", "Philips"),
        ("TOSHIBA_MEC", "Canon"),
        ("Canon Medical Systems", "Canon"),
        ("FUJI PHOTO FILM Co., ltd.", "Fujifilm"),
        ("Hitachi Medical Corporation", "Fujifilm"),
        ("UIH / MIM Software", "United Imaging"),
        ("Lorad, A Hologic Company", "Hologic"),
        ("  Oehm   und Rehbein GmbH ", "Oehm und Rehbein GmbH"),
        ("Germane Imaging", "Germane Imaging"),  # begins with the letters of a vendor, and is another
        ("Unknown manufacturer", None),
        ("0000000", None),
        ("", None),
        (None, None),
    ],
)
def test_one_name_a_vendor(raw, vendor):
    assert normalise(raw) == vendor


def test_unknown_names_are_reported_and_not_pooled():
    assert unmapped(["GE", "Riverain Technologies", None, "Oehm", "Riverain  Technologies"]) == {
        "Oehm": 1,
        "Riverain Technologies": 2,
    }
