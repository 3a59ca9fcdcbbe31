"""Every CT and MR series of the corpus against labels that were made before any rule was written, from headers and
pictures alone. ``corpus_labels.csv`` names a series by the start of the SHA-256 of its UID; two labels apart by ``|``
are both right."""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from builder.imaging.stacks.options import VolumeOptions
from builder.sources import Folder
from builder.stages.index import index_partition
from builder.stages.survey import survey

LABELS = Path(__file__).with_name("corpus_labels.csv")
ARCHIVES = ("geometry", "layouts", "odd", "segmentation", "sts")


@pytest.fixture(scope="module")
def stacks(corpus) -> list[dict]:
    return [row for archive in ARCHIVES for row in _stacks(corpus(archive))]


def _stacks(folder: Path) -> Iterator[dict]:
    source = Folder(url=str(folder), include=("**/*",))
    entries = [
        entry for entry in source.list() if not entry.path.endswith((".nii.gz", ".nii", ".png", ".json", ".txt"))
    ]
    instances = index_partition(source, 0, entries)
    wanted = pc.and_(pc.equal(instances["status"], "instance"), pc.is_in(instances["modality"], pa.array(["CT", "MR"])))
    ordered = instances.filter(wanted).sort_by([("series_uid", "ascending"), ("sop_instance_uid", "ascending")])
    yield from survey(ordered, sources=[source], options=VolumeOptions())[0].to_pylist()


def _judged(stacks: list[dict], column: str) -> tuple[int, int, list[str]]:
    labels = {row["series_sha256"]: row[column] for row in csv.DictReader(LABELS.read_text().splitlines())}
    answers = set()
    for row in stacks:
        name = hashlib.sha256(row["series_uid"].encode()).hexdigest()[:20]
        if labels.get(name):
            answers.add((name, labels[name], row[column], row[f"{column}_rule"]))
    said = [answer for answer in answers if answer[2] != "unknown"]
    wrong = [
        f"{name}: {found} by {rule}, labelled {label}"
        for name, label, found, rule in said
        if found not in label.split("|")
    ]
    return len(answers), len(said), wrong


@pytest.mark.parametrize(
    ("column", "series", "share"),
    [("series_type", 100, 0.80), ("plane", 85, 0.95), ("body_region", 45, 0.95), ("phase", 9, 0.80)],
)
def test_blind_labels_are_met(stacks, column, series, share):
    labelled, said, wrong = _judged(stacks, column)
    assert labelled >= series
    assert said / labelled >= share
    assert wrong == []
