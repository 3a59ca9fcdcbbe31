"""Every annotation object of the corpus, and every odd file, to every reader: read, or refused with a reason."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.headers.references import is_annotation
from builder.labels import LABELS
from builder.labels.frames import describe_frames, own_grid
from builder.model.geometry import Geometry
from builder.protocols import ImageFacts, LabelObject

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

READERS = {
    "rtstruct": {"roi": {"any": "."}},
    "seg": {"segments": {"any": "."}},
    "sr": {},
    "presentation": {},
    "key_object": {},
}
"""Readers of DICOM objects, with options that take everything."""

SLIDE = "label_unreadable: found a tiled segmentation (of a slide), expected one in patient space"
NO_PLACE = "label_unreadable: found frames without a plane position, orientation or spacing"
NO_SLICE = "label_off_grid: found all {} planes of any beyond the image's slices"

OUTCOMES = {
    "odd/dcmjs_misc/sample-sr.dcm": "sr: Measurements, Landmarks",
    "odd/encapsulated_fragments/deflate/report_dfl": "sr: Measurements, Classes",
    "odd/odd_singles/orthanc/Issue168.dcm": "presentation: Boxes",
    "odd/odd_singles/orthanc/MarekLatin2.dcm": (
        "label_empty: found a structured report without measurements, codes or coordinates"
    ),
    "segmentation/dcmqi_seg_sr_pm/sr-example/rwvm.dcm": None,
    "segmentation/dcmqi_seg_sr_pm/sr-example/sr.dcm": "sr: Measurements",
    "segmentation/highdicom_seg_sr/seg_image_cr_binary.dcm": NO_PLACE,
    "segmentation/highdicom_seg_sr/sm_annotations.dcm": None,
    "segmentation/highdicom_seg_sr/sr_document.dcm": "sr: Measurements, Landmarks",
    "segmentation/highdicom_seg_sr/sr_document_with_multiple_groups.dcm": "sr: Measurements, Landmarks, Classes",
    "segmentation/rtutils_ct_rtstruct/empty/dummy_rt.dcm": NO_SLICE.format(12),
    "segmentation/rtutils_ct_rtstruct/mock_data/invalid_reference_rt.dcm": NO_SLICE.format(12),
    "segmentation/rtutils_ct_rtstruct/mock_data/non_existent_reference_rt.dcm": NO_SLICE.format(12),
    "segmentation/rtutils_ct_rtstruct/mock_data/rt.dcm": NO_SLICE.format(1),
    "segmentation/dcmqi_seg_sr_pm/segmentations/23x38x3/seg/label.seg": "seg: Mask",
    "segmentation/dcmqi_seg_sr_pm/segmentations/24x38x3/seg/label.seg": "seg: Mask",
    "segmentation/dcmqi_seg_sr_pm/segmentations/liver.dcm": "seg: Mask",
    "segmentation/dcmqi_seg_sr_pm/segmentations/partial_overlaps.dcm": "seg: Mask",
    "segmentation/dcmqi_seg_sr_pm/segmentations/sparse-labelmap-noppv.dcm": "seg: Mask",
    "segmentation/dcmqi_seg_sr_pm/segmentations/sparse-labelmap-ppv5.dcm": "seg: Mask",
    "segmentation/dcmqi_seg_sr_pm/sr-example/seg.dcm": "seg: Mask",
    "segmentation/highdicom_seg_sr/seg_image_ct_binary.dcm": "seg: Mask",
    "segmentation/highdicom_seg_sr/seg_image_ct_binary_fractional.dcm": "seg: Mask",
    "segmentation/highdicom_seg_sr/seg_image_ct_binary_overlap.dcm": "seg: Mask",
    "segmentation/highdicom_seg_sr/seg_image_ct_binary_single_frame.dcm": "seg: Mask",
    "segmentation/highdicom_seg_sr/seg_image_ct_true_fractional.dcm": "seg: Mask",
    "segmentation/qin_hn_0024_pet_seg/SEG/3DSlicer/tumor_User1_Manual_Trial1.dcm": "seg: Mask",
    "segmentation/qin_prostate_adc_seg/seg/1-1.dcm": "seg: Mask",
    "segmentation/ucsf_br06_dce4d/seg_fractional/1-1.dcm": "seg: Mask",
    "segmentation/highdicom_seg_sr/seg_image_sm_control.dcm": SLIDE,
    "segmentation/highdicom_seg_sr/seg_image_sm_control_labelmap.dcm": SLIDE,
    "segmentation/highdicom_seg_sr/seg_image_sm_control_labelmap_palette_color.dcm": SLIDE,
    "segmentation/highdicom_seg_sr/seg_image_sm_dots.dcm": SLIDE,
    "segmentation/highdicom_seg_sr/seg_image_sm_dots_tiled_full.dcm": SLIDE,
    "segmentation/highdicom_seg_sr/seg_image_sm_numbers.dcm": SLIDE,
}
"""What the reader of its kind makes of every annotation object; None where no reader is for its kind.

