"""How well one image under two names is told from two images: false alarms over all pairs, planted copies found.

    python benchmarks/leakage.py CORPUS [--most 60]

Takes every volume in the folders of CORPUS (unpacked), persons being PatientIDs where ``--persons`` names the folder
and folders elsewhere (test sets of several authors often share one PatientID). Prints all pairs of different persons
from 0.6 upwards, so that thresholds can be chosen; then the share of planted copies found at the thresholds in use,
by kind and modality.
"""

import argparse
import io
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from builder.errors import CaseError
from builder.imaging.axes import stacks_for
from builder.imaging.options import admit
from builder.imaging.parse import parse_instance
from builder.imaging.volume import assemble
from builder.protocols import Entry, Source
from builder.report.leakage import Print, find_matches, take_print
from builder.sources.folder import Folder
from builder.stages.duplicates import find_duplicates, with_verdicts
from builder.stages.index import index_partition
from builder.stages.merge import by_series
from builder.stages.volumes import KEEP_ALL

Voxels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Held:
    """A volume and who it is of."""

    name: str
    person: str
    modality: str
    voxels: Voxels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--persons", nargs="*", default=["sts_cohort"])
    parser.add_argument("--most", type=int, default=60)
    given = parser.parse_args()
    volumes = list(held_in(given.corpus, given.persons))
    start = time.process_time()
    prints = [take_print(v.voxels, key=v.name, person_key=v.person, modality=v.modality) for v in volumes]
    size = sum(v.voxels.nbytes for v in volumes) / 1e6
    print(f"{len(prints)} volumes, {size:.0f} MB: prints taken in {time.process_time() - start:.1f} s")
    start = time.process_time()
    matches = find_matches(prints, threshold=0.6, thresholds={})
    print(f"all pairs compared in {time.process_time() - start:.1f} s")
    modality = {v.name: v.modality for v in volumes}
    for m in matches:
        print(f"{m.correlation:.3f} {'exact' if m.exact else f'{m.planes} planes':>10} {modality[m.first]} "
              f"{m.first} | {modality[m.second]} {m.second}")  # fmt: skip
    count_pairs(volumes)
    plant(volumes, prints, given.most)


def held_in(corpus: Path, named: list[str]) -> Iterator[Held]:
    """Every volume below a folder."""
    for folder in sorted(p for p in corpus.iterdir() if p.is_dir()):
        source = cast(Source, Folder(url=str(folder.resolve())))
        table = index_partition(source, 0, tuple(source.list()))
        table = with_verdicts(table, find_duplicates([table], [source]))
        table = table.filter([s == "instance" for s in table["status"].to_pylist()])
        for number, rows in enumerate(by_series(table)):
            first = rows.slice(0, 1).to_pylist()[0]
            place = str(Path(first["path"]).parent)
            person = f"{folder.name}/{first['patient_id'] if folder.name in named else place}"
            for stack in stacks_for(rows, KEEP_ALL):
                try:
                    objects = [
                        parse_instance(source.read(Entry(r["path"], r["size"], r["stamp"], r["member"])))
                        for r in rows.to_pylist()
                    ]
                    parts = [(part, assemble(part, objects, KEEP_ALL)) for part in admit(stack, KEEP_ALL)]
                except CaseError:
                    continue
                for i, (part, volume) in enumerate(parts):
                    name = f"{folder.name}/{place}#{number}.{part.number}.{i}"
                    yield Held(name, person, first["modality"] or "", volume.voxels)


def count_pairs(volumes: list[Held]) -> None:
    """Pairs of different persons by modality of both."""
    counts: dict[str, int] = {"all": 0}
    for a, b in itertools.combinations(volumes, 2):
        if a.person != b.person:
            counts["all"] += 1
            if a.modality == b.modality:
                counts[a.modality] = counts.get(a.modality, 0) + 1
    print("pairs of different persons:", counts)


def plant(volumes: list[Held], prints: list[Print], most: int) -> None:
    """One copy of each kind of some volumes, each among all volumes."""
    thick = [i for i, v in enumerate(volumes) if v.voxels.shape[1] >= 8 and np.ptp(v.voxels[0]) > 0]
    chosen = [thick[i] for i in sorted({round(k * (len(thick) - 1) / max(1, most - 1)) for k in range(most)})]
    for kind, copy in COPIES.items():
        found: dict[str, list[int]] = {}
        wrong = 0
        copies = []
        for i in chosen:
            rng = np.random.default_rng(i)
            planted = copy(np.asarray(volumes[i].voxels[0]), rng)
            copies.append(
                replace(take_print(planted, key=f"copy {i}", person_key=f"copy {i}"), modality=volumes[i].modality)
            )
        pairs = {frozenset((m.first, m.second)) for m in find_matches([*prints, *copies])}
        for i in chosen:
            found.setdefault(volumes[i].modality, []).append(frozenset((f"copy {i}", volumes[i].name)) in pairs)
            wrong += any(
                f"copy {i}" in pair and volumes[i].name not in pair
                and not pair & {n for p in pairs if volumes[i].name in p for n in p}
                for pair in pairs
            )
        shares = ", ".join(f"{m} {sum(f)}/{len(f)}" for m, f in sorted(found.items()))
        everything = [f for held in found.values() for f in held]
        print(f"{kind}: {sum(everything)}/{len(everything)} ({shares}); {wrong} taken for another volume", flush=True)


def crop(v: Voxels, rng: np.random.Generator) -> Voxels:
    """70 to 95 % of each edge, somewhere."""
    keep = [max(2, round(n * rng.uniform(0.7, 0.95))) for n in v.shape]
    start = [int(rng.integers(0, n - k + 1)) for n, k in zip(v.shape, keep, strict=True)]
    return v[tuple(slice(s, s + k) for s, k in zip(start, keep, strict=True))]


def jpeg(v: Voxels, rng: np.random.Generator) -> Voxels:
    """JPEG of quality 40 of an 8-bit window."""
    planes = []
    for plane in window(v, rng):
        sink = io.BytesIO()
        Image.fromarray(plane).save(sink, "JPEG", quality=40)
        planes.append(np.asarray(Image.open(sink)))
    return np.stack(planes)


def window(v: Voxels, rng: np.random.Generator) -> Voxels:
    """8 bits between two percentiles."""
    low, high = np.percentile(v, [rng.uniform(0, 5), rng.uniform(97, 99.9)])
    return (np.clip((v.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)


COPIES: dict[str, Callable[[Voxels, np.random.Generator], Voxels]] = {
    "other UIDs": lambda v, rng: v,
    "other intercept, slices reversed": lambda v, rng: v[::-1].astype(np.float32 if v.dtype.kind == "f" else int) + 7,
    "cropped": crop,
    "rescaled": lambda v, rng: ndimage.zoom(v.astype(np.float32), rng.uniform(0.6, 1.4, 3), order=1),
    "re-compressed": jpeg,
    "flipped": lambda v, rng: v[:, ::-1, ::-1] if rng.integers(2) else v[::-1, :, ::-1],
    "other window": window,
    "cropped, flipped, re-compressed": lambda v, rng: jpeg(crop(v, rng)[:, :, ::-1], rng),
}


if __name__ == "__main__":
    main()
