"""A small DICOM factory for tests: valid CT, MR and PT series with known voxels, their RTSTRUCT and SEG, and oddities.

Every function works in memory; with a ``directory`` it also writes files. Nothing depends on clock or chance::

    made = ct_series(tmp_path, slices=8, tilt_degrees=15)      # gantry tilt: a sheared affine
    made.images, made.paths, made.voxels, made.geometry         # datasets in slice order, files, true values, true grid
    ct_series(missing=(3,))                                     # a gap
    ct_series(repeated=(3,))                                    # two images at one position
    ct_series(times=3)                                          # a time series, voxels (time, slice, row, column)
    ct_series(encoding="jpegls", photometric="MONOCHROME1")     # see ENCODINGS
    merge(ct_series(), ct_series(series="2", orientation=SAGITTAL))  # one series of mixed orientations
    rtstruct(made, {"GTV": box_contours(made.geometry, (2, 5, 5), (5, 20, 20))}, directory=tmp_path)
    seg(made, {"GTV": mask}, directory=tmp_path)
"""

import copy
import hashlib
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from builder.model.geometry import Geometry
from builder.phantom.headers import (
    Scanner,
    Series,
    Stored,
    Subject,
    Visit,
    image_header,
    later,
    place_image,
)
from builder.phantom.segmentations import segmentation
from builder.phantom.structures import Contour, Roi, Target, structure_set

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)

ENCODINGS = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big_endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpegls": JPEGLSLossless,
    "jpeg2000": JPEG2000Lossless,
    "jpeg_lossless": JPEGLosslessSV1,
}
"""Names for the ``encoding`` argument."""


@dataclass(frozen=True, eq=False)
class Stack:
    """A series as made: ``images`` in slice order (repeated ones last) and the ``paths`` of their files; the true
    ``voxels`` after rescale as float64, (slice, row, column) or (time, slice, row, column); the true ``geometry``."""

    images: tuple[Dataset, ...]
    voxels: NDArray[np.float64]
    geometry: Geometry
    subject: Subject
    visit: Visit
    paths: tuple[Path, ...] = ()

    @property
    def series_uid(self) -> str:
        return str(self.images[0].SeriesInstanceUID)


