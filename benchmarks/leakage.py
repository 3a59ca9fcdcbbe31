"""How well one image under two names is told from two images: false alarms over all pairs, planted copies found.

    python benchmarks/leakage.py CORPUS [--most 60] [--between-sites]

Takes every volume in the folders of CORPUS (unpacked), persons being PatientIDs where ``--persons`` names the folder
and folders elsewhere (test sets of several authors often share one PatientID). Prints all pairs of different persons
from 0.6 upwards, so that thresholds can be chosen; then the share of planted copies found at the thresholds in use,
by kind and modality, and how near the copies of a kind came to a volume they are no copies of. Seconds are of the
processor. With ``--between-sites`` the same is measured of the keyed marks by which two sites compare their images.
"""

import argparse
import io
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from builder.copies import Match, Print, find_matches, take_print
from builder.errors import CaseError
from builder.federation.leaks import copies, marks
from builder.imaging.parse import parse_instance
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import admit
from builder.imaging.volume import assemble
from builder.library.volumes import KEEP_ALL
from builder.model.keyed import Key
from builder.planning.duplicates import find_duplicates, with_verdicts
from builder.protocols import Entry, Source
from builder.sources.folder import Folder
from builder.stages.index import index_partition

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
    parser.add_argument("--between-sites", action="store_true")
    given = parser.parse_args()
    volumes = list(held_in(given.corpus, given.persons))
    start = time.process_time()
    prints = [take_print(v.voxels, key=v.name, person_key=v.person, modality=v.modality) for v in volumes]
    size = sum(v.voxels.nbytes for v in volumes) / 1e6
    print(f"{len(prints)} volumes, {size:.0f} MB: prints taken in {time.process_time() - start:.1f} s")
    if given.between_sites:
        compare_sites(volumes, prints, given.most)
        return
    find_matches(prints[:10])  # what is compiled is compiled, or loaded
    for most in sorted({min(100, len(prints)), len(prints)}):
        start = time.process_time()
        count = len(find_matches(prints[:most]))
        print(f"all pairs of {most} compared in {time.process_time() - start:.1f} s, {count} found")
    matches = find_matches(prints, threshold=0.6, thresholds={})
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
        for number, uid in enumerate(dict.fromkeys(table["series_uid"].to_pylist())):
            rows = table.filter(pc.equal(table["series_uid"], uid))
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
    """One copy of each kind of some volumes, each among all volumes.

    Another volume is one of another person, of whom no volume shows an image of the original's person by itself.
    """
    chosen = chosen_of(volumes, most)
    person = {v.name: v.person for v in volumes} | {f"copy {i}": volumes[i].person for i in chosen}
    alike = [{person[name] for name in pair} for pair in pairs_of(find_matches(prints))]
    for kind, copy in COPIES.items():
        made = [planted(volumes[i], i, copy) for i in chosen]
        pairs = pairs_of(find_matches([*prints, *made]))
        near = pairs_of(find_matches([*prints, *made], threshold=0.75, thresholds={}))
        others = {
            pair: near[pair] for pair in near
            if any(name.startswith("copy ") for name in pair)
            and len({person[name] for name in pair}) == 2 and {person[name] for name in pair} not in alike
        }  # fmt: skip
        found: dict[str, list[int]] = {}
        for i in chosen:
            found.setdefault(volumes[i].modality, []).append(frozenset((f"copy {i}", volumes[i].name)) in pairs)
        shares = ", ".join(f"{m} {sum(f)}/{len(f)}" for m, f in sorted(found.items()))
        missed = [i for i in chosen if frozenset((f"copy {i}", volumes[i].name)) not in pairs]
        print(f"{kind}: {len(chosen) - len(missed)}/{len(chosen)} ({shares}); not {[volumes[i].name for i in missed]}; "
              f"{sum(pair in pairs for pair in others)} taken for another volume, nearest "
              f"{max(((c, *sorted(p)) for p, c in others.items()), default=None)}", flush=True)  # fmt: skip


