"""Readers see de-identified objects only: what they find must not depend on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from builder.deid.headers import deidentify
from builder.deid.profile import Profile
from builder.deid.uids import UidMap
from builder.labels import LABELS
from builder.model.case import Classes, Landmarks, Mask, Measurements
from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.protocols import ImageFacts, LabelObject
from tests.labels.images import image_facts

UIDS = UidMap(Key(b"a key for tests, 32 bytes of it."))


def clean(dataset: Dataset) -> Dataset:
    return deidentify(dataset, profile=Profile(), uids=UIDS, person="p")


def mapped(image: ImageFacts) -> ImageFacts:
    """The image's facts under mapped UIDs, as a case has them."""
    frame = image.geometry.frame_of_reference
    geometry = Geometry(image.geometry.shape, image.geometry.affine, UIDS(frame) if frame else None)
    return ImageFacts(geometry, UIDS(image.series_uid), {UIDS(u): n for u, n in image.uid_to_slice.items()})


@pytest.mark.parametrize(
    ("archive", "image", "label", "options"),
    [
        ("sts", "sts_cohort/STS_008/CT/image", "sts_cohort/STS_008/CT/mask", {"kind": "rtstruct", "roi": {"t": "GTV"}}),
        (
            "sts",
            "sts_cohort/STS_046/PET/image",
            "sts_cohort/STS_046/PET/mask",
            {"kind": "rtstruct", "roi": {"t": "GTV"}},
        ),
        ("sts", "sts001_raw/FDG_PET/image", "sts001_raw/FDG_PET/mask", {"kind": "rtstruct", "roi": {"t": "GTV"}}),
        (
            "segmentation",
            "qin_prostate_adc_seg/ADC",
            "qin_prostate_adc_seg/seg",
            {"kind": "seg", "segments": {"any": "."}},
        ),
        (
            "segmentation",
            "dcmqi_seg_sr_pm/segmentations/ct-3slice",
            "dcmqi_seg_sr_pm/segmentations/liver.dcm",
            {"kind": "seg", "codes": {"liver": "SRT:T-62000"}},
        ),
        (
            "segmentation",
            "dcmqi_seg_sr_pm/segmentations/24x38x3/image",
            "dcmqi_seg_sr_pm/segmentations/sparse-labelmap-noppv.dcm",
            {"kind": "seg", "segments": {"any": "."}},
        ),
    ],
)
def test_masks_are_the_same_before_and_after(
    corpus: Any, archive: str, image: str, label: str, options: dict[str, Any]
) -> None:
    home: Path = corpus(archive)
    path = home / label if (home / label).is_file() else next((home / label).iterdir())
    dataset = pydicom.dcmread(path, force=True)
    facts = image_facts(home / image)
    reader = LABELS[options["kind"]].model_validate(options)
    (before,) = reader.read("m", [LabelObject(dataset)], facts)
    (after,) = reader.read("m", [LabelObject(clean(dataset))], mapped(facts))
    assert isinstance(before, Mask)
    assert isinstance(after, Mask)
    assert np.array_equal(before.voxels, after.voxels)
    assert dict(before.measures) == dict(after.measures)
    assert [s.name for s in before.segments] == [s.name for s in after.segments]


@pytest.mark.parametrize("name", ["sr_document.dcm", "sr_document_with_multiple_groups.dcm"])
def test_measurements_are_the_same_before_and_after(corpus: Any, name: str) -> None:
    dataset = pydicom.dcmread(corpus("segmentation") / "highdicom_seg_sr" / name)
    image = ImageFacts(Geometry((1, 9, 9), np.eye(4), str(dataset.get("FrameOfReferenceUID") or "1.2")), "1", {})
    reader = LABELS["sr"].model_validate({"kind": "sr"})
    before = reader.read("m", [LabelObject(dataset)], image)
    after = reader.read("m", [LabelObject(clean(dataset))], mapped(image))
    kinds = (Measurements, Classes, Landmarks)
    assert [type(a) for a in before] == [type(a) for a in after]
    for a, b in zip(before, after, strict=True):
        assert isinstance(a, kinds)
        if isinstance(a, Measurements):
            assert isinstance(b, Measurements)
            assert [(i.quantity, i.value, i.unit, i.finding) for i in a.items] == [
                (i.quantity, i.value, i.unit, i.finding) for i in b.items
            ]
        elif isinstance(a, Classes):
            assert isinstance(b, Classes)
            assert dict(a.values) == dict(b.values)
