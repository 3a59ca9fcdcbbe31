"""Drawn cases through ``builder volumes`` and ``build``: each comes out right, or is refused with a reason.

    python -m tests.truth.campaign --count 20000 [--seed N] [--first ARCHIVE] [--out DIR]

Many cases are made into one archive, beside sound series of other persons, and built in this process. What is published
is compared with what the oracle says of the same files. Labels are built in archives of their own, one a kind.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pydicom
from hypothesis import strategies as st
from numpy.typing import NDArray

from builder.library.volumes import write_volumes
from builder.reader import open_dataset
from builder.run.pipeline import build
from tests.endtoend.test_both_ways import volumes_block
from tests.endtoend.trees import KEY
from tests.mutations import InProcess
from tests.truth import frames, images, labels, pet
from tests.truth.chooser import Chooser, replayed
from tests.truth.images import Case, Expected
from tests.truth.oracle import Frame, Plane, filled, planes

KINDS: dict[str, Callable[[Chooser, Case], None]] = {
    **images.IMAGES, "enhanced": frames.enhanced, "private": frames.private, "pet": pet.pet,
    "contours": labels.contours, "segments": labels.segments, "files": labels.files,
}  # fmt: skip

FAMILIES = {
    "images": ("", tuple(k for k in KINDS if k not in ("times", "padded times", "contours", "segments", "files"))),
    "times": ("", ("times", "padded times")),
    "contours": ("labels: {found: {kind: rtstruct, roi: {a: '^GTV$'}}}\n", ("contours",)),
    "segments": ("labels: {found: {kind: seg, segments: {a: '^GTV$'}, off_grid: refuse}}\n", ("segments",)),
    "files": (
        "labels: {found: {kind: mask, match: '{parent}/mask.*', values: {1: a}, off_grid: refuse}}\n",
        ("files",),
    ),
}  # fmt: skip
"""The label block of each archive, and the kinds of case in it."""

SHARE = (("images", 14), ("times", 3), ("contours", 3), ("segments", 3), ("files", 2))
"""How often an archive of a family is drawn."""

SPEC = """
name: truth
license: CC0-1.0
sources: [{kind: folder, url: "${tree}"}]
deid: {patient_key: "${env:BUILDER_KEY}"}
splits: {ratios: {train: 1.0}}
max_lost: {cases: 1, persons: 1}
samples: {kind: volumes, chunk: [8, 32, 32]}
shards: {fields: {image: {dtype: float32}}}
leaks: {pixels: exact}
"""

FIRST = 100
"""Number of the first case; those below it are sound."""
SOUND = 2
SINGLE = 2e-6
"""Relative rounding of 32-bit numbers."""


@dataclass(eq=False)
class Found:
    """A published volume: voxels (channel, slice, row, column), the affine to LPS mm, and what its numbers mean."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    domain: str
    mask: NDArray[np.bool_] | None = None


@dataclass
class Outcome:
    """What became of a case: volumes and reasons, both ways."""

    built: list[Found] = field(default_factory=list)
    written: list[Found] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def draw_case(kind: str, number: int, chooser: Chooser) -> Case:
    """A case of a kind, and the choices it was made of."""
    case = Case(kind, number)
    mode = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE  # what is wrong here is meant to be
    try:
        KINDS[kind](chooser, case)
    finally:
        pydicom.config.settings.writing_validation_mode = mode
    case.choices = tuple(chooser.made)
    return case


def sound(family: str, number: int) -> Case:
    """The plainest case of a family: all choices 0."""
    return draw_case("order" if family == "images" else FAMILIES[family][1][0], number, replayed(()))


def try_cases(family: str, cases: Sequence[Case], folder: Path) -> list[str]:
    """Build an archive of cases, and say what is wrong with what came of it, a line a fault."""
    shutil.rmtree(folder, ignore_errors=True)
    everything = [*(sound(family, n) for n in range(SOUND)), *cases]
    for case in everything:
        for name, content in case.files.items():
            path = folder / "tree" / f"c{case.number}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    try:
        outcomes = _outcomes(family, everything, folder)
    except Exception as error:  # noqa: BLE001 - that a build stops is what is looked for
        return [f"the build of {len(cases)} cases stopped: {type(error).__name__}: {str(error)[:600]}"]
    return [
        f"{case.kind} {list(case.choices)}: {case.story}: {fault}{' (SOUND)' if case.number < FIRST else ''}"
        for case in everything
        for fault in faults(case, outcomes[case.number])
    ]


