"""Plant text into the pixels of an archive, release it, and look into the released files (``make text-released``)."""

import argparse
import itertools
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from builder.run.findtext import find_text
from builder.run.release import release
from tests.synthetic import ct_series, store
from tests.textscore.drawing import draw, real_planes
from tests.textscore.scoring import wilson

SPEC = """
name: planted
license: CC0-1.0
sources: [{{kind: folder, url: "{archive}"}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 1.0}}}}
leaks: {{pixels: "off"}}
report: {{thumbnails: 0}}
release: {{undecided: leave_out, text: {{found: blank}}}}
"""
SIDE = 256
Planted = tuple[NDArray[np.int16], tuple[NDArray[np.bool_], ...]]


def plant(archive: Path, planes: list[tuple[str, NDArray[np.float32]]], *, texts: int) -> list[Planted]:
    """Write series of derived CT images until so many texts are in them. Return pixels and ink of each image."""
    square = [(kind, plane[:SIDE, :SIDE]) for kind, plane in planes if kind == "CT" and min(plane.shape) >= SIDE]
    planted: list[Planted] = []
    numbers = itertools.count(2, 6)  # pictures of planes in 16 bits
    while sum(len(ink) for _, ink in planted) < texts:
        drawn = []
        while len(drawn) < 4:
            one = draw(next(numbers), square)
            if one.ink:
                drawn.append(one)
        made = ct_series(
            slices=len(drawn), shape=(SIDE, SIDE), patient_id=f"P{len(planted)}",
            attributes={"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]},
        )  # fmt: skip
        for image, one in zip(made.images, drawn, strict=True):
            image.PixelData = one.pixels.tobytes()
            image.PixelRepresentation, image.BitsStored, image.HighBit, image.BitsAllocated = 1, 16, 15, 16
            planted.append((one.pixels, one.ink))
        if not (archive / f"s{len(planted)}").exists():  # what is written already keeps its time of change
            store(made, archive / f"s{len(planted)}")
    return planted


def main() -> None:
    """Plant, search, release, and count the texts that are gone from the released files."""
    parser = argparse.ArgumentParser(prog="python -m tests.textscore.released", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with unpacked archives of real files")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="keep all there, and continue what is there")
    options = parser.parse_args()
    os.environ["BUILDER_KEY"] = random.Random(1).randbytes(32).hex()
    planes = real_planes([p for p in sorted(options.corpus.iterdir()) if p.is_dir()], most=300)
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        planted = plant(folder / "archive", planes, texts=options.texts)
        (folder / "spec.yaml").write_text(SPEC.format(archive=folder / "archive"))
        started = time.perf_counter()
        print(find_text(folder / "spec.yaml", to=folder / "out").text())
        print(f"searched in {time.perf_counter() - started:.0f} s", flush=True)
        print(release(folder / "spec.yaml", to=folder / "out").text())
        print(counts(planted, [dcmread(path) for path in sorted((folder / "out").rglob("*.dcm"))]))


def counts(planted: list[Planted], images: list[Dataset]) -> str:
    """Compare every planted text with the released image that has the other pixels of its picture."""
    released = [image.pixel_array for image in images]
    gone = part = untouched = missing = changed = 0
    for pixels, inks in planted:
        same = [(int((r != pixels).sum()), n) for n, r in enumerate(released) if r.shape == pixels.shape]
        different, best = min(same, default=(pixels.size, -1))
        if different > pixels.size // 2:
            missing += len(inks)
            continue
        changed += different
        for ink in inks:
            left = float((released[best][ink] == pixels[ink]).mean())
            gone, part, untouched = gone + (left <= 0.05), part + (0.05 < left < 0.95), untouched + (left >= 0.95)
    low, high = wilson(gone, gone + part + untouched)
    size = sum(one.size for one, _ in planted)
    texts = gone + part + untouched + missing
    return (
        f"planted {texts} texts in {len(planted)} images: blanked in the released file {gone} "
        f"({low:.2%} to {high:.2%} of those released), in part {part}, left {untouched}, in images that stayed behind "
        f"{missing}; pixels changed {changed / size:.2%}"
    )


if __name__ == "__main__":
    main()
