"""Series of images that go wrong as real archives do, each with the volumes that are right for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.truth import objects
from tests.truth.chooser import Chooser
from tests.truth.oracle import Frame, Plane

AXES = {
    "axial": (1, 0, 0, 0, 1, 0), "prone": (-1, 0, 0, 0, -1, 0), "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1), "oblique": (0.8, 0.6, 0, -0.48, 0.64, 0.6),
}  # fmt: skip
SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
    RLELossless, JPEGLSLossless, JPEG2000Lossless,
)  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """A right volume: frames by channel and slice; ``even`` where slices may be interpolated onto a regular grid."""

    channels: tuple[tuple[Frame, ...], ...]
    even: bool = False


@dataclass
class Case:
    """Files of one person, and what may come of them.

    Parameters
    ----------
    right
        Volumes that are right. What is published must be one of them.
    must
        ``publish``: refusing it is a fault too. ``refuse``: nothing may be published but what is in ``right``. ``any``:
        either.
    suv
        SUVbw of 1 Bq/ml; None where a PET must not become SUV.
    bare
        Whether the image may be published without a label, because the label is refused by itself.
    planes
        Images that the oracle cannot read from the files alone: tiles of private forms.
    label
        Voxels that must be in the label and out of it, (slice, row, column) of ``right[0]``; None without a label.
    """

    kind: str
    number: int
    files: dict[str, bytes] = field(default_factory=dict)
    right: list[Expected] = field(default_factory=list)
    must: str = "publish"
    suv: float | None = None
    bare: bool = False
    planes: dict[Frame, Plane] = field(default_factory=dict)
    label: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    story: str = ""
    choices: tuple[int, ...] = ()

    def add(self, images: Sequence[Dataset], folder: str = "", order: NDArray[np.int64] | None = None) -> None:
        """Write images as files, named in an order of their own."""
        names = np.arange(len(images)) if order is None else order
        for name, ds in zip(names, images, strict=True):
            self.files[f"{folder}i{len(self.files):03d}_{name}"] = objects.written(ds)


@dataclass(frozen=True)
class Scan:
    """The plan of a stack of parallel slices."""

    kind: str
    slices: int
    shape: tuple[int, int]
    spacing: tuple[float, float]
    step: NDArray[np.float64]
    cosines: NDArray[np.float64]
    origin: NDArray[np.float64]
    thickness: float
    dtype: str
    stored: int
    seed: int
    slope: str = "1"
    intercept: str = "0"


def scan(c: Chooser, kind: str = "", *, slices: int = 0) -> Scan:
    """A drawn stack, upright on its planes."""
    kind = kind or c.one(("CT", "MR"))
    cosines = np.array(AXES[c.one(tuple(AXES))], dtype=float)
    normal = np.cross(cosines[:3], cosines[3:]) * c.one((1.0, -1.0))
    gap = c.one((3.0, 1.0, 2.5, 5.0, 0.625, 10 / 3))
    spacing = (c.one((1.0, 0.9765625, 0.7, 1 / 3)), c.one((1.0, 0.9765625, 0.7)))
    unsigned = c.flag(3) or kind == "PT"
    slope, intercept = ("1", "-1024") if kind == "CT" else ("1", "0")
    if c.flag(4):
        slope = c.one(("2", "0.5", "1.25", "0.00390625"))
    return Scan(
        kind, slices or c.between(4, 9), (c.between(8, 12), c.between(8, 12)), spacing, normal * gap, cosines,
        np.array([c.between(-90, 90), c.between(-90, 90), c.between(-400, 400)]) * 0.5, gap,
        "uint16" if unsigned else "int16", c.one((16, 12)), c.below(1 << 16), slope, intercept,
    )  # fmt: skip


def pixels(plan: Scan, index: int, series: int = 0) -> NDArray[Any]:
    """Stored values of a slice: a pattern that differs at every pixel and slice, with noise."""
    draw = np.random.default_rng([plan.seed, index, series])
    signed = plan.dtype[0] == "i"
    top = 1 << min(plan.stored - (1 if signed else 0), 12)
    low = -top // 2 if signed else 0
    return draw.integers(low, low + top if not signed else top // 2, plan.shape).astype(plan.dtype)


def slices(
    plan: Scan, case: int, *, series: int = 1, first: int = 1, shift: float = 0.0, content: int = 0
) -> list[Dataset]:
    """The images of a stack in order of their steps; ``shift`` moves it along them by so many steps."""
    made = []
    for k in range(plan.slices):
        ds = objects.image(
            plan.kind, pixels(plan, k, content), at=(case, series, first + k), stored=plan.stored,
            position=plan.origin + plan.step * (k + shift), cosines=plan.cosines, spacing=plan.spacing,
            thickness=plan.thickness,
        )  # fmt: skip
        if plan.kind == "CT":
            ds.KVP, ds.ConvolutionKernel, ds.RescaleType = "120", "B30f", "HU"
        elif plan.kind == "MR":
            ds.EchoTime, ds.RepetitionTime, ds.FlipAngle, ds.ScanningSequence = "4.92", "2000", "90", "SE"
        if plan.kind != "MR" or plan.slope != "1":
            ds.RescaleSlope, ds.RescaleIntercept = plan.slope, plan.intercept
        made.append(ds)
    return made


def frames(images: Sequence[Dataset]) -> tuple[Frame, ...]:
    return tuple((str(ds.SOPInstanceUID), 0) for ds in images)


def plane_of(plan: Scan, ds: Dataset, index: int) -> dict[Frame, Plane]:
    """The plane that a slice was made from."""
    none = np.zeros(plan.shape, dtype=bool)
    values = pixels(plan, index) * float(plan.slope) + float(plan.intercept)
    down, along = plan.cosines[3:] * plan.spacing[0], plan.cosines[:3] * plan.spacing[1]
    place = plan.origin + plan.step * index
    return {(str(ds.SOPInstanceUID), 0): Plane(place, down, along, values, none, none, plan.kind, True)}


def whole(*channels: Sequence[Dataset], even: bool = False) -> Expected:
    return Expected(tuple(frames(images) for images in channels), even)


def shuffled(c: Chooser, count: int) -> NDArray[np.int64]:
    return c.noise().permutation(count)


def ends(images: Sequence[Dataset], lost: int) -> list[Expected]:
    """What is right once a slice is lost: the others, if it was the first or the last, or if only two are left."""
    left = [ds for k, ds in enumerate(images) if k != lost]
    return [whole(left)] if lost in (0, len(images) - 1) or len(left) == 2 else []


# --- kinds -----------------------------------------------------------------------------------------------------------


def order(c: Chooser, case: Case) -> None:
    """Files in any order and folder, with instance numbers of any kind, and copies of files."""
    images = slices(scan(c), case.number)
    numbering = c.one(("as placed", "reversed", "random", "all the same", "absent", "huge"))
    draw = c.noise().permutation(len(images))
    for k, ds in enumerate(images):
        ds.InstanceNumber = {
            "reversed": len(images) - k, "random": int(draw[k]) + 1, "all the same": 1, "absent": None,
            "huge": 2_000_000_000 + k,
        }.get(numbering, k + 1)  # fmt: skip
    case.add(images, c.one(("", "a/b/", "DICOM/S1/")), shuffled(c, len(images)))
    if c.flag(3):
        case.add([images[c.below(len(images))]], "copy/")
    case.right, case.story = [whole(images)], f"numbers {numbering}"


def rounding(c: Chooser, case: Case) -> None:
    """Positions, cosines, spacings and protocol numbers that are written with few digits."""
    plan = scan(c)
    if c.flag(3):  # a tilted gantry: planes turned about their rows, the table along the old normal
        angle = np.deg2rad(c.one((10.0, 18.5, -7.5)))
        down, normal = plan.cosines[3:], plan.step / np.linalg.norm(plan.step)
        plan = replace(plan, cosines=np.concatenate([plan.cosines[:3], np.cos(angle) * down + np.sin(angle) * normal]))
    images = slices(plan, case.number)
    digits, what = c.one((3, 2, 4)), c.one(("positions", "cosines", "both", "thickness", "protocol", "spacing"))
    draw = c.noise()
    for k, ds in enumerate(images):
        if what in ("positions", "both"):
            ds.ImagePositionPatient = [f"{v:.{digits}f}" for v in plan.origin + plan.step * k]
        if what in ("cosines", "both"):
            ds.ImageOrientationPatient = [f"{v:.{digits + 2}f}" for v in plan.cosines]
        if what == "thickness":
            ds.SliceThickness = objects.number(plan.thickness * (1 + 1e-4 * draw.integers(-3, 4)))
        if what == "protocol":
            setattr(ds, *c_protocol(plan.kind, float(draw.integers(-2, 3))))
        if what == "spacing":
            ds.PixelSpacing = [objects.number(v * (1 + 1e-6 * draw.integers(-2, 3))) for v in plan.spacing]
    case.add(images, order=shuffled(c, len(images)))
    case.right, case.story = [whole(images)], f"{what}, {digits} digits"


def c_protocol(kind: str, off: float) -> tuple[str, str]:
    return ("KVP", f"{120 + 1e-4 * off:.6g}") if kind == "CT" else ("EchoTime", f"{4.92 + 1e-6 * off:.9g}")


def gaps(c: Chooser, case: Case) -> None:
    """Slices that are missing, or lie at uneven distances."""
    plan = scan(c, slices=c.between(5, 9))
    images = slices(plan, case.number)
    how = c.one(("one missing", "two missing", "an end missing", "two spacings", "one shifted", "all but two"))
    left = list(images)
    inner = c.between(1, plan.slices - 2)
    if how == "one missing":
        del left[inner]
    elif how == "two missing":
        del left[inner]
        del left[min(inner, len(left) - 2)]
    elif how == "an end missing":
        del left[c.one((0, -1))]
    elif how == "two spacings":
        for k, ds in enumerate(images[inner:]):
            ds.ImagePositionPatient = [objects.number(v) for v in plan.origin + plan.step * (inner + 1.6 * k)]
    elif how == "one shifted":
        place = plan.origin + plan.step * (inner + c.one((0.3, -0.4, 0.12)))
        images[inner].ImagePositionPatient = [objects.number(v) for v in place]
    else:
        left = [images[0], images[-1]]
    case.add(left, order=shuffled(c, len(left)))
    case.story = how
    case.must = "publish" if how == "an end missing" else "any"
    if how == "two spacings" and inner in (1, plan.slices - 1):
        case.story += " at the end"
    uneven = how in ("two spacings", "one shifted")
    # of two slices nobody can say that others were between them, unless their thickness does
    case.right = [whole(left, even=uneven)] if uneven or how in ("an end missing", "all but two") else []
    if how == "two missing" and len(left) == 3 and inner in (1, 2):
        case.right = [whole(left)]


MADE: dict[str, tuple[tuple[str, Any, Any], ...]] = {
    "CT": (
        ("ConvolutionKernel", "B30f", "B70s"), ("KVP", "120", "80"),
        ("ImageType", None, ["DERIVED", "SECONDARY", "MPR"]),
    ),
    "MR": (
        ("EchoTime", "4.92", "9.84"), ("FlipAngle", "90", "30"), ("InversionTime", "150", "900"),
        ("ScanningSequence", "SE", "GR"), ("ImageType", None, ["ORIGINAL", "PRIMARY", "P"]),
        ("DiffusionBValue", 0.0, 1000.0),
    ),
}  # fmt: skip
"""Attributes that make an image, with two values."""

CAME: tuple[tuple[str, Any, Any], ...] = (
    ("AcquisitionNumber", 1, 2), ("AcquisitionTime", "100000", "100500"), ("SeriesNumber", 1, 2),
    ("SeriesDescription", "first pass", "second pass"), ("ContrastBolusAgent", "NONE", "IODINE"),
)  # fmt: skip
"""Attributes that say how or when an image came about."""


def mixture(c: Chooser, case: Case) -> None:
    """Two stacks under one SeriesInstanceUID, which differ in one attribute and in their pixels."""
    plan = scan(c, slices=c.between(4, 6))
    making = c.flag()
    keyword, first, second = c.one(MADE[plan.kind] if making else CAME)
    layout = c.one(("interleaved", "same places", "beside", "far away"))
    shift = {"interleaved": 0.5, "same places": 0.0, "beside": float(plan.slices), "far away": plan.slices + 8.0}[
        layout
    ]
    one = slices(plan, case.number)
    two = slices(plan, case.number, first=1 + plan.slices, shift=shift, content=1)
    for group, value in ((one, first), (two, second)):
        for ds in group:
            if value is not None:
                setattr(ds, keyword, value)
    if c.flag(3):
        for k, ds in enumerate([image for pair in zip(one, two, strict=True) for image in pair]):
            ds.InstanceNumber = k + 1
    case.add([*one, *two], order=shuffled(c, 2 * plan.slices))
    case.story, case.must = f"{keyword} {layout}", "any"
    case.right = [whole(one), whole(two)]
    if not making and layout == "same places":
        case.right.append(whole(one, two))
        if keyword not in ("AcquisitionNumber", "AcquisitionTime", "SeriesNumber"):
            case.right.append(whole(two, one))
    if not making and layout == "beside":
        case.right.append(whole([*one, *two]))  # one scan may be acquired in two passes, one above the other


def likeness(c: Chooser, case: Case) -> None:
    """One stack, of which some slices state an attribute with another rounding, not at all, or as derived."""
    plan = scan(c, slices=c.between(5, 9))
    images = slices(plan, case.number)
    which = c.one(("every second", "a block", "random"))
    draw = c.noise()
    chosen = {
        "every second": [k for k in range(plan.slices) if k % 2],
        "a block": list(range(plan.slices // 2)),
        "random": [k for k in range(plan.slices) if draw.integers(2)],
    }[which]
    what = c.one(("rounded", "absent", "empty", "derived", "spaces", "number written otherwise", "own time", "window"))
    keyword = c.one(("KVP", "ConvolutionKernel") if plan.kind == "CT" else ("EchoTime", "FlipAngle", "RepetitionTime"))
    for k in chosen:
        ds = images[k]
        if what == "rounded" and keyword != "ConvolutionKernel":
            setattr(ds, keyword, f"{float(ds[keyword].value) * (1 + 2e-6):.9g}")
        elif what == "absent":
            delattr(ds, keyword)
        elif what == "empty":
            setattr(ds, keyword, None)
        elif what == "derived":
            ds.ImageType = ["DERIVED", *list(ds.ImageType)[1:]]
        elif what == "spaces" and plan.kind == "CT":
            ds.ConvolutionKernel = "b30f "
        elif what == "number written otherwise" and keyword != "ConvolutionKernel":
            setattr(ds, keyword, f"{float(ds[keyword].value):.4e}")
        elif what == "own time":
            ds.AcquisitionTime = ds.ContentTime = f"1000{k:02d}.5"
        elif what == "window":
            ds.WindowCenter, ds.WindowWidth, ds.ImageComments = "40", "400", "seen"
    case.add(images, order=shuffled(c, len(images)))
    case.right, case.story = [whole(images)], f"{keyword} {what} in {which}"


def missing(c: Chooser, case: Case) -> None:
    """An attribute is absent or empty in one slice, some or all."""
    plan = scan(c, "CT")
    images = slices(plan, case.number)
    count = c.one((1, 2, plan.slices))
    start = c.below(plan.slices - count + 1)
    chosen = list(range(start, start + count))
    harmless = ("InstanceNumber", "AcquisitionTime", "SliceThickness", "PatientAge", "StudyTime", "SeriesNumber", "KVP")
    harmful = ("RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
               "BitsStored", "HighBit", "PixelRepresentation", "Rows", "BitsAllocated", "PixelData",
               "SamplesPerPixel", "PhotometricInterpretation")  # fmt: skip
    keyword = c.one((*harmless, *harmful))
    empty = keyword != "PixelData" and c.flag()
    for k in chosen:
        if empty:
            setattr(images[k], keyword, None)
        else:
            delattr(images[k], keyword)
    case.add(images, order=shuffled(c, len(images)))
    case.story = f"{keyword} {'empty' if empty else 'absent'} in {count}"
    if keyword in harmless:
        case.right = [whole(images)]
        return
    case.must = "any"
    left = [ds for k, ds in enumerate(images) if k not in chosen]
    if keyword in ("SamplesPerPixel", "PhotometricInterpretation", "HighBit"):
        for k in chosen if keyword == "HighBit" else ():
            case.planes |= plane_of(plan, images[k], k)
        case.right = [whole(images)]  # the defaults leave no doubt, if they are taken
    elif len(left) == 2 or (left and (start == 0 or start + count == plan.slices)):
        case.right = [whole(left)]


def contradiction(c: Chooser, case: Case) -> None:
    """Attributes that cannot be together or cannot be read: nothing may come of it."""
    plan = scan(c, c.one(("CT", "PT", "MR")))
    plan = replace(plan, slope="1" if plan.kind == "CT" else "2", stored=12 if c.flag() else 16)
    images = slices(plan, case.number)
    chosen = range(plan.slices) if c.flag() else [c.below(plan.slices)]
    what = c.one(tuple(CONTRADICTIONS))
    for k in chosen:
        CONTRADICTIONS[what](images[k])
    case.add(images, order=shuffled(c, len(images)))
    case.story, case.must = f"{what} in {len(chosen)}", "refuse"
    if len(chosen) == 1 and what in (
        "more rows",
        "two frames stated",
        "three samples",
        "position of words",
        "no unit cosines",
        "negative spacing",
        "position of two numbers",
        "position with a comma",
        "infinite position",
    ):
        case.right = ends(images, chosen[0])


CONTRADICTIONS: dict[str, Callable[[Dataset], None]] = {
    "high bit too low": lambda ds: setattr(ds, "HighBit", ds.BitsStored - 3),
    "more stored than allocated": lambda ds: (setattr(ds, "BitsStored", 20), setattr(ds, "HighBit", 19))[0],
    "12 allocated": lambda ds: setattr(ds, "BitsAllocated", 12),
    "8 allocated": lambda ds: setattr(ds, "BitsAllocated", 8),
    "a sign of two": lambda ds: setattr(ds, "PixelRepresentation", 2),
    "slope with a comma": lambda ds: objects.raw(ds, 0x00281053, "DS", b"1,5"),
    "intercept with a comma": lambda ds: objects.raw(ds, 0x00281052, "DS", b"-1024,0"),
    "slope of words": lambda ds: objects.raw(ds, 0x00281053, "DS", b"one"),
    "two slopes": lambda ds: objects.raw(ds, 0x00281053, "DS", b"1\\2"),
    "slope zero": lambda ds: setattr(ds, "RescaleSlope", "0"),
    "slope nan": lambda ds: objects.raw(ds, 0x00281053, "DS", b"nan"),
    "slope without intercept": lambda ds: delattr(ds, "RescaleIntercept"),
    "more rows": lambda ds: setattr(ds, "Rows", ds.Rows + 4),
    "three samples": lambda ds: (
        setattr(ds, "SamplesPerPixel", 3),
        setattr(ds, "PhotometricInterpretation", "RGB"),
        setattr(ds, "PlanarConfiguration", 0),
    )[0],
    "two frames stated": lambda ds: setattr(ds, "NumberOfFrames", 2),
    "position of words": lambda ds: objects.raw(ds, 0x00200032, "DS", b"here\\1\\2"),
    "position of two numbers": lambda ds: objects.raw(ds, 0x00200032, "DS", b"1\\2"),
    "position with a comma": lambda ds: objects.raw(ds, 0x00200032, "DS", b"1,5\\2\\3"),
    "infinite position": lambda ds: objects.raw(ds, 0x00200032, "DS", b"inf\\2\\3"),
    "no unit cosines": lambda ds: setattr(ds, "ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"]),
    "negative spacing": lambda ds: setattr(ds, "PixelSpacing", ["-1", "1"]),
    "a palette": lambda ds: setattr(ds, "PhotometricInterpretation", "PALETTE COLOR"),
}


def cut(c: Chooser, case: Case) -> None:
    """A file that ends too early, in its pixels or in its header."""
    plan = scan(c)
    images = slices(plan, case.number)
    syntax = c.one((ExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless))
    lost = c.below(plan.slices)
    for ds in images:
        objects.encoded(ds, syntax)
    case.add(images)
    name = sorted(case.files)[lost]
    content = case.files[name]
    where = c.one(("one byte", "some pixels", "half", "in the header", "empty", "preamble only"))
    left = {
        "one byte": len(content) - 1 - c.below(3), "some pixels": len(content) - c.between(4, 100),
        "half": len(content) // 2, "in the header": c.between(140, 600), "empty": 0, "preamble only": 132,
    }[where]  # fmt: skip
    case.files[name] = content[:left]
    case.story, case.must = f"{where} of {syntax.name}", "any"
    case.right = ends(images, lost)
    if syntax != ExplicitVRLittleEndian and where in ("one byte", "some pixels"):
        case.right.append(whole(images))  # the delimiter after the last frame, or padding, may be all that is lost
    if where == "one byte" and syntax == ExplicitVRLittleEndian:
        case.right = []
        if (images[0].Rows * images[0].Columns * 2) % 2:
            case.right.append(whole(images))


TIMES = 3
"""Time points of every series over time: a dataset has one number of channels."""


def times(c: Chooser, case: Case) -> None:
    """Repeats of a grid over time, with the order in one attribute or another, also across midnight and days."""
    plan = scan(c, c.one(("MR", "CT", "PT")), slices=c.between(2, 4))
    points = TIMES
    by = c.one(
        (
            "temporal position",
            "acquisition number",
            "clock",
            "datetime",
            "midnight",
            "days",
            "zones",
            "trigger",
            "frame reference",
        )
    )
    if by == "trigger":
        plan = replace(plan, kind="MR")
    made = []
    for t in range(points):
        group = slices(plan, case.number, first=1 + t * plan.slices, content=t)
        for ds in group:
            _at(ds, t, by)
        made.append(group)
    everything = [ds for group in made for ds in group]
    numbering = c.one(("by time", "by place", "random"))
    if numbering == "by place":
        for k in range(plan.slices):
            for t in range(points):
                made[t][k].InstanceNumber = k * points + t + 1
    elif numbering == "random":
        for ds, value in zip(everything, shuffled(c, len(everything)), strict=True):
            ds.InstanceNumber = int(value) + 1
    case.add(everything, order=shuffled(c, len(everything)))
    case.right, case.story, case.must = [whole(*made)], f"{by}, numbers {numbering}", "publish"


def _at(ds: Dataset, t: int, by: str) -> None:
    """State that an image is of time point ``t``."""
    if by == "temporal position":
        ds.TemporalPositionIdentifier = t + 1
    elif by == "acquisition number":
        ds.AcquisitionNumber = t + 8  # 8, 9, 10, 11: as text they would sort otherwise
        ds.AcquisitionTime = f"10{t:02d}00"
    elif by == "clock":
        ds.AcquisitionTime = ds.ContentTime = f"{9 + t:02d}3000.{t}"
    elif by == "datetime":
        ds.AcquisitionDateTime = f"2020030{1 + t // 2}23{10 + 20 * (t % 2):02d}00"
    elif by == "midnight":
        moment = 23 * 3600 + 3000 + t * 420  # 23:50, 23:57, 00:04, 00:11
        ds.SeriesTime = "235000"
        ds.AcquisitionDate = ds.ContentDate = "20200301" if moment < 86400 else "20200302"
        moment %= 86400
        ds.AcquisitionTime = ds.ContentTime = f"{moment // 3600:02d}{moment // 60 % 60:02d}{moment % 60:02d}"
    elif by == "days":
        ds.AcquisitionDate = ds.ContentDate = f"2020030{1 + t}"
        ds.AcquisitionTime = ds.ContentTime = f"{20 - 2 * t:02d}0000"
        ds.SeriesTime = "200000"
    elif by == "zones":
        ds.AcquisitionDateTime = f"202003011{t}0000+0000" if t % 2 == 0 else f"202003011{t + 2}0000+0200"
        ds.AcquisitionTime = ds.ContentTime = "100000"
    elif by == "trigger":
        ds.TriggerTime = objects.number(t * 97.5)
    else:
        ds.FrameReferenceTime = objects.number(90_000.0 * t + 500)


def padding(c: Chooser, case: Case) -> None:
    """Pixels without data, by a value or a range, in each slice otherwise."""
    _padded(c, case, points=1)


def padded_times(c: Chooser, case: Case) -> None:
    """The same over time, each time point with padding of its own."""
    _padded(c, case, points=TIMES)


def _padded(c: Chooser, case: Case, *, points: int) -> None:
    plan = replace(scan(c, c.one(("CT", "MR"))), slope="1")
    form = c.one(("value", "range", "beyond the stored bits", "zero", "not there"))
    if form == "beyond the stored bits":
        plan = replace(plan, dtype="uint16", stored=12)
    signed = plan.dtype[0] == "i"
    value = {"beyond the stored bits": 63536, "zero": 0}.get(form, -2000 if signed and plan.stored > 11 else 3000)
    if signed and value == 3000:
        value = -2000
    draw = c.noise()
    made = []
    for t in range(points):
        group = slices(plan, case.number, first=1 + t * plan.slices, content=t)
        for ds in group:
            _pad(ds, value, form, draw, plan)
            if points > 1:
                ds.TemporalPositionIdentifier = t + 1
        made.append(group)
    syntax = c.one((ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless))
    everything = [objects.encoded(ds, syntax) for group in made for ds in group]
    case.add(everything, order=shuffled(c, len(everything)))
    case.right, case.story = [whole(*made)], f"{form}, {points} times, {syntax.name}"
    case.must = (
        "any"
        if form == "beyond the stored bits" and syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        else "publish"
    )


def _pad(ds: Dataset, value: int, form: str, draw: np.random.Generator, plan: Scan) -> None:
    cells = np.frombuffer(ds.PixelData, plan.dtype).reshape(plan.shape).copy()
    top = int(draw.integers(0, 5))
    if form != "not there":
        cells[:top] = value
        cells[draw.random(plan.shape) < 0.05] = value
    if form == "range":
        cells[:, : int(draw.integers(0, 4))] = value - 3
        ds.PixelPaddingRangeLimit = value - 5 if value < 0 else value
        ds.PixelPaddingValue = value if value < 0 else value - 5
    else:
        ds.PixelPaddingValue = value
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if keyword in ds:
            ds[keyword].VR = "SS" if plan.dtype[0] == "i" else "US"
    ds.PixelData = cells.tobytes()


def encoding(c: Chooser, case: Case) -> None:
    """Every way of writing pixels: byte order, word width, sign, stored bits, overlays in unused bits, compression."""
    plan = scan(c, c.one(("CT", "MR", "PT")))
    width = c.one((16, 8, 16, 32))
    signed = c.flag() and width > 8
    dtype = f"{'int' if signed else 'uint'}{width}"
    stored = {8: (8, 8, 7), 16: (16, 12, 10, 14), 32: (32, 20)}[width]
    plan = replace(plan, dtype=dtype, stored=c.one(stored))
    images = slices(plan, case.number)
    syntax = c.one(SYNTAXES)
    if width == 32 and syntax not in SYNTAXES[:4]:
        syntax = ExplicitVRLittleEndian
    word = c.one(("OW", "OB")) if width == 8 else "OW"
    overlays = c.flag(4) and stored != width and syntax in SYNTAXES[:4] and not signed and plan.stored < width
    draw = c.noise()
    white = c.flag(5) and plan.kind == "CT"
    for ds in images:
        if overlays:
            cells = np.frombuffer(ds.PixelData, dtype)[: plan.shape[0] * plan.shape[1]].astype(np.uint64)
            high = draw.integers(0, 1 << (width - plan.stored), cells.shape).astype(np.uint64) << np.uint64(plan.stored)
            ds.PixelData = (cells | high).astype(dtype).tobytes()
            ds.PixelData += b"\0" * (len(ds.PixelData) % 2)
        ds["PixelData"].VR = word if syntax == ExplicitVRBigEndian or width == 8 else "OW"
        if white:
            ds.PhotometricInterpretation = "MONOCHROME1"
        objects.encoded(ds, syntax)
    case.add(images, order=shuffled(c, len(images)))
    case.right = [whole(images)]
    case.story = (
        f"{dtype} {plan.stored} {word} {syntax.name}{' overlays' if overlays else ''}{' white' if white else ''}"
    )
    case.must = "any" if width == 32 or white else "publish"


IMAGES: dict[str, Callable[[Chooser, Case], None]] = {
    "order": order, "rounding": rounding, "gaps": gaps, "mixture": mixture, "likeness": likeness, "missing": missing,
    "contradiction": contradiction, "cut": cut, "times": times, "padding": padding, "padded times": padded_times,
    "encoding": encoding,
}  # fmt: skip
