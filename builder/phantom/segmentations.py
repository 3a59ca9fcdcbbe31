"""Make DICOM SEG objects from voxel masks with highdicom, with reproducible times and UIDs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from builder.headers.pinned import pin
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
