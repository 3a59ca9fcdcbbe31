"""Label objects that go wrong as real archives do, each with the voxels that are right for it."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from tests.truth import objects
from tests.truth.chooser import Chooser
from tests.truth.images import Case, Scan, scan, slices, whole
from tests.truth.objects import code, item, number
from tests.truth.oracle import inside, near, segment_planes

EDGE_MM = 0.02
"""Voxels whose centre lies this near an outline may be in or out: the outline's numbers are rounded."""


def _image(c: Chooser, case: Case) -> tuple[Scan, list[Dataset]]:
    plan = replace(scan(c, c.one(("CT", "MR")), slices=c.between(5, 8)), slope="1")
    plan = replace(plan, shape=(c.between(14, 20), c.between(14, 20)))
    images = slices(plan, case.number)
    case.add(images, "image/")
    case.right = [whole(images)]
    return plan, images


def _world(plan: Scan, k: float, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """LPS mm of (row, column) points in slice k."""
    down, along = plan.cosines[3:] * plan.spacing[0], plan.cosines[:3] * plan.spacing[1]
    found: NDArray[np.float64] = plan.origin + plan.step * k + points[:, :1] * down + points[:, 1:] * along
    return found


# --- contours --------------------------------------------------------------------------------------------------------

WANTED, OTHER = "GTV", "Couch"


def contours(c: Chooser, case: Case) -> None:
    """A structure set of a wanted ROI and two others; outlines are stars, boxes and rings, and some go wrong."""
    plan, images = _image(c, case)
    draw = c.noise()
    first = c.between(0, 2)
    last = c.between(first + 1, plan.slices - 1)
    form = c.one(("star", "box", "disc"))
    outlines = {k: [_outline(plan, form, draw)] for k in range(first, last + 1)}
    fault = c.one(tuple(CONTOUR_FAULTS))
    ds = _structure_set(case, plan, images, outlines)
    verdict = CONTOUR_FAULTS[fault](ds, plan, outlines, draw)
    case.files["rt.dcm"] = objects.written(ds)
    case.story = f"{form}, {fault}"
    case.must = verdict
    if verdict != "refuse":
        case.label = _filled(plan, outlines)
    else:
        case.right = []


def _outline(plan: Scan, form: str, draw: np.random.Generator) -> NDArray[np.float64]:
    """(n, 2) vertices in (row, column)."""
    middle = np.array(plan.shape) / 2 + draw.uniform(-1, 1, 2)
    size = min(plan.shape) / 2 - 2
    if form == "box":
        low, high = middle - draw.uniform(1.5, size, 2), middle + draw.uniform(1.5, size, 2)
        return np.array([low, [low[0], high[1]], high, [high[0], low[1]]])
    angles = np.linspace(0, 2 * np.pi, 24 if form == "disc" else 11, endpoint=False)
    radii = np.full(len(angles), size * 0.8) if form == "disc" else size * draw.uniform(0.35, 1.0, len(angles))
    return middle + radii[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _contour(plan: Scan, k: float, points: NDArray[np.float64], kind: str = "CLOSED_PLANAR") -> Dataset:
    mm = _world(plan, k, points)
    return item(
        ContourGeometricType=kind, NumberOfContourPoints=len(mm), ContourData=[f"{v:.4f}" for v in mm.ravel()]
    )  # fmt: skip


def _structure_set(case: Case, plan: Scan, images: list[Dataset], outlines: dict[int, Any]) -> Dataset:
    ds = objects.header("RTSTRUCT", case=case.number, series=77, instance=1)
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "S", "20200301", "100000"
    references = [item(ReferencedSOPClassUID=i.SOPClassUID, ReferencedSOPInstanceUID=i.SOPInstanceUID) for i in images]
    series = item(SeriesInstanceUID=images[0].SeriesInstanceUID, ContourImageSequence=references)
    study = item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=images[0].StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )  # fmt: skip
    frame = item(FrameOfReferenceUID=images[0].FrameOfReferenceUID, RTReferencedStudySequence=[study])
    ds.ReferencedFrameOfReferenceSequence = Items([frame])
    box = np.array([[1.0, 1.0], [1.0, 4.0], [4.0, 4.0], [4.0, 1.0]])
    rois, held, seen = [], [], []
    for roi, (name, places) in enumerate(
        ((WANTED, [(k, p) for k, ps in outlines.items() for p in ps]), ("Heart", [(1, box)]), (OTHER, [(2, box)])), 1
    ):
        rois.append(
            item(
                ROINumber=roi,
                ROIName=name,
                ReferencedFrameOfReferenceUID=ds.FrameOfReferenceUID,
                ROIGenerationAlgorithm="MANUAL",
            )
        )
        held.append(item(ReferencedROINumber=roi, ContourSequence=[_contour(plan, k, p) for k, p in places]))
        seen.append(item(ObservationNumber=roi, ReferencedROINumber=roi, RTROIInterpretedType="GTV", ROIInterpreter=""))
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = (
        Items(rois),
        Items(held),
        Items(seen),
    )
    return ds


def _filled(plan: Scan, outlines: dict[int, list[NDArray[np.float64]]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Voxels that must be in and out: centres inside an odd number of outlines, but for those close to one."""
    scale = np.array(plan.spacing)
    centres = np.stack(np.meshgrid(*map(np.arange, plan.shape), indexing="ij"), axis=-1).reshape(-1, 2) * scale
    within, unsure = np.zeros((2, plan.slices, *plan.shape), dtype=bool)
    for k, group in outlines.items():
        for outline in group:
            within[k] ^= inside(centres, outline * scale).reshape(plan.shape)
            unsure[k] |= near(centres, outline * scale, EDGE_MM).reshape(plan.shape)
    return within & ~unsure, ~within & ~unsure


def _wanted(ds: Dataset) -> Any:
    return ds.ROIContourSequence[0].ContourSequence


def _nothing(ds: Dataset, *_: Any) -> str:
    return "publish"


def _again(ds: Dataset, plan: Scan, outlines: Any, draw: np.random.Generator) -> str:
    """A contour stands twice: as it is, from another start, reversed, or rounded."""
    place = int(draw.integers(len(_wanted(ds))))
    k = sorted(outlines)[place]
    points = outlines[k][0]
    how = int(draw.integers(4))
    points = (points, np.roll(points, 2, axis=0), points[::-1], points + 1e-3)[how]
    _wanted(ds).append(_contour(plan, k, points))
    return "publish"


def _hole(ds: Dataset, plan: Scan, outlines: Any, draw: np.random.Generator) -> str:
    for k in outlines:
        middle = outlines[k][0].mean(axis=0)
        inner = middle + (outlines[k][0] - middle) * 0.4
        _wanted(ds).append(_contour(plan, k, inner))
        outlines[k].append(inner)
    return "publish"


def _split(ds: Dataset, *_: Any) -> str:
    """The contours of the ROI stand in two items."""
    rest = item(ReferencedROINumber=1, ContourSequence=list(_wanted(ds))[1:])
    ds.ROIContourSequence[0].ContourSequence = Items(list(_wanted(ds))[:1])
    ds.ROIContourSequence.append(rest)
    return "publish"


def _mixed(ds: Dataset, plan: Scan, outlines: Any, draw: np.random.Generator) -> str:
    """Contours, items and ROIs stand in any order."""
    for name in ("StructureSetROISequence", "ROIContourSequence"):
        items = list(ds[name].value)
        setattr(ds, name, Items([items[k] for k in draw.permutation(len(items))]))
    return "publish"


def _bad(roi: int, value: bytes, vr: str = "DS") -> Callable[..., str]:
    def spoil(ds: Dataset, *_: Any) -> str:
        objects.raw(ds.ROIContourSequence[roi].ContourSequence[0], 0x30060050, vr, value)
        return "refuse" if roi == 0 else "publish"

    return spoil


def _number_twice(ds: Dataset, *_: Any) -> str:
    ds.StructureSetROISequence[1].ROINumber = 1
    ds.ROIContourSequence[1].ReferencedROINumber = 1
    return "refuse"


def _no_number(ds: Dataset, *_: Any) -> str:
    ds.ROIContourSequence[2].ReferencedROINumber = None
    return "publish"


def _stale(ds: Dataset, *_: Any) -> str:
    """Only the frame of reference still joins the objects."""
    series = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.SeriesInstanceUID = "1.2.3.4.5"
    for reference in series.ContourImageSequence:
        reference.ReferencedSOPInstanceUID += ".9"
    return "publish"


def _points(ds: Dataset, *_: Any) -> str:
    _wanted(ds)[0].NumberOfContourPoints += 1
    return "refuse"


def _null(ds: Dataset, *_: Any) -> str:
    contour = _wanted(ds)[0]
    text = "\\".join(str(v) for v in contour.ContourData).encode()
    objects.raw(contour, 0x30060050, "DS", text + b"\0" * (1 + (len(text) + 1) % 2))
    return "publish"


CONTOUR_FAULTS: dict[str, Callable[..., str]] = {
    "none": _nothing, "again": _again, "hole": _hole, "two items": _split, "other order": _mixed,
    "number twice": _number_twice,
    "no number elsewhere": _no_number, "stale references": _stale, "points miscounted": _points, "null padding": _null,
    "text": _bad(0, b"1\\2\\three"), "empty number": _bad(0, b"1\\2\\3\\4\\\\6\\7\\8\\9"),
    "comma": _bad(0, b"1,5\\2\\3\\4\\5\\6\\7\\8\\9"),
    "no triplets": _bad(0, b"1\\2\\3\\4"), "nothing": _bad(0, b""), "text elsewhere": _bad(2, b"1\\2\\three"),
    "comma elsewhere": _bad(2, b"1,5\\2\\3"), "another VR": _bad(0, b"\1\2\3\4", "FL"),
}  # fmt: skip


# --- segmentations ---------------------------------------------------------------------------------------------------


def segments(c: Chooser, case: Case) -> None:
    """A segmentation of a wanted segment and another, with frames in any order, left out, or damaged."""
    plan, images = _image(c, case)
    draw = c.noise()
    masks = draw.random((2, plan.slices, *plan.shape)) < 0.3
    masks[:, draw.random(plan.slices) < 0.3] = False
    masks[0, plan.slices // 2, 3:6, 3:6] = True
    entries = [(s, k) for s in range(2) for k in range(plan.slices) if masks[s, k].any() or c.flag(4)]
    entries = [entries[i] for i in draw.permutation(len(entries))]
    fault = c.one(SEGMENT_FAULTS)
    fractional = c.flag(3)
    ds = _segmentation(case, plan, images, masks, entries, fractional)
    case.must = _spoil_segments(ds, fault, plan, entries, draw)
    case.files["seg.dcm"] = objects.written(ds)
    case.story = f"{'fractional' if fractional else 'binary'}, {fault}"
    if case.must == "refuse":
        case.right = []
        return
    inside_ = np.zeros((plan.slices, *plan.shape), dtype=bool)
    try:
        for position, values in segment_planes(case.files["seg.dcm"], {1}):
            k = round(float((position - plan.origin) @ plan.step / (plan.step @ plan.step)))
            if 0 <= k < plan.slices:
                inside_[k] |= values
    except (TypeError, ValueError):
        case.must = "any"
        inside_ = masks[0]
    case.label = inside_, ~inside_


SEGMENT_FAULTS = (
    *("none", "none", "no sources", "no series", "stale", "no position of the other", "no position", "number twice"),
    *("too few bits", "off the grid", "no number of a frame", "group missing", "no segments"),
    *("orientation of the other", "position of the other beyond", "text as position of the other"),
)


def _segmentation(
    case: Case,
    plan: Scan,
    images: list[Dataset],
    masks: NDArray[np.bool_],
    entries: list[tuple[int, int]],
    fractional: bool,
) -> Dataset:
    ds = objects.header("SEG", case=case.number, series=88, instance=1)
    ds.ImageType, ds.SegmentationType = ["DERIVED", "PRIMARY"], "FRACTIONAL" if fractional else "BINARY"
    ds.Rows, ds.Columns = plan.shape
    ds.NumberOfFrames = len(entries)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 8 if fractional else 1
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.LossyImageCompression = bits - 1, "00"
    if fractional:
        ds.SegmentationFractionalType, ds.MaximumFractionalValue = "PROBABILITY", 200
    kinds = {
        "SegmentedPropertyCategoryCodeSequence": [code("49755003", "SCT", "Abnormality")],
        "SegmentedPropertyTypeCodeSequence": [code("4147007", "SCT", "Mass")],
    }
    ds.SegmentSequence = Items(
        [
            item(SegmentNumber=n, SegmentLabel=name, SegmentAlgorithmType="MANUAL", **kinds)
            for n, name in ((1, WANTED), (2, OTHER))
        ]
    )
    shared = item(
        PixelMeasuresSequence=[
            item(PixelSpacing=[number(v) for v in plan.spacing], SliceThickness=number(plan.thickness))
        ],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[number(v) for v in plan.cosines])],
    )
    ds.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for s, k in entries:
        source = item(ReferencedSOPClassUID=images[k].SOPClassUID, ReferencedSOPInstanceUID=images[k].SOPInstanceUID)
        place = item(ImagePositionPatient=[number(v) for v in plan.origin + plan.step * k])
        groups.append(
            item(
                PlanePositionSequence=[place],
                SegmentIdentificationSequence=[item(ReferencedSegmentNumber=s + 1)],
                DerivationImageSequence=[item(SourceImageSequence=[source])],
            )
        )
    ds.PerFrameFunctionalGroupsSequence = Items(groups)
    references = [item(ReferencedSOPClassUID=i.SOPClassUID, ReferencedSOPInstanceUID=i.SOPInstanceUID) for i in images]
    ds.ReferencedSeriesSequence = Items(
        [item(SeriesInstanceUID=images[0].SeriesInstanceUID, ReferencedInstanceSequence=references)]
    )
    values = np.stack([masks[entry] for entry in entries])
    data = (
        (values * np.uint8(200)).tobytes() if fractional else np.packbits(values.ravel(), bitorder="little").tobytes()
    )
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB"
    return ds


def _spoil_segments(  # noqa: C901 - one fault a branch
    ds: Dataset, fault: str, plan: Scan, entries: list[tuple[int, int]], draw: np.random.Generator
) -> str:
    groups = ds.PerFrameFunctionalGroupsSequence
    mine = [k for k, (s, _) in enumerate(entries) if s == 0]
    others = [k for k, (s, _) in enumerate(entries) if s == 1]
    other = groups[others[0]] if others else None
    if fault == "no sources":
        for group in groups:
            del group.DerivationImageSequence
    elif fault == "no series":
        del ds.ReferencedSeriesSequence
    elif fault == "stale":
        for group in groups:
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID += ".9"
        ds.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4.5"
        for reference in ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence:
            reference.ReferencedSOPInstanceUID += ".9"
    elif fault == "no position of the other" and other:
        del other.PlanePositionSequence
    elif fault == "text as position of the other" and other:
        objects.raw(other.PlanePositionSequence[0], 0x00200032, "DS", b"here\\1\\2")
    elif fault == "position of the other beyond" and other:
        other.PlanePositionSequence[0].ImagePositionPatient = ["1e9", "0", "0"]
    elif fault == "orientation of the other" and other:
        other.PlaneOrientationSequence = Items([item(ImageOrientationPatient=["0", "1", "0", "1", "0", "0"])])
    elif fault == "no position":
        del groups[mine[0]].PlanePositionSequence
        return "refuse"
    elif fault == "number twice":
        ds.SegmentSequence[1].SegmentNumber = 1
        return "refuse"
    elif fault == "too few bits":
        ds.PixelData = ds.PixelData[: len(ds.PixelData) // 4 * 2]
        return "refuse"
    elif fault == "off the grid":
        for (_, k), group in zip(entries, groups, strict=True):
            mm = plan.origin + plan.step * (k + 0.37)
            group.PlanePositionSequence[0].ImagePositionPatient = [number(v) for v in mm]
            del group.DerivationImageSequence
        return "refuse"
    elif fault == "no number of a frame":
        del groups[int(draw.integers(len(groups)))].SegmentIdentificationSequence
        return "refuse"
    elif fault == "group missing":
        del groups[-1]
        return "refuse"
    elif fault == "no segments":
        del ds.SegmentSequence
        return "refuse"
    return "publish"


# --- files -----------------------------------------------------------------------------------------------------------

FORMATS = ("nii", "nii.gz", "nrrd", "mha")
FILE_FAULTS = (
    "none",
    "none",
    "flipped",
    "axes swapped",
    "shifted",
    "other size",
    "cut",
    "text",
    "floats",
    "other values",
    "units",
)


def files(c: Chooser, case: Case) -> None:
    """A mask file on the image's grid, in the order and direction of axes that its writer liked."""
    plan, _ = _image(c, case)
    draw = c.noise()
    suffix, fault = c.one(FORMATS), c.one(FILE_FAULTS)
    mask = draw.random((plan.slices, *plan.shape)) < 0.3
    down, along = plan.cosines[3:] * plan.spacing[0], plan.cosines[:3] * plan.spacing[1]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = along, down, plan.step, plan.origin
    voxels = mask.transpose(2, 1, 0).astype(np.uint8)  # (column, row, slice), as these files count
    if fault == "other values":
        voxels[voxels == 0] = 7 * (draw.random(int((voxels == 0).sum())) < 0.2)
    if fault == "flipped":
        axis = int(draw.integers(3))
        affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
        affine[:3, axis] *= -1
        voxels = np.flip(voxels, axis)
    if fault == "axes swapped":
        turn = draw.permutation(3)
        voxels, affine[:3, :3] = voxels.transpose(turn), affine[:3, :3][:, turn]
    if fault == "shifted":
        affine[:3, 3] += plan.step * 0.4
    if fault == "other size":
        voxels = voxels[1:]
    content = _file(np.ascontiguousarray(voxels), affine, suffix, fault)
    case.files[f"mask.{suffix}"] = content
    case.story = f"{suffix}, {fault}"
    case.must = "publish"
    case.bare = fault in ("cut", "text")  # no mask at all: what is left of the file is counted as unreadable
    if fault in ("shifted", "cut", "text"):
        case.must, case.right = "any", [] if fault == "shifted" else case.right
        case.label = (~mask & mask, ~mask & mask) if case.bare else None
        return
    if fault == "other size":  # the file lacks the first column, and says that its second lies where the first did
        mask = np.concatenate([mask[:, :, 1:], np.zeros_like(mask[:, :, :1])], axis=2)
        case.must = "any"
    case.label = mask, ~mask


def _file(voxels: NDArray[Any], affine: NDArray[np.float64], suffix: str, fault: str) -> bytes:
    """The bytes of a mask file; ``affine`` maps (column, row, slice) to LPS mm."""
    data = voxels.astype(np.float32) if fault == "floats" else voxels
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m.{suffix}"
        if suffix.startswith("nii"):
            image = nibabel.Nifti1Image(data, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, path)
        else:
            _by_itk(data, affine, path)
        content = path.read_bytes()
    if fault == "units" and suffix == "nrrd":
        content = content.replace(
            b"space: left-posterior-superior\n", b'space: left-posterior-superior\nspace units: "mm" "mm" "mm"\n'
        )
    if fault == "cut":
        return content[: len(content) * 2 // 3]
    return b"no mask at all\n" if fault == "text" else content


def _by_itk(data: NDArray[Any], affine: NDArray[np.float64], path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)
