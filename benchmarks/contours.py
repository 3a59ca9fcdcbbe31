"""Contours of the sarcoma cohort to voxels against the published masks, side by side with plastimatch.

    python benchmarks/contours.py CORPUS [--pictures FOLDER]

``CORPUS`` is the folder with ``sts_cohort``: 48 structure sets on CT, MR and PET, each with the mask that was published
for it. Every structure set is filled on its image's own grid by this project (``centre``: a voxel is inside when its
centre is; ``area``: when half of it is), by plastimatch (``apt-get install plastimatch``; left out where it is not
installed), and as drawing libraries do it (``drawn``: vertices rounded to pixels, the outline counted in; Pillow).
Printed are the Dice coefficients with the published mask by modality, and every case below 0.95 with what explains it:
how many of the differing voxels are on the outline, and how many of the mask's. Each of these cases becomes a picture:
green where both agree, red and blue where only the published mask or only this one is, the contour in white.
"""

import argparse
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from builder.labels.rtstruct import RtStruct
from builder.model.geometry import Geometry
from builder.protocols import ImageFacts, LabelObject

BELOW = 0.95
ZOOM = 12
Inside = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pair:
    """A structure set with its image's grid, the file it is in, and the published mask."""

    patient: str
    modality: str
    geometry: Geometry
    path: Path
    published: Inside


def main() -> None:
    """Print the table and write the pictures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("corpus", type=Path)
    options.add_argument("--pictures", type=Path)
    arguments = options.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    shown = []
    for pair in pairs(arguments.corpus / "sts_cohort"):
        for rule, inside in fill(pair):
            score = dice(inside, pair.published)
            found.setdefault((rule, pair.modality), []).append(score)
            if score < BELOW:
                shown.append(explain(pair, rule, inside))
                if arguments.pictures:
                    draw(pair, inside, arguments.pictures / f"{pair.patient}_{pair.modality}_{rule}.png")
    print("| rule | modality | cases | lowest | 5 % | median | equal voxel for voxel | below 0.95 |")
    print("|---|---|---|---|---|---|---|---|")
    for (rule, modality), scores in sorted(found.items()):
        lowest, fifth, median = min(scores), float(np.percentile(scores, 5)), float(np.median(scores))
        equal, below = sum(s == 1 for s in scores), sum(s < BELOW for s in scores)
        row = (rule, modality, len(scores), f"{lowest:.4f}", f"{fifth:.4f}", f"{median:.4f}", equal, below)
        print("|", " | ".join(map(str, row)), "|")
    print("\n".join(shown) or f"No case is below {BELOW}.")


def pairs(cohort: Path) -> Iterator[Pair]:
    """Every structure set of the cohort, in order."""
    for folder in sorted(cohort.glob("*/*")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NIfTI headers
            key: Any = nibabel.load(next(folder.glob("*_mask.nii.gz")))
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ key.affine
        voxels = np.asarray(key.dataobj).transpose(2, 1, 0) > 0
        geometry = Geometry(voxels.shape, affine[:, [2, 1, 0, 3]])
        yield Pair(folder.parent.name, folder.name, geometry, next((folder / "mask").iterdir()), voxels)


def fill(pair: Pair) -> Iterator[tuple[str, Inside]]:
    """Each rule's name and mask."""
    dataset = pydicom.dcmread(pair.path, force=True)
    for inclusion in ("centre", "area"):
        reader = RtStruct(roi={"tumor": "(?i)gtv|mass"}, inclusion=inclusion)
        (mask,) = reader.read("tumor", [LabelObject(dataset)], ImageFacts(pair.geometry, "", {}))
        yield inclusion, mask.voxels[0] > 0  # type: ignore[union-attr]
    yield "drawn", drawn(pair)
    if shutil.which("plastimatch"):
        yield "plastimatch", by_plastimatch(pair)