def uid(*parts: object) -> str:
    """A UID that is a pure function of ``parts``."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return "2.25." + str(int.from_bytes(digest[:16], "big"))


def ct_series(directory: Path | None = None, **options: Any) -> Stack:
    """A CT series in Hounsfield units; options as of ``image_series``."""
    return image_series(directory, modality="CT", **{"intercept": -1024.0, "signed": False, **options})


def mr_series(directory: Path | None = None, **options: Any) -> Stack:
    """An MR series (no rescale, values >= 0); options as of ``image_series``."""
    return image_series(directory, modality="MR", **{"signed": False, **options})


def pt_series(directory: Path | None = None, **options: Any) -> Stack:
    """A PET series in Bq/ml, each slice with a slope of its own; options as of ``image_series``.

    SUVbw = value * weight_kg * 1000 / activity_bq, decayed over ``uptake_s``: see ``suv_factor``.
    """
    count = options.get("slices", 8)
    slopes = [0.5 + 0.125 * index for index in range(count)]
    made = {"slope": slopes, "voxels": None, **options}
    if made["voxels"] is None and "times" not in options:
        stored = np.abs(pattern((count, *options.get("shape", (32, 32)))))
        made["voxels"] = stored * np.broadcast_to(np.asarray(made["slope"], float), count)[:, None, None]
    return image_series(directory, modality="PT", **made)


def image_series(
    directory: Path | None = None,
    *,
    modality: str = "CT",
    slices: int = 8,
    shape: tuple[int, int] = (32, 32),
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0),
    origin: tuple[float, float, float] = (-16.0, -16.0, -12.0),
    orientation: Sequence[float] = AXIAL,
    tilt_degrees: float = 0.0,
    voxels: NDArray[Any] | None = None,
    slope: float | Sequence[float] = 1.0,
    intercept: float = 0.0,
    signed: bool = True,
    bits_stored: int = 16,
    padding: int | None = None,
    photometric: str = "MONOCHROME2",
    encoding: str = "explicit",
    missing: Sequence[int] = (),
    repeated: Sequence[int] = (),
    times: int = 1,
    patient_id: str = "P1",
    study: str = "1",
    series: str = "1",
    frame: str = "1",
    date: str = "20190102",
    time: str = "101500",
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL"),
    scanner: Scanner | None = None,
    subject: Subject | None = None,
    attributes: Mapping[str, Any] | None = None,
    edit: Callable[[int, Dataset], None] | None = None,
) -> Stack:
    """A series of single-frame images.

    Parameters
    ----------
    spacing
        mm between slices, rows, columns. ``tilt_degrees`` rotates the image planes about the row direction while the
        table still moves along the untilted normal (PS3.3 C.8.2.1, Gantry/Detector Tilt).
    voxels
        True values after rescale, (slice, row, column) or (time, slice, row, column); ``pattern`` when None.
    slope
        One number, or one a slice.
    missing, repeated
        Slice indices left out, or present twice (the copy has its own SOPInstanceUID and other pixels).
    patient_id, study, series, frame
        Short names that UIDs are made of: equal names give equal UIDs. Studies and frames belong to the patient.
    attributes
        Keyword to value, set on every image; None deletes. ``edit`` is called with (slice index, dataset) last.
    """
    visit = Visit(uid("study", patient_id, study), date, time)
    person = subject or Subject(patient_id)
    geometry = grid(
        (slices, *shape),
        spacing,
        origin=origin,
        orientation=orientation,
        tilt_degrees=tilt_degrees,
        frame_of_reference=uid("frame", patient_id, study, frame),
    )
    if voxels is None:
        base = pattern((slices, *shape)) if intercept < 0 or signed else np.abs(pattern((slices, *shape)))
        voxels = base if times == 1 else np.stack([base + 10 * t for t in range(times)])
    values = np.asarray(voxels, dtype=np.float64)
    number = int(series) if series.isdigit() else 1
    facts = Series(uid("series", patient_id, study, series), modality, number, image_type=image_type)
    header = image_header(
        visit,
        person,
        scanner=scanner or Scanner(),
        series=facts,
        geometry=geometry,
        stored=Stored(bits_stored, signed, 1.0, intercept, padding, photometric),
    )
    if modality == "CT":
        header.GantryDetectorTilt = f"{tilt_degrees:g}"
    slopes = np.broadcast_to(np.asarray(slope, dtype=np.float64), slices)
    plan = [(t, k, 0) for t in range(times) for k in range(slices) if k not in missing]
    plan += [(t, k, 1) for t in range(times) for k in repeated]
    images = []
    for count, (t, k, again) in enumerate(plan, start=1):
        image = copy.deepcopy(header)
        plane = (values if values.ndim == 3 else values[t])[k]
        pixels = np.rint((plane - intercept) / slopes[k]).astype(np.int64) + again
        sop = uid("image", facts.uid, t, k, again)
        place_image(image, sop, index=k, number=count, geometry=geometry, pixels=pixels)
        if modality != "MR":
            image.RescaleSlope = f"{slopes[k]:g}"
        if times > 1:
            _stamp(image, t, times)
        _override(image, attributes or {})
        if edit is not None:
            edit(k, image)
        images.append(encode(image, encoding))
    made = Stack(tuple(images), values, geometry, person, visit)
    return made if directory is None else store(made, directory, prefix=f"{modality}-{series}")


def grid(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0),
    *,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    tilt_degrees: float = 0.0,
    frame_of_reference: str | None = None,
) -> Geometry:
    """A Geometry from DICOM's words: ImageOrientationPatient, PixelSpacing, first ImagePositionPatient."""
    along_row, along_column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    normal = np.cross(along_row, along_column)
    angle = np.deg2rad(tilt_degrees)
    tilted = np.cos(angle) * along_column + np.sin(angle) * normal
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = normal * spacing[0], tilted * spacing[1], along_row * spacing[2]
    affine[:3, 3] = origin
    return Geometry(shape, affine, frame_of_reference)


