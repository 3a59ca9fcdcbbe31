"""Every folder of the corpus has the verdicts of a golden table, which was read against the corpus' catalogue."""

import csv
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.imaging.rows import instances_of
from builder.imaging.series import split_stacks
from tests.imaging.reading import series_of, stacks_of

GOLDEN = Path(__file__).with_name("verdicts.csv")
FIELDS = ("folder", "series", "stack", "modality", "split_rule", "verdict", "detail")
ARCHIVES = ("geometry", "segmentation", "odd", "sts")
PARTS = {"sts_cohort": ("STS_003", "STS_008", "STS_041")}
"""Folders of which a part stands for the whole: 2,902 files are too many for a test."""


def folders(root: Path) -> Iterator[Path]:
    """Folders with files, in order."""
    for folder in sorted(p for p in [root, *root.rglob("*")] if p.is_dir()):
        names = folder.relative_to(root).parts
        if names and names[0] in PARTS and (len(names) < 2 or names[1] not in PARTS[names[0]]):
            continue
        if "malformed" not in names and any(p.is_file() for p in folder.iterdir()):
            yield folder


def verdicts(root: Path) -> Iterator[dict[str, str]]:
    """One row a stack below ``root``."""
    for folder in folders(root):
        for number, datasets in enumerate(series_of(folder)):
            for index, stack in enumerate(stacks_of(datasets)):
                facts = (stack.modality, stack.split_rule, stack.verdict.value, stack.detail)
                name = folder.relative_to(root).as_posix()
                yield dict(zip(FIELDS, (name, str(number), str(index), *facts), strict=True))


@pytest.mark.parametrize("archive", ARCHIVES)
def test_every_corpus_folder_has_its_golden_verdicts(archive: str, corpus: Callable[[str], Path]) -> None:
    root = corpus(archive)
    with GOLDEN.open(encoding="utf-8", newline="") as handle:
        golden = [row for row in csv.DictReader(handle) if (root / row["folder"].split("/")[0]).is_dir()]
    assert list(verdicts(root)) == golden


@pytest.mark.parametrize("name", ["orthanc_knix_localizer/Loc", "ct_ge_tilt18", "fmri4d_ge", "ucsf_br06_dce4d/image"])
def test_the_order_of_the_rows_does_not_matter(name: str, corpus: Callable[[str], Path]) -> None:
    archive = "segmentation" if name.startswith("ucsf") else "geometry"
    (datasets,) = series_of(corpus(archive) / name)
    expected = split_stacks(instances_of(datasets))
    for seed in range(3):
        shuffled = list(datasets)
        random.Random(seed).shuffle(shuffled)
        assert split_stacks(instances_of(shuffled)) == expected


def test_every_instance_is_in_exactly_one_stack(corpus: Callable[[str], Path]) -> None:
    for datasets in series_of(corpus("geometry") / "ct_philips_head_with_localizer" / "S4010"):
        uids = [uid for s in split_stacks(instances_of(datasets)) for channel in s.uids for uid in channel]
        assert sorted(uids) == sorted(str(d.get("SOPInstanceUID", "")) for d in datasets)
