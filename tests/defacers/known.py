"""Drawn heads as volumes, and how much of a known face a defacer takes out of them."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from builder.defacers import Surface
from builder.defacers.defacing import Defacing, find_face, without_face
from builder.defacers.removal import Removal
from builder.model.case import ValueDomain, Volume
from builder.model.keyed import Key
from builder.phantom.head_scans import HeadScan, draw_scans

SEED = "faces"


@dataclass(frozen=True)
class Score:
    """Of one scan: voxels of the face's surface and how many of them went, voxels of the brain that changed."""

    modality: str
    person: int
    face: int
    gone: int
    brain: int
    share: float
    refused: str = ""


def volume_of(made: HeadScan) -> Volume:
    """Return a drawn scan as a build would read it."""
    scan = made.scan
    if scan.series.modality == "PT":
        values = (scan.pixels * np.asarray(scan.slopes)[:, None, None]).astype(np.float32)
        return Volume(values[None], scan.geometry, ValueDomain.ACTIVITY)
    if scan.series.modality == "CT":
        values = scan.pixels.astype(np.float32) + np.float32(scan.stored.intercept)
        return Volume(values[None], scan.geometry, ValueDomain.HOUNSFIELD)
    return Volume(scan.pixels[None].astype(np.float32), scan.geometry, ValueDomain.ARBITRARY)


def removal_of(found: Defacing) -> Removal:
    """Return what goes out of an image that lies in no other's place."""
    return Removal(found.gone, found.surface, np.eye(4))


def score(made: HeadScan, person: int) -> Score:
    """Take a face out and compare with the answer key. What went is what the cells say, changed by value or not."""
    volume = volume_of(made)
    modality = made.scan.series.modality
    face, brain = made.answer.face, made.answer.brain
    found = find_face(volume, Surface(), told=True)
    if found.doubt:
        return Score(modality, person, int(face.sum()), 0, 0, 0.0, found.doubt)
    gone = found.gone.within(volume.geometry)
    after = without_face(volume, removal_of(found), ())
    changed = (after.voxels != volume.voxels)[0]
    assert not (changed & ~gone).any()
    return Score(
        modality, person, int(face.sum()), int((face & gone).sum()), int((brain & changed).sum()), float(gone.mean())
    )


def scores(persons: Iterator[int] | range, seed: str = SEED) -> Iterator[Score]:
    """Yield the score of every scan of some persons."""
    key = Key(sha256(seed.encode()).digest())
    for person in persons:
        for made in draw_scans(key, person):
            yield score(made, person)


def main() -> None:
    """Print the score of many heads: ``python -m tests.defacers.known --heads 60``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--heads", type=int, default=60, help="scans to draw: CT, PET and MR in turn")
    parser.add_argument("--seed", default=SEED, help="what the heads are drawn from")
    asked = parser.parse_args()
    found: list[Score] = []
    for one in scores(range(1, (asked.heads + 2) // 3 + 1), asked.seed):
        found.append(one)
        share = one.gone / max(1, one.face)
        print(f"{one.person:3d} {one.modality} face {share:8.3%} brain {one.brain} {one.refused}", flush=True)
    print("images  modality  face removed (all)  least of one image  brain voxels changed  refused")
    for name in ("CT", "PT", "MR", ""):
        part = [one for one in found if one.modality == name or not name]
        kept = [one for one in part if not one.refused]
        whole = sum(o.gone for o in kept) / max(1, sum(o.face for o in kept))
        least = min((o.gone / max(1, o.face) for o in kept), default=0.0)
        changed, refused = sum(one.brain for one in kept), len(part) - len(kept)
        print(f"{len(part):6d}  {name or 'all':8s}  {whole:18.3%}  {least:18.3%}  {changed:20d}  {refused}")


if __name__ == "__main__":
    main()
