"""Drawn cases read by other tools: what the oracle calls right is what dcm2niix, SimpleITK and plastimatch make of it.

The judge of the campaign looks at their volumes as it looks at ours. Only sound series and structure sets are drawn,
because a tool that reads a damaged one in its own way proves nothing.
"""

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from tests.truth.campaign import FIRST, Found, differs, draw_case
from tests.truth.chooser import Chooser
from tests.truth.images import Case
from tests.truth.oracle import planes

pytestmark = pytest.mark.filterwarnings("ignore")

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
DCM2NIIX = shutil.which("dcm2niix") or next(
    (str(p.resolve()) for p in [Path(".venv/bin/dcm2niix")] if p.exists()), None
)
CASES = 24
"""Of each kind."""


def drawn(kind: str, seed: int = 1, count: int = CASES) -> Iterator[Case]:
    """Sound cases of a kind, the same ones every time."""
    for number in range(count):
        case = draw_case(kind, FIRST + number, Chooser(random.Random(f"{seed}/{kind}/{number}").randrange))
        if case.must == "publish":
            yield case


def written(case: Case, folder: Path) -> Path:
    for name, content in case.files.items():
        path = folder / f"c{case.number}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / f"c{case.number}"


def by_sitk(folder: Path) -> list[Found]:
    """The series of a folder as SimpleITK reads it."""
    reader = SimpleITK.ImageSeriesReader()
    found = []
    for place in sorted({p.parent for p in folder.rglob("*") if p.is_file()}):
        for series in reader.GetGDCMSeriesIDs(str(place)):
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(place), series))
            image = reader.Execute()
            axes = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
            affine = np.column_stack([axes[:, [2, 1, 0]], image.GetOrigin()])
            found.append(Found(SimpleITK.GetArrayFromImage(image)[None], affine, ""))
    return found


def by_dcm2niix(folder: Path) -> list[Found]:
    """The images that dcm2niix makes of a folder."""
    out = folder.with_suffix(".nii")
    out.mkdir()
    command = [str(DCM2NIIX), "-z", "n", "-m", "n", "-p", "n", "-b", "n", "-o", str(out), str(folder)]
    subprocess.run(command, check=False, capture_output=True)
    found = []
    for path in sorted(out.glob("*.nii")):
        image: Any = nibabel.load(path)
        voxels = np.asarray(image.dataobj)
        voxels = (voxels if voxels.ndim == 4 else voxels[..., None]).transpose(3, 2, 1, 0)
        affine = (TO_LPS @ image.affine)[:3][:, [2, 1, 0, 3]]
        affine[:, 3] += affine[:, 1] * (voxels.shape[2] - 1)  # it writes rows from the last to the first
        affine[:, 1] *= -1
        found.append(Found(voxels[:, :, ::-1], affine, ""))
    return found


def judged(case: Case, found: list[Found]) -> str:
    """What is wrong with the volumes; "" when one is right."""
    known = planes(case.files)
    reasons = [differs(volume, expected, known, case) for volume in found for expected in case.right]
    return "" if None in reasons else " | ".join(r for r in reasons if r) or "nothing"


def by_plastimatch(case: Case, folder: Path) -> NDArray[np.bool_]:
    """The wanted structure as plastimatch fills it: (slice, row, column), slices in the order of the case."""
    folder.mkdir()
    known = planes(case.files)
    stack = [known[frame] for frame in case.right[0].channels[0]]
    axes = np.stack([stack[0].along, stack[0].down, stack[1].origin - stack[0].origin])
    sizes = np.linalg.norm(axes, axis=1)
    fixed = SimpleITK.Image(*stack[0].values.shape[::-1], len(stack), SimpleITK.sitkUInt8)
    fixed.SetSpacing(sizes)
    fixed.SetOrigin(stack[0].origin)
    fixed.SetDirection((axes / sizes[:, None]).T.ravel())
    SimpleITK.WriteImage(fixed, str(folder / "fixed.mha"))
    command = ["plastimatch", "convert", "--input", str(written(case, folder) / "rt.dcm")]
    command += ["--fixed", str(folder / "fixed.mha"), "--output-prefix", str(folder / "out"), "--prefix-format", "mha"]
    subprocess.run(command, check=True, capture_output=True)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "out" / "GTV.mha"))) > 0


def tilted(case: Case) -> bool:
    """Whether planes are not at right angles to their stack, which neither tool can say of an image."""
    known = planes(case.files)
    first, second = (known[frame] for frame in case.right[0].channels[0][:2])
    step = second.origin - first.origin
    return bool(max(abs(step @ axis) / np.linalg.norm(axis) for axis in (first.down, first.along)) > 0.01)


OTHERWISE = {
    "SimpleITK": r"uint8 7 ",  # GDCM refuses 7 of 8 bits
    "dcm2niix": r"overlays|Deflated|protocol|uint8 7 .*JPEG-LS",
    # takes overlays in unused bits for values, reads no deflated files and not this JPEG-LS, and cuts a series where
    # the last digit of an echo time or a voltage changes
}
"""Stories of sound cases that a tool reads otherwise, or not at all."""


@pytest.mark.parametrize("tool", ["SimpleITK", "dcm2niix"])
@pytest.mark.parametrize("kind", ["order", "rounding", "encoding"])
def test_readers_of_series_agree_with_the_oracle(kind: str, tool: str, tmp_path: Path) -> None:
    if tool == "dcm2niix" and DCM2NIIX is None:
        pytest.skip("no dcm2niix")
    agreed = 0
    for case in drawn(kind):
        if re.search(OTHERWISE[tool], case.story) or tilted(case):
            continue
        found = (by_sitk if tool == "SimpleITK" else by_dcm2niix)(written(case, tmp_path))
        assert judged(case, found) == "", (case.number, case.story)
        agreed += 1
    assert agreed >= CASES // 6


@pytest.mark.skipif(shutil.which("plastimatch") is None, reason="no plastimatch")
def test_plastimatch_fills_contours_as_the_oracle_does(tmp_path: Path) -> None:
    """Not on coronal and sagittal planes, where it loses half of a box, nor with holes, which it fills."""
    agreed = 0
    for case in drawn("contours"):
        known = planes(case.files)
        plane = known[case.right[0].channels[0][0]]
        upright = abs(np.cross(plane.along, plane.down)[2]) > 0.3 * np.linalg.norm(plane.along)
        if not upright or case.label is None or re.search("hole|no number elsewhere", case.story):
            continue  # it ends with a segmentation fault on a contour of another structure that states no number
        within, outside = case.label
        mask = by_plastimatch(case, tmp_path / f"p{case.number}")
        assert not (within & ~mask).any(), (case.number, case.story)
        assert not (outside & mask).any(), (case.number, case.story)
        agreed += 1
    assert agreed >= CASES // 6
