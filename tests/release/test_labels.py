"""Typed labels keep words of imaging and of the spec, and lose what may be a name."""

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from builder.release.labels import keep_labels, words_in


def labelled(name: str) -> Dataset:
    roi, segment, whole = Dataset(), Dataset(), Dataset()
    roi.ROIName, segment.SegmentLabel = name, name
    whole.StructureSetROISequence, whole.SegmentSequence = Sequence([roi]), Sequence([segment])
    whole.StructureSetLabel, whole.ManufacturerModelName = name, name
    return whole


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("GTV_Mass 2", "GTV_Mass 2"),
        ("Left lung", "Left lung"),
        ("PTV 50.4 iGTV", "PTV 50.4 iGTV"),
        ("GTV Quentlin", "GTV"),
        ("liver_kim_3", "liver__3"),
        ("Müller", "REMOVED"),
        ("", ""),
    ],
)
def test_words_of_lists_and_of_the_spec_stay(name: str, kept: str) -> None:
    clean = labelled(name)
    withheld = keep_labels(clean, words_in(["(?i)gtv|igtv", "tumor"]))
    assert clean.StructureSetROISequence[0].ROIName == clean.SegmentSequence[0].SegmentLabel == kept
    assert clean.StructureSetLabel == kept
    assert clean.ManufacturerModelName == name
    assert bool(withheld) == (kept != name)