The images of the structure sets of rt-utils are elsewhere in space than the stand-in used here.
"""


def odd_files(corpus: Any) -> Iterator[tuple[str, Path]]:
    for archive in ("odd", "segmentation"):
        home: Path = corpus(archive)
        for path in sorted(home.rglob("*")):
            if path.is_file():
                yield f"{archive}/{path.relative_to(home)}", path


def parsed(path: Path) -> Dataset | None:
    """The data set as a build parses it, None where it cannot."""
    try:
        with warnings.catch_warnings(), parsing(Reason.UNREADABLE, "pydicom"):
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, force=True)
    except CaseError:
        return None


def image_of(dataset: Dataset) -> ImageFacts:
    """An image that the object may annotate: on the grid of its frames, or with every instance it refers to."""
    frame = str(dataset.get("FrameOfReferenceUID") or "") or None
    try:
        frames = describe_frames(dataset, set(range(1, 2**16)))
        geometry, _ = own_grid(frames, Geometry((1, *frames.shape), np.eye(4)[:, [2, 1, 0, 3]]))
        geometry = Geometry(geometry.shape, geometry.affine, frame)
    except CaseError:
        geometry = Geometry((4, 512, 512), np.eye(4)[:, [2, 1, 0, 3]], frame)
    named = {str(e.value): 0 for e in dataset.iterall() if e.keyword == "ReferencedSOPInstanceUID"}
    return ImageFacts(geometry, "", named)


def outcome(dataset: Dataset, kind: str, image: ImageFacts) -> str:
    reader = LABELS[kind].model_validate({"kind": kind, **READERS[kind]})
    try:
        found = reader.read("x", [LabelObject(dataset)], image)
    except CaseError as error:
        return str(error)
    return f"{kind}: {', '.join(type(a).__name__ for a in found)}"


def test_annotation_objects_are_read_or_refused_for_what_they_are(corpus: Any) -> None:
    found = {}
    for name, path in odd_files(corpus):
        dataset = parsed(path)
        if dataset is None or not is_annotation(str(dataset.get("SOPClassUID") or ""), None):
            continue
        image = image_of(dataset)
        said = {outcome(dataset, kind, image) for kind in READERS}
        mine = sorted(text for text in said if not text.startswith("label_unreadable: found an object that is no "))
        assert len(mine) < 2, name
        found[name] = mine[0] if mine else None
    assert found == OUTCOMES


def test_no_odd_file_is_taken_for_a_label_or_breaks_a_reader(corpus: Any) -> None:
    """Images, fragments, and what fuzzers made of them: refused by every reader as what it is not."""
    refused = 0
    anywhere = ImageFacts(Geometry((4, 512, 512), np.eye(4)[:, [2, 1, 0, 3]]), "", {})
    for name, path in odd_files(corpus):
        dataset = parsed(path) if name.startswith("odd/") and name not in OUTCOMES else None
        if dataset is None:
            continue
        for kind in READERS:
            said = outcome(dataset, kind, anywhere)
            assert said.startswith("label_unreadable: found an object that is no "), (name, kind)
        refused += 1
    assert refused > 200