def compare_sites(volumes: list[Held], prints: list[Print], most: int) -> None:
    """Planted copies at another site that marks find, and pairs of persons that only they take for one image."""
    chosen, key = chosen_of(volumes, most), Key(b"shared by the sites alone")
    person = {v.name: v.person for v in volumes}
    alike = [{person[name] for name in pair} for pair in pairs_of(find_matches(prints))]
    given = [marks(p, key) for p in prints]
    found = copies(prints, "other", given, key)
    pairs = {frozenset((m.own, volumes[m.number - 1].name)) for m in found}
    apart = [pair for pair in pairs if len({person[name] for name in pair}) == 2]
    wrong = [sorted(pair) for pair in apart if {person[name] for name in pair} not in alike]
    print(f"{len(apart)} pairs of different persons share marks, {len(wrong)} of them no copies: {wrong}")
    for other in (key, Key(b"shared by other sites")):
        own = given if other is key else [marks(p, other) for p in prints]
        near = copies(prints, "other", own, other, shared=1)
        strange = [m for m in near if {m.person_key, person[volumes[m.number - 1].name]} not in alike
                   and m.person_key != person[volumes[m.number - 1].name]]  # fmt: skip
        nearest = max(strange, key=lambda m: m.bands)
        print(f"strangers share up to {nearest.bands} bands: {nearest.own} | {volumes[nearest.number - 1].name}")
    count_pairs(volumes)
    for kind, copy in COPIES.items():
        given = [marks(planted(volumes[i], i, copy), key) for i in chosen]
        matches = copies([prints[i] for i in chosen], "other", given, key)
        right = sum(m.own == volumes[chosen[m.number - 1]].name for m in matches)
        print(f"{kind}: {right}/{len(chosen)}", flush=True)


def chosen_of(volumes: list[Held], most: int) -> list[int]:
    """Return the numbers of some volumes that are more than a few rows and not constant."""
    thick = [i for i, v in enumerate(volumes) if v.voxels.shape[1] >= 8 and np.ptp(v.voxels[0]) > 0]
    return [thick[i] for i in sorted({round(k * (len(thick) - 1) / max(1, most - 1)) for k in range(most)})]


def planted(volume: Held, number: int, copy: Callable[[Voxels, np.random.Generator], Voxels]) -> Print:
    """Return the print of a copy."""
    voxels = copy(np.asarray(volume.voxels[0]), np.random.default_rng(number))
    return take_print(voxels, key=f"copy {number}", person_key=f"copy {number}", modality=volume.modality)


def pairs_of(matches: tuple[Match, ...]) -> dict[frozenset[str], float]:
    """Correlation by names of the pair."""
    return {frozenset((m.first, m.second)): m.correlation for m in matches}


def crop(v: Voxels, rng: np.random.Generator, least: float = 0.7, most: float = 0.95) -> Voxels:
    """70 to 95 % of each edge, or other shares, somewhere."""
    keep = [max(2, round(n * rng.uniform(least, most))) for n in v.shape]
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


def rescale(v: Voxels, rng: np.random.Generator) -> Voxels:
    """60 to 140 % of each edge."""
    return np.asarray(ndimage.zoom(v.astype(np.float32), rng.uniform(0.6, 1.4, 3), order=1))


def turn(v: Voxels, rng: np.random.Generator) -> Voxels:
    """Another order of the axes, and one flip."""
    return v.transpose([(0, 2, 1), (1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)][rng.integers(5)])[::-1]


COPIES: dict[str, Callable[[Voxels, np.random.Generator], Voxels]] = {
    "other UIDs": lambda v, rng: v,
    "other intercept, slices reversed": lambda v, rng: v[::-1].astype(np.float32 if v.dtype.kind == "f" else int) + 7,
    "cropped": crop,
    "rescaled": rescale,
    "re-compressed": jpeg,
    "flipped": lambda v, rng: v[:, ::-1, ::-1] if rng.integers(2) else v[::-1, :, ::-1],
    "other window": window,
    "cropped, flipped, re-compressed": lambda v, rng: jpeg(crop(v, rng)[:, :, ::-1], rng),
    "cropped, rescaled": lambda v, rng: rescale(crop(v, rng), rng),
    "cropped to half": lambda v, rng: crop(v, rng, 0.5, 0.7),
    "turned": turn,
}


if __name__ == "__main__":
    main()
