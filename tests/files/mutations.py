"""Mutations of image files: each is refused, or reads as nibabel, SimpleITK or Pillow reads the same bytes.

    python -m tests.files.mutations --count 10000 [--seed N] [--out FILE]

20 small files of every format are changed in their bytes: flipped, set, cut, filled, repeated, and numbers of their
headers replaced by large, negative and meaningless ones. The process has a limit on memory, and an alarm for each file.
What fails is written to ``--out`` with the seed and number that make it again.
"""

import argparse
import io
import json
import random
import resource
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image

from builder.files import FileFault, read_voxels
from tests.files.writers import OBLIQUE, lps_of, nifti, values, written_by_itk

MEMORY = 3 * 2**30
SECONDS = 20
HEADER = 400
"""Bytes from the start in which most mutations fall."""

Sample = tuple[str, bytes]


def samples(folder: Path) -> list[Sample]:
    """Twenty files: name and content."""
    paths = [
        nifti(folder / "short.nii", values()),
        nifti(folder / "byte.nii.gz", values(dtype="uint8")),
        nifti(folder / "float.nii", values(dtype="float32"), OBLIQUE),
        nifti(folder / "double.nii.gz", values(dtype="float64")),
        nifti(folder / "two.nii", values(), kind=nibabel.Nifti2Image),
        nifti(folder / "two.nii.gz", values(dtype="int32"), kind=nibabel.Nifti2Image),
        nifti(folder / "four.nii", values((4, 3, 3, 2))),
        *(written_by_itk(folder / name, values().T) for name in ("a.nrrd", "a.mha")),
        *(written_by_itk(folder / name, values().T, packed=True) for name in ("b.nrrd", "b.mha")),
        *(written_by_itk(folder / name, values(dtype="float32").T) for name in ("c.nrrd", "c.mha")),
    ]
    grey, colour = values((9, 7), "uint8"), values((9, 7, 3), "uint8")
    deep = values((9, 7), "uint16") * 500
    pictures = {
        "g.png": grey, "d.png": deep, "c.png": colour, "g.tif": grey, "d.tif": deep, "g.jpg": grey, "c.jpg": colour,
    }  # fmt: skip
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name)
        paths.append(folder / name)
    return [(path.name, path.read_bytes()) for path in paths]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Change a file in one to three places."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        kind = chance.choice(("flip", "set", "number", "cut", "fill", "repeat", "digit"))
        place = chance.randrange(min(len(data), HEADER) if chance.random() < 0.8 else len(data)) if data else 0
        if not data:
            break
        if kind == "flip":
            data[place] ^= 1 << chance.randrange(8)
        elif kind == "set":
            data[place] = chance.choice((0, 1, 127, 128, 255))
        elif kind == "number":
            number = chance.choice((b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff"))
            data[place : place + len(number)] = number
        elif kind == "cut":
            del data[place : place + chance.choice((1, 4, 64, len(data)))]
        elif kind == "fill":
            data[place : place + 16] = bytes([chance.randrange(256)]) * 16
        elif kind == "repeat":
            data[place:place] = data[place : place + chance.choice((1, 8, 40))]
        else:
            digits = [n for n, byte in enumerate(data[:HEADER]) if chr(byte).isdigit()]
            if digits:
                data[chance.choice(digits)] = chance.choice(b"0123456789-.e")
    return bytes(data)


def verdict(name: str, content: bytes, scratch: Path) -> str:
    """Return ``refused``, ``equal``, or what is wrong with the reading of a mutated file."""
    try:
        facts, stored = read_voxels([content])
    except FileFault:
        return "refused"
    with np.errstate(all="ignore"):
        found = stored.astype(np.float64) * facts.slope + facts.intercept if facts.scaled else stored
    if facts.affine is None and facts.fault:
        return "refused"
    path = scratch / f"x{''.join(Path(name).suffixes)}"
    path.write_bytes(content)
    try:
        expected, affine = _peer(path, content)
    except Exception as error:  # noqa: BLE001 - whatever the peer raises
        return f"read, and the peer does not: {type(error).__name__}"
    if expected.size != found.size or not np.array_equal(_flat(found), _flat(expected), equal_nan=True):
        return "other voxels than the peer's"
    if affine is not None and not np.allclose(np.array(facts.affine), affine * _unit(content), rtol=1e-5, atol=1e-4):
        return "another affine than the peer's"
    return "equal"


def _peer(path: Path, content: bytes) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Read a file with nibabel, SimpleITK or Pillow: values (layer, slice, row, column) and the affine."""
    if path.suffix in (".png", ".tif", ".jpg"):
        from PIL import ImageOps

        with Image.open(io.BytesIO(content)) as picture:
            upright = ImageOps.exif_transpose(picture)
            pixels = np.array(upright if upright.mode in ("1", "L", "F") or "I" in upright.mode else _rgb(upright))
        if pixels.ndim == 3:
            same = (pixels == pixels[..., :1]).all()
            pixels = pixels[..., 0] if same else pixels.transpose(2, 0, 1)
        return pixels, None
    if content[:2] == b"\x1f\x8b" or content[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c", b"\x1c\2\0\0", b"\0\0\2\x1c"):
        return lps_of(path)
    found = SimpleITK.ReadImage(str(path))
    voxels, affine = lps_of(path)
    return (voxels.transpose(3, 0, 1, 2) if found.GetNumberOfComponentsPerPixel() > 1 else voxels), affine


def _rgb(picture: Any) -> Any:
    return picture.convert("RGB")


def _unit(content: bytes) -> NDArray[np.float64]:
    """Return what turns a peer's affine into mm: nibabel leaves metres and microns as they are."""
    scale = np.ones((4, 1))
    try:
        facts = nibabel.Nifti1Header if content[344:348] == b"n+1\0" else nibabel.Nifti2Header
        unit = facts(content[: facts.template_dtype.itemsize], check=False).get_xyzt_units()[0]
    except Exception:  # noqa: BLE001 - no NIfTI
        unit = "mm"
    scale[:3] = {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
    return scale


def _flat(voxels: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(voxels, np.float64).ravel()


def campaign(count: int, seed: int) -> Iterator[tuple[str, int, str]]:
    """Yield the name, number and verdict of every mutation. Stops the process at a hang or at the limit of memory."""
    with tempfile.TemporaryDirectory() as folder:
        bases = samples(Path(folder))
        for number in range(count):
            name, content = bases[number % len(bases)]
            changed = mutated(content, random.Random(f"{seed}:{number}"))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of processor time: a busy machine makes nothing hang
            yield name, number, verdict(name, changed, Path(folder))
            signal.setitimer(signal.ITIMER_PROF, 0)


def run(report: Callable[[str], None], *, count: int, seed: int) -> int:
    """Run a campaign under limits and report; return the number of mutations at fault."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + 8 * 2**30, resource.RLIM_INFINITY))
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    tally: Counter[str] = Counter()
    faults = 0
    for name, number, found in campaign(count, seed):
        tally[found] += 1
        if found not in ("refused", "equal"):
            faults += 1
            report(json.dumps({"file": name, "number": number, "seed": seed, "found": found}))
        if (number + 1) % 1000 == 0:
            report(json.dumps({"done": number + 1, **tally}))
    report(json.dumps({"count": count, **tally}))
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with options.out.open("w") if options.out else io.StringIO() as sink:

        def tell(line: str) -> None:
            print(line, flush=True)
            sink.write(line + "\n")
            sink.flush()

        raise SystemExit(1 if run(tell, count=options.count, seed=options.seed) else 0)