def by_plastimatch(pair: Pair) -> Inside:
    """What ``plastimatch convert`` makes of the structure set on the grid of the image."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = sitk.Image(*pair.geometry.shape[::-1], sitk.sitkUInt8)
        fixed.SetSpacing(pair.geometry.spacing_mm[::-1])
        fixed.SetOrigin(pair.geometry.origin_mm)
        fixed.SetDirection(pair.geometry.directions[:, ::-1].ravel())
        sitk.WriteImage(fixed, f"{folder}/fixed.mha")
        command = ["plastimatch", "convert", "--input", str(pair.path), "--fixed", f"{folder}/fixed.mha"]
        command += ["--output-prefix", f"{folder}/out", "--prefix-format", "mha"]
        subprocess.run(command, check=True, capture_output=True)
        parts = [sitk.GetArrayFromImage(sitk.ReadImage(str(p))) > 0 for p in sorted(Path(folder, "out").glob("*.mha"))]
    return np.asarray(np.logical_or.reduce(parts))


def drawn(pair: Pair) -> Inside:
    """The polygons as a drawing library fills them."""
    inside = np.zeros(pair.geometry.shape, bool)
    for index, contour in contours(pair):
        if 0 <= index < len(inside):
            canvas = Image.new("L", inside.shape[:0:-1])
            points = [(round(float(c)), round(float(r))) for r, c in contour]
            ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
            inside[index] ^= np.asarray(canvas) > 0
    return inside


def contours(pair: Pair) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Slice and (row, column) vertices of every contour."""
    for roi in pydicom.dcmread(pair.path, force=True).ROIContourSequence:
        for contour in roi.ContourSequence:
            voxels = pair.geometry.to_voxel(np.reshape(contour.ContourData, (-1, 3)))
            yield round(float(voxels[:, 0].mean())), voxels[:, 1:]


def dice(a: Inside, b: Inside) -> float:
    """Dice coefficient of two masks."""
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def edge(inside: Inside) -> Inside:
    """Voxels with an in-plane neighbour on the other side: those a contour passes through or beside."""
    near = ndimage.generate_binary_structure(3, 1)
    near[0] = near[2] = False
    grown: Inside = ndimage.binary_dilation(inside, near)
    left: Inside = ndimage.binary_erosion(inside, near)
    return grown & ~left


def explain(pair: Pair, rule: str, inside: Inside) -> str:
    """One line: Dice, and how much of the difference lies on the outline."""
    differing = inside != pair.published
    on_edge = np.count_nonzero(differing & edge(pair.published)) / np.count_nonzero(differing)
    of_mask = np.count_nonzero(pair.published & edge(pair.published)) / np.count_nonzero(pair.published)
    return (
        f"- {pair.patient} {pair.modality}, {rule}: Dice {dice(inside, pair.published):.4f}; {on_edge:.0%} of the "
        f"{np.count_nonzero(differing)} differing voxels are on the outline, as are {of_mask:.0%} of the mask's "
        f"{np.count_nonzero(pair.published)} voxels"
    )


def draw(pair: Pair, inside: Inside, path: Path) -> None:
    """The slice with most differing voxels."""
    differing = inside != pair.published
    index = int(np.argmax(differing.sum(axis=(1, 2))))
    colours = np.zeros((*inside.shape[1:], 3), np.uint8)
    colours[inside[index] & pair.published[index]] = (0, 110, 0)
    colours[~inside[index] & pair.published[index]] = (200, 0, 0)
    colours[inside[index] & ~pair.published[index]] = (0, 60, 220)
    size = (colours.shape[1] * ZOOM, colours.shape[0] * ZOOM)
    picture = Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    for where, contour in contours(pair):
        if where == index:
            points = [((c + 0.5) * ZOOM, (r + 0.5) * ZOOM) for r, c in contour]
            pen.line([*points, points[0]], fill=(255, 255, 255), width=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


if __name__ == "__main__":
    main()
