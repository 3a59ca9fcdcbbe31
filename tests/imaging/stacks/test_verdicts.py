"""Verdicts do not depend on the order of rows, and every instance is in exactly one stack."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.imaging.rows import instances_of
from builder.imaging.stacks.series import split_stacks
from tests.imaging.reading import series_of


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