def _outcomes(family: str, cases: Sequence[Case], folder: Path) -> dict[int, Outcome]:
    os.environ["BUILDER_KEY"] = KEY
    block = FAMILIES[family][0]
    spec, to = folder / "spec.yaml", folder / "dataset"
    spec.write_text(SPEC + volumes_block() + block + ("cohort: {labels: optional}\n" if block else ""))
    build(
        spec, to=to, parameters={"tree": str(folder / "tree")}, cluster=InProcess(), on_internal_error="exclude"
    )  # fmt: skip
    found = {case.number: Outcome() for case in cases}
    (cohort,) = (folder / "dataset.private").rglob("cohort.parquet")
    table = pq.read_table(cohort, columns=["case_key", "series_uid", "reason", "series_key"]).to_pylist()
    of_case = {row["case_key"]: _number(row["series_uid"]) for row in table}
    of_series = {row["series_key"]: _number(row["series_uid"]) for row in table}
    for sample in open_dataset(to):
        row, arrays = sample.row, sample.arrays
        affine = np.array(row["affine"], dtype=float).reshape(-1, 4)
        mask = arrays["found"][0] > 0 if block and row["label_status"] == "labelled" else None
        found[of_case[row["case_key"]]].built.append(Found(arrays["image"], affine, row["domain"], mask))
    (exclusions,) = (to / "versions").rglob("exclusions.parquet")
    for row in pq.read_table(exclusions).to_pylist():
        if row["key"] in of_case or row["key"] in of_series:
            number = of_case.get(row["key"], of_series.get(row["key"], -1))
            found[number].refused[row["reason"]] += 1
        elif row["level"] == "instance":
            found.setdefault(-1, Outcome()).refused[row["reason"]] += 1
    if not block:
        for row in write_volumes(folder / "tree", folder / "volumes", on_internal_error="exclude").to_pylist():
            outcome = found[int(Path(row["folder"]).parts[0][1:])]
            if row["file"] is not None:
                outcome.written.append(_nifti(folder / "volumes" / row["file"], row["domain"]))
    return found


def _number(series_uid: str) -> int:
    return int(series_uid.split(".")[8])


def _nifti(path: Path, domain: str) -> Found:
    image: Any = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    voxels = (voxels if voxels.ndim == 4 else voxels[..., None]).transpose(3, 2, 1, 0)
    affine = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)[:, [2, 1, 0, 3]]
    return Found(voxels, affine, domain)


# --- judging ---------------------------------------------------------------------------------------------------------


def faults(case: Case, outcome: Outcome) -> Iterator[str]:
    """What is wrong with the outcome of a case."""
    known = planes(case.files) | case.planes
    matched: set[int] = set()
    ways = [outcome.built] if case.kind in ("contours", "segments", "files") else [outcome.built, outcome.written]
    for way, volumes in zip(("build", "volumes"), ways, strict=False):
        for volume in volumes:
            reasons = []
            for index, expected in enumerate(case.right):
                reason = differs(volume, expected, known, case)
                if reason is None:
                    matched.add(index)
                    break
                reasons.append(reason)
            else:
                shape = "x".join(map(str, volume.voxels.shape))
                why = " | ".join(reasons) or "none is right"
                yield f"WRONG by {way}: a volume of {shape} in {volume.domain}: {why}"
    several = any(len(volume.voxels) > 1 for volume in outcome.written)  # a dataset has one number of channels
    unlike = several and outcome.refused["inconsistent_pixels"] and case.kind not in FAMILIES["times"][1]
    if len(ways) == 2 and not unlike and sorted(map(_digest, outcome.built)) != sorted(map(_digest, outcome.written)):
        yield f"WAYS differ: build {len(outcome.built)}, volumes {len(outcome.written)}; {dict(outcome.refused)}"
    if outcome.refused["internal_error"]:
        yield "INTERNAL error"
    if case.must == "publish" and not matched:
        yield f"REFUSED though it is sound: {dict(outcome.refused)}"
    if not matched and not outcome.refused and case.files and case.must != "publish":
        pass  # files that are not in any series are counted by the ledger, which the build has proved


