"""The radiographs of ChestX-ray14: persons, labels and balance counted again, and a classifier trained on them."""

import csv
import json
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

import builder
from builder.reader import Dataset
from builder.run.pipeline import build
from tests.conftest import ROOT
from tests.endtoend.trees import KEY

SPEC = ROOT / "specs" / "chest-classification.yaml"
FOLDERS = {"train": "train", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class Built:
    dataset: Dataset
    version: Path
    archive: Path


@pytest.fixture(scope="module")
def built(corpus: Any, tmp_path_factory: pytest.TempPathFactory) -> Built:
    archive = corpus("layouts") / "nih_cxr_png"
    home = tmp_path_factory.mktemp("radiographs")
    spec = home / "spec.yaml"
    spec.write_text(SPEC.read_text() + 'leaks: {pixels: "off"}\n')  # copies have tests of their own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(spec, to=home / "out", parameters={"archive": str(archive)})
    version = home / "out" / "versions" / (home / "out" / "CURRENT").read_text().strip()
    return Built(builder.open_dataset(home / "out"), version, archive)


def recount(archive: Path) -> dict[bytes, list[tuple[Any, ...]]]:
    """Map the pixels of every picture to (patient, published split, abnormal, findings, view), from names and table."""
    with (archive / "Data_Entry_2017_subset.csv").open(newline="") as file:
        stated = {row["Image Index"]: row for row in csv.DictReader(file)}
    found: dict[bytes, list[tuple[Any, ...]]] = {}
    for path in sorted(archive.rglob("*.png")):
        row, folder = stated[path.name], path.parent.parent.name
        listed = row["Finding Labels"].split("|")
        facts = (
            path.name[:8], FOLDERS[folder], path.parent.name == "1_abnormal", "Cardiomegaly" in listed,
            "Effusion" in listed, row["View Position"].lower(),
        )  # fmt: skip
        found.setdefault(np.asarray(Image.open(path).convert("L")).tobytes(), []).append(facts)
    return found


COLUMNS = (
    "split_published", "label.abnormal", "label.findings.cardiomegaly", "label.findings.effusion",
    "label.findings.view",
)  # fmt: skip


def test_persons_labels_and_balance_equal_a_recount(built: Built) -> None:
    assert len(SPEC.read_text().splitlines()) <= 20
    expected, table = recount(built.archive), built.dataset.table
    samples = list(zip(table["person_key"].to_pylist(), *(table[c].to_pylist() for c in COLUMNS), strict=True))
    assert len(samples) == sum(map(len, expected.values())) == 432
    persons: dict[str, set[str]] = {}
    for item, (person, *facts) in zip(built.dataset, samples, strict=True):
        truths = expected[item["image"].tobytes()]
        assert tuple(facts) in {truth[1:] for truth in truths}
        persons.setdefault(person, set()).update(truth[0] for truth in truths)
    assert len(persons) == len({truth[0] for truths in expected.values() for truth in truths}) == 129
    assert Counter(tuple(facts) for _, *facts in samples) == Counter(t[1:] for ts in expected.values() for t in ts)

    report = json.loads((built.version / "report" / "report.json").read_text())
    (entry,) = [e for e in report["labels"] if e["label"] == "label.abnormal"]
    split_of = table["split"].to_pylist()
    for level in entry["levels"]:
        for split in ("train", "validation"):
            mine = sum(
                s == split and str(row[2]).lower() == level["level"] for s, row in zip(split_of, samples, strict=True)
            )
            assert level["cells"][split]["count"] == mine
    dealt = pq.read_table(built.version / "splits.parquet")
    ill = {p for p, _, abnormal, *_ in samples if abnormal}
    shares = Counter(
        (s, p in ill) for p, s in zip(*(dealt[c].to_pylist() for c in ("person_key", "split")), strict=True)
    )
    for abnormal in (True, False):
        total = sum(n for (_, is_ill), n in shares.items() if is_ill == abnormal)
        assert abs(shares["train", abnormal] - 0.7 * total) < 1


def test_the_published_split_and_its_crossings_are_counted(built: Built) -> None:
    truths = [truth for truths in recount(built.archive).values() for truth in truths]
    of: dict[str, set[str]] = {}
    for patient, split, *_ in truths:
        of.setdefault(patient, set()).add(split)
    leaks = json.loads((built.version / "leaks.json").read_text())
    assert leaks["published_split"] == {
        "images": dict(sorted(Counter(split for _, split, *_ in truths).items())), "persons": 129, "in_two_splits": 17,
    }  # fmt: skip
    assert sum(len(splits) > 1 for splits in of.values()) == 17
    assert leaks["found"] == 0


SIZES, DECAYS = (4, 8), (10.0, 100.0, 1000.0, 10000.0)
"""Pixels along a side of the pictures that networks see, and their weight decay. All are used: none is chosen."""
DEALINGS, FOLDS = 5, 5
"""How often persons are dealt into folds, and how many."""


def features(dataset: Dataset) -> list[NDArray[np.float64]]:
    """Read every picture through batches and average it to squares of each of ``SIZES``."""
    found = [np.empty((len(dataset), size * size)) for size in SIZES]
    for batch in dataset.batches(64):
        for size, inputs in zip(SIZES, found, strict=True):
            side = 64 // size
            squares = batch["image"][:, 0, 0].reshape(-1, size, side, size, side).mean((2, 4))
            inputs[batch.indices] = squares.reshape(-1, size * size)
    return found


def scores_of(
    pictures: list[NDArray[np.float64]], y: NDArray[np.float64], persons: NDArray[Any]
) -> NDArray[np.float64]:
    """Score every picture by the mean rank that networks give it which were trained on persons of the other folds."""
    names, person_of = np.unique(persons, return_inverse=True)
    rng, scores = np.random.default_rng(0), np.zeros(len(y))
    for _ in range(DEALINGS):
        folds = (rng.permutation(len(names)) % FOLDS)[person_of]
        for x, decay, fold in product(pictures, DECAYS, range(FOLDS)):
            train = folds != fold
            middle, spread = x[train].mean(0), x[train].std(0)
            inputs = np.c_[(x - middle) / spread, np.ones(len(x))]
            weights = train_network(inputs[train], y[train], decay)
            scores[~train] += rankdata(inputs[~train] @ weights) / np.count_nonzero(~train)
    return scores


def train_network(inputs: NDArray[np.float64], y: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """Fit a network of one layer by Newton's steps of a logistic regression with weight decay."""
    weights = np.zeros(inputs.shape[1])
    for _ in range(6):
        chance = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (chance - y) + decay * weights
        curve = inputs.T @ (inputs * (chance * (1 - chance))[:, None]) + decay * np.eye(len(weights))
        weights -= np.linalg.solve(curve, slope)
    return weights


def area(y: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    ranks, positives = rankdata(scores), y.sum()
    return float((ranks[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def interval(y: NDArray[np.float64], scores: NDArray[np.float64], persons: NDArray[Any]) -> tuple[float, float]:
    """95 % of the areas under the curve when persons are drawn with replacement."""
    rng = np.random.default_rng(1)
    places = [np.flatnonzero(persons == person) for person in np.unique(persons)]
    drawn = (np.concatenate([places[n] for n in rng.integers(0, len(places), len(places))]) for _ in range(400))
    low, high = np.percentile([area(y[rows], scores[rows]) for rows in drawn], [2.5, 97.5])
    return float(low), float(high)


def test_a_classifier_learns_the_labels_and_not_shuffled_ones(built: Built) -> None:
    persons = np.array(built.dataset.table["person_key"].to_pylist())
    x, y = features(built.dataset), built.dataset.targets("label.abnormal").astype(float)
    low, high = interval(y, scores_of(x, y, persons), persons)
    assert low > 0.5, (low, high)
    shuffled = np.random.default_rng(0).permutation(y)
    low, high = interval(shuffled, scores_of(x, shuffled, persons), persons)
    assert low <= 0.5, (low, high)
