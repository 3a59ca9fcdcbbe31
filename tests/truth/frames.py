"""Objects that hold their slices inside: enhanced MR, and private forms by Siemens and Philips."""

import struct
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from tests.truth import objects
from tests.truth.chooser import Chooser
from tests.truth.images import Case, Expected, Scan, pixels, scan, shuffled, slices, whole
from tests.truth.objects import item, number
from tests.truth.oracle import Plane


def enhanced(c: Chooser, case: Case) -> None:  # noqa: C901 - one damage a branch
    """One enhanced MR object of one or several stacks, its frames in any order, some of them damaged."""
    plan = replace(scan(c, "MR", slices=c.between(3, 6)), dtype="uint16")
    split = c.one(("one stack", "echoes", "b-values", "times"))
    stacks = 1 if split == "one stack" else 2
    entries = [(s, k) for s in range(stacks) for k in range(plan.slices)]
    entries = [entries[i] for i in shuffled(c, len(entries))]
    damage = c.one(("none", "none", "no position", "no slope", "no spacing", "a frame missing", "a group missing"))
    hit = c.below(len(entries))
    if damage == "a frame missing":
        del entries[hit]
    ds = objects.header("EMR", case=case.number, series=1, instance=1)
    shared_rescale = c.flag()
    stack_pixels = np.stack([pixels(plan, k, s) for s, k in entries])
    ds.Rows, ds.Columns = plan.shape
    ds.NumberOfFrames = len(entries)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, plan.stored, plan.stored - 1, 0
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.PixelData = stack_pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    groups = [_group(plan, s, k, split) for s, k in entries]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[number(v) for v in plan.cosines])],
        PixelMeasuresSequence=[
            item(PixelSpacing=[number(v) for v in plan.spacing], SliceThickness=number(plan.thickness))
        ],
    )
    rescale = [item(RescaleSlope=plan.slope, RescaleIntercept="-5", RescaleType="US")]
    if shared_rescale and damage != "no slope":
        shared.PixelValueTransformationSequence = Items(rescale)
    else:
        for group in groups:
            group.PixelValueTransformationSequence = Items(rescale)
    hit = min(hit, len(groups) - 1)
    if damage == "no position":
        del groups[hit].PlanePositionSequence
    elif damage == "no slope":
        del groups[hit].PixelValueTransformationSequence
    elif damage == "no spacing":
        for k, group in enumerate(groups):
            if k != hit:
                group.PixelMeasuresSequence = shared.PixelMeasuresSequence
        del shared.PixelMeasuresSequence
    elif damage == "a group missing":
        del groups[hit]
    ds.SharedFunctionalGroupsSequence = Items([shared])
    ds.PerFrameFunctionalGroupsSequence = Items(groups)
    case.add([ds])
    case.story = f"{split}, {damage}"
    uid = str(ds.SOPInstanceUID)
    places = {entry: index for index, entry in enumerate(entries)}
    volumes = [
        tuple((uid, places[s, k]) for k in range(plan.slices) if (s, k) in places) for s in range(stacks)
    ]  # fmt: skip
    case.must = "publish" if damage == "none" else "any"
    if damage == "a frame missing":
        lost = next((s, k) for s in range(stacks) for k in range(plan.slices) if (s, k) not in places)
        at_end = lost[1] in (0, plan.slices - 1) or plan.slices == 3  # two slices left: nobody knows of a third
        case.right = [Expected((v,)) for s, v in enumerate(volumes) if s != lost[0] or at_end]
    elif damage == "none":
        case.right = [Expected((v,)) for v in volumes] if split != "times" else [Expected(tuple(volumes))]


def _group(plan: Scan, stack: int, index: int, split: str) -> Dataset:
    content = item(FrameAcquisitionNumber=1)
    position = item(ImagePositionPatient=[number(v) for v in plan.origin + plan.step * index])
    made = item(PlanePositionSequence=[position])
    if split == "times":
        content.TemporalPositionIndex = stack + 1
    if split == "echoes":
        made.MREchoSequence = Items([item(EffectiveEchoTime=5.0 * (stack + 1))])
    if split == "b-values":
        made.MRDiffusionSequence = Items([item(DiffusionBValue=800.0 * stack, DiffusionDirectionality="NONE")])
    made.FrameContentSequence = Items([content])
    return made


