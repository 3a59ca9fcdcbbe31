"""Damaged label objects: every reader reads them or refuses them with a reason, and raises nothing else."""

import io
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from builder.errors import CaseError
from builder.labels.evidence import observe
from builder.labels.key_object import KeyObject
from builder.labels.linking import KEY_OBJECT_SELECTION
from builder.labels.presentation import Presentation
from builder.labels.rtstruct import RtStruct
from builder.labels.seg import Seg
from builder.labels.sr import StructuredReport
from builder.protocols import ImageFacts, LabelObject
from tests import synthetic
from tests.labels.test_documents import GRAYSCALE, item, measured, reference, scoord

pytestmark = pytest.mark.filterwarnings("ignore")
Read = Callable[[Dataset], Any]

MADE = synthetic.ct_series()
FACTS = ImageFacts(MADE.geometry, MADE.series_uid, {str(i.SOPInstanceUID): n for n, i in enumerate(MADE.images)})


UID = str(MADE.images[3].SOPInstanceUID)
STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88.33"
MEASURED = measured("12.5", "121206", "mm", scoord("POLYLINE", [10, 20, 30, 20], UID))
MARKED = item(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[reference(UID)])
DRAWN = item(
    ReferencedImageSequence=[reference(UID)],
    GraphicObjectSequence=[
        item(
            GraphicAnnotationUnits="PIXEL",
            GraphicDimensions=2,
            NumberOfGraphicPoints=2,
            GraphicData=[5.0, 5.0, 9.0, 9.0],
            GraphicType="CIRCLE",
        )
    ],
)


def document(sop_class: str, modality: str, **attributes: Any) -> Dataset:
    """An object of the image's patient."""
    dataset = synthetic.rtstruct(MADE, {}, name=modality)
    for name in ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence"):
        del dataset[name]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.Modality = modality
    for name, value in attributes.items():
        setattr(dataset, name, Items(value) if name.endswith("Sequence") else value)
    return dataset


def inside() -> np.ndarray:
    voxels = np.zeros(MADE.geometry.shape, bool)
    voxels[2:5, 4:12, 4:12] = True
    return voxels


OBJECTS: dict[str, tuple[Callable[[], Dataset], Any]] = {
    "rtstruct": (
        lambda: synthetic.rtstruct(
            MADE,
            {
                "GTV": synthetic.box_contours(MADE.geometry, (2, 5, 5), (5, 20, 20)),
                "Heart": synthetic.box_contours(MADE.geometry, (1, 2, 2), (3, 6, 6)),
            },
        ),
        RtStruct(roi={"tumor": "GTV"}),
    ),
    "seg": (lambda: synthetic.seg(MADE, {"GTV": inside()}), Seg(segments={"tumor": "GTV"})),
    "label map": (lambda: synthetic.seg(MADE, {"GTV": inside()}, kind="LABELMAP"), Seg(segments={"tumor": "GTV"})),
    "fractional": (
        lambda: synthetic.seg(MADE, {"GTV": inside()}, kind="FRACTIONAL"),
        Seg(segments={"tumor": "GTV"}, fractional="keep"),
    ),
    "sr": (
        lambda: document(STRUCTURED_REPORT, "SR", ValueType="CONTAINER", ContentSequence=[MEASURED]),
        StructuredReport(),
    ),
    "presentation": (
        lambda: document(GRAYSCALE, "PR", GraphicAnnotationSequence=[DRAWN]),
        Presentation(),
    ),
    "key object": (
        lambda: document(KEY_OBJECT_SELECTION, "KO", ValueType="CONTAINER", ContentSequence=[MARKED]),
        KeyObject(),
    ),
}
"""Name to what makes a good object, and the reader that reads it."""

VALUES = (b"", b"\0", b"x", b"-1", b"1.5", b"1e400", b"nan", b"999999999999", b"\xff\xfe", b"1\\2\\x", b"A" * 70)
VRS = ("IS", "DS", "UI", "LO", "SQ", "US", "FL", "OB", "UN", "DA")


def read(reader: Any, dataset: Dataset) -> str:
    """``read``, or the reason of the refusal. Any other exception is the failure these tests look for."""
    try:
        observe(dataset, map_uid=str, clear=str)
        reader.read("label", [LabelObject(dataset, "object.dcm")], FACTS)
    except CaseError as error:
        return error.reason.value
    return "read"


def level(dataset: Dataset, random_: random.Random, depth: int = 0) -> Dataset:
    """A data set somewhere below, each level as likely as its parents'."""
    elements = [dataset.get_item(tag) for tag in dataset.keys()]  # noqa: SIM118 (iterating would convert damaged ones)
    below = [item for element in elements if isinstance(element.value, Items) for item in element.value]
    if not below or (depth and random_.random() < 0.3):
        return dataset
    return level(random_.choice(below), random_, depth + 1)


def damage(dataset: Dataset, random_: random.Random) -> None:
    """Remove an element, or give it a value, a VR or a length that it must not have."""
    target = level(dataset, random_)
    tags = [tag for tag in target.keys() if tag != 0x00080016 or target is not dataset]  # noqa: SIM118
    if not tags:
        return
    tag = Tag(random_.choice(tags))
    if random_.random() < 0.15:
        del target[tag]
        return
    vr = target.get_item(tag).VR if random_.random() < 0.6 else random_.choice(VRS)
    value = random_.choice(VALUES)
    target._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_good_object_is_read(name: str) -> None:
    make, reader = OBJECTS[name]
    assert read(reader, make()) == "read"


@pytest.mark.parametrize("name", OBJECTS)
def test_damaged_elements_are_read_or_refused(name: str) -> None:
    make, reader = OBJECTS[name]
    random_ = random.Random(name)
    data = io.BytesIO()
    make().save_as(data, enforce_file_format=True)
    outcomes = set()
    for _ in range(120):
        dataset = pydicom.dcmread(io.BytesIO(data.getvalue()))
        for _ in range(random_.randint(1, 3)):
            damage(dataset, random_)
        outcomes.add(read(reader, dataset))
    assert len(outcomes) > 1
    assert all(outcome == "read" or outcome.startswith("label_") for outcome in outcomes)


@pytest.mark.parametrize("name", OBJECTS)
def test_damaged_bytes_are_read_or_refused(name: str) -> None:
    make, reader = OBJECTS[name]
    random_ = random.Random(name)
    data = io.BytesIO()
    make().save_as(data, enforce_file_format=True)
    good = data.getvalue()
    tried = 0
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(random_.choice((1, 2, 8))):
            bad[random_.randrange(400, len(bad))] = random_.choice((0, 1, 0x5C, 0x7F, 0xFF, random_.randrange(256)))
        if random_.random() < 0.2:
            del bad[random_.randrange(400, len(bad)) :]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = pydicom.dcmread(io.BytesIO(bytes(bad)))
        except Exception:  # noqa: BLE001 (what pydicom itself refuses never reaches a reader)
            continue
        tried += 1
        read(reader, dataset)
    assert tried > 50