def _digest(volume: Found) -> tuple[Any, ...]:
    return (
        volume.voxels.shape,
        volume.domain,
        float(np.float64(volume.voxels).sum()),
        *np.round(np.float32(volume.affine), 4).ravel(),  # NIfTI holds 32 bits
    )


def differs(volume: Found, expected: Expected, known: dict[Frame, Plane], case: Case) -> str | None:
    """Why a volume is not the expected one; None when it is."""
    if len(volume.voxels) != len(expected.channels):
        return f"{len(volume.voxels)} channels, expected {len(expected.channels)}"
    for channel, (voxels, wanted) in enumerate(zip(volume.voxels, expected.channels, strict=True)):
        if any(frame not in known for frame in wanted):
            return "made of images that cannot be read"
        stack = [known[frame] for frame in wanted]
        reason = _misplaced(volume.affine, voxels.shape, stack, even=expected.even)
        reason = reason or _wrong_values(voxels, volume, stack, case, even=expected.even)
        if reason is not None:
            return f"channel {channel}: {reason}"
    if case.label is not None and volume.mask is not None:
        within, outside = (part if _upward(volume.affine, known, expected) else part[::-1] for part in case.label)
        missing, extra = int((within & ~volume.mask).sum()), int((outside & volume.mask).sum())
        if missing or extra:
            return f"label: {missing} voxels missing, {extra} too many"
    if case.bare and volume.mask is not None:
        return "a label of a file that holds none"
    if case.label is not None and volume.mask is None and not case.bare:
        return "published without its label"
    return None


def _upward(affine: NDArray[np.float64], known: dict[Frame, Plane], expected: Expected) -> bool:
    """Whether slices count as the case counts them."""
    first, last = (known[expected.channels[0][k]].origin for k in (0, -1))
    return bool((last - first) @ affine[:3, 0] >= 0)


def _misplaced(affine: NDArray[np.float64], shape: Sequence[int], stack: Sequence[Plane], *, even: bool) -> str | None:
    """Compare the places of voxels with those of the images: to a tenth of a pixel and of a gap."""
    if shape[1:] != stack[0].values.shape:
        return f"slices of {shape[1:]}, expected {stack[0].values.shape}"
    if not even and shape[0] != len(stack):
        return f"{shape[0]} slices, expected {len(stack)}"
    ordered = _sorted(stack, affine)
    corner = np.array(shape[1:]) - 1
    places = range(shape[0]) if not even else (0,)
    for index in places:
        plane = ordered[index]
        for row, column in ((0, 0), (corner[0], 0), (0, corner[1])):
            found = affine[:3] @ np.array([index, row, column, 1.0])
            true = plane.origin + row * plane.down + column * plane.along
            off = found - true
            normal = np.cross(plane.along, plane.down) / np.linalg.norm(np.cross(plane.along, plane.down))
            gap = abs(affine[:3, 0] @ normal)
            across = np.abs(
                [off @ plane.down / (plane.down @ plane.down), off @ plane.along / (plane.along @ plane.along)]
            )
            if len(stack) > 1 and abs(off @ normal) > 0.1 * gap + 1e-3:
                return f"slice {index} is {abs(off @ normal):.3g} mm from its place"
            if across.max() > 0.101:
                return f"slice {index} is {across.max():.3g} pixels from its place"
    return None


def _sorted(stack: Sequence[Plane], affine: NDArray[np.float64]) -> list[Plane]:
    return sorted(stack, key=lambda plane: float(plane.origin @ affine[:3, 0]))


def _wrong_values(voxels: NDArray[Any], volume: Found, stack: Sequence[Plane], case: Case, *, even: bool) -> str | None:
    factor = 1.0
    if volume.domain == "SUVbw":
        if case.suv is None:
            return "SUV of inputs that give none"
        factor = case.suv
    if volume.domain == "HU" and not all(plane.rescaled for plane in stack):
        return "HU without a rescale"
    ordered = _sorted(stack, volume.affine)
    along = np.array([plane.origin @ volume.affine[:3, 0] for plane in ordered]) / (
        volume.affine[:3, 0] @ volume.affine[:3, 0]
    )
    values = [_values(plane) for plane in ordered]
    for index, found in enumerate(np.asarray(voxels, dtype=float)):
        low, share = _between(along, along[0] + index) if even else (index, 0.0)
        if share:
            true = values[low][0] * (1 - share) + values[low + 1][0] * share
            sure = values[low][1] & values[low + 1][1]
            room = 0.51
        else:
            true, sure = values[low]
            room = 0.0
        true = true * factor
        limit = SINGLE * max(1.0, float(np.abs(true).max())) + room + abs(1e-3 * factor * (case.kind == "pet"))
        off = np.abs(found - true)
        if (off[sure] > limit).any():
            return f"slice {index}: {int((off[sure] > limit).sum())} values off by up to {off[sure].max():.6g}"
    return None


