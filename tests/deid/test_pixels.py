"""Pixels that may show who the person is are refused, unless the spec vouches for them or blanks them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from builder.deid import Deid, MaskRegion
from builder.deid.pixels import FACE_RISK, Risk, blank, blank_outside, judge_pixels, pixel_risk
from builder.errors import CaseError, Reason

REFERENCE = "${env:BUILDER_KEY}"
CT = "1.2.840.10008.5.1.4.1.1.2"
US = "1.2.840.10008.5.1.4.1.1.6.1"


def image(sop_class: str = CT, modality: str = "CT", **attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.Modality = modality
    dataset.Rows, dataset.Columns = 40, 50
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


RISKY = [
    (image(BurnedInAnnotation="YES"), Risk.DECLARED),
    (image(US, "US"), Risk.ULTRASOUND),
    (image(US, "US", BurnedInAnnotation="NO"), Risk.ULTRASOUND),
    (image("1.2.840.10008.5.1.4.1.1.3.1", "US"), Risk.ULTRASOUND),
    (image("1.2.840.10008.5.1.4.1.1.7"), Risk.CAPTURE),
    (image("1.2.840.10008.5.1.4.1.1.7.4"), Risk.CAPTURE),
    (image("1.2.840.10008.5.1.4.1.1.12.1", "XA"), Risk.ANGIOGRAPHY),
    (image("1.2.840.10008.5.1.4.1.1.77.1.4", "XC"), Risk.PHOTOGRAPH),
    (image("1.2.840.10008.5.1.4.1.1.104.1", "DOC"), Risk.DOCUMENT),
    (image(ConversionType="WSD"), Risk.CAPTURE),
    (image(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), Risk.CAPTURE),
    (image("1.2.3", "OT"), Risk.OTHER),
]


@pytest.mark.parametrize(("dataset", "risk"), RISKY)
def test_risky_images_are_refused(dataset: Dataset, risk: Risk) -> None:
    assert pixel_risk(dataset) is risk
    with pytest.raises(CaseError) as caught:
        judge_pixels(dataset, deid=Deid(patient_key=REFERENCE))
    assert caught.value.reason is Reason.BURNED_IN
    assert risk.value in caught.value.detail


def test_scanner_images_pass() -> None:
    for sop_class, modality in ((CT, "CT"), ("1.2.840.10008.5.1.4.1.1.4", "MR"), ("1.2.840.10008.5.1.4.1.1.128", "PT")):
        verdict = judge_pixels(image(sop_class, modality, BodyPartExamined="ABDOMEN"), deid=Deid(patient_key=REFERENCE))
        assert verdict.blank == verdict.notes == ()


def test_an_image_type_with_unreadable_items_is_ignored() -> None:
    """A mutated file: Image Type as a sequence whose item holds an element of no known VR."""
    item = Dataset()
    item._dict[BaseTag(0x505C4952)] = RawDataElement(BaseTag(0x505C4952), "MA", 2, b"AB", 0, False, True)
    dataset = image()
    dataset.add_new(0x00080008, "SQ", [item])
    assert pixel_risk(dataset) is None


def test_an_overlay_in_the_pixel_bits_cannot_be_vouched_for() -> None:
    dataset = image()
    dataset.add_new(0x60000010, "US", 40)
    dataset.add_new(0x60000102, "US", 12)
    assert pixel_risk(dataset) is Risk.OVERLAY_IN_PIXELS
    with pytest.raises(CaseError):
        judge_pixels(dataset, deid=Deid(patient_key=REFERENCE, reviewed=("CT",)))
    region = MaskRegion(rows=(0, 5), columns=(0, 5), size=(dataset.Rows, dataset.Columns))
    with pytest.raises(CaseError):
        judge_pixels(dataset, deid=Deid(patient_key=REFERENCE, burned_in="mask", mask_regions=(region,)))
    dataset.add_new(0x60003000, "OW", b"\0\0")  # a plane of its own: the walk drops it, the pixels are clean
    assert pixel_risk(dataset) is None


def test_reviewed_modalities_pass_unless_the_header_declares_text() -> None:
    deid = Deid(patient_key=REFERENCE, reviewed=("US",))
    assert judge_pixels(image(US, "US"), deid=deid).notes == ("pixels_reviewed",)
    with pytest.raises(CaseError):
        judge_pixels(image(US, "US", BurnedInAnnotation="YES"), deid=deid)


def test_regions_cover_only_the_size_and_modality_they_were_drawn_for() -> None:
    region = MaskRegion(rows=(0, 5), columns=(0, 50), size=(40, 50), modality="US")
    deid = Deid(patient_key=REFERENCE, burned_in="mask", mask_regions=(region,))
    assert judge_pixels(image(US, "US", BurnedInAnnotation="YES"), deid=deid).blank == (region,)
    for other in (image(US, "US", Rows=41), image(modality="CT", BurnedInAnnotation="YES")):
        with pytest.raises(CaseError):
            judge_pixels(other, deid=deid)


def test_a_region_is_blanked_in_images_that_declare_no_text_too() -> None:
    region = MaskRegion(rows=(0, 10), columns=(0, 20), size=(64, 64))
    deid = Deid(patient_key=REFERENCE, burned_in="mask", mask_regions=(region,))
    dataset = image(Rows=64, Columns=64, BodyPartExamined="ABDOMEN")
    assert judge_pixels(dataset, deid=deid).blank == (region,)
    assert not judge_pixels(dataset, deid=Deid(patient_key=REFERENCE)).blank


@given(st.integers(0, 7), st.integers(1, 8), st.integers(0, 8), st.integers(1, 9))
def test_blank_changes_only_the_rectangle(row: int, height: int, column: int, width: int) -> None:
    voxels = np.arange(2 * 8 * 9, dtype=np.int16).reshape(2, 8, 9)
    region = MaskRegion(rows=(row, min(8, row + height)), columns=(column, min(9, column + width)), size=(8, 9))
    result = blank(voxels, (region,))
    inside = np.zeros((8, 9), bool)
    inside[region.rows[0] : region.rows[1], region.columns[0] : region.columns[1]] = True
    np.testing.assert_array_equal(result[:, ~inside], voxels[:, ~inside])
    assert len(np.unique(result[:, inside])) == 1
    assert voxels[0, 0, 1] == 1


def with_regions(*corners: tuple[int, int, int, int]) -> Dataset:
    """An ultrasound image of 40 rows and 50 columns with regions from (row, column) to (row, column), both inside."""
    dataset = image(US, "US", Rows=40, Columns=50)
    dataset.SequenceOfUltrasoundRegions = [Dataset() for _ in corners]
    for item, (top, left, bottom, right) in zip(dataset.SequenceOfUltrasoundRegions, corners, strict=True):
        item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    return dataset


def test_only_stated_regions_of_ultrasound_are_kept_on_request() -> None:
    dataset = with_regions((5, 10, 19, 39), (15, 30, 39, 49))
    assert judge_pixels(dataset, deid=Deid(patient_key=REFERENCE, reviewed=("US",))).regions == ()
    verdict = judge_pixels(dataset, deid=Deid(patient_key=REFERENCE, reviewed=("US",), outside_regions="blank"))
    assert verdict.notes == ("outside_regions_blanked", "pixels_reviewed")
    voxels = np.arange(100, 3 * 40 * 50 + 100, dtype=np.int16).reshape(3, 40, 50)
    result = blank_outside(voxels, verdict.regions)
    inside = np.zeros((40, 50), bool)
    inside[5:20, 10:40] = inside[15:40, 30:50] = True
    np.testing.assert_array_equal(result[:, inside], voxels[:, inside])
    assert np.unique(result[:, ~inside]).tolist() == [voxels[:, inside].min()]
    with pytest.raises(CaseError):  # nobody looked at what the regions show
        judge_pixels(dataset, deid=Deid(patient_key=REFERENCE, outside_regions="blank"))


def test_an_ultrasound_region_is_cut_at_the_edges_of_its_image() -> None:
    """A real object of the corpus says 800 as the last column of 800: the first after its region."""
    deid = Deid(patient_key=REFERENCE, reviewed=("US",), outside_regions="blank")
    (region,) = judge_pixels(with_regions((6, 12, 40, 50)), deid=deid).regions
    assert (region.rows, region.columns) == ((6, 40), (12, 50))


@pytest.mark.parametrize("corners", [(50, 0, 60, 49), (5, 5, 4, 9), (0, -9, 9, -1)])
def test_an_ultrasound_region_outside_the_image_is_refused(corners: tuple[int, int, int, int]) -> None:
    dataset = with_regions((0, 0, 0, 0))
    (item,) = dataset.SequenceOfUltrasoundRegions
    names = ("RegionLocationMinY0", "RegionLocationMinX0", "RegionLocationMaxY1", "RegionLocationMaxX1")
    for name, value in zip(names, corners, strict=True):
        item.add_new(name, "SL", value)
    with pytest.raises(CaseError, match="no rectangle in an image of 40 x 50"):
        judge_pixels(dataset, deid=Deid(patient_key=REFERENCE, reviewed=("US",), outside_regions="blank"))


def test_blank_refuses_another_size() -> None:
    with pytest.raises(CaseError):
        blank(np.zeros((3, 4, 5)), (MaskRegion(rows=(0, 1), columns=(0, 1), size=(5, 4)),))


def test_heads_get_a_note() -> None:
    for part in ("HEAD", "BRAIN", "HEAD NECK", "SKULLBASE"):
        assert judge_pixels(image(BodyPartExamined=part), deid=Deid(patient_key=REFERENCE)).notes == (FACE_RISK,)


def test_corpus_ultrasound_with_burned_in_text_is_refused_and_clinical_series_pass(
    corpus: Callable[[str], Path],
) -> None:
    assert pixel_risk(dcmread(corpus("odd") / "deid_phi" / "US_greyscale_burned_in.dcm")) is not None
    for path in sorted((corpus("sts") / "sts001_raw").rglob("*.dcm"))[:5]:
        assert pixel_risk(dcmread(path, stop_before_pixels=True)) is None
    summary = [p for p in (corpus("geometry") / "ct_philips_head_with_localizer").rglob("*") if "S4010" in str(p)]
    pictures = [dcmread(p, stop_before_pixels=True) for p in summary if p.is_file() and p.name != "DIRFILE"]
    assert [pixel_risk(p) for p in pictures].count(Risk.DECLARED) == 1
    assert [pixel_risk(p) for p in pictures].count(Risk.CAPTURE) == 5
