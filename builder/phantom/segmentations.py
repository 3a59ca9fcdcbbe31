"""Make DICOM SEG objects from voxel masks with highdicom, with reproducible times and UIDs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from builder.phantom.headers import IMPLEMENTATION_UID

DEVICE = "Phantom"


def segmentation(
    images: Sequence[Dataset],
    masks: Mapping[str, NDArray[Any]],
    *,
    uid: str,
    series_uid: str,
    kind: str = "BINARY",
    number: int = 20,
    rename: Callable[[str], str],
) -> Dataset:
    """Make a Segmentation object with one segment per mask.

    Parameters
    ----------
    images
        The source images, in the order of the masks' slices.
    masks
        Segment label to (slice, row, column) bool, or float 0..1 when ``kind`` is FRACTIONAL.
    kind
        ``BINARY``, ``FRACTIONAL`` or ``LABELMAP`` (PS3.3 C.8.20.2).
    rename
        From a UID that highdicom drew at random (its ordinal, as text) to a reproducible one.
    """
    labels = list(masks)
    made = highdicom.seg.Segmentation(
        source_images=list(images),
        pixel_array=_stacked(masks, kind),
        segmentation_type=kind,
        segment_descriptions=[_describe(n, label) for n, label in enumerate(labels, start=1)],
        series_instance_uid=series_uid,
        series_number=number,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=DEVICE,
        manufacturer_model_name=DEVICE,
        software_versions="1",
        device_serial_number="1",
        content_label="LESIONS",
        series_description="Segmentation",
    )
    pin(made, images, rename=rename, keep={uid, series_uid})
    made.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    made.file_meta.ImplementationVersionName = "PHANTOM_1"
    return made


def _stacked(masks: Mapping[str, NDArray[Any]], kind: str) -> NDArray[Any]:
    """Return the masks as highdicom takes them: a label map, or one channel a segment."""
    if kind != "LABELMAP":
        channels = np.stack(list(masks.values()), axis=-1)
        return channels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    pixels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for value, mask in enumerate(masks.values(), start=1):
        pixels[mask.astype(bool)] = value
    return pixels


def _describe(number: int, label: str) -> Any:
    organ = {"liver": codes.SCT.Liver, "lung": codes.SCT.Lung}.get(label.lower())
    category = codes.SCT.MorphologicallyAbnormalStructure if organ is None else codes.SCT.Organ
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=organ or Code("4147007", "SCT", "Mass"),
        algorithm_type="MANUAL",
    )


def pin(made: Any, images: Sequence[Dataset], *, rename: Callable[[str], str], keep: set[str]) -> None:
    """Replace the clock's stamps by the images', and every UID drawn at random by a reproducible one.

    ``rename`` makes a UID of the ordinal of one that was drawn; those in ``keep`` and those of the images stay.
    """
    first = images[0]
    known = keep | {str(image.SOPInstanceUID) for image in images}
    known |= {str(first.StudyInstanceUID), str(first.SeriesInstanceUID), str(first.FrameOfReferenceUID)}
    names: dict[str, str] = {}
    for element, value in _uids(made):
        if value not in known and not value.startswith("1.2.840.10008."):
            element.value = names.setdefault(value, rename(str(len(names))))
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate", "StructureSetDate"):
        if keyword in made and first.get("StudyDate"):
            setattr(made, keyword, first.StudyDate)
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        if keyword in made and first.get("StudyTime"):
            setattr(made, keyword, first.StudyTime)
    for item in made.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in item and first.get("StudyDate") and first.get("StudyTime"):
            item.ContributionDateTime = first.StudyDate + first.StudyTime


def _uids(dataset: Dataset) -> Iterator[tuple[Any, str]]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _uids(item)
        elif element.VR == "UI" and isinstance(element.value, str):
            yield element, str(element.value)