def pattern(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Whole numbers from -1000 to 999 that differ between neighbours along every axis."""
    s, r, c = np.indices(shape)
    return ((337 * s + 41 * r + 3 * c) % 2000 - 1000).astype(np.float64)


def suv_factor(image: Dataset) -> float:
    """SUVbw per Bq/ml of a ``pt_series`` image, from first principles: kg * 1000 / dose decayed to the series time."""
    drug = image.RadiopharmaceuticalInformationSequence[0]
    delay = (_seconds(image.SeriesTime) - _seconds(drug.RadiopharmaceuticalStartTime)) % 86400
    dose = float(drug.RadionuclideTotalDose) * 2.0 ** (-delay / float(drug.RadionuclideHalfLife))
    return float(image.PatientWeight) * 1000.0 / dose


def merge(first: Stack, *others: Stack) -> tuple[Dataset, ...]:
    """The images of all stacks, as instances of the first one's series (mixed orientations, sizes, frames)."""
    images = list(first.images)
    for other in others:
        for image in other.images:
            image = copy.deepcopy(image)
            image.SeriesInstanceUID = first.series_uid
            image.StudyInstanceUID = first.visit.uid
            images.append(image)
    return tuple(images)


def encode(image: Dataset, encoding: str) -> Dataset:
    """The image in another transfer syntax (see ENCODINGS); the dataset itself is changed and returned."""
    syntax = ENCODINGS[encoding]
    if encoding in ("rle", "jpegls"):
        # the SOPInstanceUID stays: a lossless copy is the same instance for every purpose of a test
        image.compress(syntax, generate_instance_uid=False)
    elif encoding in ("jpeg2000", "jpeg_lossless"):
        image.PixelData = _compress_by_gdcm(image, encoding)
        image["PixelData"].VR = "OB"
        image["PixelData"].is_undefined_length = True
    elif encoding == "big_endian":
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    image.file_meta.TransferSyntaxUID = syntax
    return image


def to_bytes(dataset: Dataset) -> bytes:
    """The dataset as a DICOM file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def store(made: Stack, directory: Path, *, prefix: str = "image") -> Stack:
    """The stack with its images written as ``directory/prefix-0001.dcm`` and so on."""
    return replace(made, paths=write_all(made.images, directory, prefix=prefix))


def write_all(datasets: Sequence[Dataset], directory: Path, *, prefix: str = "image") -> tuple[Path, ...]:
    """The files the datasets were written to, in their order."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = tuple(directory / f"{prefix}-{n:04d}.dcm" for n in range(1, len(datasets) + 1))
    for path, dataset in zip(paths, datasets, strict=True):
        path.write_bytes(to_bytes(dataset))
    return paths


def rtstruct(
    made: Stack,
    rois: Mapping[str, Sequence[NDArray[Any]]],
    *,
    directory: Path | None = None,
    name: str = "rtstruct",
    referenced: bool = True,
) -> Dataset:
    """An RTSTRUCT on the stack: ROI name to contours, each (n, 3) LPS mm (no contours: an empty ROI).

    ``referenced=False`` names images and a series that do not exist: only the frame of reference joins them.
    """
    uids = [str(image.SOPInstanceUID) for image in made.images]
    series_uid = made.series_uid
    if not referenced:
        uids, series_uid = [uid("stale", value) for value in uids], uid("stale", series_uid)
    target = Target(made.geometry.frame_of_reference or "", series_uid, str(made.images[0].SOPClassUID), tuple(uids))
    positions = np.array([[float(v) for v in image.ImagePositionPatient] for image in made.images])
    normal = np.cross(made.geometry.directions[:, 2], made.geometry.directions[:, 1])

    def draw(points: NDArray[Any]) -> Contour:
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        nearest = int(np.argmin(np.abs((positions - points[0]) @ normal)))
        return Contour(points, uids[nearest])

    dataset = structure_set(
        made.visit,
        made.subject,
        scanner=Scanner(),
        target=target,
        rois=[Roi(label, tuple(draw(points) for points in contours)) for label, contours in rois.items()],
        uid=uid(name, made.series_uid),
        series=Series(uid(name, "series", made.series_uid), "RTSTRUCT", 10, "Contours"),
    )
    if directory is not None:
        write_all([dataset], directory, prefix=name)
    return dataset


def registration(
    registered: str,
    sources: Mapping[str, NDArray[Any]],
    *,
    made: Stack | None = None,
    directory: Path | None = None,
    name: str = "reg",
) -> Dataset:
    """A Spatial Registration object: frame of reference UID to the (4, 4) matrix to the registered frame.

    ``made`` gives the patient and the study.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        if made is not None and keyword in made.images[0]:
            setattr(dataset, keyword, made.images[0][keyword].value)
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.66.1", "REG"
    dataset.SOPInstanceUID = uid(name, registered, *sources)
    dataset.SeriesInstanceUID = uid(name, "series", registered, *sources)
    dataset.FrameOfReferenceUID = registered
    dataset.RegistrationSequence = []
    for frame, matrix in sources.items():
        step = Dataset()
        step.FrameOfReferenceTransformationMatrixType = "RIGID"
        step.FrameOfReferenceTransformationMatrix = [f"{v:.9g}"[:16] for v in np.ravel(matrix)]
        block = Dataset()
        block.MatrixSequence = [step]
        item = Dataset()
        item.FrameOfReferenceUID, item.MatrixRegistrationSequence = frame, [block]
        dataset.RegistrationSequence.append(item)
    if directory is not None:
        write_all([dataset], directory, prefix=name)
    return dataset


def box_contours(
    geometry: Geometry, start: tuple[int, int, int], stop: tuple[int, int, int]
) -> list[NDArray[np.float64]]:
    """Rectangles whose inside is exactly the voxels start <= index < stop: edges run between voxel centres."""
    top, left, bottom, right = start[1] - 0.5, start[2] - 0.5, stop[1] - 0.5, stop[2] - 0.5
    return [
        geometry.to_world([(k, top, left), (k, top, right), (k, bottom, right), (k, bottom, left)])
        for k in range(start[0], stop[0])
    ]


def seg(
    made: Stack,
    masks: Mapping[str, NDArray[Any]],
    *,
    kind: str = "BINARY",
    directory: Path | None = None,
    name: str = "seg",
) -> Dataset:
    """A SEG on the stack by highdicom, of segment label to (slice, row, column) mask; kind as of ``segmentation``."""
    dataset = segmentation(
        made.images,
        masks,
        uid=uid(name, made.series_uid),
        series_uid=uid(name, "series", made.series_uid),
        kind=kind,
        rename=lambda ordinal: uid(name, made.series_uid, ordinal),
    )
    if directory is not None:
        write_all([dataset], directory, prefix=name)
    return dataset


def _compress_by_gdcm(image: Dataset, encoding: str) -> bytes:
    """Encapsulated pixel data by gdcm, for the syntaxes that pydicom cannot encode."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in.dcm", Path(scratch) / "out.dcm"
        source.write_bytes(to_bytes(image))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(source))
        assert reader.Read()
        names = {"jpeg2000": "JPEG2000Lossless", "jpeg_lossless": "JPEGLosslessProcess14_1"}
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, names[encoding])))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return bytes(dcmread(target).PixelData)


def _stamp(image: Dataset, index: int, count: int) -> None:
    image.AcquisitionNumber = str(index + 1)
    image.AcquisitionTime = image.ContentTime = later(image.SeriesTime, 30 * index)
    if image.Modality == "MR":
        image.TemporalPositionIdentifier, image.NumberOfTemporalPositions = str(index + 1), str(count)


def _override(image: Dataset, attributes: Mapping[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is not None:
            setattr(image, keyword, value)
        elif keyword in image:
            delattr(image, keyword)


def _seconds(time: str) -> int:
    return int(time[:2]) * 3600 + int(time[2:4]) * 60 + int(time[4:6])
