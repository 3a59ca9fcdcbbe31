"""Enhanced objects whose frames do not all say the same, and frames that are deflated one by one."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

from builder.errors import CaseError, Reason
from builder.imaging.multiframe import FRAME_VALUES, resolve, settle
from builder.imaging.parse import parse_instance
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble
from tests import synthetic

FRAMES, ROWS, COLUMNS = 6, 8, 10


def item(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def enhanced() -> Dataset:
    """An enhanced MR of six frames, 3 mm apart, at a slope of 2 and an intercept of 1."""
    made = item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", SOPInstanceUID="1.2.3.4", StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.1", FrameOfReferenceUID="1.2.3.2", Modality="MR", PatientID="P", NumberOfFrames=FRAMES,
        Rows=ROWS, Columns=COLUMNS, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16,
        BitsStored=16, HighBit=15, PixelRepresentation=0, ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    )  # fmt: skip
    measures = item(PixelSpacing=[1, 1], SliceThickness=3)
    orientation = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    made.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    ]
    made.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 3 * k])],
            PixelValueTransformationSequence=[item(RescaleSlope="2", RescaleIntercept="1", RescaleType="US")],
        )
        for k in range(FRAMES)
    ]
    made.PixelData = stored().tobytes()
    made["PixelData"].VR = "OW"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def stored() -> np.ndarray:
    return np.arange(FRAMES * ROWS * COLUMNS, dtype="<u2").reshape(FRAMES, ROWS, COLUMNS)


def test_a_whole_object_is_a_volume() -> None:
    made = enhanced()
    (stack,) = split_stacks(instances_of([made]))
    np.testing.assert_array_equal(assemble(stack, [made]).voxels[0], stored() * 2.0 + 1.0)


SPOILED: list[tuple[str, Reason, Callable[[Dataset], None]]] = [
    ("position", Reason.UNKNOWN_GEOMETRY, lambda frame: frame.pop("PlanePositionSequence")),
    ("no values in position", Reason.UNKNOWN_GEOMETRY,
     lambda frame: setattr(frame.PlanePositionSequence[0], "ImagePositionPatient", None)),
    ("rescale", Reason.INCONSISTENT_PIXELS, lambda frame: frame.pop("PixelValueTransformationSequence")),
    ("slope", Reason.INCONSISTENT_PIXELS, lambda frame: frame.PixelValueTransformationSequence[0].pop("RescaleSlope")),
    ("intercept", Reason.INCONSISTENT_PIXELS,
     lambda frame: frame.PixelValueTransformationSequence[0].pop("RescaleIntercept")),
]  # fmt: skip


@pytest.mark.parametrize("frame", [0, 3, 5])
@pytest.mark.parametrize(("name", "reason", "spoil"), SPOILED, ids=[name for name, _, _ in SPOILED])
def test_an_object_with_a_frame_that_lacks_what_the_others_state_is_refused(
    name: str, reason: Reason, spoil: Callable[[Dataset], None], frame: int
) -> None:
    made = enhanced()
    spoil(made.PerFrameFunctionalGroupsSequence[frame])
    (stack,) = split_stacks(instances_of([made]))
    for attempt in (lambda: resolve(stack, [made]), lambda: settle(stack, [made], VolumeOptions())):
        with pytest.raises(CaseError, match="1 of 6 frames") as caught:
            attempt()
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("ImagePositionPatient", "here"), ("ImagePositionPatient", ["a", "b", "c"]), ("SliceThickness", "thick")],
)
def test_text_in_place_of_numbers_is_refused(keyword: str, value: object) -> None:
    made = enhanced()
    group = next(name for name, word in FRAME_VALUES.values() if word == keyword)
    for place in (*made.PerFrameFunctionalGroupsSequence, *made.SharedFunctionalGroupsSequence):
        if group in place:
            place[group].value[0].add_new(keyword, "LO", value)
    (stack,) = split_stacks(instances_of([made]))
    with pytest.raises(CaseError, match=f"{keyword} is text") as caught:
        resolve(stack, [made])
    assert caught.value.reason == Reason.UNREADABLE


@pytest.mark.parametrize("position", ["5", ["5", "6"], ["1", "2", "3", "4"]])
def test_a_position_of_another_length_is_no_place(position: object) -> None:
    made = enhanced()
    for frame in made.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient = position
    (stack,) = split_stacks(instances_of([made]))
    with pytest.raises(CaseError) as caught:
        settle(stack, [made], VolumeOptions())
    assert caught.value.reason == Reason.UNKNOWN_GEOMETRY


def test_of_several_numbers_for_one_the_first_counts_as_in_the_index() -> None:
    made = enhanced()
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = ["3", "4"]
    (stack,) = split_stacks(instances_of([made]))
    np.testing.assert_array_equal(assemble(stack, [made]).voxels[0], stored() * 2.0 + 1.0)


def deflated(frame: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = packer.compress(frame) + packer.flush()
    return content + b"\0" * (len(content) % 2)


def test_deflated_frames_are_no_deflated_data_set() -> None:
    made = enhanced()
    made.PixelData = encapsulate([deflated(frame.tobytes()) for frame in stored()])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = JPEG2000Lossless  # pydicom writes no syntax it does not know
    content = synthetic.to_bytes(made).replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.8.1\0")
    read = parse_instance(content)
    (stack,) = split_stacks(instances_of([read]))
    np.testing.assert_array_equal(assemble(stack, [read]).voxels[0], stored() * 2.0 + 1.0)


@pytest.mark.parametrize("frame", [b"\xff\xff", deflated(bytes(20)), deflated(bytes(10**6))])
def test_a_damaged_deflated_frame_is_refused(frame: bytes) -> None:
    made = enhanced()
    made.PixelData = encapsulate([frame] * FRAMES)
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.8.1")
    (stack,) = split_stacks(instances_of([made]))
    with pytest.raises(CaseError) as caught:
        assemble(stack, [made])
    assert caught.value.reason == Reason.UNDECODABLE_PIXELS
