"""Make RTSTRUCT objects from contours in LPS mm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from builder.phantom.headers import (
    IMPLEMENTATION_UID,
    Scanner,
    Series,
    Subject,
    Visit,
    describe_patient,
    describe_study,
)

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
CONTOUR_DATA = Tag(0x3006, 0x0050)
DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"


@dataclass(frozen=True, eq=False)
class Contour:
    """Points (n, 3) in LPS mm, and the SOPInstanceUID of the image they were drawn on ("" to name none)."""

    points_mm: NDArray[np.float64]
    image_uid: str = ""


@dataclass(frozen=True, eq=False)
class Roi:
    """One region of interest: its name, contours (none is legal) and RT ROI Interpreted Type."""

    name: str
    contours: tuple[Contour, ...]
    interpreted_type: str = "GTV"
    description: str = ""


@dataclass(frozen=True)
class Target:
    """The image series a structure set refers to: frame of reference, series, SOP class and instances."""

    frame_uid: str
    series_uid: str
    sop_class: str
    image_uids: tuple[str, ...]


def structure_set(
    visit: Visit,
    subject: Subject,
    *,
    scanner: Scanner,
    target: Target,
    rois: Sequence[Roi],
    uid: str,
    series: Series,
) -> Dataset:
    """Make an RT Structure Set in a series of its own.

    Notes
    -----
    PS3.3 A.19; contours are CLOSED_PLANAR, or POINT when they have a single point (C.8.8.6.1).
    """
    dataset = _new_object(RT_STRUCTURE_SET, uid)
    describe_patient(dataset, subject)
    describe_study(dataset, visit)
    dataset.Modality = series.modality
    dataset.SeriesInstanceUID = series.uid
    dataset.SeriesNumber = str(series.number)
    dataset.SeriesDescription = series.description
    dataset.OperatorsName = ""
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = target.frame_uid, ""
    dataset.Manufacturer = scanner.manufacturer
    dataset.InstitutionName = scanner.institution
    dataset.InstanceNumber = "1"
    dataset.StructureSetLabel = "Lesions"
    dataset.StructureSetDate, dataset.StructureSetTime = visit.date, visit.time
    dataset.ReferencedFrameOfReferenceSequence = Items([_frame(visit, target)])
    dataset.StructureSetROISequence = Items([_roi(n, roi, target) for n, roi in enumerate(rois, start=1)])
    dataset.ROIContourSequence = Items([_contours(n, roi, target) for n, roi in enumerate(rois, start=1)])
    dataset.RTROIObservationsSequence = Items([_observation(n, roi) for n, roi in enumerate(rois, start=1)])
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _new_object(sop_class: str, uid: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.FileMetaInformationVersion = b"\x00\x01"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = "PHANTOM_1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    return dataset


def _frame(visit: Visit, target: Target) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = target.series_uid
    series.ContourImageSequence = Items([_reference(target.sop_class, uid) for uid in target.image_uids])
    study = _reference(DETACHED_STUDY, visit.uid)
    study.RTReferencedSeriesSequence = Items([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = target.frame_uid
    frame.RTReferencedStudySequence = Items([study])
    return frame


def _roi(number: int, roi: Roi, target: Target) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = target.frame_uid
    item.ROIName = roi.name
    item.ROIGenerationAlgorithm = "MANUAL"
    if roi.description:
        item.ROIDescription = roi.description
    return item


def _contours(number: int, roi: Roi, target: Target) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = [255, 40 * number % 256, 0]
    if roi.contours:
        item.ContourSequence = Items([_contour(n, c, target) for n, c in enumerate(roi.contours, start=1)])
    return item


def _contour(number: int, contour: Contour, target: Target) -> Dataset:
    item = Dataset()
    if contour.image_uid:
        item.ContourImageSequence = Items([_reference(target.sop_class, contour.image_uid)])
    item.ContourGeometricType = "POINT" if len(contour.points_mm) == 1 else "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(contour.points_mm)
    item.ContourNumber = number
    values = np.asarray(contour.points_mm, dtype=np.float64).reshape(-1) + 0.0  # + 0.0 turns -0.0 into 0.0
    text = "\\".join(f"{value:.5f}" for value in values.tolist()).encode()
    # raw, because creating a Decimal String object for each of thousands of numbers is slow
    padded = text + b" " * (len(text) % 2)
    item[CONTOUR_DATA] = RawDataElement(CONTOUR_DATA, "DS", len(padded), padded, 0, False, True)
    return item


def _observation(number: int, roi: Roi) -> Dataset:
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = number
    item.RTROIInterpretedType = roi.interpreted_type
    item.ROIInterpreter = ""
    return item


def _reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = uid
    return item
