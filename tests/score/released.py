"""Score a whole release: persons over all files and tables, texts in pixels that somebody decided about, all else."""

import csv
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless

from builder.deid.uids import UidMap
from builder.model.keyed import Key
from builder.phantom.headers import Subject
from builder.run.release import release
from tests.score.actions import Tally
from tests.score.people import KINDS, Human, human
from tests.synthetic import ct_series, mr_series

VARIABLE, KEY = "BUILDER_KEY", "7b1f0c6ad93e58427e5ab8d1469f03c2e8d7712f94ab360c5dfe81b2a94c6037"
SPEC = """
name: scored
license: CC0-1.0
sources: [{{kind: folder, url: "{folder}/archive"}}]
cohort: {{image: "modality in ['CT', 'MR']", labels: optional}}
labels: {{tumor: {{kind: rtstruct, roi: {{lesion: "(?i)gtv"}}}}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes}}
shards: {{fields: {{image: {{dtype: float32}}}}}}
splits: {{ratios: {{train: 0.8, test: 0.2}}, tested: {{labels: any}}, may_be_empty: [train, test]}}
leaks: {{pixels: "off"}}
report: {{thumbnails: 0}}
release: {{decisions: "{folder}/decisions.csv"}}
"""
SHAPE, SLICES = (96, 256), 5
DECLARED = ("YES", "NO")
"""What images with text say of it (0028,0301)."""
LINE = 16
"""Rows of a rectangle, which holds one line of text."""


@dataclass(frozen=True)
class Drawn:
    """What an image held before, with the rectangle in which text was drawn; None where none was."""

    mrn: str
    before: NDArray[np.int32]
    box: tuple[int, int, int, int] | None
    said: int
    """Pixels that the text changed."""


def score_release(folder: Path, tally: Tally, *, persons: int, seed: int = 19) -> None:
    """Write persons with two studies each, release them, and compare what leaves with what was drawn.

    ``BUILDER_KEY`` must be ``KEY``. Every second person is called like the one before, with a number of their own.
    """
    rng = random.Random(seed)
    drawn: dict[str, Drawn] = {}
    who = human(rng)
    for number in range(persons):
        made = human(rng)
        who = made if number % 2 == 0 else Human(**{**vars(who), "mrn": made.mrn})
        drawn |= _write(folder / "archive" / str(number), who, rng, number)
    _decide(folder / "decisions.csv", drawn)
    (folder / "spec.yaml").write_text(SPEC.format(folder=folder))
    release(folder / "spec.yaml", to=folder / "out")
    uids = UidMap(Key(KEY.encode()))
    left = {str(d.SOPInstanceUID): d for d in map(dcmread, sorted((folder / "out").rglob("*.dcm")))}
    _persons(folder / "out", {uids(uid): image.mrn for uid, image in drawn.items()}, left, tally)
    for uid, image in drawn.items():
        _pixels(image, left.get(uids(uid)), tally)


def _write(folder: Path, who: Human, rng: random.Random, number: int) -> dict[str, Drawn]:
    """Write a CT and an MR of two studies; half of the images say something in their pixels."""
    drawn: dict[str, Drawn] = {}
    subject = Subject(who.mrn, who.name, birth_date=f"{who.born:%Y%m%d}")
    for study, made_by in (("1", ct_series), ("2", mr_series)):
        day = f"20{10 + number % 9}0{1 + number % 8}1{study}"
        made = made_by(slices=SLICES, shape=SHAPE, patient_id=who.mrn, subject=subject, study=study, date=day)
        target = folder / study
        target.mkdir(parents=True)
        for place, dataset in enumerate(made.images):
            drawn[str(dataset.SOPInstanceUID)] = _draw(dataset, who, rng, speaks=place % 2 == 0)
            if number % 3 == 0:
                dataset.compress(RLELossless, generate_instance_uid=False)
            dataset.save_as(target / f"{place}.dcm", enforce_file_format=True)
    return drawn


def _draw(dataset: Dataset, who: Human, rng: random.Random, *, speaks: bool) -> Drawn:
    before = dataset.pixel_array.astype(np.int32)
    if not speaks:
        return Drawn(who.mrn, before, None, 0)
    top, left = rng.randrange(0, SHAPE[0] - LINE), rng.randrange(0, 60)
    box = (top, top + LINE, left, SHAPE[1])
    picture = Image.fromarray(before, mode="I")
    said = f"{who.name} {who.written(rng.choice(KINDS), rng)}"
    ImageDraw.Draw(picture).text((left, top + 2), said, fill=int(before.max()) + 1)
    after = before.copy()
    inside = np.s_[box[0] : box[1], box[2] : box[3]]
    after[inside] = np.asarray(picture)[inside]
    dataset.PixelData = after.astype(dataset.pixel_array.dtype).tobytes()
    dataset.BurnedInAnnotation = rng.choice(DECLARED)
    return Drawn(who.mrn, before, box, int((after != before).sum()))


def _decide(path: Path, drawn: dict[str, Drawn]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("uid", "row_from", "row_to", "column_from", "column_to"))
        for uid, image in drawn.items():
            writer.writerow((uid, *(image.box or ("", "", "", ""))))


def _persons(out: Path, whose: dict[str, str], left: dict[str, Dataset], tally: Tally) -> None:
    """One pseudonym for each PatientID in all files and tables, of nobody else, and without a part of the number."""
    with (out / "objects.csv").open() as file:
        listed = {row["sop_instance_uid"]: row["patient_id"] for row in csv.DictReader(file)}
    with (out / "splits.csv").open() as file:
        split = {row["patient_id"] for row in csv.DictReader(file)}
    named: dict[str, set[str]] = defaultdict(set)
    owners: dict[str, set[str]] = defaultdict(set)
    for uid, mrn in whose.items():
        if uid in left:
            named[mrn] |= {str(left[uid].PatientID), str(left[uid].PatientName)}
            owners[str(left[uid].PatientID)].add(mrn)
    for uid, mrn in whose.items():
        found = str(left[uid].PatientID) if uid in left else ""
        one = named[mrn] == {found} and owners[found] == {mrn} and mrn.lower() not in found.lower()
        tally.count("patid_consistent", "released objects", done=one)
        tally.count("patid_consistent", "objects.csv", done=bool(found) and listed.get(uid) == found)
        tally.count("patid_consistent", "splits.csv", done=found in split)


def _pixels(image: Drawn, clean: Dataset | None, tally: Tally) -> None:
    """Text is gone where somebody saw it, and every other pixel is as it was."""
    after = None if clean is None else clean.pixel_array.astype(np.int32)
    outside = np.ones(SHAPE, dtype=np.bool_)
    if image.box is not None:
        inside = np.s_[image.box[0] : image.box[1], image.box[2] : image.box[3]]
        outside[inside] = False
        hidden = image.said > 0 and (after is None or int(after[inside].min()) == int(after[inside].max()))
        tally.count("pixels_hidden", "decided", done=hidden)
    kept = after is not None and after.shape == SHAPE and bool((after[outside] == image.before[outside]).all())
    tally.count("pixels_retained", "decided" if image.box else "without text", done=kept)