def private(c: Chooser, case: Case) -> None:
    """A Siemens mosaic with its private header, or Philips slices with a private scale beside the rescale."""
    if c.flag():
        _mosaic(c, case)
        return
    plan = replace(scan(c, "MR"), slope="2")
    images = slices(plan, case.number)
    for ds in images:
        ds.Manufacturer = "Philips Medical Systems"
        block = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 0.25)
    case.add(images, order=shuffled(c, len(images)))
    case.right, case.story = [whole(images)], "philips"


def _mosaic(c: Chooser, case: Case) -> None:
    """Slices as tiles of one square picture; the CSA header says how many and along which normal."""
    plan = replace(scan(c, "MR", slices=c.between(3, 9)), dtype="uint16", slope="1")
    across = int(np.ceil(np.sqrt(plan.slices)))
    rows, columns = plan.shape
    picture = np.zeros((across * rows, across * columns), np.uint16)
    for k in range(plan.slices):
        top, left = k // across * rows, k % across * columns
        picture[top : top + rows, left : left + columns] = pixels(plan, k)
    along, down = plan.cosines[:3] * plan.spacing[1], plan.cosines[3:] * plan.spacing[0]
    # the position stated is that of a picture of all tiles around the centre of the first slice
    corner = plan.origin - along * (across - 1) * columns / 2 - down * (across - 1) * rows / 2
    ds = objects.image(
        "MR", picture, at=(case.number, 1, 1), position=corner, cosines=plan.cosines, spacing=plan.spacing,
        thickness=plan.thickness, stored=plan.stored,
    )  # fmt: skip
    ds.Manufacturer, ds.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    ds.SpacingBetweenSlices = number(plan.thickness)
    ds.EchoTime, ds.RepetitionTime = "30", "2000"
    normal = plan.step / np.linalg.norm(plan.step)
    damage = c.one(("none", "none", "no header", "too many tiles"))
    count = across * across + 3 if damage == "too many tiles" else plan.slices
    if damage == "too many tiles" and _fits(picture, count):
        damage = "no header"  # nothing in the file contradicts the wrong number: nobody can see it
    if damage != "no header":
        block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        tags = [("NumberOfImagesInMosaic", [str(count)]), ("SliceNormalVector", [f"{v:.8f}" for v in normal])]
        block.add_new(0x10, "OB", csa(tags))
    case.add([ds])
    case.story = f"mosaic of {plan.slices}, {damage}"
    uid = str(ds.SOPInstanceUID)
    case.must = "publish" if damage == "none" else "refuse"
    case.right = [Expected((tuple((uid, k) for k in range(plan.slices)),))] if damage == "none" else []
    none = np.zeros(plan.shape, dtype=bool)
    for k in range(plan.slices):
        values = pixels(plan, k).astype(float)
        case.planes[uid, k] = Plane(plan.origin + plan.step * k, down, along, values, none, none, "MR", False)


def _fits(picture: NDArray[np.uint16], count: int) -> bool:
    """Whether a picture can be cut into the smallest square of tiles for a count, with nothing after the last one."""
    side = int(np.ceil(np.sqrt(count)))
    if any(size % side for size in picture.shape):
        return False
    rows, columns = (size // side for size in picture.shape)
    tiles = picture.reshape(side, rows, side, columns).swapaxes(1, 2).reshape(side * side, rows, columns)
    return not tiles[count:].any()


def csa(tags: list[tuple[str, list[str]]]) -> bytes:
    """A Siemens CSA2 header ("SV10") of text elements."""
    out = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, values in tags:
        out += name.encode().ljust(64, b"\0") + struct.pack("<i4siii", len(values), b"FD\0\0", 4, 6, 77)
        for value in (*values, *[""] * (6 - len(values))):
            data = value.encode()
            out += struct.pack("<4i", len(data), len(data), 77, len(data)) + data + b"\0" * (-len(data) % 4)
    return out