def _values(plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values with padding filled, and where they are certain."""
    return np.where(plane.padding, filled(plane), plane.values), ~plane.doubtful


def _between(along: NDArray[np.float64], place: float) -> tuple[int, float]:
    nearest = int(np.argmin(np.abs(along - place)))
    if abs(along[nearest] - place) < 2e-3:
        return nearest, 0.0
    low = min(max(int(np.searchsorted(along, place)) - 1, 0), len(along) - 2)
    return low, float((place - along[low]) / (along[low + 1] - along[low]))


# --- campaign --------------------------------------------------------------------------------------------------------


def batches(size: int, families: Sequence[str]) -> st.SearchStrategy[tuple[str, list[Case]]]:
    """Archives drawn by hypothesis: one of the families, and so many cases of its kinds."""
    turns = list(families)

    @st.composite
    def drawn(draw: st.DrawFn) -> tuple[str, list[Case]]:
        family = turns[draw(st.integers(0, len(turns) - 1))]
        kinds = FAMILIES[family][1]
        cases = []
        for number in range(size):
            chooser = Chooser(lambda below: draw(st.integers(0, below - 1)))
            cases.append(draw_case(kinds[(number + chooser.below(len(kinds))) % len(kinds)], FIRST + number, chooser))
            cases[-1].choices = cases[-1].choices[1:]
        return family, cases

    return drawn()


def again(kind: str, choices: Sequence[int], folder: Path) -> list[str]:
    """The faults of one case that is made of choices: as a line of ``faults.txt`` gives them."""
    return try_cases(family_of(kind), [draw_case(kind, FIRST, replayed(choices))], folder)


def family_of(kind: str) -> str:
    return next(name for name, (_, kinds) in FAMILIES.items() if kind in kinds)


def archive(seed: int, number: int, size: int) -> tuple[str, list[Case]]:
    """The archive of a number: its family by turns, its cases by a seed, so that no two archives are alike."""
    turns = [name for name, share in SHARE for _ in range(share)]
    family = turns[number * 7 % len(turns)]  # 7 and 25 have no common factor: every turn comes, and they mix
    kinds = FAMILIES[family][1]
    draw = random.Random(f"{seed}/{number}")
    return family, [draw_case(kinds[n % len(kinds)], FIRST + n, Chooser(draw.randrange)) for n in range(size)]


def run(count: int, size: int, out: Path, *, work: Path, seed: int = 1, first: int = 0) -> Counter[str]:
    """Try so many cases, and write faults as lines to ``out/faults.txt`` and counts to ``out/counts.json``."""
    out.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    begun = time.process_time()
    for number in range(first, first + -(-count // size)):
        family, cases = archive(seed, number, size)
        found = try_cases(family, cases, work)
        counts.update(f"n {case.kind}" for case in cases)
        counts.update(f"fault {line.split(' ', 1)[0]}" for line in found)
        with (out / "faults.txt").open("a") as file:
            file.writelines(line + "\n" for line in found)
        counts["cpu"] = int(time.process_time() - begun)
        counts["archives"] = number + 1
        (out / "counts.json").write_text(json.dumps(dict(sorted(counts.items())), indent=1))
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=150, help="cases in one archive")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first archive: where a run was cut off")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "builder-truth")
    options = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        work = Path(folder) / "batch"
        counts = run(options.count, options.size, options.out, work=work, seed=options.seed, first=options.first)
    print(json.dumps(dict(sorted(counts.items())), indent=1))
    return int(any(name.startswith("fault") for name in counts))


if __name__ == "__main__":
    raise SystemExit(main())
